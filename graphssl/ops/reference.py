"""What every op computes, in plain differentiable torch: the specification that the other paths are tested against.

``csr`` is an R x C pattern of E entries; H heads of width D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl.ops import counter
from graphssl.ops.csr import CSR


def spmm(csr: CSR, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """``x`` [C, H, D] and ``weight`` [E, H] to [R, H, D]."""
    messages = x[csr.col] if weight is None else x[csr.col] * weight[..., None]
    return segment_reduce(csr, messages, reduce)


def segment_reduce(csr: CSR, values: Tensor, reduce: str) -> Tensor:
    """``values`` [E, ...] to [R, ...]; of several that are equally the largest, the first gets the gradient."""
    shape = (csr.shape[0], *values.shape[1:])
    row = csr.row.long()
    if reduce == "max":
        spread = row.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
        fixed = values.detach()
        top = fixed.new_zeros(shape).scatter_reduce(0, spread, fixed, "amax", include_self=False)
        entry = torch.arange(csr.nnz, device=row.device).view(-1, *[1] * (values.ndim - 1)).expand_as(values)
        entry = entry.where((fixed == top[row]) | fixed.isnan(), csr.nnz)  # a NaN shows
        first = entry.new_full(shape, csr.nnz).scatter_reduce(0, spread, entry, "amin")
        return torch.cat([values, values.new_zeros(1, *shape[1:])]).gather(0, first)
    out = values.new_zeros(shape).index_add(0, row, values)
    return out / csr.degree.clamp(min=1).view(-1, *[1] * (values.ndim - 1)) if reduce == "mean" else out


def segment_softmax(csr: CSR, scores: Tensor) -> Tensor:
    """``scores`` [E, H] to weights [E, H]."""
    row = csr.row.long()
    top = segment_reduce(csr, scores.detach(), "max").clamp(min=torch.finfo(scores.dtype).min)  # above -inf
    weights = (scores - top[row]).exp()
    total = segment_reduce(csr, weights, "sum")
    return weights / total.masked_fill(total == 0, 1.0)[row]  # a row of -inf alone gets zeros


def attend(csr: CSR, scores: Tensor, values: Tensor, p: float, seed: Tensor) -> Tensor:
    """Softmax of ``scores`` [E, H] over each row, dropout with ``p``, and the weighted sum of ``values`` [C, H, D].

    The counter of entry e and head h is e * H + h.
    """
    weights = segment_softmax(csr, scores)
    if p > 0:
        weights = weights * counter.kept(seed, weights.numel(), p, weights).view_as(weights)
    return spmm(csr, values, weights, "sum")


def gat_scores(csr: CSR, source: Tensor, target: Tensor, slope: float) -> Tensor:
    """``source`` [C, H] and ``target`` [R, H] to [E, H]; arXiv:1710.10903 eq. 3 before the softmax."""
    return F.leaky_relu(source[csr.col] + target[csr.row], slope)


def gatv2_scores(csr: CSR, x: Tensor, target: Tensor, attention: Tensor, slope: float) -> Tensor:
    """``x`` [C, H, D], ``target`` [R, H, D] and ``attention`` [H, D] to [E, H]; arXiv:2105.14491 eq. 7."""
    return (F.leaky_relu(x[csr.col] + target[csr.row], slope) * attention).sum(-1)


def qkv_scores(csr: CSR, query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """``query`` [R, H, D], ``key`` [C, H, D] and ``bias`` [E, H] to [E, H]."""
    scores = (query[csr.row] * key[csr.col]).sum(-1) * scale
    return scores if bias is None else scores + bias


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """``x`` [...] where it is positive, elsewhere times ``slope`` [1]; arXiv:1502.01852 eq. 1."""
    return F.prelu(x, slope)


def scaled_cosine(pred: Tensor, target: Tensor, alpha: float) -> Tensor:
    """(1 - cos)^alpha of each pair of rows of ``pred`` and ``target`` [M, D], [M]; arXiv:2205.10803 eq. 2."""
    norms = pred.norm(dim=-1).clamp(min=1e-12) * target.norm(dim=-1).clamp(min=1e-12)
    cosine = (pred * target).sum(-1) / norms
    return (1 - cosine).clamp(min=0).pow(alpha)  # rounding can push a cosine beyond 1


def info_nce(a: Tensor, b: Tensor, tau: float, intra: bool) -> Tensor:
    """-log of the share that the pair (a_i, b_i) has of exp(cos / tau) over all b_j and, with ``intra``, all other a_j.

    ``a`` and ``b`` [M, D] to [M]; arXiv:2006.04131 eq. 1 for the anchors ``a``.
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    logits = a @ b.T
    if intra:
        same = torch.eye(len(a), dtype=torch.bool, device=a.device)
        logits = torch.cat([logits, (a @ a.T).masked_fill(same, -torch.inf)], dim=1)
    return F.cross_entropy(logits / tau, torch.arange(len(a), device=a.device), reduction="none")
