"""Graph convolution, Kipf and Welling 2017, arXiv:1609.02907."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.graph import Graph


def normalised(graph: Graph) -> tuple[Tensor, Tensor]:
    """Entries of D^-1/2 (A + I) D^-1/2: those of the edges [E] and those of added self-loops [N].

    A node that has self-loops already keeps one, the heaviest, and gets no other, as in PyG's ``gcn_norm``. The
    diagonal of D^-1/2 is what the graph remembers as "gcn.scale": in a chunk of a graph that is embedded layer by layer
    that of the whole.
    """
    source, target = graph.edge_index
    weight, loop = _entries(graph)
    scale = graph.remember("gcn.scale", lambda graph: _scale(graph, weight, loop))
    return weight * scale[source] * scale[target], loop * scale.square()


def scales(graph: Graph) -> Tensor:
    """The diagonal of D^-1/2, [N]."""
    return _scale(graph, *_entries(graph))


def _entries(graph: Graph) -> tuple[Tensor, Tensor]:
    """Those of A + I: the edges' [E], zero for self-loops, and the diagonal's [N]."""
    source, target = graph.edge_index
    weight = torch.ones(graph.num_edges, device=graph.device) if graph.edge_weight is None else graph.edge_weight
    own = source == target
    loop = torch.ones(graph.num_nodes, device=graph.device, dtype=weight.dtype)
    loop = loop.scatter_reduce(0, target[own], weight[own], "amax", include_self=False)
    return weight.masked_fill(own, 0.0), loop


def _scale(graph: Graph, weight: Tensor, loop: Tensor) -> Tensor:
    degree = ops.segment_reduce(graph, weight) + loop
    return degree.clamp(min=0).rsqrt().nan_to_num(posinf=0.0)


class GCNConv(nn.Module):
    """X' = D^-1/2 (A + I) D^-1/2 X W + b, eq. 2; initialised as PyG's GCNConv: Glorot uniform."""

    def __init__(self, dim_in: int, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim_in, dim, bias=False)
        self.bias = nn.Parameter(self.linear.weight.new_zeros(dim))
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to [N, dim], or to the ``rows`` asked for."""
        weight, loop = graph.remember("gcn", normalised)
        h = ops.linear(x, self.linear.weight)
        out = ops.spmm(graph, h, weight) + loop[:, None] * h + self.bias
        return out if rows is None else out[rows]
