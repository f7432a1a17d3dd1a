"""CCA-SSG: From Canonical Correlation Analysis to Self-supervised GNNs, NeurIPS 2021, arXiv:2106.12484.

Reference: hengruizhang98/CCA-SSG at 3a7df1b, main.py and model.py.
"""

from __future__ import annotations

from torch import Generator, Tensor

from graphssl.augment import Drop
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import decorrelation, half_distance, standardise
from graphssl.methods.base import Method
from graphssl.processes import gather


class CCASSG(Method):
    """Makes two views' standardised codes of each node alike and the columns of each view uncorrelated.

    ``weight`` is the paper's lambda, of the decorrelation of both views. Columns are standardised and compared over the
    batches of all processes; with ``accumulate`` over each of the batches that one process takes one after another.
    """

    def __init__(self, encoder: Encoder, view: Drop, weight: float = 1e-3):
        super().__init__()
        self.encoder, self.view, self.weight = encoder, view, weight

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        codes = [graph.of_seeds(self.encoder(self.view(graph, generator))) for _ in range(2)]
        a, b = (standardise(gather(rows)) for rows in codes)
        return {
            "invariance": half_distance(a, b),
            "decorrelation": self.weight * (decorrelation(a) + decorrelation(b)),
        }

    def step_bytes(self, nodes: int, edges: int) -> int:
        """Two views, and of each its standardised codes and the products of their columns."""
        return 2 * (super().step_bytes(nodes, edges) + 4 * self.encoder.dim * (2 * nodes + 2 * self.encoder.dim))
