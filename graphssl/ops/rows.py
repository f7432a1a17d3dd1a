"""Sparse rows (bags of words) and rows covered by a mask token, and the linear map that takes them as they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphssl.ops.csr import CSR, pointers


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows of width F of which few entries differ from zero: ``csr`` says where, ``value`` [nnz] what."""

    csr: CSR
    value: Tensor

    @classmethod
    def from_scipy(cls, matrix) -> Rows:
        matrix = sp.csr_matrix(matrix)
        matrix.sum_duplicates()
        value = torch.from_numpy(np.ascontiguousarray(matrix.data, dtype=np.float32))
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
    """``rows`` of which those where ``hidden`` [N] is true read as ``token`` [F]; kept apart so that nothing grows dense."""

    rows: Rows
    hidden: Tensor
    token: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape

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
        return torch.where(self.hidden[:, None], self.token, self.rows.to_dense())


Content = Tensor | Rows | Covered


def cover(x: Tensor | Rows, hidden: Tensor, token: Tensor) -> Tensor | Covered:
    """``x`` [N, F] with ``token`` [F] in the rows where ``hidden`` [N] is true."""
    return Covered(x, hidden, token) if isinstance(x, Rows) else torch.where(hidden[:, None], token, x)


def dense(x: Content) -> Tensor:
    """``x`` [N, F] as an ordinary tensor."""
    return x if isinstance(x, Tensor) else x.to_dense()


def dropout(x: Content, p: float) -> Content:
    """Zeroes entries of ``x`` with probability ``p`` and scales the rest by 1 / (1 - p); zeros stay zeros."""
    if p == 0.0:
        return x
    if isinstance(x, Rows):
        return Rows(x.csr, F.dropout(x.value, p))
    return F.dropout(dense(x), p)


def linear(
    x: Content, weight: Tensor, hidden: Tensor | None = None, token: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """``x @ weight.T`` [N, D] for ``x`` [N, F] dense or sparse and ``weight`` [D, F].

    Rows where ``hidden`` [N] is true are read as ``token`` [F]. ``dropout`` is the share of the entries of ``x``, token
    rows included, that a draw from the default generator zeroes; entries that are zero anyhow need no draw.
    """
    if isinstance(x, Covered):
        x, hidden, token = x.rows, x.hidden, x.token
    if hidden is None or token is None:
        if isinstance(x, Rows):
            return _RowsLinear.apply(F.dropout(x.value, dropout), weight.t(), x.csr)
        return F.linear(F.dropout(x, dropout), weight)
    if not isinstance(x, Rows):
        return F.linear(F.dropout(torch.where(hidden[:, None], token, x), dropout), weight)
    kept = x[~hidden]
    out = weight.new_empty(len(x), weight.size(0))
    seen = _RowsLinear.apply(F.dropout(kept.value, dropout), weight.t(), kept.csr)
    unseen = _token_rows(token, weight, int(hidden.sum()), dropout)
    return out.index_put((~hidden,), seen.to(out.dtype)).index_put((hidden,), unseen.to(out.dtype))


def _token_rows(token: Tensor, weight: Tensor, count: int, p: float) -> Tensor:
    """``count`` rows of ``token`` [F], each with a dropout of its own, times ``weight.T``."""
    if p == 0.0:
        return (weight @ token).expand(count, -1)
    keep = F.dropout(token.new_ones(count, token.numel()), p)
    return keep @ (token * weight).t()  # so that the backward needs one product of this size, not two


class _RowsLinear(torch.autograd.Function):
    """Sparse rows times a dense matrix [F, D]; gradients to both the entries and the matrix."""

    @staticmethod
    def forward(ctx, value: Tensor, matrix: Tensor, csr: CSR) -> Tensor:
        ctx.csr = csr
        ctx.save_for_backward(value, matrix)
        return csr.matmul(value, matrix.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        value, matrix = ctx.saved_tensors
        grad = grad.contiguous()
        to_value = ctx.csr.sampled(grad, matrix) if ctx.needs_input_grad[0] else None
        to_matrix = None
        if ctx.needs_input_grad[1]:
            back = ctx.csr.transpose
            to_matrix = back.matmul(value[back.perm], grad)
        return to_value, to_matrix, None
