"""InfoGraph: Unsupervised and Semi-supervised Graph-Level Representation Learning, ICLR 2020, arXiv:1908.01000.

Reference: fanyun-sun/InfoGraph, unsupervised; read in the copy of Shen-Lab/GraphCL at 337d512, unsupervised_TU.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import glorot
from graphssl.losses import edge_bce
from graphssl.methods.base import Method


class InfoGraph(Method):
    """Tells the nodes of each graph from those of the other graphs of the batch by the graph's code.

    The Jensen-Shannon estimate of eq. 4 up to the constant 2 log 2: cross-entropy of all pairs of a node and a graph,
    a mean over those that belong together and one over the others. A batch of one graph has no others, and each process
    compares within its own batch.
    """

    why_whole = "it learns from sets of graphs, which come in batches already"

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.local, self.whole = glorot(Shortcut(encoder.dim)), glorot(Shortcut(encoder.dim))

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        codes = self.encoder(graph)
        scores = self.local(codes) @ self.whole(self.encoder.pool(graph, codes)).T
        own = graph.batch[:, None] == torch.arange(graph.num_graphs, device=graph.device)
        return {"information": edge_bce(scores[own], scores[~own])}


class Shortcut(nn.Module):
    """Three linear maps, each with a ReLU behind it, beside a single one; all of width ``dim``."""

    def __init__(self, dim: int):
        super().__init__()
        self.block = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(dim, dim), nn.ReLU())))
        self.shortcut = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.shortcut(x)
