"""Data sets by name: where they are looked for, and the list of them."""

from __future__ import annotations

import fnmatch
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from graphssl.data import download, molecules
from graphssl.data.convert import to_dataset
from graphssl.data.dataset import Dataset
from graphssl.data.files import ITEMS, read_npz, usual_name
from graphssl.data.layouts import KNOWN, NAMES, read_known, shipped_digits
from graphssl.data.stored import is_stored
from graphssl.errors import UserError, unknown

CACHE = Path("~/.cache/graphssl")
SHIPPED = Path(__file__).parent / "files"
FOLDERS = ("node", "graph", "molecule", "image", "point", "sequence", "")  # of a place, in this order
MADE = {"digits": shipped_digits}  # that come with what is installed
LINK = "/link"
ALIASES = {**NAMES, **molecules.NAMES}  # names of files, and ours
SMILES = re.compile(r"(?=.*[A-Z\d=#(\[])(Cl|Br|[BCNOPSFIbcnops]|\[[^\[\]]+\]|[-+\d=#%.()])+")  # what may be one


def load_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """The data set of this name, as ``list_datasets`` lists it; case and underscores are forgiven.

    Looked for as ``NAME.npz`` in the folders node, graph, molecule, image, point and sequence of ``root`` and in
    itself, and of molecules as ``NAME.csv`` or ``NAME.csv.gz`` in the folder molecule, then of ``$GRAPHSSL_DATA``, then
    of ``~/.cache/graphssl``, then among the sets that ship; else PyG or OGB downloads it there. ``NAME/link`` is the
    link set of a set of one graph (``Dataset.link``). The path of a csv file is read as ``read_csv`` does, that of a
    folder that ``graphssl convert`` wrote is opened.

        >>> load_dataset("citations-mini").graph.num_nodes
        800
    """
    if molecules.is_csv(name) or is_stored(Path(name).expanduser()):
        return to_dataset(name)
    key = _known(name)
    if key.endswith(LINK):
        one = key.removesuffix(LINK)
        if _holds_many(one, search_path(root)):  # which may take long to read
            raise UserError(f"data set {one!r} is about graphs; only a set of one graph has a link set")
        return load_dataset(one, root).link()
    places = search_path(root)
    path = _path_of(key, places)
    if path is not None:
        if molecules.is_csv(path):
            return molecules.read_named(path, key, CACHE.expanduser() / "computed").replace(known=True)
        known = key in KNOWN and usual_name(path.stem) == KNOWN[key][0]
        return (read_known(key, path) if known else read_npz(path, key)).replace(known=True)
    if key in MADE:
        return MADE[key]().replace(known=True)
    source = download.SOURCES.get(key)
    if source is None:
        hint = f"; if it is a SMILES string, give a list of them: [{name!r}]" if SMILES.fullmatch(name) else ""
        raise UserError(f"{unknown('data set', name, list_datasets(root=root), see='graphssl.list_datasets()')}{hint}")
    return _downloaded(key, source, places).replace(known=True)


def list_datasets(pattern: str = "*", root: str | Path | None = None) -> list[str]:
    """Names of the data sets that ship, that are found on this machine, or that can be downloaded, in order.

    ``pattern`` is as a shell's: ``"*mini"``, ``"cora*"``.
    """
    nodes: set[str] = set()
    others: set[str] = set(MADE)
    for place in search_path(root):
        for name, path in _files(place).items():
            (others if path.parent.name in FOLDERS[1:-1] or _is_graph_set(path) else nodes).add(name)
    for name, source in download.SOURCES.items():
        (nodes if source in download.NODE_SOURCES else others).add(name)
    names = sorted(nodes | others | {name + LINK for name in nodes})
    return fnmatch.filter(names, usual_name(pattern))


def origin(name: str, root: str | Path | None = None) -> str:
    """Where ``load_dataset`` takes this set from: "ships", the folder that holds its file, or "a download"."""
    key = _known(name).removesuffix(LINK)
    if key in MADE and not any(key in _files(place) for place in search_path(root)):
        return "ships"
    for place in search_path(root):
        if key in _files(place):
            return "ships" if place == SHIPPED else str(place)
    return "a download"


def search_path(root: str | Path | None = None) -> list[Path]:
    """The folders where ``load_dataset`` looks before it downloads, in order; not all need exist."""
    given = [root, os.environ.get("GRAPHSSL_DATA") or None, CACHE, SHIPPED]
    return [Path(place).expanduser() for place in given if place is not None]


def _downloaded(key: str, source: Callable[[str, Path], Dataset], places: list[Path]) -> Dataset:
    folder = CACHE.expanduser() / "downloads"
    try:
        return source(key, folder)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"data set {key!r} needs a package that is not installed ({error}); pip install ogb") from error
    except Exception as error:  # no network shows as many kinds of error: urllib's, fsspec's, aiohttp's
        kind = "node" if source in download.NODE_SOURCES else "graph"
        where = ", ".join(str(place) for place in places[:-1])
        raise UserError(
            f"data set {key!r} is not in {where}, and downloading it to {folder} failed "
            f"({type(error).__name__}: {error}); "
            f"connect to the network once, or put {kind}/{key}.npz (fields: datasets/README.md) in one of these "
            "folders or in one that $GRAPHSSL_DATA or root=... names"
        ) from error


def _known(name: str) -> str:
    """The name in its usual form: a file's of a known set stands for the set's."""
    key = usual_name(name)
    return ALIASES.get(key, key)


def _files(place: Path) -> dict[str, Path]:
    """The files of a place by the name of their data set."""
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted((place / folder).glob("*.npz")):
            found.setdefault(_known(path.stem), path)
    for ending in molecules.ENDINGS:
        for path in sorted((place / "molecule").glob(f"*{ending}")):
            found.setdefault(molecules.stem_of(path), path)
    return found


def _path_of(key: str, places: list[Path]) -> Path | None:
    return next((found[key] for place in places if key in (found := _files(place))), None)


def _holds_many(key: str, places: list[Path]) -> bool:
    """Whether the set of that name is of many graphs or items, as far as that shows without reading it."""
    path = _path_of(key, places)
    if path is not None:
        return key in KNOWN or molecules.is_csv(path) or _is_graph_set(path)
    return key in MADE or key in download.TU or key in download.OGB_GRAPHS


def _is_graph_set(path: Path) -> bool:
    """Whether a file outside the usual folders holds many graphs or items, by its table of contents."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not {"node_ptr.npy", *(f"{key}.npy" for key in ITEMS)}.isdisjoint(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
