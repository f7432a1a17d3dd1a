"""Graph attention, Velickovic et al. 2018, arXiv:1710.10903."""

from __future__ import annotations

from torch import Tensor, nn

from graphssl import ops
from graphssl.graph import Graph


class GATConv(nn.Module):
    """x_i' = W-projected neighbours summed with attention weights, heads concatenated, plus a bias.

    Initialised as DGL's GATConv, which GraphMAE's code adapts: Xavier normal with the gain of ReLU. As there,
    self-loops are edges of the graph or absent; a node without incoming edges gets the bias alone.
    """

    def __init__(self, dim_in: int, dim: int, heads: int = 1, attention_dropout: float = 0.0, slope: float = 0.2):
        super().__init__()
        if dim % heads:
            raise ValueError(f"cannot split a width of {dim} into {heads} heads; choose a multiple")
        self.heads, self.attention_dropout, self.slope = heads, attention_dropout, slope
        self.linear = nn.Linear(dim_in, dim, bias=False)
        # reference draws attn_l and attn_r as [1, heads, dim / heads], which sets the fans that Xavier sees
        self.source = nn.Parameter(self.linear.weight.new_empty(1, heads, dim // heads))
        self.target = nn.Parameter(self.linear.weight.new_empty(1, heads, dim // heads))
        self.bias = nn.Parameter(self.linear.weight.new_zeros(dim))
        for weight in (self.linear.weight, self.source, self.target):
            nn.init.xavier_normal_(weight, gain=nn.init.calculate_gain("relu"))

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to [N, dim], or to the ``rows`` asked for."""
        dropout = self.attention_dropout if self.training else 0.0
        weight = self.linear.weight
        if self.heads == 1 and isinstance(x, Tensor) and weight.size(0) > weight.size(1):
            # the map is linear, so summing neighbours before widening gives the same for less
            source, target = (x @ (weight.t() @ a[0, 0]) for a in (self.source, self.target))
            one = [t.unsqueeze(1) for t in (x, source, target)]
            out = ops.gat_attention(graph, *one, self.slope, dropout).squeeze(1)
            return self.linear(out if rows is None else out[rows]) + self.bias
        h = ops.linear(x, weight).unflatten(-1, (self.heads, -1))
        source, target = (h * self.source).sum(-1), (h * self.target).sum(-1)
        out = ops.gat_attention(graph, h, source, target, self.slope, dropout).flatten(1) + self.bias
        return out if rows is None else out[rows]
