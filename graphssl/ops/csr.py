"""Compressed sparse rows: the one layout that every sparse kernel works on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl.errors import UserError


class Lazy:
    """As functools', without the lock that Python 3.11's has, which torch.compile cannot trace."""

    def __init__(self, make):
        self.make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self.make(instance)
        instance.__dict__[self.name] = value
        return value


if TYPE_CHECKING:
    from functools import cached_property
else:
    cached_property = Lazy


@dataclass(frozen=True, eq=False)
class CSR:
    """The pattern of an R x C sparse matrix: row r holds columns ``col[ptr[r]:ptr[r+1]]``.

    ``perm`` [E] says which of the caller's entries stands at each place; None where they already stand in order.
    In an adjacency rows are targets and columns are sources, so a row is what a node receives.
    """

    ptr: Tensor  # [R + 1]
    col: Tensor  # [E]
    perm: Tensor | None
    shape: tuple[int, int]  # R, C

    @property
    def nnz(self) -> int:
        return self.col.numel()

    @cached_property
    def row(self) -> Tensor:
        """Row of each entry, [E]."""
        rows = torch.arange(self.shape[0], device=self.col.device, dtype=self.col.dtype)
        return rows.repeat_interleave(self.ptr.diff(), output_size=self.nnz)

    @cached_property
    def degree(self) -> Tensor:
        """Entries in each row, [R]."""
        return self.ptr.diff()

    @cached_property
    def transpose(self) -> CSR:
        """The C x R pattern; its ``perm`` points back at the places of this one."""
        whole, kept = self.__dict__.pop("_whole", (None, None))  # what ``keep`` made this from
        if whole is not None:
            return whole.transpose.keep(kept.index_select(0, whole.transpose.perm))
        whole, place = self.__dict__.pop("_taken", (None, None))  # what ``take`` made this from
        if whole is not None:
            back = whole.transpose
            return CSR(back.ptr, place.index_select(0, back.col), back.perm, (self.shape[1], self.shape[0]))
        perm = self.col.argsort(stable=True)
        row = self.row.index_select(0, perm)  # ten times as fast as row[perm] on a CPU
        return CSR(pointers(self.col, self.shape[1]), row, perm, (self.shape[1], self.shape[0]))

    @cached_property
    def members(self) -> CSR:
        """The R x E pattern in which a row holds its own entries."""
        return CSR(self.ptr, torch.arange(self.nnz, device=self.col.device), None, (self.shape[0], self.nnz))

    def keep(self, keep: Tensor) -> CSR:
        """The pattern with only the entries where ``keep`` [E] is true; ``perm`` is as if built from those alone.

        No sort: the transpose, once it is asked for, is made in the same way from this one's, which is then sorted once
        for all that are kept from it. Only where less than a quarter is kept is sorting those alone less work.
        """
        narrow = torch.int32 if self._small else torch.int64
        where = places(keep)
        place = F.pad(keep.cumsum(0, dtype=narrow), (1, 0))  # index_select is several times faster here than [ ]
        perm = self.perm
        if perm is not None:
            theirs = torch.empty_like(keep).scatter_(0, perm, keep).cumsum(0, dtype=narrow) - 1
            perm = theirs.index_select(0, perm.index_select(0, where)).to(perm.dtype)
        ptr = place.index_select(0, self.ptr).to(self.ptr.dtype)
        kept = CSR(ptr, self.col.index_select(0, where), perm, self.shape)
        kept.__dict__.update({"_checked": True} if "_checked" in self.__dict__ else {})
        if 4 * kept.nnz >= self.nnz or "transpose" in self.__dict__:
            kept.__dict__["_whole"] = self, keep
        return kept

    def take(self, rows: Tensor) -> CSR:
        """The pattern of the M rows where ``rows`` [R] is true, numbered anew in order: M x C; no sort either."""
        if self.perm is not None:
            raise ValueError("cannot take rows of a pattern whose entries stand in another order than the caller's")
        whole = self.keep(rows.index_select(0, self.row))
        taken = CSR(F.pad(self.degree[rows].cumsum(0), (1, 0)).to(self.ptr.dtype), whole.col, None,
                    (int(rows.sum()), self.shape[1]))  # fmt: skip
        taken.__dict__.update({"_checked": True} if "_checked" in self.__dict__ else {})
        taken.__dict__["_taken"] = whole, rows.cumsum(0).to(self.col.dtype) - 1
        return taken

    def check(self) -> None:
        """Raises UserError where ``ptr`` and ``col`` are no R x C pattern; on the CPU, where kernels read unchecked."""
        if self.col.device.type != "cpu" or "_checked" in self.__dict__ or torch.compiler.is_compiling():
            return
        (R, C), E, ptr, col = self.shape, self.nnz, self.ptr, self.col
        whole = len(ptr) == R + 1 and int(ptr[0]) == 0 and int(ptr[-1]) == E and bool((ptr.diff() >= 0).all())
        if not whole or (E and not 0 <= int(col.min()) <= int(col.max()) < C):
            raise UserError(
                f"this CSR is no {R} x {C} pattern: ptr has to rise from 0 to the {E} entries of col in {R + 1} "
                f"numbers, and col to hold columns from 0 to {C - 1}"
            )
        self.__dict__["_checked"] = True

    def tensors(self) -> list[Tensor]:
        """What a registered operator takes in place of the pattern; see ``from_tensors``."""
        perm = self.transpose._narrow_perm
        assert perm is not None
        return [*self._index, *self.transpose._index, perm]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], columns: int) -> CSR:
        """The pattern with this many columns that ``tensors`` gave."""
        ptr, col, back_ptr, back_col, perm = tensors
        R = len(ptr) - 1
        csr = cls(ptr, col, None, (R, columns))
        csr.__dict__["transpose"] = cls(back_ptr, back_col, perm, (columns, R))
        return csr

    def to(self, device: torch.device | str) -> CSR:
        perm = None if self.perm is None else self.perm.to(device)
        return CSR(self.ptr.to(device), self.col.to(device), perm, self.shape)

    def matmul(self, value: Tensor, x: Tensor) -> Tensor:
        """The matrix with entries ``value`` [E], in this order, times ``x`` [C, D]; no gradient of its own."""
        if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16):  # MKL has no half precision
            return self.matmul(value.float(), x.float()).to(x.dtype)
        if self.nnz == 0 or x.numel() == 0:
            return x.new_zeros(self.shape[0], x.size(1))
        with torch.autocast(x.device.type, enabled=False):
            return self._tensor(value.to(x.dtype)) @ x

    def sampled(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of row ``a[r]`` and row ``b[c]`` at each entry (r, c), [E]; the pair a [R, D], b [C, D]."""
        if self.nnz == 0 or a.size(1) == 0:
            return a.new_zeros(self.nnz)
        crowded = self.nnz > self.shape[0] * self.shape[1]  # more entries than places: sampled_addmm refuses
        if a.device.type == "cpu" and a.dtype in (torch.float32, torch.float64) and not crowded:
            zeros = self._tensor(torch.zeros(self.nnz, dtype=a.dtype))
            return torch.sparse.sampled_addmm(zeros, a.contiguous(), b.to(a.dtype).t(), beta=0.0).values()
        return (a[self.row] * b[self.col]).sum(-1)

    def _tensor(self, value: Tensor) -> Tensor:
        with warnings.catch_warnings():  # torch calls its CSR support a beta in a warning at the first use
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(*self._index, value.contiguous(), size=self.shape, check_invariants=False)

    @cached_property
    def _index(self) -> tuple[Tensor, Tensor]:
        """``ptr`` and ``col`` in the narrowest type: MKL's path is taken for int32 only where torch is built so."""
        return (self.ptr.int(), self.col.int()) if self._small else (self.ptr.long(), self.col.long())

    @cached_property
    def _narrow_perm(self) -> Tensor | None:
        """``perm`` in the type of ``_index``."""
        return None if self.perm is None else self.perm.int() if self._small else self.perm.long()

    @property
    def _small(self) -> bool:
        return max(self.nnz, *self.shape) < 2**31


def places(keep: Tensor) -> Tensor:
    """Where ``keep`` [E] is true, ascending."""
    if keep.device.type == "cpu":  # numpy's is eight times as fast as torch's
        return torch.from_numpy(np.flatnonzero(keep.numpy()))
    return keep.nonzero().squeeze(1)


def pointers(sorted_or_not: Tensor, size: int) -> Tensor:
    """Where each of ``size`` rows starts once its members [E] stand in order, [size + 1]."""
    counts = torch.bincount(sorted_or_not, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def groups(part: Tensor, count: int) -> CSR:
    """The ``count`` groups of elements as rows of a CSR whose columns are the elements; ``part`` [M] ascends."""
    return CSR(pointers(part, count), torch.arange(len(part), device=part.device), None, (count, len(part)))
