"""Small modules on rows."""

from __future__ import annotations

from torch import nn


def mlp(dim_in: int, hidden: int, dim: int, activation: type[nn.Module] = nn.PReLU) -> nn.Sequential:
    """Two linear maps [*, dim_in] -> [*, hidden] -> [*, dim] with an activation between."""
    return nn.Sequential(nn.Linear(dim_in, hidden), activation(), nn.Linear(hidden, dim))
