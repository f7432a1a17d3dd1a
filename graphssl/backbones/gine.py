"""GIN whose messages carry edge attributes, Hu et al. 2020, arXiv:1905.12265, as OGB's baselines have it.

Reference: snap-stanford/ogb at 856f6f5, examples/graphproppred/mol/conv.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import activation_named, edge_attributes, norm_named
from graphssl.graph import Graph


class GINEConv(nn.Module):
    """x_i' = MLP((1 + eps) x_i + sum of relu(x_j + W e_ij) over its neighbours), eps learned from 0.

    The MLP is linear, norm, activation, linear, ``inner`` wide between. Without ``edge_dim`` a neighbour says
    relu(x_j). Weights of edges scale what is said.
    """

    def __init__(
        self, dim_in: int, dim: int, activation: str = "relu", inner: int | None = None, edge_dim: int = 0,
        norm: str = "batch",
    ):  # fmt: skip
        super().__init__()
        inner = inner or 2 * dim
        self.eps = nn.Parameter(torch.zeros(1))
        self.edge = nn.Linear(edge_dim, dim_in) if edge_dim else None
        self.mlp = nn.Sequential(
            nn.Linear(dim_in, inner), norm_named(norm, inner), activation_named(activation), nn.Linear(inner, dim)
        )

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to [N, dim], or to the ``rows`` asked for."""
        x = ops.dense(x)
        if self.edge is None:
            heard = ops.spmm(graph, x.relu(), graph.edge_weight)
        else:
            said = (x[graph.edge_index[0]] + self.edge(edge_attributes(graph, self.edge.in_features, x))).relu()
            said = said if graph.edge_weight is None else said * graph.edge_weight[:, None]
            heard = ops.segment_reduce(graph, said)
        out = self.mlp((1 + self.eps) * x + heard)
        return out if rows is None else out[rows]
