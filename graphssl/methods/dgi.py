"""DGI: Deep Graph Infomax, ICLR 2019, arXiv:1809.10341.

Reference: PetarV-/DGI at 61baf67, models/dgi.py and layers/discriminator.py.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from graphssl.augment import shuffle
from graphssl.encoder import Encoder, pool
from graphssl.graph import Graph
from graphssl.losses import edge_bce
from graphssl.methods.base import Method


class DGI(Method):
    """Tells the codes of a graph's nodes from those of nodes whose content was shuffled, by a summary of the graph.

    Each graph of a batch has its own summary, and its content is shuffled among its own nodes; so each process compares
    within its own batch.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.bilinear = nn.Parameter(torch.empty(1, encoder.dim, encoder.dim))
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.xavier_uniform_(self.bilinear)  # of three dimensions, as nn.Bilinear's: far smaller than a matrix's

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        codes, fake = self.encoder(graph), self.encoder(shuffle(graph, generator))
        summary = pool(graph, codes, "mean").sigmoid()
        return {"mutual": edge_bce(self._logits(graph, codes, summary), self._logits(graph, fake, summary)) / 2}

    def _logits(self, graph: Graph, codes: Tensor, summary: Tensor) -> Tensor:
        """How likely each node that counts, [M], is of the graph that ``summary`` [B, D] sums up: h' W s + b."""
        wanted = (summary @ self.bilinear[0].T)[graph.of_seeds(graph.batch)]
        return (graph.of_seeds(codes) * wanted).sum(1) + self.bias

    def step_bytes(self, nodes: int, edges: int) -> int:
        """The graph and its corruption, and of each its codes against the summary."""
        return 2 * (super().step_bytes(nodes, edges) + 4 * nodes * 2 * self.encoder.dim)
