"""Sums over neighbourhoods and attention within them."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphssl.ops.csr import CSR


class HasCSR(Protocol):
    @property
    def csr(self) -> CSR: ...


def spmm(graph: HasCSR | CSR, x: Tensor, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """What each of R targets receives: the sum, mean or max over its edges of ``weight`` [E] times ``x[source]``.

    ``x`` is [C, D], the result [R, D]; a target without edges receives zeros. Gradients reach ``x`` and ``weight``.
    """
    csr = graph if isinstance(graph, CSR) else graph.csr
    if reduce == "max":
        messages = x[csr.col] if weight is None else x[csr.col] * weight[:, None]
        index = csr.row[:, None].expand_as(messages)
        return x.new_zeros(csr.shape[0], x.size(1)).scatter_reduce(0, index, messages, "amax", include_self=False)
    if reduce not in ("sum", "mean"):
        raise ValueError(f"cannot reduce by {reduce!r}; choose 'sum', 'mean' or 'max'")
    if weight is None:
        weight = x.new_ones(csr.nnz)
    out = _SpMM.apply(x, weight, csr)
    return out / csr.degree.clamp(min=1)[:, None] if reduce == "mean" else out


class _SpMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, csr: CSR) -> Tensor:
        ctx.csr = csr
        ctx.save_for_backward(x, weight)
        return csr.matmul(weight, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            back = ctx.csr.transpose
            to_x = back.matmul(weight[back.perm], grad)
        if ctx.needs_input_grad[1]:
            to_weight = ctx.csr.sampled(grad, x).to(weight.dtype)
        return to_x, to_weight, None


def segment_reduce(graph: HasCSR | CSR, values: Tensor, reduce: str = "sum") -> Tensor:
    """The sum, mean or max of ``values`` [E, H] over the edges into each target, [R, H]; zeros where there are none."""
    csr = graph if isinstance(graph, CSR) else graph.csr
    out = values.new_zeros(csr.shape[0], *values.shape[1:])
    if reduce == "max":
        index = csr.row.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
        return out.scatter_reduce(0, index, values, "amax", include_self=False)
    out = out.index_add(0, csr.row, values)
    if reduce == "mean":
        return out / csr.degree.clamp(min=1).view(-1, *[1] * (values.ndim - 1))
    return out


def segment_softmax(graph: HasCSR | CSR, scores: Tensor) -> Tensor:
    """``scores`` [E, H] to weights [E, H] that sum to one over the edges into each target."""
    csr = graph if isinstance(graph, CSR) else graph.csr
    top = segment_reduce(csr, scores.detach(), "max")
    weights = (scores - top[csr.row]).exp()
    return weights / segment_reduce(csr, weights)[csr.row]


def gat_attention(
    graph: HasCSR | CSR, x: Tensor, source: Tensor, target: Tensor, slope: float = 0.2, dropout: float = 0.0
) -> Tensor:
    """Attention of arXiv:1710.10903 eq. 2-6: ``x`` [C, H, D] summed with the softmax of leaky(source + target).

    ``source`` [C, H] and ``target`` [R, H] are the two halves of the score; the result is [R, H, D].
    ``dropout`` is the share of the weights that a draw from the default generator zeroes.
    """
    csr = graph if isinstance(graph, CSR) else graph.csr
    scores = F.leaky_relu(source[csr.col] + target[csr.row], slope)
    weights = F.dropout(segment_softmax(csr, scores), dropout).t().contiguous()  # [H, E]
    heads = [spmm(csr, x[:, h].contiguous(), weights[h]) for h in range(x.size(1))]
    return torch.stack(heads, dim=1)
