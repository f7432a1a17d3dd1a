"""Reads data sets from ``.npz`` files of plain arrays; ``datasets/README.md`` lists the fields."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphssl.data.arrays import item_set, items_of
from graphssl.data.dataset import Dataset, Graphs, Split
from graphssl.data.features import (
    ATOM_FIELDS,
    BOND_FIELDS,
    blocks,
    compact,
    cut,
    has_ogb_classes,
    one_hot,
    one_hot_degrees,
)
from graphssl.data.given import joined, read_index, read_labels, read_mask
from graphssl.data.splits import default_graph_splits, default_splits
from graphssl.errors import UserError
from graphssl.graph import Graph, read_content, read_edges, read_numbers
from graphssl.ops import Rows
from graphssl.tokens import Items, Joints, Tokenizer

AUC = ("minesweeper", "tolokers")  # judged by the area under the ROC curve, as their paper does
PLATONOV = (*AUC, "chameleon-filtered", "squirrel-filtered")  # [10, N] masks made by Platonov et al. 2023
ITEMS = {"images": "images", "videos": "videos", "points": "points", "voxels": "voxels", "frames": "skeletons"}
POINTERS = {"points": "point_ptr", "frames": "frame_ptr"}  # where items differ in length, and lie end to end
SPARSE = ("x_indptr", "x_indices", "x_values", "x_shape")  # fields of sparse features
GEOM = ("actor", "chameleon", "cornell", "squirrel", "texas", "wisconsin")  # by Pei et al. 2020 (Geom-GCN)


def read_npz(path: str | Path, name: str | None = None) -> Dataset:
    """The data set in one ``.npz`` file.

    A graph with labelled nodes, many graphs where it has ``node_ptr``, or raw items where it has ``images``,
    ``videos``, ``points``, ``voxels`` or ``frames``.
    """
    path = Path(path)
    name = name or usual_name(path.stem)
    return read_arrays(path, lambda arrays: _data_set(name, arrays))


def usual_name(name: str) -> str:
    """A data set's name, or its file's, as it is listed: in lower case, with hyphens."""
    return name.strip().lower().replace("_", "-")


def read_arrays(path: Path, read: Callable[[dict[str, np.ndarray]], Dataset]) -> Dataset:
    """What ``read`` makes of the arrays of a ``.npz`` file; its UserErrors name the file."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"cannot read {path} as a .npz file of plain arrays ({error}); save it with numpy.savez"
        ) from error
    try:
        return read(arrays)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _data_set(name: str, arrays: dict[str, np.ndarray]) -> Dataset:
    if any(key in arrays for key in ITEMS):
        return _items(name, arrays)
    return _graphs(name, arrays) if "node_ptr" in arrays else _nodes(name, arrays)


def _items(name: str, arrays: dict[str, np.ndarray]) -> Dataset:
    found = [key for key in ITEMS if key in arrays]
    if len(found) > 1:
        raise UserError(f"there are {' and '.join(found)} in one file; give items of one kind a file")
    key = found[0]
    values: Any = arrays[key]
    pointer = POINTERS.get(key, "")
    if pointer in arrays:
        values = np.split(values, _pointer(arrays, pointer, len(values), key)[1:-1])
    if key == "voxels" and values.dtype == np.uint8 and values.size and values.max() == 1:
        values = values.astype(bool)  # full or empty, as the whole file says
    items = items_of(values, ITEMS[key])
    B = len(items)
    y, classes = _labels(arrays, B, "items")
    meta = _meta(arrays)
    given = _indexed(arrays, y, B, "items")
    return item_set(
        items, y, name, _bones(arrays, items), classes=classes, item_names=_names(arrays, B, "items"),
        splits={str(meta.get("split", "given")): given} if given else None,
    )  # fmt: skip


def _pointer(arrays: dict[str, np.ndarray], key: str, total: int, of: str) -> np.ndarray:
    """Where items that lie end to end start, and where the last ends, [B + 1]."""
    ptr = _integers(arrays, key)
    if len(ptr) < 2 or ptr[0] != 0 or ptr[-1] != total or (np.diff(ptr) < 1).any():
        raise UserError(f"{key} must grow from 0 to {total}, the number of rows of {of}, by 1 or more an item")
    return ptr


def _bones(arrays: dict[str, np.ndarray], items: Items) -> Tokenizer | None:
    """The tokenizer of skeletons that ``bones`` [n, 2] links; None: the one that suits the items."""
    if "bones" not in arrays:
        return None
    bones, J = arrays["bones"], items.shape[1]
    if items.kind != "skeletons" or bones.ndim != 2 or bones.shape[1] != 2 or bones.dtype.kind not in "iu":
        raise UserError(f"bones is {bones.dtype} of shape {bones.shape}; give pairs of joints [n, 2] beside frames")
    if J is not None and bones.size and not 0 <= int(bones.min()) <= int(bones.max()) < J:
        raise UserError(f"bones names joints {bones.min()} to {bones.max()}, but the joints are 0 to {J - 1}")
    return Joints(bones=tuple((int(a), int(b)) for a, b in bones))


def _nodes(name: str, arrays: dict[str, np.ndarray]) -> Dataset:
    _need(arrays, "edge_index")
    edges = read_edges(arrays["edge_index"])
    from_degrees = False
    if any(key in arrays for key in SPARSE):
        graph = Graph.build(_sparse(arrays), edges)
    elif "x" in arrays:
        graph = Graph.build(arrays["x"], edges)
        graph = graph.replace(x=compact(graph.x))  # type: ignore[arg-type]
    else:
        if "y" not in arrays and edges.numel() == 0:
            raise UserError("there is neither x nor y nor an edge to tell how many nodes there are; add x [N, F]")
        from_degrees = True
        N = len(np.atleast_1d(arrays["y"])) if "y" in arrays else int(edges.max()) + 1
        graph = Graph.build(np.zeros((N, 1)), edges)
        graph = graph.replace(x=one_hot_degrees(graph.edge_index[1], N))
    y, classes = _labels(arrays, graph.num_nodes, "nodes")
    return Dataset(
        name=name, graphs=[graph], task="node", y=y, splits=_node_splits(name, arrays, y, graph.num_nodes),
        classes=classes, from_degrees=from_degrees, metric="auc" if name in AUC else "accuracy",
        node_names=_names(arrays, graph.num_nodes, "nodes"),
    )  # fmt: skip


def _need(arrays: dict[str, np.ndarray], *keys: str) -> None:
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise UserError(
            f"there is no {' and no '.join(missing)} (but {', '.join(sorted(arrays)) or 'nothing'}); "
            "the fields of a data set are listed in datasets/README.md"
        )


def _sparse(arrays: dict[str, np.ndarray]) -> sp.csr_matrix:
    _need(arrays, *SPARSE)
    values = arrays["x_values"]
    try:
        if values.dtype.kind in "biuf":
            values = values.astype(np.float64)  # scipy adds up few kinds of numbers, and small integers overflow
        x = sp.csr_matrix((values, arrays["x_indices"], arrays["x_indptr"]), tuple(arrays["x_shape"]))
        x.check_format(full_check=True)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"x_indptr, x_indices, x_values and x_shape make no matrix ({error}); save those of a scipy csr_matrix"
        ) from error
    return x


def _labels(arrays: dict[str, np.ndarray], rows: int, of: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """The labels, and the names of the classes, which ``meta`` may give."""
    y, classes = read_labels(arrays.get("y"), rows, of)
    meta = _meta(arrays)
    given = meta.get("classes", ())
    if y is None or y.is_floating_point() or not isinstance(given, list) or len(given) != int(y.max()) + 1:
        return y, classes
    return y, tuple(map(str, given))


def _meta(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    try:
        meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    except json.JSONDecodeError as error:
        raise UserError(f"meta is no JSON ({error}); write it with numpy.array(json.dumps(...)), or drop it") from error
    return meta if isinstance(meta, dict) else {}


def _names(arrays: dict[str, np.ndarray], rows: int, of: str) -> tuple[Any, ...] | None:
    if "names" not in arrays:
        return None
    if arrays["names"].shape != (rows,):
        raise UserError(f"names has shape {arrays['names'].shape} for {rows} {of}; give one name for each")
    return tuple(arrays["names"].tolist())


def _node_splits(name: str, arrays: dict, y: Tensor | None, N: int) -> dict[str, tuple[Split, ...]]:
    own = "geom" if name in GEOM else "platonov" if name in PLATONOV else "masks"
    splits = {"public": _indexed(arrays, y, N, "nodes"), own: _masked(arrays, y, N)}
    if geom := _masked(arrays, y, N, "geom_"):
        splits["geom"] = geom
    for budget in (20, 40, 60):
        splits[f"per-class-{budget}"] = _indexed(arrays, y, N, "nodes", f"_{budget}")
    return {label: repeats for label, repeats in splits.items() if repeats} or default_splits(y)


def _indexed(arrays: dict, y: Tensor | None, N: int, of: str, ending: str = "") -> tuple[Split, ...]:
    """The split that ``train_idx``, ``val_idx`` and ``test_idx`` list; empty where there is none of them."""
    keys = {part: f"{part}_idx{ending}" for part in ("train", "val", "test")}
    parts = {part: read_index(arrays[key], N, key, of) for part, key in keys.items() if key in arrays}
    return _complete(parts, keys, y, N, of)


def _masked(arrays: dict, y: Tensor | None, N: int, start: str = "") -> tuple[Split, ...]:
    """The split of masks ``train_mask``, ``val_mask`` and ``test_mask``, [N] or [R, N]; empty where there is none."""
    keys = {part: f"{start}{part}_mask" for part in ("train", "val", "test")}
    parts = {}
    for part, key in keys.items():
        if key in arrays:
            if arrays[key].shape[-1:] != (N,):
                raise UserError(f"{key} has shape {arrays[key].shape} for {N} nodes; give [{N}], or [repeats, {N}]")
            parts[part] = read_mask(arrays[key].T, N, key)
    return _complete(parts, keys, y, N, "nodes")


def _complete(
    parts: dict[str, list[np.ndarray]], keys: dict[str, str], y: Tensor | None, N: int, of: str
) -> tuple[Split, ...]:
    if not parts:
        return ()
    missing = [keys[part] for part in ("train", "test") if part not in parts]
    if missing:
        raise UserError(
            f"there is {' and '.join(keys[part] for part in parts)} but no {' and no '.join(missing)}; "
            "a split needs rows to train and rows to test"
        )
    return joined(parts, N, y, of)


def _graphs(name: str, arrays: dict[str, np.ndarray]) -> Dataset:
    _need(arrays, "edge_index", "edge_ptr")
    edges = read_edges(arrays["edge_index"]).numpy()
    node_ptr, edge_ptr = _pointers(arrays)
    B, N, E = len(node_ptr) - 1, int(node_ptr[-1]), edges.shape[1]
    if edge_ptr[-1] != E:
        raise UserError(f"edge_ptr ends at {edge_ptr[-1]}, but there are {E} edges; let it end at their number")
    x: Tensor | Rows | None = None
    fields: tuple[int, ...] = ()
    edge_fields: tuple[int, ...] = ()
    ogb = not {"node_label", "node_attr"} & arrays.keys() and has_ogb_classes(
        name, arrays.get("node_feat"), arrays.get("edge_feat")
    )
    if "node_label" in arrays:
        label = torch.from_numpy(np.unique(_integers(arrays, "node_label", N), return_inverse=True)[1])
        x = one_hot(label, int(label.max()) + 1)
        fields = (x.size(1),)
    else:
        key = next((key for key in ("node_attr", "node_feat") if key in arrays), None)
        if key is not None:
            if ogb:
                x, fields = blocks(arrays[key], ATOM_FIELDS, key), ATOM_FIELDS
            else:
                x = compact(read_content(arrays[key], key))
            if x.size(0) != N:
                raise UserError(f"{key} has {x.size(0)} rows, but node_ptr ends at {N}; give one row a node")
    edge_attr = None
    if "edge_label" in arrays:
        kind = torch.from_numpy(_integers(arrays, "edge_label", E))
        if E and int(kind.min()) < 0:
            raise UserError(f"edge_label has {int(kind.min())}; number the kinds of edges from 0")
        edge_attr = torch.nn.functional.one_hot(kind).float()
        edge_fields = (edge_attr.size(1),)
    elif "edge_feat" in arrays:
        if ogb:
            edge_attr, edge_fields = blocks(arrays["edge_feat"], BOND_FIELDS, "edge_feat").to_dense(), BOND_FIELDS
        else:
            edge_attr = read_numbers(arrays["edge_feat"], "edge_feat")
        if len(edge_attr) != E:
            raise UserError(f"edge_feat has {len(edge_attr)} rows for {E} edges; give one row an edge")
    graphs = packed(x, edges, node_ptr, edge_ptr, edge_attr)
    y, classes = _labels(arrays, B, "graphs")
    return Dataset(
        name=name, graphs=graphs, task="graph", y=y, classes=classes, splits=_graph_splits(arrays, y, B),
        item_names=_names(arrays, B, "graphs"), from_degrees=x is None, fields=fields, edge_fields=edge_fields,
    )  # fmt: skip


def _pointers(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """``node_ptr`` and ``edge_ptr`` [B + 1], checked."""
    node_ptr, edge_ptr = _integers(arrays, "node_ptr"), _integers(arrays, "edge_ptr")
    if len(node_ptr) != len(edge_ptr) or len(node_ptr) < 2:
        raise UserError(
            f"node_ptr has {len(node_ptr)} entries and edge_ptr {len(edge_ptr)}; give both one a graph, and a last one"
        )
    for key, ptr, least in (("node_ptr", node_ptr, 1), ("edge_ptr", edge_ptr, 0)):
        if ptr[0] != 0:
            raise UserError(f"{key} starts at {ptr[0]}; let it start at 0")
        if (np.diff(ptr) < least).any():
            graph = int((np.diff(ptr) < least).argmax())
            raise UserError(
                f"{key} goes from {ptr[graph]} to {ptr[graph + 1]} at graph {graph}; let it grow by the number of its "
                f"{key[:4]}s, at least {least}"
            )
    return node_ptr, edge_ptr


def _integers(arrays: dict[str, np.ndarray], key: str, rows: int | None = None) -> np.ndarray:
    """The array [rows] of integers (any number of them, but some, where ``rows`` is None), as int64."""
    values = arrays[key]
    wrong_shape = values.ndim != 1 or (values.size == 0 if rows is None else len(values) != rows)
    if wrong_shape or values.dtype.kind not in "biu":
        expected = "[n]" if rows is None else f"[{rows}]"
        raise UserError(f"{key} is {values.dtype} of shape {values.shape}; give integers {expected}")
    return values.astype(np.int64)


def _graph_splits(arrays: dict, y: Tensor | None, B: int) -> dict[str, tuple[Split, ...]]:
    """The file's splits: "scaffold", "fold" (DGCNN's ten, nothing set aside for choosing), "errica"; else random.

    Graphs of a negative fold train in all of them.
    """
    splits: dict[str, tuple[Split, ...]] = {}
    if scaffold := _indexed(arrays, y, B, "graphs"):
        splits["scaffold"] = scaffold
    if "fold" in arrays:
        fold = torch.from_numpy(_integers(arrays, "fold", B))
        nobody = torch.empty(0, dtype=torch.long)
        splits["fold"] = tuple(Split(_rows(fold != k), nobody, _rows(fold == k)) for k in fold[fold >= 0].unique())
    if "errica_test_fold" in arrays:
        _need(arrays, "errica_val_mask")
        test_fold, masks = torch.from_numpy(_integers(arrays, "errica_test_fold", B)), arrays["errica_val_mask"]
        if masks.ndim != 2 or masks.shape[1] != B or masks.dtype != bool:
            raise UserError(f"errica_val_mask is {masks.dtype} of shape {masks.shape}; give booleans [folds, {B}]")
        parts = []
        for k, val in enumerate(torch.from_numpy(masks)):
            test = test_fold == k
            parts.append(Split(_rows(~test & ~val), _rows(val), _rows(test)))
        splits["errica"] = tuple(parts)
    return splits or default_graph_splits(y)


def _rows(where: Tensor) -> Tensor:
    return where.nonzero().squeeze(1)


def packed(
    x: Tensor | Rows | None,
    edges: np.ndarray,
    node_ptr: np.ndarray,
    edge_ptr: np.ndarray,
    edge_attr: Tensor | None = None,
) -> Graphs:
    """Graphs that lie end to end in a few arrays, sorted once and cut out when asked for.

    Graph g has rows ``node_ptr[g]`` to ``node_ptr[g + 1]`` of ``x`` and columns ``edge_ptr[g]`` to ``edge_ptr[g + 1]``
    of ``edges``, which number the nodes of each graph from 0. Without ``x``, one-hot degrees stand in.
    """
    sizes, counts = np.diff(node_ptr), np.diff(edge_ptr)
    graph_of = np.repeat(np.arange(len(counts)), counts)
    outside = ((edges < 0) | (edges >= sizes[graph_of])).any(0)
    if outside.any():
        first = int(graph_of[outside.argmax()])
        raise UserError(
            f"graph {first} has an edge to a node outside its {sizes[first]} nodes; number its nodes from 0"
        )
    offset = node_ptr[graph_of]
    content = one_hot_degrees(torch.from_numpy(edges[1] + offset), int(node_ptr[-1])) if x is None else x
    order = np.lexsort((edges[0], edges[1] + offset))
    sorted_edges = torch.from_numpy(np.ascontiguousarray(edges[:, order]))
    if edge_attr is not None:
        edge_attr = edge_attr[torch.from_numpy(order)]
    nodes, ends = node_ptr.tolist(), edge_ptr.tolist()

    def make(g: int) -> Graph:
        a, b, c, d = nodes[g], nodes[g + 1], ends[g], ends[g + 1]
        return Graph(
            x=cut(content, a, b), edge_index=sorted_edges[:, c:d].contiguous(), sizes=(b - a,),
            batch=torch.zeros(b - a, dtype=torch.long), edge_attr=None if edge_attr is None else edge_attr[c:d],
        )  # fmt: skip

    return Graphs(len(sizes), make)
