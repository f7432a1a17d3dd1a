"""Graph isomorphism network, Xu et al. 2019, arXiv:1810.00826."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import activation_named, norm_named
from graphssl.graph import Graph


class GINConv(nn.Module):
    """x_i' = MLP((1 + eps) x_i + sum of its neighbours), eq. 4.1; eps starts at zero and is learned.

    The MLP is linear, norm, activation, linear, as in GraphMAE's gin.py; the norm within is always batch normalisation.
    """

    def __init__(self, dim_in: int, dim: int, activation: str = "relu"):
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.first = nn.Linear(dim_in, dim)
        self.rest = nn.Sequential(norm_named("batch", dim), activation_named(activation), nn.Linear(dim, dim))

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to [N, dim], or to the ``rows`` asked for."""
        h = ops.linear(x, self.first.weight)  # before the sum: both are linear, and this one narrows
        out = self.rest((1 + self.eps) * h + ops.spmm(graph, h, graph.edge_weight) + self.first.bias)
        return out if rows is None else out[rows]
