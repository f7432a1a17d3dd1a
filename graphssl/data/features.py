"""Contents of nodes that the door makes: one-hot classes and degrees, and sparse rows where most entries are zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphssl.errors import UserError
from graphssl.ops import CSR, Rows, dense

SPARSE_WIDTH, SPARSE_SHARE = 64, 0.1  # wide and mostly zero: sparse rows are smaller and faster
MAX_DEGREE = 400  # as the GraphMAE code caps them
ATOM_FIELDS = (119, 5, 12, 12, 10, 6, 6, 2, 2)  # classes of OGB's nine features of an atom, and three of a bond:
BOND_FIELDS = (5, 6, 2)  # ogb/utils/features.py of ogb 1.3.6; ``molecules`` says what they are


OGB = "ogbg-mol"  # how OGB's names of sets of molecules start


def has_ogb_classes(name: str, node_feat: Any, edge_feat: Any) -> bool:
    """Whether arrays [N, 9] and [E, 3] of a set of that name (None: there are none) are OGB's classes."""
    widths = [None if array is None else array.shape[1:] for array in (node_feat, edge_feat)]
    return name.startswith(OGB) and widths == [(len(ATOM_FIELDS),), (len(BOND_FIELDS),)]


def degree_features(edge_index: Any, num_nodes: int, max_degree: int | None = None) -> Tensor:
    """One-hot degrees [N, max_degree + 1] for a graph without features; larger degrees count as ``max_degree``.

    A node's degree is the number of edges that point at it. ``max_degree`` None means the largest of this graph, at
    most 400; give one number for all graphs of a list, so that their widths agree.

    Made of all edges, they tell of edges that ``Dataset.link`` holds out afterwards: there, make them anew from the
    training edges with ``dataset.replace(from_degrees=True).link()``.

        >>> degree_features(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        tensor([[0., 1., 0.], [0., 0., 1.], [0., 1., 0.]])
    """
    edges = torch.as_tensor(edge_index)
    if edges.ndim != 2 or edges.size(0) != 2:
        raise UserError(f"edge_index has shape {tuple(edges.shape)}, expected [2, edges]")
    if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= num_nodes):
        raise UserError(
            f"edge_index names nodes {int(edges.min())} to {int(edges.max())}, but num_nodes is {num_nodes}; "
            "renumber the nodes from 0, or correct num_nodes"
        )
    return dense(one_hot_degrees(edges[1].long().cpu(), num_nodes, max_degree))


def one_hot_degrees(target: Tensor, num_nodes: int, max_degree: int | None = None) -> Tensor | Rows:
    """``degree_features`` from the targets [E] of the edges, sparse where that is smaller."""
    degree = torch.bincount(target, minlength=num_nodes)
    limit = min(int(degree.max()), MAX_DEGREE) if max_degree is None else max_degree
    return one_hot(degree.clamp(max=limit), limit + 1)


def one_hot(label: Tensor, width: int) -> Tensor | Rows:
    """Row i is 1 in column ``label[i]``; [N, width], sparse where that is smaller."""
    N = len(label)
    if width < SPARSE_WIDTH:
        return torch.nn.functional.one_hot(label.long(), width).float()
    return Rows(CSR(torch.arange(N + 1), label.long(), None, (N, width)), torch.ones(N))


def blocks(classes: Any, widths: tuple[int, ...], name: str) -> Rows:
    """Columns of ``classes`` [N, K], counted from 0, as one-hot blocks of ``widths`` side by side: sparse [N, sum].

    A linear map of a row is the sum of K embeddings. ``name`` is what UserErrors call the classes.

        >>> blocks([[0, 1]], (2, 3), "x").to_dense()
        tensor([[1., 0., 0., 1., 0.]])
    """
    classes = np.asarray(classes)
    wrong = (classes < 0) | (classes >= np.array(widths)) | (classes != np.floor(classes))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        most = widths[column] - 1
        raise UserError(f"{name} has {classes[row, column]} in row {row}, column {column}; its classes are 0 to {most}")
    N, K = classes.shape
    starts = np.cumsum([0, *widths[:-1]])
    col = torch.from_numpy((classes.astype(np.int64) + starts).reshape(-1))
    return Rows(CSR(torch.arange(0, N * K + 1, K), col, None, (N, sum(widths))), torch.ones(N * K))


def mostly_zero(x: Tensor) -> bool:
    """Whether ``x`` [N, F] is wide (64 columns or more) and less than 10 % of it differs from zero."""
    return x.size(1) >= SPARSE_WIDTH and int(x.count_nonzero()) < SPARSE_SHARE * x.numel()


def compact(x: Tensor | Rows) -> Tensor | Rows:
    """``x`` as sparse rows where it is wide and mostly zero, else as it is."""
    return Rows.from_dense(x) if isinstance(x, Tensor) and mostly_zero(x) else x


def cut(x: Tensor | Rows, start: int, end: int) -> Tensor | Rows:
    """Rows ``start`` to ``end`` of ``x``."""
    if isinstance(x, Tensor):
        return x[start:end]
    ptr = x.csr.ptr[start : end + 1]
    first, last = int(ptr[0]), int(ptr[-1])
    return Rows(CSR(ptr - first, x.csr.col[first:last], None, (end - start, x.shape[1])), x.value[first:last])


def renumber(y: np.ndarray) -> tuple[Tensor, tuple[str, ...]]:
    """Classes of any kind as 0 .. C-1, and their names where these differ from the numbers.

    Negative integers mean "no label" and become -1, unless without them fewer than two classes were left (-1 / 1).
    Other classes keep their order.
    """
    y = np.asarray(y)
    if y.dtype == bool:
        return torch.from_numpy(y.astype(np.int64)), ()
    known = np.ones(len(y), bool)
    if y.dtype.kind in "iu" and len(np.unique(y[y >= 0])) >= 2:
        known = y >= 0
    names, number = np.unique(y[known], return_inverse=True)
    out = np.full(len(y), -1, np.int64)
    out[known] = number
    plain = names.dtype.kind in "iu" and np.array_equal(names, np.arange(len(names)))
    return torch.from_numpy(out), () if plain else tuple(str(name) for name in names)
