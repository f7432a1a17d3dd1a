"""Graph isomorphism network, Xu et al. 2019, arXiv:1810.00826; edge attributes as Hu et al. 2020, arXiv:1905.12265."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import activation_named, edge_attributes, norm_named
from graphssl.graph import Graph


class GINConv(nn.Module):
    """x_i' = MLP(x_i + sum of its neighbours), eq. 4.1 with eps = 0, the paper's GIN-0.

    The MLP is linear, norm, activation, linear, as in GraphMAE's gin.py, ``inner`` wide between; ``norm`` within is
    batch normalisation or "none". With ``edge_dim`` a neighbour says relu(x_j + W e_ij), as PyG's GINEConv.
    """

    def __init__(
        self, dim_in: int, dim: int, activation: str = "relu", inner: int | None = None, edge_dim: int = 0,
        norm: str = "batch",
    ):  # fmt: skip
        super().__init__()
        inner = inner or dim
        self.first = nn.Linear(dim_in, inner)
        self.rest = nn.Sequential(norm_named(norm, inner), activation_named(activation), nn.Linear(inner, dim))
        self.edge = nn.Linear(edge_dim, dim_in) if edge_dim else None

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to [N, dim], or to the ``rows`` asked for."""
        if self.edge is None:  # the product before the sum: both are linear, and this one narrows
            h = ops.linear(x, self.first.weight)
            out = self.rest(h + ops.spmm(graph, h, graph.edge_weight) + self.first.bias)
        else:
            x = ops.dense(x)
            out = self.rest(self.first(x + ops.segment_reduce(graph, self._said(graph, x))))
        return out if rows is None else out[rows]

    def _said(self, graph: Graph, x: Tensor) -> Tensor:
        """What goes along each edge, [E, dim_in]."""
        assert self.edge is not None
        attributes = edge_attributes(graph, self.edge.in_features, x)
        said = torch.relu(x[graph.edge_index[0]] + self.edge(attributes))
        return said if graph.edge_weight is None else said * graph.edge_weight[:, None]
