"""Molecules: OGB's classes against OGB's own code and files, csv files, scaffold splits, ZINC's target."""

import csv
import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import graphssl
from graphssl.cli import main
from graphssl.data import (
    from_smiles,
    list_datasets,
    load_dataset,
    molecules,
    origin,
    penalised_logp,
    read_csv,
    scaffold_split,
    to_dataset,
)
from graphssl.data.features import ATOM_FIELDS, BOND_FIELDS, blocks
from graphssl.errors import UserError
from graphssl.ops import Rows

Chem = pytest.importorskip("rdkit.Chem", reason="SMILES need rdkit")

ROOT = Path(__file__).resolve().parents[2]
DATA = (ROOT / (os.environ.get("GRAPHSSL_DATA") or "../shared/data")).resolve() / "molecule"
OGB = ("bace", "bbbp", "esol", "freesolv")
ODD = {  # why: molecules
    "alone": ["[Na+]", "C", "[Xe]", "[13CH4]", "[2H]O", "[H][H]"],
    "charged": ["[NH4+]", "[O-]S(=O)(=O)[O-]", "[Ti+4]", "[C-6]", "[BH4-]", "C1=CC=CC=C1.[Cl-]"],
    "chiral": ["C[C@H](N)O", "C[C@@H](N)O", "Cl[Pt@SP1](Cl)(N)N", "N[Co@OH1](N)(N)(N)(N)N"],
    "stereo": ["F/C=C/F", "F/C=C\\F", "CC=CC", "CN=C=S", "CC=C=CC"],
    "radicals": ["[CH3]", "[CH2]", "[O][O]", "[C]"],
    "misc": ["*C", "C*C", "C->[Fe]", "C~C", "C$C", "[U]"],
    "hybridised": ["FS(F)(F)(F)(F)F", "FP(F)(F)(F)F", "C#N", "c1ccccc1", "C=CC=C"],
}
DRUGS = ["CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(C)Cc1ccc(cc1)C(C)C(=O)O"]


@pytest.fixture
def real(monkeypatch, tmp_path):
    if not DATA.is_dir():
        pytest.skip(f"no molecules in {DATA}; set GRAPHSSL_DATA to a folder of data sets")
    monkeypatch.setenv("GRAPHSSL_DATA", str(DATA.parent))
    monkeypatch.setenv("HOME", str(tmp_path))


def column(file, name="smiles"):
    with gzip.open(DATA / file, "rt", newline="") as lines:
        return [row[name] for row in csv.DictReader(lines)]


def classes(x, widths):
    """Of one-hot blocks, the class of each; every block must have exactly one."""
    parts = torch.as_tensor(x).split(list(widths), 1)
    assert all(bool((part.sum(1) == 1).all()) for part in parts)
    return torch.stack([part.argmax(1) for part in parts], 1).numpy()


def same_as_ogb(graph, text):
    features = pytest.importorskip("ogb.utils.features", reason="the oracle is ogb's own code")
    from ogb.utils import smiles2graph

    assert (tuple(features.get_atom_feature_dims()), tuple(features.get_bond_feature_dims())) == (
        ATOM_FIELDS,
        BOND_FIELDS,
    )
    expected = smiles2graph(text)
    order = np.lexsort(expected["edge_index"])
    assert np.array_equal(graph.edge_index, expected["edge_index"][:, order])
    assert np.array_equal(classes(graph.x.to_dense(), ATOM_FIELDS), expected["node_feat"])
    assert np.array_equal(classes(graph.edge_attr, BOND_FIELDS), expected["edge_feat"][order])


@pytest.mark.parametrize("kind", ODD)
def test_odd_molecules_are_as_ogb_has_them(kind):
    dataset = from_smiles(ODD[kind])
    for graph, text in zip(dataset.graphs, ODD[kind], strict=True):
        same_as_ogb(graph, text)


def test_real_molecules_are_as_ogb_has_them(real):
    texts = [text.strip() for file in ("ogbg_molesol", "clintox", "hiv") for text in column(f"{file}.csv.gz")[:60]]
    dataset = from_smiles(texts)
    assert (dataset.fields, dataset.edge_fields) == (ATOM_FIELDS, BOND_FIELDS)
    assert dataset.item_names == tuple(texts)
    for graph, text in zip(dataset.graphs, texts, strict=True):
        same_as_ogb(graph, text)
    whole = dataset.batch(range(len(texts)))
    assert isinstance(whole.x, Rows)
    assert whole.x.shape == (whole.num_nodes, 174)
    assert whole.x.value.numel() == 9 * whole.num_nodes
    assert whole.edge_attr.shape == (whole.num_edges, 13)


def test_what_is_known_of_ethanol():
    """By hand: C C O; hydrogens 3, 2, 1; degrees with hydrogens 4, 4, 2; all sp3, single bonds."""
    graph = from_smiles(["CCO"]).graphs[0]
    assert classes(graph.x.to_dense(), ATOM_FIELDS)[:, [0, 2, 4, 6]].tolist() == [
        [5, 4, 3, 2], [5, 4, 2, 2], [7, 2, 1, 2],
    ]  # fmt: skip
    assert graph.edge_index.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]
    assert classes(graph.edge_attr, BOND_FIELDS).tolist() == [[0, 0, 0]] * 4


def test_a_stereo_that_ogb_does_not_know_is_any():
    graph = from_smiles(["Cc1cccc(C)c1-c1c(C)cccc1I |wU:7.7|"]).graphs[0]
    assert 5 in classes(graph.edge_attr, BOND_FIELDS)[:, 1]


def test_blocks():
    assert blocks([[1, 0], [0, 2]], (2, 3), "it").to_dense().tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    assert blocks(np.empty((0, 2)), (2, 3), "it").shape == (0, 5)
    for wrong in ([[0, 3]], [[-1, 0]], [[0.5, 0]]):
        with pytest.raises(UserError, match=r"it has .* in row 0, column"):
            blocks(wrong, (2, 3), "it")


@pytest.mark.parametrize("name", ["bace", "freesolv"])
def test_ogb_sets_by_both_names(name, real):
    """OGB's file of integers and our reading of the SMILES are the same graphs, labels and split."""
    ours, theirs = load_dataset(name), load_dataset(f"ogbg-mol{name}")
    assert ours.dim == theirs.dim == 174
    assert ours.fields == theirs.fields == ATOM_FIELDS
    assert theirs.edge_fields == BOND_FIELDS
    assert theirs.y.is_floating_point()
    assert torch.equal(ours.y, theirs.y.flatten())
    some = range(0, len(ours.graphs), 5)
    one, other = ours.batch(some), theirs.batch(some)
    assert one.sizes == other.sizes
    assert torch.equal(one.edge_index, other.edge_index)
    assert torch.equal(one.x.csr.col, other.x.csr.col)
    assert torch.equal(one.edge_attr, other.edge_attr)
    assert list(ours.splits) == list(theirs.splits) == ["scaffold"]
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(ours.splits["scaffold"][0], part), getattr(theirs.splits["scaffold"][0], part))


@pytest.mark.parametrize("name", OGB)
def test_scaffold_splits_are_those_of_ogb(name, real):
    given = np.array(column(f"ogbg_mol{name}.csv.gz", "split"))
    split = scaffold_split([text.strip() for text in column(f"ogbg_mol{name}.csv.gz")])
    for part, rows in (("train", split.train), ("valid", split.val), ("test", split.test)):
        assert np.array_equal(rows, np.flatnonzero(given == part))  # exact: all molecules, all four sets


def test_scaffold_split_by_hand():
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CC1"]
    texts = [*(rings[0] + "C" * i for i in range(7)), rings[1], rings[1] + "C", *rings[2:]]  # 7, 2, 1 and 1 molecules
    split = scaffold_split(texts, train=0.7, val=0.2)
    assert split.train.tolist() == list(range(7))
    assert split.val.tolist() == [7, 8]
    assert split.test.tolist() == [9, 10]
    with pytest.raises(UserError, match="sum is at most 1"):
        scaffold_split(texts, train=0.8, val=0.3)
    with pytest.raises(UserError, match=r"1 of 2 SMILES .*item 1 'x'"):
        scaffold_split(["C", "x"])


def test_labels_and_splits():
    texts = [ring + "C" * i for ring, count in (("c1ccccc1", 16), ("c1ccncc1", 2), ("C1CC1", 2)) for i in range(count)]
    numbers = from_smiles(texts, np.arange(20.0))
    assert list(numbers.splits) == ["scaffold", "random-8:1:1"]
    assert numbers.protocols == ("graph-ridge",)
    yes_no = from_smiles(texts, [[0.0, 1.0], [float("nan"), 0.0]] * 10)
    assert yes_no.y.shape == (20, 2)
    assert yes_no.protocols == ()
    assert from_smiles(texts, ["a", "b"] * 10).classes == ("a", "b")
    assert from_smiles(texts).splits == {}
    assert "scaffold" not in from_smiles(["C" * n for n in range(1, 21)], np.arange(20.0)).splits  # all would be tested
    given = from_smiles(texts[:5], np.arange(5.0), parts=["train", "Valid", "", "test", "train"]).splits["given"][0]
    assert (given.train.tolist(), given.val.tolist(), given.test.tolist()) == ([0, 4], [1], [3])
    assert len(numbers.training().graphs) == 20 - len(numbers.splits["scaffold"][0].test)


def test_what_cannot_be_read_is_refused_or_left_out(capfd):
    texts = ["CCO", "C1CC", "", "c1ccccc", "CC", "not a molecule"]
    with pytest.raises(UserError) as caught:
        from_smiles(texts)
    message = str(caught.value)
    for words in ("4 of 6", "item 1 'C1CC'", "item 2 ''", "item 3 'c1ccccc'", "and 1 more", "bad='skip'"):
        assert words in message
    dataset = from_smiles(texts, [0.5, 1, 2, 3, 4, 5], bad="skip")
    assert dataset.item_names == ("CCO", "CC")
    assert dataset.y.tolist() == [0.5, 4]
    assert dataset.notes == (
        "4 of 6 SMILES that cannot be read are left out: item 1 'C1CC', item 2 '', item 3 'c1ccccc' and 1 more",
    )
    assert capfd.readouterr().err == ""  # rdkit says nothing besides
    for wrong, why in (
        (["xx"], "1 of 1 SMILES"), ([], "empty"), ("CCO", "one string"), (["C", 3], "item 1 is a int"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=why):
            from_smiles(wrong, bad="skip")
    with pytest.raises(UserError, match="choose 'refuse' or 'skip'"):
        from_smiles(["C"], bad="drop")
    with pytest.raises(UserError, match="1 parts for 2 molecules"):
        from_smiles(["C", "CC"], parts=["train"])
    with pytest.raises(UserError, match="2 molecules"):
        from_smiles(["C", "CC"], [1.0])


def test_csv_file(tmp_path):
    path = tmp_path / "My_Set.csv"
    path.write_text('\ufeffid,SMILES, Toxic ,"dose, mg",split\na,CCO,1,,train\nb, CC ,,0.5,test\nc,C,0,2,valid\n')
    dataset = to_dataset(path)
    assert (dataset.name, dataset.item_names) == ("my-set", ("CCO", "CC", "C"))
    assert torch.equal(dataset.y.isnan(), torch.tensor([[False, True], [True, False], [False, False]]))
    assert dataset.y.nan_to_num().tolist() == [[1, 0], [0, 0.5], [0, 2]]
    assert dataset.notes == ("labels: Toxic, dose, mg", "columns that hold more than numbers are left out: id")
    assert [rows.tolist() for rows in vars(dataset.splits["given"][0]).values() if rows is not None] == [[0], [2], [1]]
    packed = tmp_path / "mine.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert to_dataset(str(packed)).name == "mine"
    assert load_dataset(str(packed)).item_names == dataset.item_names
    one = read_csv(path, "named", labels="toxic")
    assert (one.name, one.y.shape, one.notes) == ("named", (3,), ())
    other = tmp_path / "other.csv"
    other.write_text("mol,y\nCC,1\nx,2\n")
    skipped = read_csv(other, column="mol", bad="skip")
    assert skipped.item_names == ("CC",)
    assert skipped.notes[-1] == "1 of 2 SMILES that cannot be read are left out: line 3 'x'"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name,y\nCC,1\n", "no column 'smiles' \\(but name, y\\).*column="),
        ("smiles,y\n", "no rows below a header"),
        ("", "no rows below a header"),
        ("smiles,y\nCC,1\nC\n", "line 3 has 1 entries for 2 columns"),
        ("smiles,y\nCC,inf\n", "column 'y' is infinite in line 2"),
        ("smiles,y,y\nC,1,2\n", "two columns are called 'y'"),
        ("smiles,split\nC,train\nCC,7\n", "line 3 is of the part '7'; write train"),
        ("smiles,split\nC,train\nCC,train\n", "none to test on"),
        ("smiles\nC\nC1CC\n", "1 of 2 SMILES .*line 3 'C1CC'.*bad='skip'"),
    ],
)
def test_wrong_csv_files(tmp_path, text, why):
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=why) as caught:
        to_dataset(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_wrong_columns_and_files(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("smiles,name\nC,methane\n")
    with pytest.raises(UserError, match=r"column 'name' does not hold numbers .*'methane'.*; write classes as 0 and 1"):
        read_csv(path, labels="name")
    with pytest.raises(UserError, match=r"no column 'y' \(but smiles, name\)"):
        read_csv(path, labels=["y"])
    (tmp_path / "damaged.csv.gz").write_bytes(gzip.compress(b"smiles\nC\n")[:-6])
    (tmp_path / "bytes.csv").write_bytes(b"smiles\n\xff\xfe")
    for name in ("damaged.csv.gz", "bytes.csv"):
        with pytest.raises(UserError, match="cannot be read as a csv file"):
            to_dataset(tmp_path / name)
    for call in (to_dataset, load_dataset, graphssl.pretrain):
        with pytest.raises(UserError, match=r"there is no file .*absent\.csv; give .* \.csv file of molecules"):
            call(str(tmp_path / "absent.csv"))


def test_lists_of_smiles_at_the_door():
    for given in (DRUGS, tuple(DRUGS), np.array(DRUGS), np.array(DRUGS, dtype=object)):
        assert to_dataset(given).item_names == tuple(DRUGS)
    assert to_dataset([(text, i) for i, text in enumerate(DRUGS)]).y.tolist() == [0, 1, 2]
    for given in (DRUGS, np.array(DRUGS)):
        assert to_dataset((given, [0.5, 1.5, 2.5])).y.tolist() == [0.5, 1.5, 2.5]
    for given in ((("C", 0), ("CC", 1)), [("C", 0), ("CC", 1)]):
        assert to_dataset(given).y.tolist() == [0, 1]
    assert to_dataset(("C", "CC")).item_names == ("C", "CC")
    with pytest.raises(UserError, match=r"2 of 2 SMILES .*'cora', item 1 'citeseer'"):
        to_dataset(["cora", "citeseer"])


def test_the_whole_way(tmp_path, capsys, monkeypatch):
    run = graphssl.pretrain(DRUGS, epochs=1, width=8, heads=2, progress=False)
    assert run.embed().shape[0] == 3
    path = tmp_path / "drugs.csv.gz"
    ethers = [f"{'C' * i}OC{ring}" for i in range(1, 5) for ring in ("", "c1ccccc1", "C1CC1", "C1CCCC1")]
    rows = [f"{text},{len(text) / 10}" for text in ethers]
    path.write_bytes(gzip.compress("\n".join(["smiles,y", *rows]).encode()))
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", str(path), "--epochs", "1", "--quiet", "--set", "width=8", "--set", "heads=2"]) == 0
    assert "graphmae on drugs" in capsys.readouterr().out
    folder = "runs/drugs-graphmae-seed0"
    assert main(["evaluate", folder, "--protocol", "graph-ridge"]) == 0
    report = capsys.readouterr().out
    for words in ("MAE", "RMSE", "labels: y"):
        assert words in report
    assert main(["embed", folder, "--to", "codes.csv"]) == 0
    assert (tmp_path / "codes.csv").read_text().splitlines()[1].startswith(ethers[0])
    path.write_bytes(gzip.compress(b"smiles\nC1CC\n"))
    capsys.readouterr()
    assert main(["pretrain", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_rdkit_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rdkit", None)
    for call in (from_smiles, scaffold_split):
        with pytest.raises(UserError, match=r"pip install 'graphssl\[molecules\]'"):
            call(["C"])


def test_named_sets(real):
    names = {"bace", "bbbp", "esol", "freesolv", "clintox", "sider", "tox21", "toxcast", "hiv", "muv", "lipophilicity",
             "qm8", "cep", "zinc-30k"}  # fmt: skip
    assert names <= set(list_datasets())
    assert not {f"{name}/link" for name in names} & set(list_datasets())
    assert origin("zinc_jtnn_30k") == origin("bace") == str(DATA.parent)
    clintox = load_dataset("ClinTox")
    assert (clintox.name, clintox.known, clintox.y.shape, clintox.notes) == ("clintox", True, (1478, 2), ())
    assert list(clintox.splits) == ["scaffold", "random-8:1:1"]
    assert [len(part) for part in (clintox.splits["scaffold"][0].train, clintox.splits["scaffold"][0].val)] == [
        1182,
        148,
    ]
    with pytest.raises(UserError, match="only a set of one graph"):
        load_dataset("clintox/link")


def test_molecules_that_rdkit_cannot_read_are_left_out_of_named_sets(real, tmp_path):
    """Four of Tox21's eight, among a hundred others."""
    with gzip.open(DATA / "tox21.csv.gz", "rt") as file:
        header, *lines = file.read().splitlines()
    wrong = [line for line in lines if "[AlH3]" in line or "[SiH4" in line][:4]
    (tmp_path / "root/molecule").mkdir(parents=True)
    (tmp_path / "root/molecule/tox21.csv").write_text("\n".join([header, *lines[:100], *wrong]))
    with pytest.raises(UserError, match=f"{len(wrong)} of {100 + len(wrong)} SMILES"):
        read_csv(tmp_path / "root/molecule/tox21.csv")
    dataset = load_dataset("tox21", root=tmp_path / "root")
    assert len(wrong) > 1
    assert len(dataset.graphs) == len(dataset.y) == 100
    assert dataset.notes[0].startswith(f"{len(wrong)} of {100 + len(wrong)} SMILES that cannot be read are left out: ")


def test_zinc_by_name(real, tmp_path):
    """A file of the same columns: labels are the penalised logP, computed once, and JT-VAE's test file tests."""
    texts, parts = column("zinc_jtnn_30k.csv.gz"), column("zinc_jtnn_30k.csv.gz", "part")
    last = len(texts) - 10
    chosen = [*range(30), *range(last, len(texts))]
    (tmp_path / "root/molecule").mkdir(parents=True)
    lines = [f"{texts[i]},{parts[i]}" for i in chosen]
    (tmp_path / "root/molecule/zinc_jtnn_30k.csv").write_text("\n".join(["smiles,part", *lines]))
    zinc = load_dataset("zinc-30k", root=tmp_path / "root")
    assert (list(zinc.splits), zinc.protocols) == (["jt-vae", "random-8:1:1"], ("graph-ridge",))
    (split,) = zinc.splits["jt-vae"]
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [
        list(range(27)), [27, 28, 29], list(range(30, 40)),
    ]  # fmt: skip
    expected = [penalised_logp(Chem.MolFromSmiles(text)) for text in zinc.item_names]
    assert np.allclose(zinc.y, expected)
    (kept,) = (tmp_path / ".cache/graphssl/computed").glob("*.npy")
    np.save(kept, np.zeros(40, np.float32))
    assert load_dataset("zinc-30k", root=tmp_path / "root").y.sum() == 0  # read, not computed
    kept.write_bytes(b"cut short")
    assert np.allclose(load_dataset("zinc-30k", root=tmp_path / "root").y, expected)


def test_zincs_target(real):
    """Over ZINC's molecules each normalised term has mean 0 and deviation 1, here over one in fifty."""
    texts = column("zinc_jtnn_30k.csv.gz")[::50]
    values = np.array([terms(Chem.MolFromSmiles(text)) for text in texts])
    mean, deviation = np.array(molecules.ZINC_TERMS).T
    normal = (values - mean) / deviation
    assert np.abs(normal.mean(0)).max() < 4 / np.sqrt(len(texts))  # four standard errors
    assert np.abs(normal.std(0) - 1).max() < 0.25  # a few molecules make up the deviation of the ring's
    some = [penalised_logp(Chem.MolFromSmiles(text)) for text in texts[:20]]
    assert np.allclose(some, normal[:20].sum(1))


def terms(molecule):
    from rdkit.Chem import Crippen
    from rdkit.Contrib.SA_Score import sascorer

    return Crippen.MolLogP(molecule), -sascorer.calculateScore(molecule), -max(molecules.longest_cycle(molecule) - 6, 0)


def test_the_target_is_the_molecules_and_not_its_spelling():
    for text in ("C1CC2CCC1CC2", "C1CCCCCCCC1", "c1ccc2c(c1)CCC1CCCCCCC21", *DRUGS):
        molecule = Chem.MolFromSmiles(text)
        spelled = [Chem.MolToSmiles(molecule, doRandom=True) for _ in range(5)]
        values = [penalised_logp(Chem.MolFromSmiles(other)) for other in (text, *spelled)]
        assert np.allclose(values, values[0])
    assert molecules.longest_cycle(Chem.MolFromSmiles("CCO")) == 0
    assert molecules.longest_cycle(Chem.MolFromSmiles("C1CCCCCCCC1")) == 9
    nonane = Chem.MolFromSmiles("C1CCCCCCCC1")
    logp, hard, _ = terms(nonane)
    assert np.isclose(penalised_logp(nonane, normalised=False), logp + hard - 3)


def test_cycle_basis_against_networkx():
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(0)
    for _, share in itertools.product(range(15), (0.1, 0.3, 0.6)):
        N = int(rng.integers(1, 12))
        adjacency = np.triu(rng.random((N, N)) < share, 1)
        graph = networkx.from_numpy_array(adjacency | adjacency.T)
        part = graph.subgraph(networkx.node_connected_component(graph, 0))
        ours = molecules.cycle_basis([sorted(graph[node]) for node in range(N)])
        theirs = networkx.cycle_basis(part, root=0)
        mine = [cycle for cycle in ours if cycle[0] in part]
        assert sorted(map(sorted, mine)) == sorted(map(sorted, theirs))
        assert len(ours) == graph.number_of_edges() - N + networkx.number_connected_components(graph)
