"""Sparse rows (bags of words) and rows covered by a mask token, and the linear map that takes them as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl.errors import UserError
from graphssl.ops import counter, reference
from graphssl.ops.choose import choose, kernels
from graphssl.ops.csr import CSR, cached_property, pointers
from graphssl.ops.message import spmm


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows of width F of which few entries differ from zero: ``csr`` says where, ``value`` [nnz] what."""

    csr: CSR
    value: Tensor

    @classmethod
    def from_scipy(cls, matrix) -> Rows:
        """A scipy sparse matrix of real numbers as rows, copied; entries at the same place are added."""
        matrix = sp.csr_matrix(matrix, copy=True)  # adding them up edits in place
        matrix.sum_duplicates()
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which the door refuses
            value = torch.from_numpy(matrix.data.astype(np.float32))
        ptr = torch.from_numpy(matrix.indptr.astype(np.int64))
        col = torch.from_numpy(matrix.indices.astype(np.int64))
        return cls(CSR(ptr, col, None, matrix.shape), value)

    @classmethod
    def from_dense(cls, x: Tensor) -> Rows:
        row, col = x.nonzero(as_tuple=True)
        return cls(CSR(pointers(row, x.size(0)), col, None, (x.size(0), x.size(1))), x[row, col])

    @property
    def shape(self) -> tuple[int, int]:
        return self.csr.shape

    def size(self, dim: int) -> int:
        return self.shape[dim]

    @property
    def ndim(self) -> int:
        return 2

    @property
    def device(self) -> torch.device:
        return self.value.device

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def to(self, device: torch.device | str) -> Rows:
        return self if self.device == torch.device(device) else Rows(self.csr.to(device), self.value.to(device))

    def to_dense(self) -> Tensor:
        dense = self.value.new_zeros(self.shape)
        return dense.index_put_((self.csr.row, self.csr.col), self.value, accumulate=True)

    def __getitem__(self, index: Tensor) -> Rows:
        """The rows at ``index`` [M], or where a boolean ``index`` [N] is true."""
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        counts = self.csr.degree[index]
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        place = torch.arange(int(ptr[-1]), device=self.device)
        place = place + (self.csr.ptr[index] - ptr[:-1]).repeat_interleave(counts, output_size=place.numel())
        return Rows(CSR(ptr, self.csr.col[place], None, (index.numel(), self.shape[1])), self.value[place])

    def __mul__(self, scale: Tensor) -> Rows:
        """Scales columns by ``scale`` [F] or rows by ``scale`` [N, 1]."""
        factor = scale[self.csr.row, 0] if scale.ndim == 2 else scale[self.csr.col]
        return Rows(self.csr, self.value * factor)

    @cached_property
    def row_sum(self) -> Tensor:
        """Sum of each row, [N, 1]."""
        return self.value.new_zeros(len(self)).index_add_(0, self.csr.row, self.value)[:, None]

    @staticmethod
    def cat(parts: list[Rows]) -> Rows:
        """The rows of ``parts`` one after another."""
        ptr, offset = [parts[0].csr.ptr[:1]], 0
        for part in parts:
            ptr.append(part.csr.ptr[1:] + offset)
            offset += part.csr.nnz
        shape = (sum(len(part) for part in parts), parts[0].shape[1])
        csr = CSR(torch.cat(ptr), torch.cat([part.csr.col for part in parts]), None, shape)
        return Rows(csr, torch.cat([part.value for part in parts]))


@dataclass(frozen=True, eq=False)
class Covered:
    """``rows`` of which those where ``hidden`` [N] is true read as ``token`` [F], kept apart so that none grows dense.

    ``scale`` multiplies the M token rows where dropout was applied, [M, F], or [1, F] where it is ``shared`` by all
    of them; None: it was not.
    """

    rows: Tensor | Rows
    hidden: Tensor
    token: Tensor
    shared: bool = False
    scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.size(0), self.rows.size(1)

    def size(self, dim: int) -> int:
        return self.shape[dim]

    @property
    def ndim(self) -> int:
        return 2

    @property
    def device(self) -> torch.device:
        return self.rows.device

    @property
    def dtype(self) -> torch.dtype:
        return self.rows.dtype

    def to_dense(self) -> Tensor:
        token = self.token if self.scale is None else self.token * self.scale
        return dense(self.rows).index_put((self.hidden,), token.expand(int(self.hidden.sum()), -1))

    def __getitem__(self, index: Tensor) -> Tensor:
        """The rows at ``index``, dense."""
        return self.to_dense()[index]

    def __mul__(self, scale: Tensor) -> Tensor:
        """Scaled columns or rows, dense."""
        return self.to_dense() * scale


Content = Tensor | Rows | Covered


def cover(x: Content, hidden: Tensor, token: Tensor, shared: bool = False) -> Tensor | Covered:
    """``x`` [N, F] with ``token`` [F] in the rows where ``hidden`` [N] is true.

    ``shared``: a dropout of the result zeroes the same entries in all token rows, which then are one row.
    """
    if isinstance(x, Covered):
        x = x.to_dense()
    if isinstance(x, Rows) or shared:
        return Covered(x, hidden, token, shared)
    return torch.where(hidden[:, None], token, x)


def dense(x: Content) -> Tensor:
    """``x`` [N, F] as an ordinary tensor."""
    return x if isinstance(x, Tensor) else x.to_dense()


def dropout(x: Content, p: float) -> Content:
    """Zeroes entries of ``x`` with probability ``p`` and scales the rest by 1 / (1 - p).

    Draws come from a seed that the default generator gives. Entries that are zero anyhow get no draw.
    Raises UserError where ``p`` is no probability.
    """
    if not 0 <= p <= 1:
        raise UserError(f"dropout is {p}; choose a probability from 0 to 1")
    if p == 0.0:
        return x
    if isinstance(x, Rows):
        return Rows(x.csr, x.value * _kept(x.value.shape, p, x.value))
    if isinstance(x, Covered):
        scale = _kept((1 if x.shared else int(x.hidden.sum()), x.size(1)), p, x.token)
        rows = dropout(x.rows, p)
        assert not isinstance(rows, Covered)
        return Covered(rows, x.hidden, x.token, x.shared, scale)
    return x * _kept(x.shape, p, x)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """``x`` [...] where it is positive, elsewhere times ``slope`` [1]; arXiv:1502.01852 eq. 1.

    On a CPU the backward pass is one of its own, several times as fast as torch's; what is compiled, traced, cast or
    needs no gradient takes torch's. Forward-mode gradients want ``using("reference")``.
    """
    seen = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu")
    own = x.device.type == "cpu" and torch.is_grad_enabled() and not seen
    path = choose("prelu", x, ("reference", "torch") if own else ("reference",))
    return reference.prelu(x, slope) if path == "reference" else _PReLU.apply(x, slope)


class _PReLU(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, slope: Tensor) -> Tensor:
        return F.leaky_relu(x, slope.item())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants gradients of this
            return grad * torch.where(x > 0, 1, slope), (grad * x.clamp(max=0)).sum().view(1)
        of_x = torch.ops.aten.leaky_relu_backward(grad, x, slope.item(), False)
        return of_x, torch.dot(x.clamp(max=0).flatten(), grad.flatten()).view(1)


def _kept(shape: tuple[int, ...], p: float, like: Tensor) -> Tensor:
    """Zeros with probability ``p``, else 1 / (1 - p); a fifth of the time of F.dropout's on a CPU."""
    if p == 1.0:
        return like.new_zeros(shape)
    compiled = torch.compiler.is_compiling()
    path = choose("dropout", like, ("torch",) if compiled else ("reference", "torch", "c"))
    count = math.prod(shape)
    if path == "c":
        return kernels("c").kept(counter.seed(), count, p, like.dtype).view(shape)
    if path == "reference":
        return counter.kept(counter.seed(), count, p, like).view(shape)
    return (torch.rand(shape, device=like.device) >= p).to(like.dtype).mul_(1 / (1 - p))


def linear(
    x: Content, weight: Tensor, hidden: Tensor | None = None, token: Tensor | None = None, p: float = 0.0
) -> Tensor:
    """``x @ weight.T`` [N, D] for ``x`` [N, F] dense or sparse and ``weight`` [D, F].

    Rows where ``hidden`` [N] is true are read as ``token`` [F], and dropout with probability ``p`` comes first; both
    are the same as calling ``cover`` and ``dropout`` on ``x`` before.
    """
    if hidden is not None and token is not None and not isinstance(x, Covered):
        x = cover(x, hidden, token)
    x = dropout(x, p)
    if isinstance(x, Tensor):
        return F.linear(x, weight)
    if isinstance(x, Rows):
        return spmm(x.csr, weight.t(), x.value)
    seen = linear(x.rows[~x.hidden], weight)
    if x.scale is None or x.shared:
        token = x.token if x.scale is None else x.token * x.scale[0]
        unseen = (weight @ token).expand(int(x.hidden.sum()), -1)
    else:  # scaling the weight, not the rows, leaves the backward one product of this size instead of two
        unseen = x.scale @ (x.token * weight).t()
    return _Merge.apply(seen.to(weight.dtype), unseen.to(weight.dtype), x.hidden)


class _Merge(torch.autograd.Function):
    """Rows ``unseen`` where ``hidden`` [N] is true and ``seen`` elsewhere; without a copy of all either way."""

    @staticmethod
    def forward(ctx, seen: Tensor, unseen: Tensor, hidden: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        out = seen.new_empty(len(hidden), seen.size(1))
        return out.index_put_((~hidden,), seen).index_put_((hidden,), unseen)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (hidden,) = ctx.saved_tensors
        return grad[~hidden], grad[hidden], None
