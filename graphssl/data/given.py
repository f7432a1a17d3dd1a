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


def stack_labels(labels: list | None) -> Any:
    """Labels of graphs, one a graph, as an array [B] or [B, T]; None where no graph has one."""
    if labels is None or all(label is None for label in labels):
        return None
    for i, label in enumerate(labels):
        if (label is None) != (labels[0] is None):
            with_, without = (0, i) if label is None else (i, 0)
            raise UserError(
                f"graph {with_} has a label but graph {without} has none; "
                "label all of them (-1 or NaN: unknown) or none"
            )
    arrays = [to_numpy(label) for label in labels]
    columns = arrays[0].ndim == 2  # [1, T] each: [B, T] in all, even for one column
    arrays = [array.reshape(-1) for array in arrays]
    for i, array in enumerate(arrays):
        if len(array) != len(arrays[0]):
            raise UserError(
                f"graph {i} has {len(array)} labels and graph 0 has {len(arrays[0])}; "
                "give as many to each graph, or drop y: labels of nodes are for data of one graph"
            )
    stacked = np.stack(arrays)
    return stacked if columns or stacked.shape[1] > 1 else stacked[:, 0]


def given_splits(get: Callable[[str], Any], N: int, y: Any) -> dict[str, tuple[Split, ...]]:
    """The split "given" from the masks or index lists that ``get`` knows.

    Without a validation part, up to 500 labelled nodes that neither train nor test are set aside for it.
    """
    labels, _ = read_labels(y, N, "nodes")
    rows = np.arange(N) if labels is None else labelled(labels)
    for ending, read in (("_mask", _read_mask), ("_idx", _read_index)):
        parts: dict[str, list[np.ndarray]] = {}
        for names in PARTS:
            key = next((name + ending for name in names if get(name + ending) is not None), None)
            if key is not None:
                parts[names[0]] = read(get(key), N, key)
        if "train" not in parts or "test" not in parts:
            continue
        repeats = max(len(part) for part in parts.values())
        if any(len(part) not in (1, repeats) for part in parts.values()):
            counts = ", ".join(f"{key} {len(part)}" for key, part in parts.items())
            raise UserError(f"the masks have different numbers of repeats ({counts}); give all the same, or one")
        splits = []
        for r in range(repeats):
            chosen = {key: np.unique(part[r % len(part)]) for key, part in parts.items()}
            for key in ("train", "val"):
                if shared := len(np.intersect1d(chosen.get(key, np.empty(0)), chosen["test"])):
                    raise UserError(
                        f"{key}{ending} and test{ending} share {shared} nodes; take them out of one of them"
                    )
            if "val" in chosen:
                splits.append(Split(*(torch.from_numpy(chosen[key]) for key in ("train", "val", "test"))))
            else:
                splits.append(with_validation(chosen["train"], chosen["test"], rows))
        return {"given": tuple(splits)}
    return {}


def _read_mask(mask: Any, N: int, key: str) -> list[np.ndarray]:
    mask = to_numpy(mask)
    if mask.ndim not in (1, 2) or len(mask) != N:
        raise UserError(f"{key} has shape {mask.shape} for {N} nodes; give [{N}], or [{N}, repeats]")
    return [column.nonzero()[0] for column in mask.reshape(N, -1).astype(bool).T]


def _read_index(index: Any, N: int, key: str) -> list[np.ndarray]:
    index = to_numpy(index)
    if index.ndim != 1 or index.dtype.kind not in "iu" or (index.size and (index.min() < 0 or index.max() >= N)):
        raise UserError(f"{key} must list nodes from 0 to {N - 1} as integers [n]; it is {index.dtype} {index.shape}")
    return [index.astype(np.int64)]


def to_numpy(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
