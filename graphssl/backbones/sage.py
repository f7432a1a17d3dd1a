"""GraphSAGE with mean aggregation, Hamilton et al. 2017, arXiv:1706.02216."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.graph import Graph


class SAGEConv(nn.Module):
    """x_i' = W_1 x_i + W_2 mean of its neighbours + b, as PyG's SAGEConv."""

    def __init__(self, dim_in: int, dim: int):
        super().__init__()
        self.own = nn.Linear(dim_in, dim)
        self.neighbours = nn.Linear(dim_in, dim, bias=False)

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to [N, dim], or to the ``rows`` asked for."""
        both = ops.linear(x, torch.cat([self.own.weight, self.neighbours.weight]))
        own, neighbours = both.chunk(2, dim=1)
        out = own + ops.spmm(graph, neighbours.contiguous(), graph.edge_weight, reduce="mean") + self.own.bias
        return out if rows is None else out[rows]
