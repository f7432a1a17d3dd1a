"""Small modules on rows."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

from graphssl import ops

Module = TypeVar("Module", bound=nn.Module)


class PReLU(nn.PReLU):
    """``nn.PReLU`` with one slope, by ``ops.prelu``."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return ops.prelu(x, self.weight)


def mlp(dim_in: int, hidden: int, dim: int, activation: type[nn.Module] = PReLU) -> nn.Sequential:
    """Two linear maps [*, dim_in] -> [*, hidden] -> [*, dim] with an activation between."""
    return nn.Sequential(nn.Linear(dim_in, hidden), activation(), nn.Linear(hidden, dim))


def dot(codes: Tensor, pairs: Tensor) -> Tensor:
    """Dot products [M] of the codes [N, D] of ``pairs`` [2, M]."""
    return (codes[pairs[0]] * codes[pairs[1]]).sum(1)


def glorot(module: Module) -> Module:
    """``module`` with new weights in all its linear maps, Glorot uniform, and biases of zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


class EdgeMLP(nn.Module):
    """Logits of pairs of nodes: an MLP on the elementwise product of their codes, ``inner`` wide, ReLU between.

    Dropout stands before each layer but the last, as in MaskGAE's EdgeDecoder, which Bandana took over.
    """

    def __init__(self, dim_in: int, inner: int, dim: int = 1, layers: int = 2, dropout: float = 0.0):
        super().__init__()
        widths = [dim_in, *[inner] * (layers - 1), dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.dropout = dropout

    def forward(self, codes: Tensor, pairs: Tensor) -> Tensor:
        """Codes [N, dim_in] and pairs [2, M] to logits [M, dim]."""
        x = codes[pairs[0]] * codes[pairs[1]]
        for layer in self.layers[:-1]:
            x = layer(ops.dropout(x, self.dropout if self.training else 0.0)).relu()
        return self.layers[-1](x)
