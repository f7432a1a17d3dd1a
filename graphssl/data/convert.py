"""The door: whatever holds a graph becomes a Dataset, or one sentence says why it cannot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphssl.data import foreign
from graphssl.data.arrays import is_array, is_item, item_set, items_of, with_labels
from graphssl.data.dataset import Dataset, Graphs, Split
from graphssl.data.features import compact
from graphssl.data.files import read_npz
from graphssl.data.folders import holds_pictures, read_folder
from graphssl.data.given import given_splits, read_labels, stack_labels, to_numpy
from graphssl.data.molecules import from_smiles, is_csv, read_csv
from graphssl.data.splits import default_graph_splits, default_splits
from graphssl.data.stored import Stored, is_stored
from graphssl.errors import UserError
from graphssl.graph import Graph, read_content
from graphssl.ops import Rows, dense
from graphssl.tokens import Items

ACCEPTED = (
    "a .npz file or its folder, a folder that graphssl convert wrote, a .csv file or a list of SMILES, a "
    "torch_geometric Data, Dataset or list of Data, a networkx or DGL graph or a list of them, (features, scipy sparse "
    "adjacency), a graphssl.Graph or list of them, an array of images [B, C, H, W], "
    "videos [B, T, C, H, W] or point clouds [B, P, 3], a list of such arrays, (array, labels), graphssl.Items, a "
    "folder of images or videos, or a graphssl Dataset, as graphssl.load_dataset(name) gives"
)


def to_dataset(data: Any, *, name: str = "data", x_name: Any = None, y_name: str | None = None) -> Dataset:
    """Whatever holds graphs, as a Dataset; what is none raises a UserError that lists what is accepted.

    One graph becomes a node set: PyG ``Data``, a networkx or DGL graph, ``(features, scipy sparse adjacency)`` with
    labels as an optional third element, a ``Graph``. A list of any of these becomes a graph set, be it of one graph,
    and so do a PyG ``Batch`` and a PyG ``Dataset``, but for one that holds a single graph (Planetoid), which is a node
    set. A list of networkx, DGL or ``Graph`` may hold pairs (graph, label). Each item is read once, those of a PyG
    ``Dataset`` without labels when asked for. A string is a file or its folder, or a folder that ``graphssl convert``
    wrote, whose graph stays there; names are for ``load_dataset``.

    Images, videos, point clouds, voxel grids and skeleton sequences become a set of items: an array, a list of arrays
    of one or several shapes, a torch ``Dataset`` of arrays or Pillow images, with labels as (array, labels) or as pairs
    in the list, or ``Items``, which say their kind and, of skeletons, the bones: ``Items("skeletons", sequences,
    skeleton="kinect-v1")``, without which joints are joined through time only. ``graphssl.data.items_of`` tells how an
    array's kind is found. So does a folder of images or videos, whose sub-folders are classes
    (``graphssl.data.read_folder`` resizes them).

    SMILES strings become a set of molecules: a list, an array or a pandas column of them, such with labels as (SMILES,
    labels) or as pairs in the list, or a ``.csv`` or ``.csv.gz`` file with a column ``smiles``. What is no SMILES is
    refused; ``graphssl.data.from_smiles`` and ``read_csv`` can leave it out, and choose the columns.

    Labels, masks and names come along. Integer labels are classes, renumbered from 0 with ``classes`` as their names;
    negative ones mean "no label". Masks (``train_mask``, ``val_mask``, ``test_mask``, [N] or [N, repeats]) and index
    lists (``train_idx``, ...) become the split "given"; without them labelled data gets a random one ("random-1:1:8" of
    nodes, "random-8:1:1" of graphs).

    ``x_name`` and ``y_name`` name the attributes of a networkx or DGL graph that hold features (a list joins several)
    and the label; unset, the usual names are tried. An entry [i, j] of an adjacency, and a networkx edge (i, j), is an
    edge from i to j; an undirected networkx graph gives both directions.

    Features that are scipy sparse stay sparse (``Rows``), and dense ones become so where they are 64 wide or more and
    less than 10 % of them differs from zero.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        return _from_path(data, name)
    if (smiles := _strings(data)) is not None:
        return from_smiles(*smiles, name=name).replace(raw=data)
    if isinstance(data, Items) or is_array(data):
        return item_set(items_of(data), name=name, raw=data)
    if with_labels(data):
        return item_set(items_of(data[0]), data[1], name=name, raw=data)
    if isinstance(data, tuple) and any(sp.issparse(part) for part in data):
        return _from_adjacency(data, name)
    if _is_batch(data):
        data = data.to_data_list()
    if isinstance(data, list | tuple) or _is_data_set(data):
        return _from_list(data, name, x_name, y_name)
    kind = _kind(data)
    if kind is None:
        raise UserError(f"cannot make a data set of a {_type_name(data)}; give {ACCEPTED}")
    _check_names(kind, data, x_name, y_name)
    graph, y = _read(data, x_name), None
    splits: dict[str, tuple[Split, ...]] = {}
    names = None
    if kind == "torch_geometric":
        y = data.y
        splits = given_splits(data.to_dict().get, graph.num_nodes, y)
    elif kind == "dgl":
        y = foreign.node_labels(data, x_name, y_name)
        splits = given_splits(dict(data.ndata).get, graph.num_nodes, y)
    elif kind == "networkx":
        y, names = foreign.node_labels(data, x_name, y_name), tuple(data.nodes)
    return _node_set(name, graph, y, splits, node_names=names, raw=data)


def _strings(data: Any) -> tuple[Sequence[str], Any] | None:
    """The SMILES and the labels in a list, an array or a pandas column of strings; None where these are no strings."""
    pair = isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str | tuple)
    if pair and (known := _strings(data[0])) is not None:
        return known[0], data[1]
    if getattr(getattr(data, "dtype", None), "kind", None) in ("O", "T", "U") and hasattr(data, "tolist"):
        data = data.tolist()
    if not isinstance(data, list | tuple) or not data or not isinstance(_unpair(data[0])[0], str):
        return None
    if isinstance(data[0], str):
        return data, None
    pairs = [_unpair(item) for item in data]
    return [text for text, _ in pairs], stack_labels([label for _, label in pairs], of="molecule")


def _node_set(name: str, graph: Graph, y: Any, splits: dict[str, tuple[Split, ...]], **fields: Any) -> Dataset:
    labels, classes = read_labels(y, graph.num_nodes, "nodes")
    graph = graph.replace(x=compact(graph.x))  # type: ignore[arg-type]
    splits = splits or default_splits(labels)
    return Dataset(name=name, graphs=[graph], task="node", y=labels, classes=classes, splits=splits, **fields)


def _read(data: Any, x_name: Any = None) -> Graph:
    """The graph of one item."""
    kind = _kind(data)
    if kind == "graphssl":
        if data.num_graphs != 1:
            raise UserError(f"the Graph holds {data.num_graphs} graphs laid end to end; give a list of one Graph each")
        return data
    if kind != "torch_geometric":
        return foreign.read_graph(data, x_name)
    if data.edge_index is None and "adj_t" in data:
        raise UserError("the graph has adj_t but no edge_index; make it without the ToSparseTensor transform")
    return Graph.from_data(data)


def _check_names(kind: str, data: Any, x_name: Any, y_name: str | None) -> None:
    if kind not in ("networkx", "dgl") and (x_name is not None or y_name is not None):
        raise UserError(
            f"x_name and y_name are for networkx and DGL graphs, not for a {_type_name(data)}; leave them out"
        )


def _from_list(data: Any, name: str, x_name: Any, y_name: str | None) -> Dataset:
    if len(data) == 0:
        raise UserError("the list of graphs is empty; give at least one graph")
    is_list = isinstance(data, list | tuple)
    head = data[0]  # read once: a PyG data set with a random transform gives another graph each time
    first = _unpair(head)[0]
    if is_item(first) and not (isinstance(data, tuple) and np.ndim(first) < 3):  # (features, edges), rather
        return _item_list(data, head, name)
    kind = _kind(first)
    if kind is None:
        raise UserError(f"cannot make a data set of a {_type_name(data)} of {_type_name(first)}; give {ACCEPTED}")
    if len(data) == 1 and not is_list and first is head:
        return to_dataset(first, name=name, x_name=x_name, y_name=y_name).replace(raw=data)
    _check_names(kind, first, x_name, y_name)
    count = len(data)
    labels: list[Any] = [None] * count

    def read(i: int) -> Graph:
        """Graph i; its label goes to ``labels``."""
        item, label = _unpair(head if i == 0 else data[i])
        if _kind(item) != kind:
            raise UserError(
                f"item {i} of the list is a {_type_name(item)}, but item 0 a {_type_name(first)}; give one kind"
            )
        labels[i] = _graph_label(item, y_name) if label is None else label
        try:
            return _read(item, x_name)
        except UserError as error:
            raise UserError(f"graph {i} of the list: {error}") from error

    start = read(0)
    width, sparse = start.x.size(1), isinstance(compact(start.x), Rows)  # type: ignore[arg-type]

    def make(i: int) -> Graph:
        graph = start if i == 0 else read(i)
        if graph.x.size(1) != width:
            raise UserError(
                f"graph {i} has features of width {graph.x.size(1)}, but graph 0 of width {width}; "
                "give all the same columns"
            )
        if isinstance(graph.x, Rows) == sparse:
            return graph
        return graph.replace(x=Rows.from_dense(graph.x) if isinstance(graph.x, Tensor) else dense(graph.x))

    graphs: Sequence[Graph] = Graphs(count, make)
    if is_list or labels[0] is not None:
        graphs = list(graphs)
        _refuse_labels_of_nodes(graphs, labels)
    y, classes = read_labels(stack_labels(labels), count, "graphs")
    names = tuple(graph.name for graph, _ in map(_unpair, data)) if is_list and kind == "networkx" else ()
    return Dataset(
        name=name, graphs=graphs, task="graph", y=y, classes=classes, splits=default_graph_splits(y),
        item_names=names if names and all(names) else None, raw=data,
    )  # fmt: skip


def _item_list(data: Any, head: Any, name: str) -> Dataset:
    """A list, or a torch data set, of arrays or of pairs (array, label); ``head`` is its first entry."""
    pairs = [_unpair(head if i == 0 else data[i]) for i in range(len(data))]
    labels = [label for _, label in pairs]
    for i, label in enumerate(labels):
        if is_array(label) and label.ndim > 1:
            raise UserError(
                f"cannot make a data set of a {_type_name(data)} of pairs of arrays (item {i} has a second one of "
                f"shape {tuple(label.shape)}); give {ACCEPTED}"
            )
    raw = data if isinstance(data, list | tuple) else None
    return item_set(items_of([item for item, _ in pairs]), stack_labels(labels, "item"), name=name, raw=raw)


def _graph_label(graph: Any, y_name: str | None) -> Any:
    """The label that a graph itself carries."""
    kind = _kind(graph)
    if kind == "torch_geometric":
        return graph.y
    return foreign.graph_label(graph, y_name) if kind == "networkx" else None


def _refuse_labels_of_nodes(graphs: Sequence[Graph], labels: list[Any]) -> None:
    """Refuses a list where each graph has as many labels as nodes, unless they are a row of a table, [1, T]."""
    for graph, label in zip(graphs, labels, strict=True):
        if label is None or graph.num_nodes == 1 or to_numpy(label).shape[:1] != (graph.num_nodes,):
            return
    N = graphs[0].num_nodes
    raise UserError(
        f"graph 0 has {N} labels for its {N} nodes, but in a list labels are of whole graphs: give one graph without "
        f"the list, drop y, or say with shape [1, {N}] that they are of the graph"
    )


def _unpair(item: Any) -> tuple[Any, Any]:
    """The graph and the label of an item that may be such a pair."""
    return item if isinstance(item, tuple) and len(item) == 2 else (item, None)


def _from_adjacency(data: tuple, name: str) -> Dataset:
    if len(data) not in (2, 3) or not sp.issparse(data[1]):
        kinds = ", ".join(_type_name(part) for part in data)
        raise UserError(
            f"a tuple must be (features, scipy sparse adjacency) or (features, adjacency, labels), not ({kinds})"
        )
    x, adjacency, y = data if len(data) == 3 else (*data, None)
    x = read_content(x, "the feature matrix")
    N = x.size(0)
    if adjacency.shape != (N, N):
        raise UserError(
            f"the adjacency has shape {tuple(adjacency.shape)} for {N} rows of features; expected ({N}, {N})"
        )
    entries = sp.csr_matrix(adjacency, copy=True)
    entries.sum_duplicates()
    entries.eliminate_zeros()
    entries = entries.tocoo()
    edges = np.stack([entries.row, entries.col]).astype(np.int64)
    weight = entries.data if (entries.data != 1).any() else None
    return _node_set(name, Graph.build(x, edges, edge_weight=weight, name="the feature matrix"), y, {}, raw=data)


def is_path(data: Any) -> bool:
    """Whether ``data`` is meant as a file or a folder; a string that is not may be the name of a data set."""
    if not isinstance(data, str | os.PathLike) or data == "":
        return False
    path = Path(data).expanduser()
    if isinstance(data, os.PathLike) or path.suffix == ".npz" or is_csv(path) or path.is_file() or len(path.parts) > 2:
        return True
    return path.is_dir() and (len(path.parts) > 1 or any(path.glob("*.npz")) or is_stored(path) or holds_pictures(path))


def _from_path(data: Any, name: str) -> Dataset:
    if not is_path(data):
        raise UserError(
            f"{data!r} is neither a file nor a folder of one .npz file, images or videos; a data set by name is "
            f"graphssl.load_dataset({data!r})"
        )
    path = Path(data).expanduser()
    if is_stored(path):
        return Dataset.of_stored(Stored.open(path), None if name == "data" else name)
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files and holds_pictures(path):
            return read_folder(path, name=None if name == "data" else name)
        if len(files) != 1:
            found = ", ".join(file.name for file in files) or "no .npz file, no images and no videos"
            raise UserError(f"the folder {path} holds {found}; give the path of one .npz file")
        path = files[0]
    if not path.is_file():
        raise UserError(
            f"there is no file {path}; give a .npz file, a .csv file of molecules, or one of graphssl.list_datasets()"
        )
    if is_csv(path):
        return read_csv(path, None if name == "data" else name)
    return read_npz(path, None if name == "data" else name)


def _kind(item: Any) -> str | None:
    """Whose graph this is, None if nobody's; a heterogeneous one is refused."""
    if isinstance(item, Graph):
        return "graphssl"
    if foreign.is_from(item, "torch_geometric"):
        if hasattr(item, "edge_types"):
            raise UserError(
                "heterogeneous data is not supported yet; make it one kind of node with data.to_homogeneous()"
            )
        return "torch_geometric" if hasattr(item, "edge_index") and hasattr(item, "to_dict") else None
    return foreign.library_of(item)


def _is_batch(data: Any) -> bool:
    return (
        foreign.is_from(data, "torch_geometric") and hasattr(data, "to_data_list") and not hasattr(data, "edge_types")
    )


def _is_data_set(data: Any) -> bool:
    """Whether ``data`` hands out items by number: a PyG, torch or DGL data set."""
    sized = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    return sized and (
        isinstance(data, torch.utils.data.Dataset) or (foreign.is_from(data, "dgl") and not hasattr(data, "ndata"))
    )


def _type_name(data: Any) -> str:
    kind = type(data)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"
