"""S2GAE: Self-Supervised Graph Autoencoders are Generalizable Learners with Graph Masking, WSDM 2023.

Reference: qiaoyu-tan/S2GAE at 4fd6ebe, model.py and s2gae_small_lp.py.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import edge_bce
from graphssl.masks import Edges, Masker
from graphssl.methods.base import Method
from graphssl.methods.pairs import absent_pairs, counted_edges

HIDDEN = Edges(0.5, directed=True)


class S2GAE(Method):
    """Hides directed edges, encodes what is left, and tells them from absent pairs by all pairs of layers.

    The decoder reads, for a pair (u, v), the products of u's codes of layer i and v's of layer j for all i and j, so
    the encoder's codes are those of all layers side by side (``read="all"``).
    """

    tells_edges = True

    def __init__(
        self, encoder: Encoder, masker: Masker = HIDDEN, inner: int = 256, dropout: float = 0.5,
        negatives: str = "absent",
    ):  # fmt: skip
        super().__init__()
        self.widths = encoder.backbone.widths
        if encoder.read != "all" or len(set(self.widths)) != 1:
            raise ValueError("s2gae's decoder pairs up layers: give an encoder that reads all, its layers of one width")
        self.encoder, self.masker, self.negatives = encoder, masker, negatives
        products = len(self.widths) ** 2 * self.widths[0]
        self.first, self.last, self.dropout = nn.Linear(products, inner), nn.Linear(inner, 1), dropout

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.masker(graph, generator)
        seen, pairs = graph.keep_edges(~hidden), graph.edge_index[:, counted_edges(graph, hidden)]
        codes = torch.cat(list(self.encoder.backbone.walk(seen, seen.x)), dim=1)
        others = absent_pairs(graph, pairs.size(1), self.negatives, generator)
        return {"edges": edge_bce(self.score(codes, pairs), self.score(codes, others))}

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor:
        """The decoder's logits [M] of ``pairs`` [2, M] from codes of all layers [N, layers * width]."""
        u, v = (codes[end].unflatten(1, (len(self.widths), -1)) for end in pairs)
        h = self.first((u[:, :, None] * v[:, None]).flatten(1)).relu()
        return self.last(ops.dropout(h, self.dropout if self.training else 0.0))[:, 0]
