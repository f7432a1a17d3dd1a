"""What came along with a user's graphs: labels, masks and lists of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphssl.data.features import renumber
from graphssl.data.splits import Split, labelled, with_validation
from graphssl.errors import UserError

PARTS = (("train",), ("val", "valid"), ("test",))  # of a split, as masks and index lists are named


def read_labels(y: Any, rows: int, of: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels as classes from 0 or as float32 numbers, one row each, and the names of the classes."""
    if y is None:
        return None, ()
    y = to_numpy(y)
    if y.ndim == 0 or len(y) != rows:
        raise UserError(f"the labels have shape {y.shape} for {rows} {of}; give one row for each, in the same order")
    if y.ndim == 2 and y.shape[1] == 1 and (of == "nodes" or y.dtype.kind != "f"):
        y = y[:, 0]
    if y.dtype.kind == "f" or (y.ndim > 1 and y.dtype.kind in "biu"):
        return torch.from_numpy(y.astype(np.float32)), ()
    if y.ndim > 1 or y.dtype.kind not in "biuUS":
        raise UserError(
            f"the labels have shape {y.shape} and type {y.dtype}; give integers, names or numbers, one a row"
        )
    return renumber(y)


def stack_labels(labels: list | None, of: str = "graph") -> Any:
    """Labels of graphs, one a graph, as an array [B] or [B, T]; None where no graph has one."""
    if labels is None or all(label is None for label in labels):
        return None
    for i, label in enumerate(labels):
        if (label is None) != (labels[0] is None):
            with_, without = (0, i) if label is None else (i, 0)
            raise UserError(
                f"{of} {with_} has a label but {of} {without} has none; label all of them (-1 or NaN: unknown) or none"
            )
    arrays = [to_numpy(label) for label in labels]
    columns = arrays[0].ndim == 2  # [1, T] each: [B, T] in all, even for one column
    arrays = [array.reshape(-1) for array in arrays]
    for i, array in enumerate(arrays):
        if len(array) != len(arrays[0]):
            raise UserError(
                f"{of} {i} has {len(array)} labels and {of} 0 has {len(arrays[0])}; "
                f"give as many to each {of}, or drop y: labels of nodes are for data of one graph"
            )
    stacked = np.stack(arrays)
    return stacked if columns or stacked.shape[1] > 1 else stacked[:, 0]


def given_splits(get: Callable[[str], Any], N: int, y: Any) -> dict[str, tuple[Split, ...]]:
    """The split "given" of nodes, from the masks or index lists that ``get`` knows."""
    labels, _ = read_labels(y, N, "nodes")
    for ending, read in (("_mask", read_mask), ("_idx", read_index)):
        parts: dict[str, list[np.ndarray]] = {}
        for names in PARTS:
            key = next((name + ending for name in names if get(name + ending) is not None), None)
            if key is not None:
                parts[names[0]] = read(get(key), N, key)
        if "train" in parts and "test" in parts:
            return {"given": joined(parts, N, labels)}
    return {}


def joined(parts: dict[str, list[np.ndarray]], N: int, y: Tensor | None, of: str = "nodes") -> tuple[Split, ...]:
    """The repeats of a split from the rows of its parts "train", "test" and, where given, "val", each repeat by repeat.

    Without a validation part, up to 500 labelled rows that neither train nor test are set aside for it.
    """
    rows = np.arange(N) if y is None else labelled(y)
    repeats = max(len(part) for part in parts.values())
    if any(len(part) not in (1, repeats) for part in parts.values()):
        counts = ", ".join(f"{key} {len(part)}" for key, part in parts.items())
        raise UserError(f"the masks have different numbers of repeats ({counts}); give all the same, or one")
    splits = []
    for r in range(repeats):
        chosen = {key: np.unique(part[r % len(part)]) for key, part in parts.items()}
        for one, other in (("train", "test"), ("val", "test"), ("train", "val")):
            if shared := len(np.intersect1d(chosen.get(one, []), chosen.get(other, []))):
                raise UserError(
                    f"the {one} and {other} rows of a split share {shared} {of}; take them out of one of them"
                )
        if "val" in chosen:
            splits.append(Split(*(torch.from_numpy(chosen[key]) for key in ("train", "val", "test"))))
        else:
            splits.append(with_validation(chosen["train"], chosen["test"], rows))
    return tuple(splits)


def read_mask(mask: Any, N: int, key: str, of: str = "nodes") -> list[np.ndarray]:
    """The rows where ``mask`` [N] or [N, repeats] is true, for each repeat."""
    mask = to_numpy(mask)
    if mask.ndim not in (1, 2) or len(mask) != N or mask.dtype.kind not in "biuf":
        raise UserError(f"{key} is {mask.dtype} {mask.shape} for {N} {of}; give booleans [{N}], or [{N}, repeats]")
    return [column.nonzero()[0] for column in mask.reshape(N, -1).astype(bool).T]


def read_index(index: Any, N: int, key: str, of: str = "nodes") -> list[np.ndarray]:
    """The rows of the one repeat that ``index`` [n] lists."""
    index = to_numpy(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise UserError(f"{key} must list {of} from 0 to {N - 1} as integers [n]; it is {index.dtype} {index.shape}")
    outside = index[(index < 0) | (index >= N)]
    if outside.size:
        raise UserError(f"{key} lists {of[:-1]} {outside[0]}, but the {of} are 0 to {N - 1}; renumber them from 0")
    return [index.astype(np.int64)]


def to_numpy(values: Any) -> np.ndarray:
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except ValueError as error:
        kind = type(values).__name__
        raise UserError(f"a {kind} makes no array (rows of different lengths?); give rows of one length") from error
