"""GRACE: Deep Graph Contrastive Representation Learning, 2020, arXiv:2006.04131.

Reference: CRIPAC-DIG/GRACE at 700be33, model.py.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from graphssl.augment import AdaptiveDrop, Drop
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import mlp
from graphssl.losses import info_nce
from graphssl.methods.base import Method
from graphssl.processes import gather


class GRACE(Method):
    """Pulls the two views of each node together and pushes all other nodes of both views away, or ``negatives`` drawn.

    ``negatives`` None takes all others, as the paper does. Several processes compare the nodes of all their batches;
    with ``accumulate`` each of the batches that one process takes one after another is compared by itself.
    """

    contrasts = True

    def __init__(
        self, encoder: Encoder, hidden: int, views: tuple[Drop | AdaptiveDrop, Drop | AdaptiveDrop], tau: float,
        negatives: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.views, self.tau, self.negatives = encoder, views, tau, negatives
        self.project = mlp(encoder.dim, hidden, encoder.dim, nn.ELU)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        codes = [self.project(graph.of_seeds(self.encoder(view(graph, generator)))) for view in self.views]
        a, b = (gather(rows) for rows in codes)
        return {"contrast": info_nce(a, b, self.tau, True, True, self.negatives, generator)}

    def step_bytes(self, nodes: int, edges: int) -> int:
        """Two views, and of each its projection and the rows of the loss; the similarities are never kept."""
        return 2 * (super().step_bytes(nodes, edges) + 4 * nodes * 6 * self.encoder.dim)
