"""Sums over neighbourhoods and attention within them: what each op promises, and the one way from it to a kernel.

``graph`` is a Graph or a CSR, R x C with E entries: R targets receive from C sources. What stands along edges stands
in the order of the CSR's entries; where it has a ``perm``, that is ``values[csr.perm]`` of the caller's. Inputs of
several types are taken in the type that holds them all, and so is the result; half precision is summed in float32.
Gradients reach every floating-point input. Equal inputs give equal bits, from run to run and whatever the number of
threads, on ``c`` and ``triton``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

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
    _expect("ops.spmm", csr, "x", x, csr.shape[1], *x.shape[1:])
    if weight is not None:
        _expect("ops.spmm", csr, "weight", weight, csr.nnz, *x.shape[1:-1])
    return _spmm("spmm", csr, x, weight, reduce)


def segment_reduce(graph: HasCSR | CSR, values: Tensor, reduce: str = "sum") -> Tensor:
    """The sum, mean or max of ``values`` [E, ...] over the edges into each target, [R, ...].

    As in ``spmm``: zeros where there are no edges, and of equally large values the first gets the gradient.
    Raises UserError for shapes that do not fit and for an unknown ``reduce``.
    """
    csr = _pattern(graph)
    if values.ndim == 0:
        raise UserError("ops.segment_reduce got a single number; expected values of shape [edges, ...]")
    _expect("ops.segment_reduce", csr, "values", values, csr.nnz, *values.shape[1:])
    rows = values.reshape(csr.nnz, math.prod(values.shape[1:]))
    return _spmm("segment_reduce", csr.members, rows, None, reduce).view(csr.shape[0], *values.shape[1:])


def segment_softmax(graph: HasCSR | CSR, scores: Tensor) -> Tensor:
    """``scores`` [E, H] to weights [E, H] that sum to one over the edges into each target.

    Raises UserError for shapes that do not fit.
    """
    csr = _pattern(graph)
    _expect_heads("ops.segment_softmax", "scores", scores, "[edges, heads]")
    _expect("ops.segment_softmax", csr, "scores", scores, csr.nnz, scores.size(-1))
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
    _expect_heads("ops.gat_attention", "x", x, "[sources, heads, D]")
    R, C, H = *csr.shape, x.size(1)
    _expect("ops.gat_attention", csr, "x", x, C, H, x.size(-1))
    _expect("ops.gat_attention", csr, "source", source, C, H)
    _expect("ops.gat_attention", csr, "target", target, R, H)
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
    _expect_heads("ops.gatv2_attention", "x", x, "[sources, heads, D]")
    R, C, H, D = *csr.shape, x.size(1), x.size(-1)
    _expect("ops.gatv2_attention", csr, "x", x, C, H, D)
    _expect("ops.gatv2_attention", csr, "target", target, R, H, D)
    _expect("ops.gatv2_attention", csr, "attention", attention, H, D)
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
    A ``bias`` of -inf hides an edge; a target whose edges are all hidden receives zeros.
    Raises UserError for shapes that do not fit.
    """
    csr = _pattern(graph)
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        _expect_heads("ops.qkv_attention", name, tensor, "[nodes, heads, D]")
    R, C, H, K = *csr.shape, query.size(1), query.size(-1)
    _expect("ops.qkv_attention", csr, "query", query, R, H, K)
    _expect("ops.qkv_attention", csr, "key", key, C, H, K)
    _expect("ops.qkv_attention", csr, "value", value, C, H, value.size(-1))
    if bias is not None:
        _expect("ops.qkv_attention", csr, "bias", bias, csr.nnz, H)
    scale = max(K, 1) ** -0.5 if scale is None else scale
    path, seed = choose("qkv_attention", query), _seed(dropout)
    if path in ("reference", "torch"):
        return _attend(path, csr, reference.qkv_scores(csr, query, key, bias, scale), value, dropout, seed)
    return _call("qkv", path, csr, [query, key, value, bias], scale, dropout, seed)


def _pattern(graph: HasCSR | CSR) -> CSR:
    csr = graph if isinstance(graph, CSR) else graph.csr
    csr.check()
    return csr


def _expect(op: str, csr: CSR, name: str, tensor: Tensor, *shape: int) -> None:
    device = csr.col.device
    if tensor.shape != shape:
        raise UserError(f"{op} got {name} of shape {tuple(tensor.shape)}; for this graph it has to be {shape}")
    if tensor.device != device:
        raise UserError(f"{op} got {name} on {tensor.device} and a graph on {device}; move one of them")


def _expect_heads(op: str, name: str, tensor: Tensor, form: str) -> None:
    if tensor.ndim != form.count(",") + 1:
        raise UserError(f"{op} got {name} of shape {tuple(tensor.shape)}; expected {form}")


def _seed(dropout: float) -> Tensor:
    """A seed for the draws of a dropout: without one, none is drawn and the generator stays where it is."""
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is {dropout}; choose a probability from 0 up to, not including, 1")
    return counter.seed() if dropout > 0 else torch.zeros((), dtype=torch.long)


def _spmm(op: str, csr: CSR, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """``x`` [C, H, D] and ``weight`` [E, H] to [R, H, D], or without heads."""
    if reduce not in ("sum", "mean", "max"):
        raise unknown("reduction", reduce, ("sum", "mean", "max"))
    path = choose(op, x, ("reference", "c", "triton") if reduce == "max" else ("reference", "torch", "c", "triton"))
    if path == "reference":
        return reference.spmm(csr, x, weight, reduce)
    if reduce == "max":
        return _call("spmm_max", path, csr, [x, weight])
    if reduce == "sum":
        return _call("spmm", path, csr, [x, weight])
    dtype = x.dtype if weight is None else torch.promote_types(x.dtype, weight.dtype)
    if dtype.itemsize < 4:  # the sum may not fit, nor be exact enough to divide
        return _spmm(op, csr, x.float(), weight, reduce).to(dtype)
    return _call("spmm", path, csr, [x, weight]) / csr.degree.clamp(min=1).view(-1, *[1] * (x.ndim - 1))


def _attend(path: str, csr: CSR, scores: Tensor, values: Tensor, p: float, seed: Tensor) -> Tensor:
    """``reference.attend``, with the sum on ``path``."""
    if path == "reference":
        return reference.attend(csr, scores, values, p, seed)
    weights = reference.segment_softmax(csr, scores)
    if p > 0:
        weights = weights * counter.kept(seed, weights.numel(), p, weights).view_as(weights)
    return _call("spmm", path, csr, [values, weights])


def _call(kernel: str, path: str, csr: CSR, tensors: list[Tensor | None], *numbers: Any) -> Tensor:
    """The first result of ``kernel`` (csr, *tensors, *numbers) of ``path``, with its gradient."""
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors if t is not None))
    tensors = [t if t is None or t.dtype is dtype else t.to(dtype) for t in tensors]
    if torch.compiler.is_compiling():
        *settings, seed = numbers or (None,)
        given = [t for t in tensors if t is not None]  # beside a None in a list, torch sees no gradient to any
        return torch.ops.graphssl.message(
            kernel, path, csr.tensors(), csr.shape[1], given, settings, seed if settings else None
        )[0]
    return _Kernel.apply(kernel, path, csr, numbers, *tensors)


def forward(
    kernel: str, path: str, csr: CSR, tensors: Sequence[Tensor | None], numbers: Sequence[Any]
) -> tuple[Tensor, ...]:
    """The output of a kernel and what its backward wants to have kept."""
    flat = _flat(kernel, tensors)
    if flat:
        tensors = [t if t is None else t.unsqueeze(1) for t in tensors]
    results = getattr(kernels(path), kernel)(csr, *tensors, *numbers)
    out, *kept = results if isinstance(results, tuple) else (results,)
    return out.squeeze(1) if flat else out, *kept


def backward(
    kernel: str, path: str, csr: CSR, grad: Tensor, results: Sequence[Tensor], tensors: Sequence[Tensor | None],
    numbers: Sequence[Any], needs: Sequence[bool],
) -> Sequence[Tensor | None]:  # fmt: skip
    """Gradients to the ``tensors`` of a kernel, given what its forward returned; None where none ``needs`` be."""
    back, grad = getattr(kernels(path), f"{kernel}_back"), grad.contiguous()
    if kernel == "softmax":
        return (back(csr, *results, grad),)
    if not kernel.startswith("spmm"):
        return back(csr, grad, *results, *tensors, *numbers)
    if not _flat(kernel, tensors):
        return back(csr, grad, *results[1:], *tensors, *needs)
    heads = [t if t is None else t.unsqueeze(1) for t in tensors]
    return [g if g is None else g.squeeze(1) for g in back(csr, grad.unsqueeze(1), *results[1:], *heads, *needs)]


def _flat(kernel: str, tensors: Sequence[Tensor | None]) -> bool:
    """Whether there is one head that the shapes do not show."""
    return kernel.startswith("spmm") and tensors[0] is not None and tensors[0].ndim == 2


class _Kernel(torch.autograd.Function):
    """Any kernel, called directly: half the overhead of a registered operator, which small graphs feel."""

    @staticmethod
    def forward(ctx, kernel: str, path: str, csr: CSR, numbers: tuple, *tensors: Tensor | None) -> Tensor:
        results = forward(kernel, path, csr, tensors, numbers)
        kept = (None, *results[1:]) if kernel.startswith("spmm") else results  # those backwards do without the output
        ctx.csr, ctx.kernel, ctx.path, ctx.numbers, ctx.count = csr, kernel, path, numbers, len(kept)
        ctx.save_for_backward(*kept, *tensors)
        return results[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        saved = ctx.saved_tensors  # asked for once, as a checkpoint gives them once
        results, tensors = saved[: ctx.count], saved[ctx.count :]
        needs = ctx.needs_input_grad[4:]
        grads = backward(ctx.kernel, ctx.path, ctx.csr, grad, results, tensors, ctx.numbers, needs)
        return None, None, None, None, *grads


def _whole(kernel: str, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """``tensors`` with None in the place of a weight or bias that was not given, which is the last."""
    return [*tensors, *[None] * ({"spmm": 2, "spmm_max": 2, "qkv": 4}.get(kernel, 0) - len(tensors))]


@torch.library.custom_op("graphssl::message", mutates_args=())
def _message(
    kernel: str, path: str, pattern: Sequence[Tensor], columns: int, tensors: Sequence[Tensor],
    settings: Sequence[float], seed: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    """The same as a registered operator, for torch.compile, which must not look inside."""
    numbers = [] if seed is None else [*settings, seed]
    return list(forward(kernel, path, CSR.from_tensors(pattern, columns), _whole(kernel, tensors), numbers))


@_message.register_fake
def _(kernel, path, pattern, columns, tensors, settings, seed):
    x, R = tensors[2 if kernel == "qkv" else 0], pattern[0].size(0) - 1
    if kernel == "softmax":
        return [x.new_empty(x.shape)]
    out = x.new_empty(R, *x.shape[1:])
    if kernel == "spmm":
        return [out]
    if kernel == "spmm_max":
        return [out, out.new_empty(out.shape, dtype=pattern[1].dtype)]
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    return [out, x.new_empty(2, R, x.size(1), dtype=exact)]


@torch.library.custom_op("graphssl::message_back", mutates_args=())
def _message_back(
    kernel: str, path: str, pattern: Sequence[Tensor], columns: int, grad: Tensor, results: Sequence[Tensor],
    tensors: Sequence[Tensor], settings: Sequence[float], seed: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    numbers, csr = [] if seed is None else [*settings, seed], CSR.from_tensors(pattern, columns)
    whole = _whole(kernel, tensors)
    grads = backward(kernel, path, csr, grad, results, whole, numbers, [t is not None for t in whole])
    # an operator must not return what it was given
    return [g.clone(memory_format=torch.contiguous_format) for g in grads if g is not None]


@_message_back.register_fake
def _(kernel, path, pattern, columns, grad, results, tensors, settings, seed):
    return [t.new_empty(t.shape) for t in tensors]


def _setup(ctx, inputs, output) -> None:
    ctx.kernel, ctx.path, pattern, ctx.columns, tensors, ctx.settings, seed = inputs
    ctx.counts = len(pattern), len(tensors)
    ctx.save_for_backward(*pattern, *tensors, seed, *output)


def _gradient(ctx, grads):
    P, N = ctx.counts
    pattern, tensors, seed = ctx.saved_tensors[:P], ctx.saved_tensors[P : P + N], ctx.saved_tensors[P + N]
    results, settings = ctx.saved_tensors[P + N + 1 :], ctx.settings
    made = torch.ops.graphssl.message_back(
        ctx.kernel, ctx.path, pattern, ctx.columns, grads[0], results, tensors, settings, seed
    )
    of_settings: list | None = None if settings else []  # torch asks for this shape of nothing
    return None, None, [None] * P, None, list(made), of_settings, None


_message.register_autograd(_gradient, setup_context=_setup)
