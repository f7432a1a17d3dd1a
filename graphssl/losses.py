"""Losses on rows: row i of one tensor is about row i of the other. All return a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled_cosine(pred: Tensor, target: Tensor, alpha: float = 3.0) -> Tensor:
    """Mean of (1 - cos)^alpha over rows [M, D] of the same nodes; GraphMAE eq. 2, arXiv:2205.10803."""
    pred = pred.float()
    norms = pred.norm(dim=-1).clamp(min=1e-12) * target.norm(dim=-1).clamp(min=1e-12)
    cosine = torch.einsum("md,md->m", pred, target) / norms  # a third of the passes of F.cosine_similarity
    return (1 - cosine).pow(alpha).mean()


def info_nce(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """Row i of ``a`` and of ``b`` [M, D] are the same node; all other rows of both are its negatives.

    GRACE eq. 1, arXiv:2006.04131, for the anchors ``a``; GRACE averages it with ``info_nce(b, a, tau)``.
    """
    a, b = F.normalize(a.float(), dim=-1), F.normalize(b.float(), dim=-1)
    same = torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits = torch.cat([a @ b.T, (a @ a.T).masked_fill(same, -torch.inf)], dim=1) / tau
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device))


def bootstrap(pred: Tensor, target: Tensor) -> Tensor:
    """Mean of 2 - 2 cos between predictions and targets [M, D] of the same nodes; no gradient to targets.

    BGRL eq. 4, arXiv:2102.06514, up to the constant.
    """
    return 2 - 2 * F.cosine_similarity(pred.float(), target.detach().float(), dim=-1).mean()
