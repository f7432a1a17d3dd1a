"""Losses of rows by their cosines, without the matrices of cosines: in chunks and tiles that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

from graphssl.errors import UserError
from graphssl.ops import reference
from graphssl.ops.choose import choose, kernels
from graphssl.ops.message import segment_reduce
from graphssl.ops.rows import Rows

CHUNK = 2**21  # bytes of each operand that is worked on at a time: two operands and a product stay in cache
EPS = 1e-12  # the shortest a row counts as
STEEPEST = 40.0  # up to this 1 / tau, exp(cos / tau) needs no shift: float32 holds the sums and their inverses


def scaled_cosine(pred: Tensor, target: Tensor | Rows, alpha: float) -> Tensor:
    """(1 - cos)^alpha of each pair of rows of ``pred`` and ``target`` [M, D], [M]; in float32 at least.

    A ``target`` of sparse Rows gets no gradient and never becomes dense. A row of zeros has the cosine 0 with all
    others. Raises UserError where the shapes differ. arXiv:2205.10803 eq. 2.
    """
    _check(pred, target, "pred", "target")
    if isinstance(target, Rows):
        if choose("scaled_cosine", pred, ("reference", "torch")) == "torch":
            return _ScaledCosineOfRows.apply(pred.float() if pred.itemsize < 4 else pred, target, alpha)
        target = target.to_dense()
    pred, target = _exact(pred, target)
    if torch.compiler.is_compiling():
        return reference.scaled_cosine(pred, target, alpha)  # Inductor fuses it: as fast
    path = choose("scaled_cosine", pred)
    with torch.autocast(pred.device.type, enabled=False):
        if path == "reference":
            return reference.scaled_cosine(pred, target, alpha)
        return _ScaledCosine.apply(pred, target, alpha, path)


class _ScaledCosine(torch.autograd.Function):
    """One pass over the rows each way; saves three numbers a row besides its arguments."""

    @staticmethod
    def forward(ctx, pred: Tensor, target: Tensor, alpha: float, path: str) -> Tensor:
        ctx.alpha, ctx.path = alpha, path
        if path == "triton":
            pred, target = pred.contiguous(), target.contiguous()
            ctx.save_for_backward(pred, target)
            return kernels("triton").scaled_cosine(pred, target, alpha)
        if path == "c":
            pred, target = pred.contiguous(), target.contiguous()
            sums = kernels("c").cosine(pred, target)
            ctx.save_for_backward(pred, target, sums)
            return _errors(sums, alpha)
        sums = pred.new_empty(3, len(pred))  # inner products and squared lengths
        chunks = _chunks(pred)
        space = torch.empty_like(pred[chunks[0]]) if chunks else pred
        for rows in chunks:
            p, t = pred[rows], target[rows]
            for out, (one, two) in zip(sums[:, rows], ((p, t), (p, p), (t, t)), strict=True):
                torch.sum(torch.mul(one, two, out=space[: len(p)]), 1, out=out)
        ctx.save_for_backward(pred, target, sums)
        return _errors(sums, alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        alpha, wanted = ctx.alpha, ctx.needs_input_grad
        if ctx.path == "triton":
            pred, target = ctx.saved_tensors
            to_pred, to_target = kernels("triton").scaled_cosine_back(grad.contiguous(), pred, target, alpha, wanted[1])
            return to_pred, to_target, None, None
        pred, target, (dot, *squares) = ctx.saved_tensors
        lengths = [square.sqrt() for square in squares]
        product = lengths[0].clamp(min=EPS) * lengths[1].clamp(min=EPS)
        cosine = dot / product
        slope = grad * -alpha * (1 - cosine).clamp(min=0).pow(alpha - 1) * (cosine <= 1)
        across = slope / product
        out: list[Tensor | None] = [None, None]
        for k, (own, other) in enumerate(((pred, target), (target, pred))):
            if wanted[k]:
                along = -slope * cosine / squares[k].clamp(min=EPS**2) * (lengths[k] >= EPS)
                if ctx.path == "c":
                    out[k] = kernels("c").cosine_back(own, other, along, across)
                    continue
                to = torch.empty_like(own)
                for rows in _chunks(own):
                    torch.mul(other[rows], across[rows, None], out=to[rows]).addcmul_(own[rows], along[rows, None])
                out[k] = to
        return *out, None, None


def _errors(sums: Tensor, alpha: float) -> Tensor:
    """(1 - cos)^alpha from the inner products and squared lengths ``sums`` [3, M]."""
    dot, *squares = sums
    one, two = (square.sqrt().clamp_(min=EPS) for square in squares)
    return (1 - dot / (one * two)).clamp_(min=0).pow_(alpha)  # rounding can push a cosine beyond 1


class _ScaledCosineOfRows(torch.autograd.Function):
    """The same with a sparse target: two passes over ``pred``, and one back; the rest is as sparse as the target."""

    @staticmethod
    def forward(ctx, pred: Tensor, target: Rows, alpha: float) -> Tensor:
        pred = pred.contiguous()
        csr, value = target.csr, target.value.to(pred.dtype)
        where = csr.row.long() * pred.size(1) + csr.col
        dot = segment_reduce(csr, pred.view(-1).index_select(0, where) * value)
        lengths = torch.linalg.vector_norm(pred, dim=1), segment_reduce(csr, value * value).sqrt()
        product = lengths[0].clamp(min=EPS) * lengths[1].clamp(min=EPS)
        ctx.alpha, ctx.row = alpha, csr.row
        ctx.save_for_backward(pred, value, where, dot, lengths[0], product)
        return (1 - dot / product).clamp_(min=0).pow_(alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        pred, value, where, dot, length, product = ctx.saved_tensors
        cosine = dot / product
        slope = grad * -ctx.alpha * (1 - cosine).clamp(min=0).pow(ctx.alpha - 1) * (cosine <= 1)
        to = pred * (-slope * cosine / length.clamp(min=EPS).square() * (length >= EPS))[:, None]
        flat, more = to.view(-1), (slope / product).index_select(0, ctx.row) * value
        flat.index_copy_(0, where, flat.index_select(0, where) + more)  # no entry stands twice in Rows
        return to, None, None


def info_nce(
    a: Tensor, b: Tensor, tau: float, intra: bool = True, symmetric: bool = False,
    negatives: int | None = None, generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """-log of the share that the pair (a_i, b_i) has of exp(cos / tau) over all b_j and, with ``intra``, other a_j.

    ``a`` and ``b`` are [N, D], the result is [N], in float32 at least; arXiv:2006.04131 eq. 1 for the anchors ``a``.
    ``symmetric`` takes the mean with the anchors ``b``, which costs less than two calls. Exact in memory O(N D).

    ``negatives`` compares each anchor with that many other nodes instead of all, for N whose square is out of reach:
    N D ``negatives`` products. They are drawn from ``generator`` without repetition, each equally likely, and weigh
    (N - 1) / ``negatives``, so that the sum over them is the exact one on average; its logarithm is too small on
    average, by about half the squared relative error of the sum. Neighbouring anchors of the draw share their nodes.

    torch.compile breaks its graph here. Raises UserError where shapes differ or a setting is not positive.
    """
    _check(a, b, "a", "b")
    for name, value in (("tau", tau), ("negatives", negatives)):
        if value is not None and not value > 0:
            raise UserError(f"{name} is {value}, but must be greater than zero")
    return _info_nce(a, b, tau, intra, symmetric, negatives, generator)


@torch.compiler.disable
def _info_nce(
    a: Tensor, b: Tensor, tau: float, intra: bool, symmetric: bool, negatives: int | None, generator: Generator | None
) -> Tensor:
    N = len(a)
    sampled = negatives is not None and negatives < N - 1
    path = choose("info_nce", a, ("reference", "torch") if sampled else ("reference", "torch", "triton"))
    a, b = _exact(a, b)
    with torch.autocast(a.device.type, enabled=False):
        if path == "reference" and not sampled:
            losses = reference.info_nce(a, b, tau, intra)
            return (losses + reference.info_nce(b, a, tau, intra)) / 2 if symmetric else losses
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
        if sampled:
            order = torch.randperm(N, generator=generator, device=a.device)
            a, b = a.index_select(0, order), b.index_select(0, order)
        positive = (a * b).sum(-1) / tau
        if sampled:
            tiles = _some_pairs(N, _tile(a), negatives or 0, intra, symmetric)
            z = torch.cat([a, b])
            sums = _plain_lse(z, tiles, tau) if path == "reference" else _Lse.apply(z, tiles, tau, False)
            sums = sums.view(2, N) + math.log((N - 1) / (negatives or 1))
            sums = torch.logaddexp(sums[0] if not symmetric else sums, positive)
        elif path == "triton":
            sums = _triton_lse(a, b, tau, intra, symmetric)
        else:
            sums = _Lse.apply(torch.cat([a, b]), _all_pairs(N, _tile(a), intra, symmetric), tau, True).view(2, N)
            sums = sums if symmetric else sums[0]
        losses = (sums.mean(0) if symmetric else sums) - positive
        return losses.index_select(0, order.argsort()) if sampled else losses


class Tile(NamedTuple):
    """Rows and columns of the matrix of similarities of the 2N rows of both views, one below the other."""

    rows: slice
    cols: slice


def _all_pairs(N: int, tile: int, intra: bool, symmetric: bool) -> list[Tile]:
    """Tiles in which each pair of rows that count for one another stands once: the matrix is symmetric."""
    first, second = ([slice(s + v, min(s + tile, N) + v) for s in range(0, N, tile)] for v in (0, N))
    tiles = [Tile(i, j) for i in first for j in second]
    for view in (first, second)[: int(intra) * (1 + symmetric)]:
        tiles += [Tile(i, j) for n, i in enumerate(view) for j in view[n:]]
    return tiles


def _some_pairs(N: int, tile: int, negatives: int, intra: bool, symmetric: bool) -> list[Tile]:
    """Tiles in which each block of anchors meets the ``negatives`` rows that follow it, the first after the last.

    In rows in random order, those are a fair draw of the rows that are not the anchor's.
    """
    tiles = []
    block = min(tile, N - negatives)
    for start in range(0, N, block):
        stop = min(start + block, N)
        pieces = [(stop, min(stop + negatives, N)), (0, max(stop + negatives - N, 0))]
        columns = [slice(s, min(s + tile, end)) for begin, end in pieces for s in range(begin, end, tile)]
        for anchor in (0, N)[: 1 + symmetric]:
            for other in (0, N) if intra else (N - anchor,):
                tiles += [Tile(slice(start + anchor, stop + anchor), slice(c.start + other, c.stop + other))
                          for c in columns]  # fmt: skip
    return tiles


class _Lse(torch.autograd.Function):
    """log of the sum of exp(z_i.z_j / tau) over the entries of row i that ``tiles`` cover, but the diagonal.

    ``mirrored``: a tile off the diagonal stands for its mirror image too. Saves the sums, and makes each tile again in
    the backward.
    """

    @staticmethod
    def forward(ctx, z: Tensor, tiles: list[Tile], tau: float, mirrored: bool) -> Tensor:
        ctx.tiles, ctx.tau, ctx.mirrored = tiles, tau, mirrored
        steep = 1 / tau > STEEPEST
        lse = z.new_full((len(z),), -torch.inf if steep else 0.0)
        space = _space(z, tiles)
        for rows, cols in tiles:
            values = _similarities(z, rows, cols, 1 / tau, steep, space)
            sides = ((rows, 1), (cols, 0)) if mirrored and rows != cols else ((rows, 1),)
            for side, along in sides:
                if steep:
                    torch.logaddexp(lse[side], values.logsumexp(along), out=lse[side])
                else:
                    lse[side] += values.sum(along)
        if not steep:
            lse.log_()
        ctx.save_for_backward(z, lse)
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        z, lse = ctx.saved_tensors
        tau, steep = ctx.tau, 1 / ctx.tau > STEEPEST
        lse = lse.masked_fill(lse == -torch.inf, torch.inf)  # rows that no tile covers
        weight = grad / tau if steep else grad * lse.neg().exp() / tau
        to_z = torch.zeros_like(z)
        space, more = _space(z, ctx.tiles), _space(z, ctx.tiles)
        with torch.autocast(z.device.type, enabled=False):
            for rows, cols in ctx.tiles:
                values = _similarities(z, rows, cols, 1 / tau, steep, space)
                other = more[: values.numel()].view_as(values)
                if steep:
                    if ctx.mirrored:
                        torch.sub(values, lse[cols], out=other).exp_().mul_(weight[cols])
                    values.sub_(lse[rows, None]).exp_().mul_(weight[rows, None])
                    if ctx.mirrored:
                        values.add_(other)
                elif ctx.mirrored:
                    values.mul_(torch.add(weight[rows, None], weight[cols], out=other))
                else:
                    values.mul_(weight[rows, None])
                to_z[rows].addmm_(values, z[cols])
                if rows != cols:
                    to_z[cols].addmm_(values.t(), z[rows])
        return to_z, None, None, None


def _similarities(z: Tensor, rows: slice, cols: slice, scale: float, steep: bool, space: Tensor) -> Tensor:
    """``scale`` times the inner products of a tile, or their exponentials where not ``steep``, in ``space``."""
    one, two = z[rows], z[cols]
    out = space[: len(one) * len(two)].view(len(one), len(two))
    if not steep:
        scale *= math.log2(math.e)  # exp2 is twice as fast as exp on a CPU
    out.addmm_(one, two.t(), beta=0, alpha=scale)
    if rows == cols:
        out.fill_diagonal_(-torch.inf)
    return out if steep else out.exp2_()


def _plain_lse(z: Tensor, tiles: Iterable[Tile], tau: float) -> Tensor:
    """What _Lse computes where not ``mirrored``, differentiable by torch and with a matrix of all that it covers."""
    covered = torch.zeros(len(z), len(z), dtype=torch.bool, device=z.device)
    for rows, cols in tiles:
        covered[rows, cols] = True
    uncovered = ~covered.any(1, keepdim=True)  # kept out of the softmax, whose gradient would be NaN
    similar = (z @ z.T / tau).masked_fill(~covered & ~uncovered, -torch.inf)
    return similar.logsumexp(1).masked_fill(uncovered.squeeze(1), -torch.inf)


def _triton_lse(a: Tensor, b: Tensor, tau: float, intra: bool, symmetric: bool) -> Tensor:
    """The logarithms of the sums of the anchors ``a``, [N], or of ``a`` and of ``b``, [2, N]."""
    N = len(a)
    if intra and symmetric:
        z = torch.cat([a, b])
        return _TritonLse.apply(z, z, tau, 0).view(2, N)
    pairs = ((a, b), (b, a)) if symmetric else ((a, b),)
    sums = [_TritonLse.apply(q, torch.cat([k, q]) if intra else k, tau, N) for q, k in pairs]
    return torch.stack(sums) if symmetric else sums[0]


class _TritonLse(torch.autograd.Function):
    """log sum_j exp(q_i.k_j / tau) without j = i + ``skip``."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, tau: float, skip: int) -> Tensor:
        ctx.tau, ctx.skip = tau, skip
        lse = kernels("triton").lse(q, k, tau, skip)
        ctx.save_for_backward(q, k, lse)
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        q, k, lse = ctx.saved_tensors
        return *kernels("triton").lse_back(q, k, ctx.tau, ctx.skip, lse, grad.contiguous()), None, None


def _check(one: Tensor, two: Tensor | Rows, *names: str) -> None:
    if one.shape != two.shape or one.ndim != 2:
        raise UserError(
            f"{names[0]} has shape {tuple(one.shape)} and {names[1]} {tuple(two.shape)}; "
            "give both one row a node, [nodes, width], row i of each about the same node"
        )


def _exact(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Both in their common type, float32 at least."""
    dtype = torch.promote_types(torch.promote_types(one.dtype, two.dtype), torch.float32)
    return one.to(dtype), two.to(dtype)


def _chunks(x: Tensor) -> list[slice]:
    step = max(1, CHUNK // max(1, x.size(1) * x.itemsize))
    return [slice(start, min(start + step, len(x))) for start in range(0, len(x), step)]


def _tile(x: Tensor) -> int:
    """Rows and columns of a tile: on a CPU it fits in cache, elsewhere it fills the device."""
    return 512 if x.device.type == "cpu" else 4096


def _space(z: Tensor, tiles: list[Tile]) -> Tensor:
    """Room for the largest of ``tiles``."""
    return z.new_empty(max(((r.stop - r.start) * (c.stop - c.start) for r, c in tiles), default=0))
