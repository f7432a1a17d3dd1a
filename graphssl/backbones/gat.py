"""Graph attention, Velickovic et al. 2018, arXiv:1710.10903."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
        csr = graph.csr if rows is None else graph.csr.take(rows)
        if self.heads == 1 and isinstance(x, Tensor) and weight.size(0) > weight.size(1):
            # the map is linear, so summing neighbours before widening gives the same for less
            source, target = F.linear(x, torch.cat([self.source, self.target], dim=1)[0].mm(weight)).split(1, dim=1)
            target = target if rows is None else target[rows]
            out = ops.gat_attention(csr, x.unsqueeze(1), source, target, self.slope, dropout)
            return F.linear(out.squeeze(1), weight, self.bias)
        h = ops.linear(x, weight)
        # both halves of all scores in one product: a head's row is zero but where the head's own width lies
        vectors = torch.cat([torch.block_diag(*a[0]) for a in (self.source, self.target)])
        source, target = F.linear(h, vectors).split(self.heads, dim=1)
        target = target if rows is None else target[rows]
        heads = h.unflatten(-1, (self.heads, -1))
        return ops.gat_attention(csr, heads, source, target, self.slope, dropout).flatten(1) + self.bias
