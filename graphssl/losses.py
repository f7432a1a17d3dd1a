"""Losses on rows: row i of one tensor is about row i of the other. All return a scalar."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``loss`` in float32 at least, also under autocast: cosines of bf16 are too coarse to learn from."""

    @wraps(loss)
    def exact(*rows: Any, **settings: float) -> Tensor:
        with torch.autocast(rows[0].device.type, enabled=False):
            return loss(*(r.float() if isinstance(r, Tensor) and r.itemsize < 4 else r for r in rows), **settings)

    return exact


@full_precision
def scaled_cosine(pred: Tensor, target: Tensor, alpha: float = 3.0) -> Tensor:
    """Mean of (1 - cos)^alpha over rows [M, D] of the same nodes; GraphMAE eq. 2, arXiv:2205.10803."""
    norms = pred.norm(dim=-1).clamp(min=1e-12) * target.norm(dim=-1).clamp(min=1e-12)
    cosine = torch.einsum("md,md->m", pred, target) / norms  # a third of the passes of F.cosine_similarity
    return (1 - cosine).clamp(min=0).pow(alpha).mean()  # rounding can push a cosine beyond 1


@full_precision
def info_nce(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """Row i of ``a`` and of ``b`` [M, D] are the same node; all other rows of both are its negatives.

    GRACE eq. 1, arXiv:2006.04131, for the anchors ``a``; GRACE averages it with ``info_nce(b, a, tau)``.
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    same = torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits = torch.cat([a @ b.T, (a @ a.T).masked_fill(same, -torch.inf)], dim=1) / tau
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device))


@full_precision
def bootstrap(pred: Tensor, target: Tensor) -> Tensor:
    """Mean of 2 - 2 cos between predictions and targets [M, D] of the same nodes; no gradient to targets.

    BGRL eq. 4, arXiv:2102.06514, up to the constant.
    """
    return 2 - 2 * F.cosine_similarity(pred, target.detach(), dim=-1).mean()
