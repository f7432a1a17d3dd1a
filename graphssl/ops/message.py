"""Sums over neighbourhoods and attention within them: what each op promises, and the one way from it to a kernel.

``graph`` is a Graph or a CSR, R x C with E entries: R targets receive from C sources. Gradients reach every
floating-point input. Equal inputs give equal bits, from run to run, on every path but ``reference`` on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphssl.errors import UserError, unknown
from graphssl.ops import counter, reference
from graphssl.ops.choose import choose, kernels
from graphssl.ops.csr import CSR


class HasCSR(Protocol):
    @property
    def csr(self) -> CSR: ...


def spmm(graph: HasCSR | CSR, x: Tensor, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """What each target receives: the sum, mean or max over its edges of ``weight`` times ``x`` of the source.

    ``x`` [C, D] and ``weight`` [E] give [R, D]; with heads, ``x`` [C, H, D] and ``weight`` [E, H] give [R, H, D].
    Without ``weight`` every edge weighs one. The mean divides by the number of edges. A target without edges receives
    zeros. Of several sources that are equally the largest, the gradient of max goes to the first.
    Raises UserError for shapes that do not fit and for an unknown ``reduce``.
    """
    csr = _pattern(graph)
    if x.ndim not in (2, 3):
        raise UserError(f"ops.spmm got x of shape {tuple(x.shape)}; expected [sources, D] or [sources, heads, D]")
    _expect("ops.spmm", "x", x, csr.shape[1], *x.shape[1:])
    if weight is not None:
        _expect("ops.spmm", "weight", weight, csr.nnz, *x.shape[1:-1])
    if x.ndim == 3:
        return _spmm("spmm", csr, x, weight, reduce)
    weight = None if weight is None else weight.unsqueeze(1)
    return _spmm("spmm", csr, x.unsqueeze(1), weight, reduce).squeeze(1)


def segment_reduce(graph: HasCSR | CSR, values: Tensor, reduce: str = "sum") -> Tensor:
    """The sum, mean or max of ``values`` [E, ...] over the edges into each target, [R, ...].

    As in ``spmm``: zeros where there are no edges, and of equally large values the first gets the gradient.
    Raises UserError for shapes that do not fit and for an unknown ``reduce``.
    """
    csr = _pattern(graph)
    _expect("ops.segment_reduce", "values", values, csr.nnz, *values.shape[1:])
    heads = values.reshape(
        csr.nnz, 1, values[:1].numel() if csr.nnz else values.new_empty(1, *values.shape[1:]).numel()
    )
    return _spmm("segment_reduce", csr.members, heads, None, reduce).view(csr.shape[0], *values.shape[1:])


def segment_softmax(graph: HasCSR | CSR, scores: Tensor) -> Tensor:
    """``scores`` [E, H] to weights [E, H] that sum to one over the edges into each target.

    Raises UserError for shapes that do not fit.
    """
    csr = _pattern(graph)
    _expect("ops.segment_softmax", "scores", scores, csr.nnz, scores.size(-1))
    path = choose("segment_softmax", scores, ("reference", "c", "triton"))
    return reference.segment_softmax(csr, scores) if path == "reference" else _call("softmax", path, csr, [scores])


def gat_attention(
    graph: HasCSR | CSR, x: Tensor, source: Tensor, target: Tensor, slope: float = 0.2, dropout: float = 0.0
) -> Tensor:
    """Attention of GAT: ``x`` [C, H, D] summed with the softmax of leaky(``source`` + ``target``), [R, H, D].

    ``source`` [C, H] and ``target`` [R, H] are the two halves of the score; ``dropout`` is the probability that a
    weight is zeroed, the rest being scaled. Nothing of size E x H x D is made or kept.
    arXiv:1710.10903 eq. 2-6. Raises UserError for shapes that do not fit.
    """
    csr = _pattern(graph)
    R, C, H = *csr.shape, x.size(1)
    _expect("ops.gat_attention", "x", x, C, H, x.size(-1))
    _expect("ops.gat_attention", "source", source, C, H)
    _expect("ops.gat_attention", "target", target, R, H)
    path, seed = choose("gat_attention", x), _seed(dropout)
    if path in ("reference", "torch"):
        return _attend(path, csr, reference.gat_scores(csr, source, target, slope), x, dropout, seed)
    return _call("gat", path, csr, [x, source, target], slope, dropout, seed)


def gatv2_attention(
    graph: HasCSR | CSR, x: Tensor, target: Tensor, attention: Tensor, slope: float = 0.2, dropout: float = 0.0
) -> Tensor:
    """Attention of GATv2: ``x`` [C, H, D] summed with the softmax of <``attention``, leaky(x + ``target``)>, [R, H, D].

    ``target`` is [R, H, D] and ``attention`` [H, D]; ``dropout`` as in ``gat_attention``.
    arXiv:2105.14491 eq. 7. Raises UserError for shapes that do not fit.
    """
    csr = _pattern(graph)
    R, C, H, D = *csr.shape, x.size(1), x.size(-1)
    _expect("ops.gatv2_attention", "x", x, C, H, D)
    _expect("ops.gatv2_attention", "target", target, R, H, D)
    _expect("ops.gatv2_attention", "attention", attention, H, D)
    path, seed = choose("gatv2_attention", x), _seed(dropout)
    if path in ("reference", "torch"):
        return _attend(path, csr, reference.gatv2_scores(csr, x, target, attention, slope), x, dropout, seed)
    return _call("gatv2", path, csr, [x, target, attention], slope, dropout, seed)


def qkv_attention(
    graph: HasCSR | CSR, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None,
    dropout: float = 0.0, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Dot-product attention along edges: ``value`` [C, H, D] summed with the softmax of ``scale`` <query, key> + bias.

    ``query`` is [R, H, K], ``key`` [C, H, K], ``bias`` [E, H] or None, the result [R, H, D]; ``scale`` None is
    1 / sqrt(K); ``dropout`` as in ``gat_attention``. arXiv:1706.03762 eq. 1, restricted to the graph's edges.
    Raises UserError for shapes that do not fit.
    """
    csr = _pattern(graph)
    R, C, H, K = *csr.shape, query.size(1), query.size(-1)
    _expect("ops.qkv_attention", "query", query, R, H, K)
    _expect("ops.qkv_attention", "key", key, C, H, K)
    _expect("ops.qkv_attention", "value", value, C, H, value.size(-1))
    if bias is not None:
        _expect("ops.qkv_attention", "bias", bias, csr.nnz, H)
    scale = max(K, 1) ** -0.5 if scale is None else scale
    path, seed = choose("qkv_attention", query), _seed(dropout)
    if path in ("reference", "torch"):
        return _attend(path, csr, reference.qkv_scores(csr, query, key, bias, scale), value, dropout, seed)
    return _call("qkv", path, csr, [query, key, value, bias], scale, dropout, seed)


def _pattern(graph: HasCSR | CSR) -> CSR:
    return graph if isinstance(graph, CSR) else graph.csr


def _expect(op: str, name: str, tensor: Tensor, *shape: int) -> None:
    if tensor.shape != shape:
        raise UserError(f"{op} got {name} of shape {tuple(tensor.shape)}; for this graph it has to be {shape}")


def _seed(dropout: float) -> Tensor:
    """A seed for the draws of a dropout: without one, none is drawn and the generator stays where it is."""
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is {dropout}; choose a probability from 0 up to, not including, 1")
    return counter.seed() if dropout > 0 else torch.zeros((), dtype=torch.long)


def _spmm(op: str, csr: CSR, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """``x`` [C, H, D] and ``weight`` [E, H] to [R, H, D]."""
    if reduce not in ("sum", "mean", "max"):
        raise unknown("reduction", reduce, ("sum", "mean", "max"))
    path = choose(op, x, ("reference", "c", "triton") if reduce == "max" else ("reference", "torch", "c", "triton"))
    if path == "reference":
        return reference.spmm(csr, x, weight, reduce)
    if reduce == "max":
        return _call("spmm_max", path, csr, [x, weight])
    out = _call("spmm", path, csr, [x, weight])
    return out / csr.degree.clamp(min=1)[:, None, None] if reduce == "mean" else out


def _attend(path: str, csr: CSR, scores: Tensor, values: Tensor, p: float, seed: Tensor) -> Tensor:
    """``reference.attend``, with the sum on ``path``."""
    if path == "reference":
        return reference.attend(csr, scores, values, p, seed)
    weights = reference.segment_softmax(csr, scores)
    if p > 0:
        weights = weights * counter.kept(seed, weights.numel(), p, weights).view_as(weights)
    return _call("spmm", path, csr, [values, weights])


def _call(kernel: str, path: str, csr: CSR, tensors: list[Tensor | None], *numbers) -> Tensor:
    """The first result of ``kernel`` (csr, *tensors, *numbers) of ``path``, with its gradient."""
    return _Kernel.apply(kernel, path, csr, numbers, *tensors)


class _Kernel(torch.autograd.Function):
    """Any kernel, which maps (csr, *tensors, *numbers) to its output and what its backward wants to have kept."""

    @staticmethod
    def forward(ctx, kernel: str, path: str, csr: CSR, numbers: tuple, *tensors: Tensor | None) -> Tensor:
        results = getattr(kernels(path), kernel)(csr, *tensors, *numbers)
        out, *kept = results if isinstance(results, tuple) else (results,)
        if kernel not in ("spmm", "spmm_max"):  # those backwards do not look at the output
            kept = [out, *kept]
        ctx.csr, ctx.kernel, ctx.path, ctx.numbers, ctx.count = csr, kernel, path, numbers, len(kept)
        ctx.save_for_backward(*kept, *tensors)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        kept, tensors = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        back = getattr(kernels(ctx.path), f"{ctx.kernel}_back")
        grad = grad.contiguous()
        if ctx.kernel == "softmax":
            grads: Sequence[Tensor | None] = (back(ctx.csr, *kept, grad),)
        elif ctx.kernel in ("spmm", "spmm_max"):
            grads = back(ctx.csr, grad, *kept, *tensors, ctx.needs_input_grad[5])
        else:
            grads = back(ctx.csr, grad, *kept, *tensors, *ctx.numbers)
        return None, None, None, None, *grads
