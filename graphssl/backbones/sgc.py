"""Simplified graph convolution, Wu et al. 2019, arXiv:1902.07153.

Reference: Tiiiger/SGC, utils.py (sgc_precompute).
"""

from __future__ import annotations

from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.gcn import normalised
from graphssl.graph import Graph


class Propagate(nn.Module):
    """X' = S^hops X with S = D^-1/2 (A + I) D^-1/2, eq. 8 without its classifier; with 0 hops the content itself.

    Nothing to learn. Sparse content becomes dense at once: codes are as wide as it, and dense after a hop or two.
    """

    def __init__(self, hops: int):
        super().__init__()
        self.hops = hops

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, F] to [N, F], or to the ``rows`` asked for."""
        h = ops.dense(x)
        for _ in range(self.hops):
            weight, loop = graph.remember("gcn", normalised)
            h = ops.spmm(graph, h, weight) + loop[:, None] * h
        return h if rows is None else h[rows]
