"""Edges among tokens, from where they stand."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from graphssl.errors import UserError, unknown

PATTERNS = ("none", "full", "knn8", "grid", "diagonal")  # knn with any number
FREE = PATTERNS[:3]  # for tokens that stand on no grid


def check_edges(edges: str, among: tuple[str, ...] = PATTERNS) -> None:
    """UserError for what names no pattern of edges ``among`` these."""
    if re.sub("^knn[1-9][0-9]*$", "knn8", edges) not in among:
        raise unknown("pattern of edges", edges, among)


@lru_cache(maxsize=64)
def grid_edges(counts: tuple[int, ...], edges: str) -> Tensor:
    """Edges [2, E] among the cells of a grid with so many cells along each axis, sorted by target, then source.

    "grid" joins cells one step apart along one axis, "diagonal" along one or more, "full" all, "knn8" each to its 8
    nearest (the first ones of those equally near), "none" nobody; never a cell with itself.
    """
    check_edges(edges)
    cells = torch.cartesian_prod(*(torch.arange(n) for n in counts)).reshape(-1, len(counts))
    if edges not in ("grid", "diagonal"):
        return position_edges(cells[None].float(), edges)
    steps = [step for step in product((-1, 0, 1), repeat=len(counts)) if any(step)]
    steps = steps if edges == "diagonal" else [step for step in steps if sum(map(abs, step)) == 1]
    near = cells[:, None] + torch.tensor(steps)
    inside = ((near >= 0) & (near < torch.tensor(counts))).all(-1)
    place = torch.zeros_like(near[..., 0])
    for axis, count in enumerate(counts):
        place = place * count + near[..., axis]
    return torch.stack([place[inside], torch.arange(len(cells))[:, None].expand_as(place)[inside]])


def position_edges(pos: Tensor, edges: str) -> Tensor:
    """Edges [2, E] among the tokens of B graphs laid end to end, at ``pos`` [B, L, d]; sorted by target, then source.

    The patterns are those in ``FREE``, as of ``grid_edges``.
    """
    check_edges(edges, FREE)
    B, L, _ = pos.shape
    if edges == "none":
        return torch.empty(2, 0, dtype=torch.long, device=pos.device)
    joined = torch.ones(B, L, L, dtype=torch.bool, device=pos.device)
    if edges != "full":
        near = distances(pos, pos).diagonal_scatter(pos.new_full((B, L), torch.inf), dim1=1, dim2=2)
        nearest = near.argsort(dim=2, stable=True)[..., : min(int(edges[3:]), L - 1)]
        joined = torch.zeros_like(joined).scatter_(2, nearest, True)
    joined.diagonal(dim1=1, dim2=2).fill_(False)
    graph, target, source = joined.nonzero().T
    return torch.stack([source, target]) + graph * L


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances [B, L, P] of points ``a`` [B, L, d] to ``b`` [B, P, d], the same in any batch."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # products of large matrices round coarsely


def repeat_edges(edges: Tensor, nodes: int, count: int) -> Tensor:
    """``edges`` [2, E] of one graph of ``nodes`` nodes as those of ``count`` such graphs laid end to end."""
    offset = torch.arange(count, device=edges.device) * nodes
    return (edges[:, None] + offset[:, None]).reshape(2, -1)


def check_choice(what: str, size: int, total: int, unit: str) -> None:
    """UserError where ``size`` does not divide ``total``; says which sizes do."""
    if size < 1 or total % size:
        fits = ", ".join(str(n) for n in range(1, total + 1) if total % n == 0)
        raise UserError(f"cannot cut {total} {unit} into pieces of {size} ({what}={size}); choose one of {fits}")
