"""Molecules: SMILES and csv files of them as graphs of OGB's classes, scaffold splits, penalised logP. By rdkit."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch

from graphssl.data.dataset import Dataset, Split
from graphssl.data.features import ATOM_FIELDS, BOND_FIELDS, OGB, blocks
from graphssl.data.files import packed, usual_name
from graphssl.data.given import joined, read_labels
from graphssl.data.splits import default_graph_splits
from graphssl.errors import UserError

ENDINGS = (".csv", ".csv.gz")
NAMES = {"zinc-jtnn-30k": "zinc-30k", "lipo": "lipophilicity"}  # of files and of OGB, and ours
PARTS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}
SHOWN = 3  # of what cannot be read, in a message
# mean and standard deviation of logP, -SA and -(atoms of the longest cycle beyond six) over the 250k molecules of ZINC
# that Kusner et al. 2017 use: gym_molecule/envs/molecule.py, github.com/bowenliu16/rl_graph_generation, commit 030b3f4
ZINC_TERMS = (
    (2.4570953396190123, 1.434324401111988),
    (-3.0525811293166134, 0.8335207024513095),
    (-0.0485696876403053, 0.2860212110245455),
)


def from_smiles(
    smiles: Sequence[str],
    y: Any = None,
    *,
    bad: str = "refuse",
    name: str = "molecules",
    parts: Sequence[str] | None = None,
) -> Dataset:
    """A graph set of the molecules that SMILES strings write down: atoms are nodes, bonds edges in both directions.

    Content [N, 174] is sparse: nine ones a row, OGB's classes of an atom side by side (``Dataset.fields``): atomic
    number, chirality, degree, charge, hydrogens, radical electrons, hybridisation, aromatic or not, in a ring or not.
    ``edge_attr`` [E, 13] likewise (``edge_fields``): type, stereo, conjugated or not. As ``ogb.utils.smiles2graph``
    (ogb 1.3.6); a bond of a stereo that OGB does not know, at which its code fails, counts as "any". Hydrogens are no
    nodes. The SMILES are the ``item_names``.

    ``y`` holds one label a molecule, or a row of them: integers are classes, floats numbers, or yes and no, NaN where
    unknown. ``parts`` names the part of each, "train", "valid", "test" or "" for none, and makes the split "given".
    Labelled molecules without ``parts`` get the splits "scaffold" (``scaffold_split``), where none of its parts comes
    out empty, and "random-8:1:1".

    What rdkit cannot read, and molecules without atoms, are refused in one UserError that counts them and names the
    first, or, with ``bad="skip"``, left out, which ``notes`` then tell. Needs rdkit: pip install 'graphssl[molecules]'.

        >>> from_smiles(["CCO", "c1ccccc1"]).graphs[1]
        Graph(6 nodes, 12 edges, 1 graphs, sparse content of width 174, with edge_attr)
    """
    if isinstance(smiles, str):
        raise UserError(f"smiles is the one string {_short(smiles)}; give a list of them")
    return _molecules(list(smiles), y, bad, name, parts, [f"item {i}" for i in range(len(smiles))])


def read_csv(
    path: str | Path,
    name: str | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    column: str = "smiles",
    bad: str = "refuse",
) -> Dataset:
    """The molecules of a ``.csv`` or ``.csv.gz`` file with a header line, as ``from_smiles`` makes them.

    ``column`` holds the SMILES, ``labels`` name the columns to predict (None: all whose entries are numbers, as a note
    says; the others are left out); upper and lower case are alike. Labels are floats, [B] of one column, [B, T] of
    several, NaN where an entry is empty; entries 0 and 1 mean no and yes. A column ``split`` of train, valid and test
    makes the split "given". ``bad`` as ``from_smiles``. Raises UserError for what cannot be used.
    """
    found, used, left = _read(Path(path), name, labels, column, bad)
    notes = (f"labels: {_some(used)}",) if used and labels is None else ()
    if left:
        notes = (*notes, f"columns that hold more than numbers are left out: {_some(left)}")
    return found.replace(notes=(*notes, *found.notes))


def _read(
    path: Path, name: str | None, labels: str | Sequence[str] | None, column: str, bad: str
) -> tuple[Dataset, list[str], list[str]]:
    """The data set in a csv file, the columns that are its labels and those that are left out."""
    try:
        table = _Table(path)
        smiles = [
            text.strip()
            for text in table.column(
                column, "call that of the SMILES so, or say graphssl.data.read_csv(path, column=...)"
            )
        ]
        parts = table.column("split") if table.has("split") else None
        y, used, left = _labels(table, {column.strip().lower(), "split"}, labels)
        found = _molecules(smiles, y, bad, name or stem_of(path), parts, table.places)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return found, used, left


def read_named(path: Path, name: str, cache: Path) -> Dataset:
    """The named set in a csv file: what rdkit cannot read is left out, as a note says.

    OGB's split is "scaffold". ZINC's molecules get ``penalised_logp`` as the number to predict, which is kept in the
    folder ``cache``, and the split "jt-vae".
    """
    if name == "zinc-30k":
        return _read_zinc(path, name, cache)
    found, _, _ = _read(path, name, None, "smiles", "skip")
    if usual_name(path.name).startswith(OGB) and "given" in found.splits:
        return found.replace(splits={"scaffold": found.splits["given"]})
    return found


def _read_zinc(path: Path, name: str, cache: Path) -> Dataset:
    """ZINC's molecules from two files of the JT-VAE code: those of its test file test, the last tenth of the others
    chooses."""
    try:
        table = _Table(path)
        test = [part == "test" for part in table.column("part")]
        chooses = test.count(False) * 9 // 10
        parts, others = [], 0
        for tests in test:
            others += not tests
            parts.append("test" if tests else "train" if others <= chooses else "valid")
        found = _molecules(table.column("smiles"), None, "skip", name, parts, table.places)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    assert found.item_names is not None
    y = _remembered(cache, name, found.item_names)
    return found.replace(y=y, splits={"jt-vae": found.splits["given"], **default_graph_splits(y)})


def _remembered(cache: Path, name: str, smiles: Sequence[str]) -> torch.Tensor:
    """``penalised_logp`` of molecules that rdkit can read, from a file of the folder ``cache`` where it is there."""
    from rdkit import Chem, __version__

    mark = hashlib.sha256("\n".join((__version__, *smiles)).encode()).hexdigest()[:16]
    path = cache / f"{name}-penalised-logp-{mark}.npy"
    with suppress(OSError, ValueError):  # not there, or cut short
        return torch.from_numpy(np.load(path, allow_pickle=False))
    with _quiet():
        y = np.array([penalised_logp(Chem.MolFromSmiles(text)) for text in smiles], np.float32)
    with suppress(OSError):  # no place to write: computed anew the next time
        cache.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=cache, delete=False) as file:
            np.save(file, y)
        Path(file.name).replace(path)
    return torch.from_numpy(y)


def is_csv(path: str | Path) -> bool:
    return str(path).lower().endswith(ENDINGS)


def stem_of(path: Path) -> str:
    """The name of the set in a csv file, by the file's: ``ogbg_molbace.csv.gz`` holds "bace"."""
    stem = usual_name(path.name.lower().removesuffix(".gz").removesuffix(".csv"))
    stem = stem.removeprefix(OGB) or stem
    return NAMES.get(stem, stem)


class _Table:
    """A csv file by columns, whose names are stripped; ``places`` says where each row stands."""

    def __init__(self, path: Path):
        read = gzip.open if path.name.lower().endswith(".gz") else open
        if not path.is_file():
            raise UserError("there is no such file; check the path")
        try:
            with read(path, "rt", newline="", encoding="utf-8-sig") as file:
                lines = csv.reader(file)
                self.names = [name.strip() for name in next(lines, [])]
                rows, self.places = [], []
                for row in lines:
                    if not row:
                        continue
                    if len(row) != len(self.names):
                        raise UserError(
                            f"line {lines.line_num} has {len(row)} entries for {len(self.names)} columns; "
                            "put quotes around entries that hold commas"
                        )
                    rows.append(row)
                    self.places.append(f"line {lines.line_num}")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"it cannot be read as a csv file ({error}); save it as text in UTF-8") from error
        if not rows:
            raise UserError("there are no rows below a header line; give a column smiles and one molecule a line")
        self.columns = dict(zip(self.names, map(list, zip(*rows, strict=True)), strict=True))
        if len(self.columns) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise UserError(f"two columns are called {twice!r}; rename one")
        self.by_lower = {name.lower(): name for name in self.names}

    def has(self, name: str) -> bool:
        return name.strip().lower() in self.by_lower

    def column(self, name: str, way_out: str = "choose of these") -> list[str]:
        if not self.has(name):
            raise UserError(f"there is no column {name!r} (but {_some(self.names)}); {way_out}")
        return self.columns[self.by_lower[name.strip().lower()]]


def _labels(
    table: _Table, others: set[str], asked: str | Sequence[str] | None
) -> tuple[np.ndarray | None, list[str], list[str]]:
    """The columns to predict as float32 [B] or [B, T], their names, and those of columns that hold no numbers."""
    names = [asked] if isinstance(asked, str) else asked
    used: dict[str, np.ndarray] = {}
    left = []
    for name in [name for name in table.names if name.lower() not in others] if names is None else names:
        entries = table.column(name)
        try:
            values = np.array([float(entry) if entry.strip() else np.nan for entry in entries])
        except ValueError as error:
            if names is not None:
                raise UserError(f"column {name!r} does not hold numbers ({error}); write classes as 0 and 1") from error
            left.append(name)
            continue
        if np.isinf(values).any():
            place = table.places[int(np.isinf(values).argmax())]
            raise UserError(f"column {name!r} is infinite in {place}; leave an entry empty where nothing is known")
        if names is not None or not np.isnan(values).all():
            used[name] = values.astype(np.float32)
    y = np.stack(list(used.values()), axis=1) if used else None
    return (y[:, 0] if y is not None and y.shape[1] == 1 else y), list(used), left


def _some(names: Sequence[str]) -> str:
    """The first of these, and how many more there are."""
    rest = len(names) - 2 * SHOWN
    return ", ".join(names[: 2 * SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _molecules(
    smiles: Sequence[str], y: Any, bad: str, name: str, parts: Sequence[str] | None, places: Sequence[str]
) -> Dataset:
    """``from_smiles``, with a word on where each string stands."""
    if bad not in ("refuse", "skip"):
        raise UserError(f"bad is {bad!r}; choose 'refuse' or 'skip'")
    if len(smiles) == 0:
        raise UserError("the list of SMILES is empty; give at least one")
    for place, text in zip(places, smiles, strict=True):
        if not isinstance(text, str):
            raise UserError(f"{place} is a {type(text).__name__}, not a SMILES string; drop it or write the molecule")
    if parts is not None and len(parts) != len(smiles):
        raise UserError(f"there are {len(parts)} parts for {len(smiles)} molecules; name one for each, or '' for none")
    labels, classes = read_labels(y, len(smiles), "molecules")
    needs_scaffolds = parts is None and labels is not None
    kept, scaffolds = [], []
    with _quiet():
        codes = _Codes()
        for i, text in enumerate(smiles):
            molecule = _parse(text)
            if molecule is None:
                continue
            codes.add(molecule)
            kept.append(i)
            if needs_scaffolds:
                scaffolds.append(_scaffold(molecule))
    notes = _of_bad(smiles, kept, bad, places)
    labels = None if labels is None else labels[kept]
    splits: dict[str, tuple[Split, ...]] = {}
    if parts is not None:
        splits = {"given": _given([parts[i] for i in kept], labels, [places[i] for i in kept])}
    elif labels is not None:
        by_scaffold = _fill(scaffolds)
        if min(map(len, (by_scaffold.train, by_scaffold.val, by_scaffold.test))):
            splits["scaffold"] = (by_scaffold,)
        splits.update(default_graph_splits(labels))
    return Dataset(
        name=name, graphs=codes.graphs(), task="graph", y=labels, classes=classes, splits=splits, notes=notes,
        item_names=tuple(smiles[i] for i in kept), fields=ATOM_FIELDS, edge_fields=BOND_FIELDS,
    )  # fmt: skip


def _of_bad(smiles: Sequence[str], kept: list[int], bad: str, places: Sequence[str]) -> tuple[str, ...]:
    """The note on what could not be read, refused where it is to be."""
    wrong = sorted(set(range(len(smiles))) - set(kept))
    if not wrong:
        return ()
    named = ", ".join(f"{places[i]} {_short(smiles[i])}" for i in wrong[:SHOWN])
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    count = f"{len(wrong)} of {len(smiles)} SMILES"
    if bad == "refuse" or not kept:
        way_out = "correct it" if len(wrong) == 1 else "correct them"
        if kept:
            way_out += ", or leave out what cannot be read: read_csv or from_smiles of graphssl.data, with bad='skip'"
        raise UserError(f"{count} cannot be read as molecules ({named}{more}); {way_out}")
    return (f"{count} that cannot be read are left out: {named}{more}",)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _given(parts: Sequence[str], y: torch.Tensor | None, places: Sequence[str]) -> tuple[Split, ...]:
    """The split that the parts' names make."""
    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for i, part in enumerate(parts):
        word = part.strip().lower()
        if word and word not in PARTS:
            raise UserError(f"{places[i]} is of the part {part!r}; write train, valid or test, or nothing")
        if word:
            rows[PARTS[word]].append(i)
    if not rows["train"] or not rows["test"]:
        raise UserError("the split has no molecule to train on or none to test on; give it both, or leave it out")
    arrays = {key: [np.array(members)] for key, members in rows.items() if members}
    return joined(arrays, len(parts), y, "molecules")


class _Codes:
    """Classes of atoms and bonds of molecules, end to end."""

    def __init__(self) -> None:
        from rdkit import Chem

        of = Chem.Atom
        self.read_atom: tuple[Callable[[Any], Any], ...] = (
            of.GetAtomicNum, of.GetChiralTag, of.GetTotalDegree, of.GetFormalCharge, of.GetTotalNumHs,
            of.GetNumRadicalElectrons, of.GetHybridization, of.GetIsAromatic, of.IsInRing,
        )  # fmt: skip
        on = Chem.Bond
        self.read_bond: tuple[Callable[[Any], Any], ...] = (
            on.GetBeginAtomIdx, on.GetEndAtomIdx, on.GetBondType, on.GetStereo, on.GetIsConjugated,
        )  # fmt: skip
        self.atoms = [array("i") for _ in self.read_atom]
        self.bonds = [array("i") for _ in self.read_bond]
        self.node_ptr, self.bond_ptr = array("q", [0]), array("q", [0])

    def add(self, molecule: Any) -> None:
        N, E = molecule.GetNumAtoms(), molecule.GetNumBonds()
        atoms = list(map(molecule.GetAtomWithIdx, range(N)))
        for column, read in zip(self.atoms, self.read_atom, strict=True):
            column.extend(map(read, atoms))
        bonds = list(map(molecule.GetBondWithIdx, range(E)))
        for column, read in zip(self.bonds, self.read_bond, strict=True):
            column.extend(map(read, bonds))
        self.node_ptr.append(self.node_ptr[-1] + N)
        self.bond_ptr.append(self.bond_ptr[-1] + E)

    def graphs(self) -> Any:
        """The graphs of the molecules, [N, 174] and [E, 13] in all."""
        tables = _class_tables()
        columns = [np.frombuffer(column, np.int32) for column in self.atoms]
        x = blocks(np.stack([table(c) for table, c in zip(tables[:9], columns, strict=True)], 1), ATOM_FIELDS, "atoms")
        begin, end, *columns = [np.frombuffer(column, np.int32) for column in self.bonds]
        kinds = np.stack([table(c) for table, c in zip(tables[9:], columns, strict=True)], 1).reshape(-1, 3)
        edges = np.stack([np.stack([begin, end], 1), np.stack([end, begin], 1)]).reshape(2, -1).astype(np.int64)
        edge_attr = blocks(kinds.repeat(2, 0), BOND_FIELDS, "bonds").to_dense()
        return packed(x, edges, np.array(self.node_ptr), 2 * np.array(self.bond_ptr), edge_attr)


@cache
def _class_tables() -> tuple[Callable[[np.ndarray], np.ndarray], ...]:
    """From rdkit's numbers to OGB's classes, for its nine features of an atom and three of a bond."""
    from rdkit import Chem

    def numbers(first: int, last: int) -> Callable[[np.ndarray], np.ndarray]:
        """``first`` to ``last`` are classes from 0, and all else is one more."""
        return lambda n: np.where((n >= first) & (n <= last), n - first, last - first + 1)

    def names(kind: Any, known: str, other: int) -> Callable[[np.ndarray], np.ndarray]:
        """The ``known`` of an enumeration are classes from 0, and all else is ``other``."""
        table = np.full(max(map(int, kind.names.values())) + 1, other)
        for i, name in enumerate(known.split()):
            table[int(kind.names[name])] = i
        return lambda n: table[n]

    yes_no = numbers(0, 1)
    return (
        numbers(1, 118),
        names(Chem.ChiralType, "CHI_UNSPECIFIED CHI_TETRAHEDRAL_CW CHI_TETRAHEDRAL_CCW CHI_OTHER", 4),
        numbers(0, 10), numbers(-5, 5), numbers(0, 8), numbers(0, 4),
        names(Chem.HybridizationType, "SP SP2 SP3 SP3D SP3D2", 5),
        yes_no, yes_no,
        names(Chem.BondType, "SINGLE DOUBLE TRIPLE AROMATIC", 4),
        names(Chem.BondStereo, "STEREONONE STEREOZ STEREOE STEREOCIS STEREOTRANS STEREOANY", 5),
        yes_no,
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Where rdkit prints nothing; a UserError where it is not installed."""
    try:
        from rdkit import rdBase
    except ImportError as error:
        raise UserError("reading SMILES needs rdkit; pip install 'graphssl[molecules]'") from error
    with rdBase.BlockLogs():
        yield


def _parse(smiles: str) -> Any:
    """The molecule, None where there is none or it has no atoms."""
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(smiles)
    return molecule if molecule is not None and molecule.GetNumAtoms() else None


def scaffold_split(smiles: Sequence[str], train: float = 0.8, val: float = 0.1) -> Split:
    """The deterministic split of molecules by their Murcko scaffolds, so that no scaffold is in two parts.

    Scaffolds keep chirality, and are sorted by their number of molecules, of equal ones that with the later first
    molecule first. One after the other goes to training where that still fits, else to validation, else to the test.
    As Hu et al. 2020, arXiv:1905.12265 (chem/splitters.py, read in github.com/zhwl2117/pretrain-gnns, commit 3c80a35).
    It gives OGB's splits of bace, bbbp, esol and freesolv molecule by molecule, as tests/data/test_molecules.py checks.
    Raises UserError for strings that rdkit cannot read.
    """
    if not (train > 0 and val >= 0 and train + val <= 1):
        raise UserError(f"train is {train} and val {val}; choose shares whose sum is at most 1")
    with _quiet():
        molecules = [_parse(text) for text in smiles]
        kept = [i for i, molecule in enumerate(molecules) if molecule is not None]
        _of_bad(smiles, kept, "refuse", [f"item {i}" for i in range(len(smiles))])
        return _fill([_scaffold(molecule) for molecule in molecules], train, val)


def _scaffold(molecule: Any) -> str:
    """The SMILES of rings and what joins them; "" for a molecule without rings."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=True)


def _fill(scaffolds: Sequence[str], train: float = 0.8, val: float = 0.1) -> Split:
    members: dict[str, list[int]] = {}
    for i, scaffold in enumerate(scaffolds):
        members.setdefault(scaffold, []).append(i)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    B = len(scaffolds)
    for group in sorted(members.values(), key=lambda group: (len(group), group[0]), reverse=True):
        if len(parts[0]) + len(group) <= train * B:
            parts[0].extend(group)
        elif len(parts[0]) + len(parts[1]) + len(group) <= (train + val) * B:
            parts[1].extend(group)
        else:
            parts[2].extend(group)
    return Split(*(torch.tensor(sorted(part), dtype=torch.long) for part in parts))


def penalised_logp(molecule: Any, normalised: bool = True) -> float:
    """logP - SA score - what the largest ring has beyond six atoms, of an rdkit molecule: ZINC's number to predict.

    Crippen's logP, and how hard the molecule is to make (Ertl and Schuffenhauer 2009; rdkit's contribution).
    ``normalised`` as in Kusner et al. 2017 (arXiv:1703.01925), the JT-VAE (arXiv:1802.04364) and so the ZINC benchmark:
    each term less its mean over 250k molecules of ZINC, in deviations, and the ring the longest of a cycle basis
    (``longest_cycle``). Without it the terms are as they are, and the ring is the largest of rdkit's smallest set.
    """
    from rdkit.Chem import rdMolDescriptors

    ring = longest_cycle(molecule) if normalised else max(map(len, molecule.GetRingInfo().AtomRings()), default=0)
    terms = rdMolDescriptors.CalcCrippenDescriptors(molecule)[0], -_sa_score()(molecule), -max(ring - 6, 0)
    if not normalised:
        return sum(terms)
    return sum((term - mean) / deviation for term, (mean, deviation) in zip(terms, ZINC_TERMS, strict=True))


@cache
def _sa_score() -> Callable[[Any], float]:
    """rdkit's ``sascorer.calculateScore``, which is no module of its package everywhere."""
    from rdkit.Chem import RDConfig

    spec = spec_from_file_location("sascorer", Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.calculateScore


def longest_cycle(molecule: Any) -> int:
    """Atoms of the longest cycle in the cycle basis that Paton's search finds; 0 where there is no ring.

    Depth first from the first atom of rdkit's canonical SMILES (Paton 1969), as networkx does it, whose ``cycle_basis``
    the JT-VAE code calls. Where rings share no bond, these are the rings.
    """
    from rdkit import Chem

    rings = molecule.GetRingInfo()
    bonds = [bond for ring in rings.BondRings() for bond in ring]
    if len(set(bonds)) == len(bonds):
        return max(map(len, rings.AtomRings()), default=0)
    molecule = Chem.MolFromSmiles(Chem.MolToSmiles(molecule)) or molecule
    neighbours: list[list[int]] = [[] for _ in range(molecule.GetNumAtoms())]
    for bond in molecule.GetBonds():
        u, v = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        neighbours[u].append(v)
        neighbours[v].append(u)
    return max(map(len, cycle_basis([sorted(around) for around in neighbours])), default=0)


def cycle_basis(neighbours: Sequence[Sequence[int]]) -> list[list[int]]:
    """Paton's cycles (1969) of the undirected graph whose node i has these ``neighbours[i]``, searched from node 0.

    Each edge outside the depth-first tree closes one cycle with the tree.

        >>> [sorted(cycle) for cycle in cycle_basis([[1, 2], [0, 2], [0, 1]])]
        [[0, 1, 2]]
    """
    cycles = []
    parent: dict[int, int] = {}
    for root in range(len(neighbours)):
        if root in parent:
            continue
        parent[root] = root
        joined_to: dict[int, set[int]] = {root: set()}  # of nodes seen: those whose edges to them are done
        waiting = [root]
        while waiting:
            node = waiting.pop()
            for other in neighbours[node]:
                if other not in joined_to:
                    parent[other] = node
                    joined_to[other] = {node}
                    waiting.append(other)
                elif other not in joined_to[node]:
                    cycle = [other, node]
                    above = parent[node]
                    while above not in joined_to[other]:
                        cycle.append(above)
                        above = parent[above]
                    cycles.append([*cycle, above])
                    joined_to[other].add(node)
    return cycles
