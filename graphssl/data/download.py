"""Data sets that PyG or OGB fetch from the network, named as here and read through the door."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from graphssl.data.convert import to_dataset
from graphssl.data.dataset import Dataset, Split
from graphssl.data.features import MAX_DEGREE, degree_features

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
OGB_NODES = ("ogbn-arxiv", "ogbn-products")
OGB_GRAPHS = tuple(
    f"ogbg-mol{name}"
    for name in (
        "bace",
        "bbbp",
        "clintox",
        "esol",
        "freesolv",
        "hiv",
        "lipo",
        "muv",
        "pcba",
        "sider",
        "tox21",
        "toxcast",
    )
)


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


def ogb_nodes(name: str, folder: Path) -> Dataset:
    from ogb.nodeproppred import PygNodePropPredDataset

    with trusted():
        source = PygNodePropPredDataset(name, root=str(folder))
        parts = source.get_idx_split()
    return _nodes(name, source[0]).replace(splits={"public": (_split(parts),)})


def ogb_graphs(name: str, folder: Path) -> Dataset:
    from ogb.graphproppred import PygGraphPropPredDataset

    with trusted():
        source = PygGraphPropPredDataset(name, root=str(folder))
        parts = source.get_idx_split()
    return to_dataset(list(source), name=name).replace(raw=None, splits={"scaffold": (_split(parts),)})


def trusted() -> AbstractContextManager[Any]:
    """Where ``torch.load`` accepts PyG's containers: OGB's loader does not say so itself, as torch >= 2.6 requires."""
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    known = torch.serialization.get_safe_globals()  # leaving forgets what was added here, so add no class of others
    missing = [kind for kind in (Data, DataEdgeAttr, DataTensorAttr, GlobalStorage) if kind not in known]
    return torch.serialization.safe_globals(missing)


def _nodes(name: str, data: Any) -> Dataset:
    dataset = to_dataset(data, name=name).replace(raw=None)
    if "given" in dataset.splits:
        dataset = dataset.replace(splits={"public": dataset.splits["given"]})
    return dataset


def _split(parts: dict[str, Any]) -> Split:
    return Split(*(torch.as_tensor(parts[key]).long().sort().values for key in ("train", "valid", "test")))


Source = Callable[[str, Path], Dataset]
SOURCES: dict[str, Source] = {
    **dict.fromkeys(PLANETOID, planetoid),
    **dict.fromkeys(AMAZON, amazon),
    **dict.fromkeys(COAUTHOR, coauthor),
    "wikics": wikics,
    **dict.fromkeys(TU, tu),
    **dict.fromkeys(OGB_NODES, ogb_nodes),
    **dict.fromkeys(OGB_GRAPHS, ogb_graphs),
}
NODE_SOURCES = (planetoid, amazon, coauthor, wikics, ogb_nodes)
