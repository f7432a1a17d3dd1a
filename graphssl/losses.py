"""Losses on rows: row i of one tensor is about row i of the other. All return a scalar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl import ops

FLAT = 1e-10  # a column whose variance is a smaller share of its mean square than this varies by rounding alone


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``loss`` in float32 at least, also under autocast: cosines of bf16 are too coarse to learn from."""

    @wraps(loss)
    def exact(*rows: Any, **settings: Any) -> Tensor:
        with torch.autocast(rows[0].device.type, enabled=False):
            return loss(*(r.float() if isinstance(r, Tensor) and r.itemsize < 4 else r for r in rows), **settings)

    return exact


@full_precision
def scaled_cosine(pred: Tensor, target: Tensor | ops.Rows, alpha: float = 3.0) -> Tensor:
    """Mean of (1 - cos)^alpha over rows [M, D] of the same nodes; GraphMAE eq. 2, arXiv:2205.10803.

    ``target`` may be sparse rows, which get no gradient.
    """
    return ops.scaled_cosine(pred, target, alpha).mean()


@full_precision
def info_nce(
    a: Tensor, b: Tensor, tau: float, intra: bool = True, symmetric: bool = False,
    negatives: int | None = None, generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Row i of ``a`` and of ``b`` [M, D] are the same node; all other rows of both are its negatives.

    GRACE eq. 1, arXiv:2006.04131, for the anchors ``a``; ``symmetric``, as in GRACE, takes the mean with the anchors
    ``b``. Without ``intra`` only rows of the other view are negatives. Memory grows with M, time with its square;
    ``negatives`` draws that many of the other nodes from ``generator``, where the square is out of reach: see ``ops``.
    """
    return ops.info_nce(a, b, tau, intra, symmetric, negatives, generator).mean()


@full_precision
def nt_xent(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """Row i of ``a`` and of ``b`` [B, D] are the same graph; the other rows of ``b`` are its negatives.

    GraphCL eq. 3, arXiv:2010.13902: the sum under the fraction leaves the pair itself out, unlike ``info_nce``'s. Zero
    where there is one row. The B x B cosines are kept.
    """
    if len(a) < 2:
        return 0.0 * (a.sum() + b.sum())
    cosines = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / tau
    own = torch.eye(len(a), dtype=torch.bool, device=a.device)
    return (cosines.masked_fill(own, -torch.inf).logsumexp(1) - cosines.diagonal()).mean()


@full_precision
def bootstrap(pred: Tensor, target: Tensor) -> Tensor:
    """Mean of 2 - 2 cos between predictions and targets [M, D] of the same nodes; no gradient to targets.

    BGRL eq. 4, arXiv:2102.06514, up to the constant.
    """
    return 2 - 2 * F.cosine_similarity(pred, target.detach(), dim=-1).mean()


@full_precision
def standardise(codes: Tensor) -> Tensor:
    """Columns of ``codes`` [N, D] with mean 0 and variance 1 (over N - 1); zeros where a column has no spread."""
    size = codes.detach().square().mean(0)
    codes = codes - codes.mean(0)
    spread = codes.square().sum(0) / max(1, len(codes) - 1)
    varies = spread > FLAT * size
    return codes * varies * torch.where(varies, spread, 1.0).rsqrt()


@full_precision
def half_distance(a: Tensor, b: Tensor) -> Tensor:
    """Half of the squared distance of rows [N, D] of the same nodes, a mean over N; CCA-SSG, arXiv:2106.12484.

    Of standardised columns it is, up to a constant, less their correlation, as which the reference has it.
    """
    return (a - b).square().sum() / (2 * len(a))


@full_precision
def decorrelation(codes: Tensor) -> Tensor:
    """Squared distance of Z'Z / N from the identity, Z the standardised codes [N, D]; CCA-SSG."""
    products = codes.T @ codes / len(codes)
    return (products - torch.eye(codes.size(1), dtype=codes.dtype, device=codes.device)).square().sum()


@full_precision
def mean_square(pred: Tensor, target: Tensor | ops.Rows) -> Tensor:
    """Mean squared difference of two of one shape; zero where they are empty. ``target`` may be sparse rows."""
    return (pred - ops.dense(target)).square().sum() / max(1, pred.numel())


@full_precision
def mean_absolute(pred: Tensor, target: Tensor | ops.Rows) -> Tensor:
    """Mean absolute difference of two of one shape; zero where they are empty. ``target`` may be sparse rows."""
    return (pred - ops.dense(target)).abs().sum() / max(1, pred.numel())


@full_precision
def normalize_rows(rows: Tensor, channels: int = 1) -> Tensor:
    """Each row [M, D] less its mean and divided by its deviation (over D - 1): MAE's normalised pixels.

    With ``channels`` each of a row's channels, which run fastest, has a mean and a deviation of its own: VideoMAE's.
    """
    mean, deviation = row_moments(rows, channels)
    return (rows - mean) / deviation


def row_moments(rows: Tensor, channels: int = 1) -> tuple[Tensor, Tensor]:
    """What ``normalize_rows`` takes from each number of ``rows`` [M, D] and divides it by, each [M, D]."""
    parted = rows.unflatten(-1, (-1, channels))
    variance = parted.var(-2, keepdim=True, correction=min(1, parted.size(-2) - 1))
    mean, deviation = parted.mean(-2, keepdim=True), (variance + 1e-6).sqrt()
    return mean.expand_as(parted).flatten(-2), deviation.expand_as(parted).flatten(-2)


@full_precision
def chamfer(pred: Tensor, target: Tensor) -> Tensor:
    """Chamfer distance of sets of points [M, k, d] and [M, l, d], a mean over the M rows; zero where there are none.

    Of each set the mean over its points of the squared distance to the nearest of the other, the sum of both:
    Point-MAE eq. 4, arXiv:2203.06604; Pang-Yatian/Point-MAE at 3208f17, "cdl2".
    """
    away = torch.cdist(pred, target, compute_mode="donot_use_mm_for_euclid_dist").square()
    return _mean(away.amin(2)) + _mean(away.amin(1))


def chamfer_rows(pred: Tensor, target: Tensor | ops.Rows, width: int = 3) -> Tensor:
    """``chamfer`` of sets laid flat, [M, k * width], as which the content of nodes holds them."""
    return chamfer(pred.unflatten(1, (-1, width)), ops.dense(target).unflatten(1, (-1, width)))


@full_precision
def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of -log softmax(``logits`` [M, C]) at the classes ``target`` [M]; zero where there are no rows."""
    return F.cross_entropy(logits, target, reduction="sum") / max(1, len(target))


def block_cross_entropy(logits: Tensor, target: Tensor | ops.Rows, widths: Sequence[int]) -> Tensor:
    """``cross_entropy`` of each of the first one-hot blocks of ``target`` [M, ...], a mean over the blocks.

    ``widths`` are the blocks' and sum to the C columns of ``logits`` [M, C]; a block without a one is of its first
    class. ``target`` may be sparse rows.
    """
    blocks = ops.dense(target)[:, : sum(widths)].split([*widths], 1)
    said = logits.split([*widths], 1)
    return torch.stack([cross_entropy(a, b.argmax(1)) for a, b in zip(said, blocks, strict=True)]).mean()


@full_precision
def smooth_l1(pred: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Mean over entries of d^2 / (2 ``beta``) where a difference d is below ``beta``, else |d| - ``beta`` / 2."""
    return F.smooth_l1_loss(pred, target, reduction="sum", beta=beta) / max(1, pred.numel())


@full_precision
def edge_bce(present: Tensor, absent: Tensor) -> Tensor:
    """Binary cross-entropy of logits of pairs that are joined [M] and of pairs that are not [K], a mean of each.

    MaskGAE eq. 4 and GAE; as the sum of both means, as in the reference codes, and zero where there are none.
    """
    return _mean(F.softplus(-present)) + _mean(F.softplus(absent))


@full_precision
def soft_edge_ce(present: Tensor, absent: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of two-class logits, the first column "joined": of edges [M, 2], each times its ``weight`` [M].

    Bandana eq. 10 with the bandwidths as weights; pairs that are not joined [K, 2] weigh one. A mean of each.
    """
    return _mean(-weight * present.log_softmax(-1)[:, 0]) + _mean(-absent.log_softmax(-1)[:, 1])


@full_precision
def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL divergence of normals [N, D] from the standard one, summed over D, a mean over N; VGAE, arXiv:1611.07308."""
    return -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).sum(1).mean()


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, values.numel())
