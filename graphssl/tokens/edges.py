"""Edges among tokens, from where they stand."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from graphssl.errors import UserError, unknown

PATTERNS = ("none", "grid", "diagonal", "full", "knn")


def check_edges(edges: str) -> None:
    """UserError for what names no pattern of edges."""
    name, number = _parse(edges)
    if name not in PATTERNS or (name == "knn") != (number is not None):
        raise unknown("pattern of edges", edges, (*PATTERNS[:-1], "knn8"), see="knn and the number of neighbours")


def _parse(edges: str) -> tuple[str, int | None]:
    name = edges.rstrip("0123456789")
    number = edges[len(name) :]
    return name, int(number) if number and int(number) else None


@lru_cache(maxsize=64)
def grid_edges(counts: tuple[int, ...], edges: str) -> Tensor:
    """Edges [2, E] among the cells of a grid with so many cells along each axis, sorted by target, then source.

    "grid" joins cells one step apart along one axis, "diagonal" along one or more, "full" all, "knn8" each to its 8
    nearest, "none" nobody.
    """
    pos = torch.cartesian_prod(*(torch.arange(n) for n in counts)).reshape(-1, len(counts)).float()
    return position_edges(pos, edges)


def position_edges(pos: Tensor, edges: str) -> Tensor:
    """Edges [2, E] among tokens at ``pos`` [L, d], sorted by target, then source; never from a token to itself."""
    check_edges(edges)
    name, number = _parse(edges)
    L = len(pos)
    if name == "none":
        return torch.empty(2, 0, dtype=torch.long, device=pos.device)
    if name == "full":
        joined = torch.ones(L, L, dtype=torch.bool, device=pos.device)
    elif name == "knn":
        assert number is not None
        away = torch.cdist(pos, pos).fill_diagonal_(torch.inf)
        near = away.topk(min(number, L - 1), largest=False).indices
        joined = torch.zeros(L, L, dtype=torch.bool, device=pos.device).scatter_(1, near, True)
    else:
        step = (pos[:, None] - pos[None]).abs()
        joined = step.amax(-1) == 1 if name == "diagonal" else step.sum(-1) == 1
    joined.fill_diagonal_(False)
    target, source = joined.nonzero().T
    return torch.stack([source, target])


def repeat_edges(edges: Tensor, nodes: int, count: int) -> Tensor:
    """``edges`` [2, E] of one graph of ``nodes`` nodes as those of ``count`` such graphs laid end to end."""
    offset = torch.arange(count, device=edges.device) * nodes
    return (edges[:, None] + offset[:, None]).reshape(2, -1)


def check_choice(what: str, size: int, total: int, unit: str) -> None:
    """UserError where ``size`` does not divide ``total``; says which sizes do."""
    if size < 1 or total % size:
        fits = ", ".join(str(n) for n in range(1, total + 1) if total % n == 0)
        raise UserError(f"cannot cut {total} {unit} into pieces of {size} ({what}={size}); choose one of {fits}")
