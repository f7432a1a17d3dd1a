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
from graphssl.data.dataset import Dataset, Graphs, Split
from graphssl.data.features import compact
from graphssl.data.files import default_splits, read_npz
from graphssl.data.given import given_splits, read_labels, stack_labels
from graphssl.data.splits import random_splits
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Rows, dense

ACCEPTED = (
    "the name of a data set, a .npz file or its folder, a torch_geometric Data, Dataset or list of Data, a networkx or "
    "DGL graph or a list of them, (features, scipy sparse adjacency), a graphssl.Graph or list of them, or a graphssl "
    "Dataset"
)


def to_dataset(data: Any, *, name: str = "data", x_name: Any = None, y_name: str | None = None) -> Dataset:
    """Whatever holds graphs, as a Dataset; what is none raises a UserError that lists what is accepted.

    One graph becomes a node set: PyG ``Data``, a networkx or DGL graph, ``(features, scipy sparse adjacency)`` with
    labels as an optional third element, a ``Graph``. Several become a graph set: a PyG ``Dataset`` (read when asked
    for) or ``Batch``, or a list of any of these; one of networkx, DGL or ``Graph`` may hold pairs (graph, label). A
    list of one graph is a node set, unless its label is of the graph. A string is a file or the name of a data set.

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
    if isinstance(data, Tensor | np.ndarray):
        raise _array_error(data)
    if isinstance(data, tuple) and any(sp.issparse(part) for part in data):
        return _from_adjacency(data, name)
    if _is_batch(data):
        data = data.to_data_list()
    if isinstance(data, list | tuple) or _is_data_set(data):
        return _from_list(data, name, x_name, y_name)
    kind = _kind(data)
    if kind is None:
        raise UserError(f"cannot make a data set of a {_type_name(data)}; give {ACCEPTED}")
    if kind not in ("networkx", "dgl") and not x_name is y_name is None:
        raise UserError(
            f"x_name and y_name are for networkx and DGL graphs, not for a {_type_name(data)}; leave them out"
        )
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


def _from_list(data: Any, name: str, x_name: Any, y_name: str | None) -> Dataset:
    if len(data) == 0:
        raise UserError("the list of graphs is empty; give at least one graph")
    first = _unpair(data[0])[0]
    kind = _kind(first)
    if kind is None:
        raise UserError(f"cannot make a data set of a {_type_name(data)} of {_type_name(first)}; give {ACCEPTED}")
    if len(data) == 1 and _unpair(data[0])[1] is None and not _labels_whole(first):
        return to_dataset(first, name=name, x_name=x_name, y_name=y_name).replace(raw=data)

    def read(i: int) -> Graph:
        graph = _unpair(data[i])[0]
        if _kind(graph) != kind:
            raise UserError(
                f"item {i} of the list is a {_type_name(graph)}, but item 0 a {_type_name(first)}; give one kind"
            )
        try:
            return _read(graph, x_name)
        except UserError as error:
            raise UserError(f"graph {i} of the list: {error}") from error

    start = read(0)
    width, sparse = start.x.size(1), isinstance(compact(start.x), Rows)  # type: ignore[arg-type]

    def make(i: int) -> Graph:
        graph = read(i)
        if graph.x.size(1) != width:
            raise UserError(
                f"graph {i} has features of width {graph.x.size(1)}, but graph 0 of width {width}; "
                "give all the same columns"
            )
        if isinstance(graph.x, Rows) == sparse:
            return graph
        return graph.replace(x=Rows.from_dense(graph.x) if isinstance(graph.x, Tensor) else dense(graph.x))

    count = len(data)
    graphs: Sequence[Graph] = [make(i) for i in range(count)] if isinstance(data, list | tuple) else Graphs(count, make)
    y, classes = read_labels(stack_labels(_graph_labels(data, y_name)), count, "graphs")
    splits = {}
    if y is not None and count >= 10:
        splits["random-8:1:1"] = random_splits(y if y.ndim == 1 else count, train=0.8)
    return Dataset(name=name, graphs=graphs, task="graph", y=y, classes=classes, splits=splits, raw=data)


def _graph_labels(data: Any, y_name: str | None) -> list | None:
    """The label of each item, gathered in one pass where the first has one."""

    def label(item: Any) -> Any:
        graph, y = _unpair(item)
        if y is not None:
            return y
        kind = _kind(graph)
        return (
            graph.y if kind == "torch_geometric" else foreign.graph_label(graph, y_name) if kind == "networkx" else None
        )

    if not isinstance(data, list | tuple) and label(data[0]) is None:
        return None
    return [label(data[i]) for i in range(len(data))]


def _labels_whole(item: Any) -> bool:
    """Whether the label of a lone item is of the graph, not of its nodes."""
    x, y = getattr(item, "x", None), getattr(item, "y", None)
    return x is not None and y is not None and (getattr(y, "ndim", 0) == 0 or len(y) != len(x))


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
    N = x.shape[0] if hasattr(x, "shape") else len(x)
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
    return _node_set(name, Graph.build(x, edges, edge_weight=weight, name="the features"), y, {}, raw=data)


def _from_path(data: Any, name: str) -> Dataset:
    path = Path(data).expanduser()
    if path.is_dir() and (isinstance(data, os.PathLike) or len(path.parts) > 1 or any(path.glob("*.npz"))):
        files = sorted(path.glob("*.npz"))
        if len(files) != 1:
            found = ", ".join(file.name for file in files) or "no .npz file"
            raise UserError(f"the folder {path} holds {found}; give the path of one .npz file")
        path = files[0]
    if path.is_file():
        return read_npz(path, None if name == "data" else name)
    if isinstance(data, os.PathLike) or path.suffix == ".npz" or len(path.parts) > 2:
        raise UserError(f"there is no file {path}; give a .npz file, or one of graphssl.list_datasets()")
    from graphssl.data.named import load_dataset  # that module reads downloads through this one

    return load_dataset(str(data))


def _array_error(data: Any) -> UserError:
    shape = tuple(data.shape)
    kind = {4: "images", 5: "videos"}.get(len(shape), "point clouds" if len(shape) == 3 and shape[2] == 3 else None)
    if kind:
        return UserError(
            f"the shape {shape} looks like {kind}, and images, videos and point clouds are not in this version yet: "
            "their token graphs come with a later release; give graphs until then"
        )
    return UserError(
        f"an array of shape {shape} alone is no graph; give (features, scipy sparse adjacency), or a torch_geometric "
        "Data(x=..., edge_index=...)"
    )


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
