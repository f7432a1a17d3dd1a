"""GAE and VGAE: Variational Graph Auto-Encoders, Kipf and Welling 2016, arXiv:1611.07308.

Reference: tkipf/gae; ours draws absent pairs where it weighs all N x N.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from graphssl.backbones import Backbone
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import dot
from graphssl.losses import edge_bce, gaussian_kl
from graphssl.methods.base import Method
from graphssl.methods.pairs import absent_pairs, plain

MAX_LOG_STD = 10.0  # as PyG's VGAE clamps it, so that its exponential stays finite


class GAE(Method):
    """Encodes the graph and tells its edges from absent pairs by the dot product of their codes."""

    tells_edges = True

    def __init__(self, encoder: Encoder, negatives: str = "absent"):
        super().__init__()
        self.encoder, self.negatives = encoder, negatives

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        return {"edges": edge_loss(graph, self.encoder(graph), self.negatives, generator)}

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor:
        """Dot products [M] of the codes of ``pairs`` [2, M]."""
        return dot(codes, pairs)


class VGAE(Method):
    """GAE on draws from a normal around each code; ``spread`` is a backbone that says how wide, on log scale.

    Codes are the means. The divergence from the standard normal is divided by the number of nodes, as in the reference;
    in a part of a graph by those of the part, so that it weighs more there.
    """

    tells_edges = True

    def __init__(self, encoder: Encoder, spread: Backbone, negatives: str = "absent"):
        super().__init__()
        self.encoder, self.spread, self.negatives = encoder, spread, negatives

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        *_, h, mean = graph.x, *self.encoder.backbone.walk(graph, graph.x)  # what the last layer takes and gives
        log_std = self.spread(graph, h).clamp(max=MAX_LOG_STD)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        loss = edge_loss(graph, mean + noise * log_std.exp(), self.negatives, generator)
        return {
            "edges": loss,
            "divergence": gaussian_kl(graph.of_seeds(mean), graph.of_seeds(log_std)) / graph.num_nodes,
        }

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor:
        """Dot products [M] of the codes of ``pairs`` [2, M]."""
        return dot(codes, pairs)


def edge_loss(graph: Graph, codes: Tensor, how: str, generator: Generator | None) -> Tensor:
    """Cross-entropy of all edges and of as many pairs that are none, by dot products of ``codes``."""
    pairs = graph.edge_index[:, plain(graph)]
    return edge_bce(dot(codes, pairs), dot(codes, absent_pairs(graph, pairs.size(1), how, generator)))
