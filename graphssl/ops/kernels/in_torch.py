"""The path ``torch``: cached CSR patterns and their transposes in torch's own sparse products (MKL, cuSPARSE)."""

from __future__ import annotations

import torch
from torch import Tensor

from graphssl.ops.csr import CSR


def spmm(csr: CSR, x: Tensor, weight: Tensor | None) -> Tensor:
    """``x`` [C, H, D] and ``weight`` [E, H] to [R, H, D]."""
    if weight is None:
        return csr.matmul(x.new_ones(csr.nnz), x.flatten(1)).view(csr.shape[0], *x.shape[1:])
    if x.size(1) == 1:
        return csr.matmul(weight[:, 0], x[:, 0])[:, None]
    return torch.stack([csr.matmul(weight[:, h], x[:, h]) for h in range(x.size(1))], dim=1)


def spmm_back(
    csr: CSR, grad: Tensor, x: Tensor, weight: Tensor | None, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients to ``x`` [C, H, D] and ``weight`` [E, H]."""
    to_x = None
    if need_x:
        back = csr.transpose
        to_x = spmm(back, grad, None if weight is None else weight[back.perm])
    if not need_weight or weight is None:
        return to_x, None
    to_weight = [csr.sampled(grad[:, h].contiguous(), x[:, h].contiguous()) for h in range(x.size(1))]
    return to_x, torch.stack(to_weight, dim=1).to(weight.dtype)
