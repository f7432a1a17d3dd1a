"""Where a token stands, as a code to add to its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl.errors import UserError, unknown
from graphssl.graph import Graph

POSITIONS = ("none", "sincos", "learned", "mlp")


class SinCos(nn.Module):
    """Sines and cosines of each coordinate, as many of each of the d coordinates: MAE's, for grids of whole numbers."""

    def __init__(self, dim: int, axes: int):
        super().__init__()
        half = dim // (2 * axes)
        if half < 1:
            raise ValueError(f"cannot encode {axes} coordinates in a width of {dim}; choose {2 * axes} or more")
        self.dim = dim
        rates = 10000 ** (-torch.arange(half, dtype=torch.float64) / half)
        self.rates: Tensor
        self.register_buffer("rates", rates.float(), persistent=False)

    def forward(self, pos: Tensor) -> Tensor:
        """[N, axes] to [N, dim]; columns that are left over are zero."""
        angle = pos[..., None] * self.rates
        code = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return nn.functional.pad(code, (0, self.dim - code.size(1)))


class Learned(nn.Module):
    """The sum of a learned row for each coordinate, of whole numbers from 0 up to, not including, ``extent``."""

    def __init__(self, dim: int, axes: int, extent: int = 64):
        super().__init__()
        self.extent = extent
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(axes, extent, dim), std=0.02))

    def forward(self, pos: Tensor) -> Tensor:
        """[N, axes] to [N, dim]."""
        place = pos.long()
        wrong = (place != pos) | (place < 0) | (place >= self.extent)
        if wrong.any():
            raise UserError(
                f"a token stands at {float(pos[wrong][0]):g}, and positions are learned of whole numbers from 0 to "
                f"{self.extent - 1}; choose position='sincos', or 'mlp' for places in space"
            )
        return sum((table[p] for table, p in zip(self.table, place.T, strict=True)), torch.zeros((), device=pos.device))


def position_named(name: str, dim: int, axes: int) -> nn.Module | None:
    """A new code of ``axes`` coordinates by its name in ``POSITIONS``: [N, axes] to [N, dim]; None for "none"."""
    if name not in POSITIONS:
        raise unknown("position", name, POSITIONS)
    if name == "none" or not axes:
        return None
    if name == "mlp":  # Point-MAE's
        return nn.Sequential(nn.Linear(axes, dim), nn.GELU(), nn.Linear(dim, dim))
    return SinCos(dim, axes) if name == "sincos" else Learned(dim, axes)


def positions_of(graph: Graph) -> Tensor:
    """``graph.pos``; UserError where it has none."""
    if graph.pos is None:
        raise UserError("the encoder reads where nodes stand, but this graph has no pos; give pos, or position='none'")
    return graph.pos
