"""Reads data sets from ``.npz`` files of plain arrays; ``datasets/README.md`` lists the fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphssl.data.dataset import Dataset, Graphs, Split
from graphssl.data.features import compact, cut, one_hot, one_hot_degrees, renumber
from graphssl.data.splits import labelled, random_splits, with_validation
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Rows

AUC = ("minesweeper", "tolokers")  # judged by the area under the ROC curve, as their paper does
PLATONOV = (*AUC, "chameleon-filtered", "squirrel-filtered")  # [10, N] masks made by Platonov et al. 2023
GEOM = ("actor", "chameleon", "cornell", "squirrel", "texas", "wisconsin")  # by Pei et al. 2020 (Geom-GCN)


def read_npz(path: str | Path, name: str | None = None) -> Dataset:
    """The data set in one ``.npz`` file: a graph with labelled nodes, or many graphs where it has ``node_ptr``."""
    path = Path(path)
    name = name or path.stem.lower().replace("_", "-")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"cannot read {path} as a .npz file of plain arrays ({error}); save it with numpy.savez"
        ) from error
    missing = [key for key in ("edge_index", "edge_ptr")[: 1 + ("node_ptr" in arrays)] if key not in arrays]
    if missing:
        raise UserError(
            f"{path} has no {' and no '.join(missing)} (it has {', '.join(sorted(arrays)) or 'nothing'}); "
            "the fields of a data set are listed in datasets/README.md"
        )
    meta = json.loads(str(arrays.pop("meta"))) if "meta" in arrays else {}
    return _graphs(name, arrays, meta) if "node_ptr" in arrays else _nodes(name, arrays, meta)


def _nodes(name: str, arrays: dict[str, np.ndarray], meta: dict) -> Dataset:
    edges = arrays["edge_index"]
    from_degrees = False
    x: Any
    if "x_indptr" in arrays:
        values = arrays["x_values"].astype(np.float32)
        x = Rows.from_scipy(sp.csr_matrix((values, arrays["x_indices"], arrays["x_indptr"]), tuple(arrays["x_shape"])))
    elif "x" in arrays:
        x = compact(torch.from_numpy(arrays["x"].astype(np.float32)))
    else:
        from_degrees = True
        N = len(arrays["y"]) if "y" in arrays else int(edges.max()) + 1
        x = one_hot_degrees(torch.from_numpy(edges[1].astype(np.int64)), N)
    graph = Graph.build(x, edges.astype(np.int64))
    y, classes = _labels(arrays, meta, graph.num_nodes, "nodes")
    splits = _node_splits(name, arrays, y, graph.num_nodes)
    return Dataset(
        name=name, graphs=[graph], task="node", y=y, splits=splits, classes=classes, from_degrees=from_degrees,
        metric="auc" if name in AUC else "accuracy",
    )  # fmt: skip


def _labels(arrays: dict, meta: dict, rows: int, of: str) -> tuple[Tensor | None, tuple[str, ...]]:
    if "y" not in arrays:
        return None, ()
    y = arrays["y"]
    if len(y) != rows:
        raise UserError(f"y has {len(y)} rows for {rows} {of}; give one row each")
    if y.dtype.kind == "f":
        y = torch.from_numpy(y.astype(np.float32))
        return y.squeeze(1) if y.ndim == 2 and y.size(1) == 1 and of == "nodes" else y, ()
    y, classes = renumber(y.reshape(-1))
    given = tuple(meta.get("classes", ()))
    return y, given if given and all(isinstance(c, str) for c in given) else classes


def _node_splits(name: str, arrays: dict, y: Tensor | None, N: int) -> dict[str, tuple[Split, ...]]:
    splits: dict[str, tuple[Split, ...]] = {}
    if "train_idx" in arrays:
        splits["public"] = (Split(*(_index(arrays[f"{part}_idx"]) for part in ("train", "val", "test"))),)
    own = "geom" if name in GEOM else "platonov" if name in PLATONOV else "masks"
    for label, prefix in ((own, ""), ("geom", "geom_")):
        if f"{prefix}train_mask" in arrays:
            masks = [np.atleast_2d(arrays[f"{prefix}{part}_mask"]) for part in ("train", "val", "test")]
            splits[label] = tuple(
                Split(*(_index(mask.nonzero()[0]) for mask in row)) for row in zip(*masks, strict=True)
            )
    for budget in (20, 40, 60):
        if f"train_idx_{budget}" in arrays:
            train, test = arrays[f"train_idx_{budget}"], arrays[f"test_idx_{budget}"]
            splits[f"per-class-{budget}"] = (with_validation(train, test, np.arange(N)),)
    return splits or default_splits(y)


def default_splits(y: Tensor | None) -> dict[str, tuple[Split, ...]]:
    """Ten stratified splits of labelled nodes, 10 % to train, 10 % to choose; none where there are too few classes."""
    if y is None or y.is_floating_point() or len(labelled(y)) < 10 or len(y[y >= 0].unique()) < 2:
        return {}
    return {"random-1:1:8": random_splits(y)}


def _index(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(rows.astype(np.int64)))


def _graphs(name: str, arrays: dict[str, np.ndarray], meta: dict) -> Dataset:
    node_ptr, edge_ptr = arrays["node_ptr"].astype(np.int64), arrays["edge_ptr"].astype(np.int64)
    edges = arrays["edge_index"].astype(np.int64)
    B, N = len(node_ptr) - 1, int(node_ptr[-1])
    x: Any
    if "node_label" in arrays:
        label = torch.from_numpy(np.unique(arrays["node_label"], return_inverse=True)[1])
        x = one_hot(label, int(label.max()) + 1)
    elif "node_attr" in arrays or "node_feat" in arrays:
        x = compact(torch.from_numpy(arrays["node_attr" if "node_attr" in arrays else "node_feat"].astype(np.float32)))
    else:
        graph_of = np.repeat(np.arange(B), np.diff(edge_ptr))
        x = one_hot_degrees(torch.from_numpy(edges[1] + node_ptr[graph_of]), N)
    edge_attr = None
    if "edge_label" in arrays:
        kind = torch.from_numpy(arrays["edge_label"].astype(np.int64))
        edge_attr = torch.nn.functional.one_hot(kind).float()
    elif "edge_feat" in arrays:
        edge_attr = torch.from_numpy(arrays["edge_feat"].astype(np.float32))
    y, classes = _labels(arrays, meta, B, "graphs")
    names = tuple(arrays["names"].tolist()) if "names" in arrays else None
    return Dataset(
        name=name, graphs=packed(x, edges, node_ptr, edge_ptr, edge_attr), task="graph", y=y, classes=classes,
        splits=_graph_splits(arrays, y, B), item_names=names,
        from_degrees=not {"node_label", "node_attr", "node_feat"} & set(arrays),
    )  # fmt: skip


def _graph_splits(arrays: dict, y: Tensor | None, B: int) -> dict[str, tuple[Split, ...]]:
    """The file's splits: "scaffold", "fold" (DGCNN's ten, nothing set aside for choosing), "errica"; else random."""
    splits: dict[str, tuple[Split, ...]] = {}
    if "train_idx" in arrays:
        splits["scaffold"] = (Split(*(_index(arrays[f"{part}_idx"]) for part in ("train", "val", "test"))),)
    nobody = np.empty(0, np.int64)
    if "fold" in arrays:
        fold = arrays["fold"]
        splits["fold"] = tuple(
            Split(_index((fold != k).nonzero()[0]), _index(nobody), _index((fold == k).nonzero()[0]))
            for k in range(fold.max() + 1)
        )
    if "errica_test_fold" in arrays:
        parts = []
        for k, val in enumerate(arrays["errica_val_mask"]):
            test = arrays["errica_test_fold"] == k
            parts.append(Split(*(_index(mask.nonzero()[0]) for mask in (~test & ~val, val, test))))
        splits["errica"] = tuple(parts)
    if not splits and y is not None:
        splits["random-8:1:1"] = random_splits(y if y.ndim == 1 else B, train=0.8)
    return splits


def packed(
    x: Tensor | Rows, edges: np.ndarray, node_ptr: np.ndarray, edge_ptr: np.ndarray, edge_attr: Tensor | None = None
) -> Graphs:
    """Graphs that lie end to end in a few arrays, checked and sorted once and cut out when asked for.

    Graph g has rows ``node_ptr[g]`` to ``node_ptr[g + 1]`` of ``x`` and columns ``edge_ptr[g]`` to ``edge_ptr[g + 1]``
    of ``edges``, which number the nodes of each graph from 0.
    """
    sizes, counts = np.diff(node_ptr), np.diff(edge_ptr)
    if len(sizes) != len(counts) or (sizes < 1).any() or (counts < 0).any():
        raise UserError("node_ptr and edge_ptr must have one entry a graph and a last one, and no graph without nodes")
    if node_ptr[-1] != x.size(0) or edge_ptr[-1] != edges.shape[1]:
        raise UserError(
            f"node_ptr ends at {node_ptr[-1]} and edge_ptr at {edge_ptr[-1]}, "
            f"but there are {x.size(0)} rows of nodes and {edges.shape[1]} edges"
        )
    graph_of = np.repeat(np.arange(len(counts)), counts)
    outside = ((edges < 0) | (edges >= sizes[graph_of])).any(0)
    if outside.any():
        first = int(graph_of[outside.argmax()])
        raise UserError(
            f"graph {first} has an edge to a node outside its {sizes[first]} nodes; number its nodes from 0"
        )
    offset = node_ptr[graph_of]
    order = np.lexsort((edges[0], edges[1] + offset))
    sorted_edges = torch.from_numpy(np.ascontiguousarray(edges[:, order]))
    if edge_attr is not None:
        edge_attr = edge_attr[torch.from_numpy(order)]
    nodes, ends = node_ptr.tolist(), edge_ptr.tolist()

    def make(g: int) -> Graph:
        a, b, c, d = nodes[g], nodes[g + 1], ends[g], ends[g + 1]
        return Graph(
            x=cut(x, a, b), edge_index=sorted_edges[:, c:d].contiguous(), sizes=(b - a,),
            batch=torch.zeros(b - a, dtype=torch.long), edge_attr=None if edge_attr is None else edge_attr[c:d],
        )  # fmt: skip

    return Graphs(len(sizes), make)
