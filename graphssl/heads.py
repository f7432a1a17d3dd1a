"""Small modules on rows."""

from __future__ import annotations

from torch import nn


def mlp(
    dim_in: int, hidden: int, dim: int, activation: type[nn.Module] = nn.PReLU, norm: bool = False
) -> nn.Sequential:
    """Two linear maps [*, dim_in] -> [*, hidden] -> [*, dim] with batch norm, if asked, and an activation between."""
    middle = [nn.BatchNorm1d(hidden)] if norm else []
    return nn.Sequential(nn.Linear(dim_in, hidden), *middle, activation(), nn.Linear(hidden, dim))
