"""Which rows train, choose and test; the same seed gives the same split on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphssl.errors import UserError
from graphssl.graph import Graph


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers for training, choosing and testing: nodes [n], graphs [n], or pairs of nodes [2, n] of a link set.

    ``val`` is empty where nothing is set aside for choosing. A link split also holds absent pairs, as many as there are
    held-out ones.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    val_absent: Tensor | None = None  # [2, n]
    test_absent: Tensor | None = None  # [2, n]


def labelled(y: Tensor) -> np.ndarray:
    """The rows of ``y`` [N] or [N, T] that carry a label: not negative for classes, not all NaN for numbers."""
    if y.is_floating_point():
        return (~y.isnan()).reshape(len(y), -1).any(1).nonzero().squeeze(1).numpy()
    return (y >= 0).nonzero().squeeze(1).numpy()


def random_splits(
    y_or_count: Tensor | int, repeats: int = 10, seed: int = 0, train: float = 0.1, val: float = 0.1
) -> tuple[Split, ...]:
    """``repeats`` random splits with shares ``train`` and ``val``; the rest tests.

    Given classes (an integer tensor [N]), each class is cut in these shares by itself, with at least one row in
    training and, from three rows on, one in validation; negative labels stay out. Given numbers or a count, all rows
    are cut together.
    """
    if isinstance(y_or_count, Tensor):
        rows = labelled(y_or_count)
        classes = y_or_count[rows].numpy() if not y_or_count.is_floating_point() else np.zeros(len(rows), int)
    else:
        rows, classes = np.arange(y_or_count), np.zeros(y_or_count, int)
    groups = [rows[classes == c] for c in np.unique(classes)]
    splits = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        parts: tuple[list, list, list] = ([], [], [])
        for group in groups:
            first = max(1, round(train * len(group)))
            second = first + (max(1, round(val * len(group))) if val and len(group) > 2 else 0)
            for part, members in zip(parts, np.split(rng.permutation(group), [first, second]), strict=True):
                part.append(members)
        splits.append(Split(*(_rows(part) for part in parts)))
    return tuple(splits)


def with_validation(train: np.ndarray, test: np.ndarray, rows: np.ndarray, count: int = 500, seed: int = 0) -> Split:
    """The split of given ``train`` and ``test`` rows, with up to ``count`` of the other ``rows`` for choosing."""
    others = np.setdiff1d(rows, np.concatenate([train, test]))
    val = np.random.default_rng(seed).permutation(others)[:count]
    return Split(_rows([train]), _rows([val]), _rows([test]))


def official_split(y: Tensor, train: np.ndarray, test: np.ndarray, share: float = 0.1, seed: int = 0) -> Split:
    """The split of ``train`` and ``test`` rows, with a ``share`` of each class in ``train`` set aside to choose."""
    (inner,) = random_splits(y[torch.from_numpy(train)], repeats=1, seed=seed, train=share, val=0)
    return Split(_rows([train[inner.test]]), _rows([train[inner.train]]), _rows([test]))


def default_splits(y: Tensor | None) -> dict[str, tuple[Split, ...]]:
    """Ten stratified splits of labelled nodes, 10 % to train, 10 % to choose; none where there are too few classes."""
    if y is None or y.is_floating_point() or len(labelled(y)) < 10 or len(y[y >= 0].unique()) < 2:
        return {}
    return {"random-1:1:8": random_splits(y)}


def default_graph_splits(y: Tensor | None) -> dict[str, tuple[Split, ...]]:
    """Ten splits of labelled graphs, 80 % to train, 10 % to choose, classes each by itself; none of fewer than ten."""
    if y is None or len(labelled(y)) < 10:
        return {}
    return {"random-8:1:1": random_splits(y if y.ndim == 1 else len(y), train=0.8)}


def _rows(parts: list) -> Tensor:
    return torch.from_numpy(np.sort(np.concatenate([np.empty(0, np.int64), *parts])))


def link_split(graph: Graph, seed: int = 0, val: float = 0.05, test: float = 0.10) -> tuple[Graph, Split, Graph]:
    """Holds out pairs of joined nodes: the graph of the other edges, the split, the graph with validation edges.

    A pair is two different nodes with an edge in either direction, and is held out with all its edges, so that no
    direction or copy of it stays in training; self-loops stay. In an undirected graph a pair [2, n] is listed once, the
    smaller node first; in a directed one as its edges point (both ways where both exist). Absent pairs are joined in
    neither direction anywhere in ``graph``, differ from each other, and are split between ``val`` and ``test``.
    """
    if graph.num_graphs != 1:
        raise UserError(f"a link split needs one graph, not {graph.num_graphs}; stack them or take one")
    source, target = graph.edge_index.cpu().numpy()
    N = graph.num_nodes
    couple = np.minimum(source, target) * N + np.maximum(source, target)
    couples = np.unique(couple[source != target])
    P = len(couples)
    counts = (int(val * P), int(test * P))
    if (val and not counts[0]) or (test and not counts[1]) or sum(counts) >= P:
        need = int(np.ceil(1 / min(share for share in (val, test) if share)))
        raise UserError(
            f"the graph has {P} pairs of joined nodes, too few to hold out {val:.0%} and {test:.0%} of them; "
            f"it needs at least {need}"
        )
    rng = np.random.default_rng(seed)
    part = np.full(P, 0)
    order = rng.permutation(P)
    part[order[: counts[0]]], part[order[counts[0] : sum(counts)]] = 1, 2

    place = np.searchsorted(couples, couple).clip(max=P - 1)
    edge_part = np.where(source == target, 0, part[place])
    directed = is_directed(graph)

    def pairs(of: int) -> Tensor:
        if not directed:
            key = couples[part == of]
            return torch.from_numpy(np.stack([key // N, key % N]))
        mine = (edge_part == of) & (source != target)
        key = np.unique(source[mine] * N + target[mine])
        return torch.from_numpy(np.stack([key // N, key % N]))

    training, held_val, held_test = pairs(0), pairs(1), pairs(2)
    absent = _absent(couples, N, held_val.size(1) + held_test.size(1), rng)
    if directed:  # an absent pair points either way
        flip = rng.random(absent.shape[1]) < 0.5
        absent = np.where(flip, absent[::-1], absent)
    both = torch.from_numpy(np.ascontiguousarray(absent))
    keep, with_val = (torch.from_numpy(kept).to(graph.device) for kept in (edge_part == 0, edge_part != 2))
    val_absent, test_absent = both[:, : held_val.size(1)].contiguous(), both[:, held_val.size(1) :].contiguous()
    split = Split(training, held_val, held_test, val_absent, test_absent)
    return graph.keep_edges(keep), split, graph.keep_edges(with_val)


def is_directed(graph: Graph) -> bool:
    """Whether some edge has no counterpart the other way."""
    source, target = graph.edge_index.cpu().numpy()
    forth, back = np.unique(source * graph.num_nodes + target), np.unique(target * graph.num_nodes + source)
    return not np.array_equal(forth, back)


def _absent(couples: np.ndarray, N: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` pairs [2, count] of different nodes, the smaller first, that are not among ``couples``."""
    free = N * (N - 1) // 2 - len(couples)
    if free < count:
        raise UserError(f"only {free} pairs of nodes are not joined, fewer than the {count} needed to compare with")
    if free < 2 * (count + len(couples)):  # dense: list all of them, a small multiple of what is held anyway
        u, v = np.triu_indices(N, 1)
        return _unkey(rng.choice(np.setdiff1d(u * N + v, couples), count, replace=False), N)
    found = np.empty(0, np.int64)
    while len(found) < count:
        u, v = rng.integers(N, size=(2, 2 * (count - len(found)) + 16))
        key = np.minimum(u, v)[u != v] * N + np.maximum(u, v)[u != v]
        found = np.concatenate([found, key[~np.isin(key, couples)]])
        found = found[np.sort(np.unique(found, return_index=True)[1])]  # in order of drawing, so that any cut is fair
    return _unkey(found[:count], N)


def _unkey(key: np.ndarray, N: int) -> np.ndarray:
    return np.stack([key // N, key % N])
