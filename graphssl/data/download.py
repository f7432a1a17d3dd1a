"""Data sets that PyG or OGB fetch from the network, named as here and read through the door."""

from __future__ import annotations

import shutil
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from graphssl.data.convert import to_dataset
from graphssl.data.dataset import Dataset
from graphssl.data.features import MAX_DEGREE, degree_features
from graphssl.data.ogb_files import Meta, known_meta, read_ogb
from graphssl.errors import UserError

PLANETOID = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
AMAZON = {"amazon-computers": "Computers", "amazon-photo": "Photo"}
COAUTHOR = {"coauthor-cs": "CS", "coauthor-physics": "Physics"}
TU = {
    name.lower().replace("_", "-"): name
    for name in (
        "MUTAG", "PROTEINS", "NCI1", "NCI109", "ENZYMES", "DD", "PTC_MR", "AIDS", "COX2", "BZR", "DHFR", "Mutagenicity",
        "IMDB-BINARY", "IMDB-MULTI", "COLLAB", "REDDIT-BINARY", "REDDIT-MULTI-5K", "REDDIT-MULTI-12K",
    )
}  # fmt: skip
OGB_NODES = ("ogbn-arxiv", "ogbn-products", "ogbn-proteins")
OGB_LINKS = ("ogbl-citation2", "ogbl-collab", "ogbl-ddi", "ogbl-ppa", "ogbl-vessel")
MOLECULES = (
    "bace", "bbbp", "chembl", "clintox", "esol", "freesolv", "hiv", "lipo", "muv", "pcba", "sider", "tox21", "toxcast",
)  # fmt: skip
OGB_GRAPHS = ("ogbg-ppa", *(f"ogbg-mol{name}" for name in MOLECULES))
BYTES = 1 << 20  # of a file that are read at once
SECONDS = 30  # to wait for an answer


def planetoid(name: str, folder: Path) -> Dataset:
    from torch_geometric.datasets import Planetoid

    return _nodes(name, Planetoid(str(folder / "planetoid"), PLANETOID[name])[0])


def amazon(name: str, folder: Path) -> Dataset:
    from torch_geometric.datasets import Amazon

    return _nodes(name, Amazon(str(folder / "amazon"), AMAZON[name])[0])


def coauthor(name: str, folder: Path) -> Dataset:
    from torch_geometric.datasets import Coauthor

    return _nodes(name, Coauthor(str(folder / "coauthor"), COAUTHOR[name])[0])


def wikics(name: str, folder: Path) -> Dataset:
    """Its 20 public splits share one test mask; a node in none of the masks of a split is unused there."""
    from torch_geometric.datasets import WikiCS

    return _nodes(name, WikiCS(str(folder / "wikics"), is_undirected=True)[0])


def tu(name: str, folder: Path) -> Dataset:
    """A set of the TU collection with its node labels, or one-hot degrees up to 400 where it has none."""
    from torch_geometric.datasets import TUDataset

    items = list(TUDataset(str(folder / "tu"), TU[name]))
    degrees = items[0].x is None
    if degrees:
        largest = max(int(torch.bincount(item.edge_index[1], minlength=1).max()) for item in items)
        for item in items:
            item.x = degree_features(item.edge_index, item.num_nodes, min(largest, MAX_DEGREE))
    return to_dataset(items, name=name).replace(raw=None, from_degrees=degrees)


def ogb(name: str, folder: Path) -> Dataset:
    """A set of OGB, read from ``folder/ogbn_arxiv`` and the like, where the set is put if it is not there."""
    meta = known_meta(name)
    place = ogb_folder(meta, folder)
    if not (place / "raw").is_dir():
        fetch(meta, place)
    return read_ogb(place, meta)


def ogb_nodes(name: str, folder: Path) -> Dataset:
    """As ``ogb``, of a node set: by it ``NODE_SOURCES`` tells such a set from those of many graphs."""
    return ogb(name, folder)


def ogb_links(name: str, folder: Path) -> Dataset:
    """A link set of OGB, which no ``.npz`` file can stand for: the error says where to put OGB's own files."""
    try:
        return ogb(name, folder)
    except OSError as error:
        meta = known_meta(name)
        raise UserError(
            f"data set {name!r} is not in {ogb_folder(meta, folder)}, and downloading it from {meta.url} failed "
            f"({type(error).__name__}: {error}); connect to the network once, or unpack that archive there"
        ) from error


def ogb_folder(meta: Meta, folder: Path) -> Path:
    """Where ogb keeps that set under its root ``folder``."""
    return folder / meta.name.replace("-", "_")


def fetch(meta: Meta, place: Path) -> None:
    """Downloads the archive of an OGB set and unpacks it to ``place``, which is there whole or not at all.

    Raises OSError without a network, and UserError for an archive that came cut short or damaged.
    """
    new = place.with_name(f".{place.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        archive = new / "archive.zip"
        with urllib.request.urlopen(meta.url, timeout=SECONDS) as answer, open(archive, "wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            with tqdm(
                total=size or None, desc=f"downloading {meta.name}", unit="B", unit_scale=True, disable=None
            ) as bar:
                while read := answer.read(BYTES):
                    file.write(read)
                    bar.update(len(read))
        came = archive.stat().st_size
        if size and came != size:
            raise UserError(f"{came} of the {size} bytes of {meta.url} came; call again")
        try:
            with zipfile.ZipFile(archive) as files:
                files.extractall(new / "files")  # checks each file's sum
        except (zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"what {meta.url} gave is no archive, or damaged ({error}); call again") from error
        if not (new / "files" / meta.download_name / "raw").is_dir():
            raise UserError(f"the archive {meta.url} has no {meta.download_name}/raw; update ogb, which names it so")
        (new / "files" / meta.download_name).replace(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _nodes(name: str, data: Any) -> Dataset:
    dataset = to_dataset(data, name=name).replace(raw=None)
    if "given" in dataset.splits:
        dataset = dataset.replace(splits={"public": dataset.splits["given"]})
    return dataset


Source = Callable[[str, Path], Dataset]
SOURCES: dict[str, Source] = {
    **dict.fromkeys(PLANETOID, planetoid),
    **dict.fromkeys(AMAZON, amazon),
    **dict.fromkeys(COAUTHOR, coauthor),
    "wikics": wikics,
    **dict.fromkeys(TU, tu),
    **dict.fromkeys(OGB_NODES, ogb_nodes),
    **dict.fromkeys(OGB_LINKS, ogb_links),
    **dict.fromkeys(OGB_GRAPHS, ogb),
}
NODE_SOURCES = (planetoid, amazon, coauthor, wikics, ogb_nodes)
