"""MaskGAE: What's Behind the Mask: Understanding Masked Graph Modeling for Graph Autoencoders, KDD 2023.

arXiv:2205.10053. Reference: EdisonLeeeee/MaskGAE at 343ced7, maskgae/model.py.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import EdgeMLP, mlp
from graphssl.losses import edge_bce, mean_square
from graphssl.masks import Edges, Masker, both_ways
from graphssl.methods.base import Method
from graphssl.methods.pairs import absent_pairs, counted_edges

HIDDEN = Edges(0.7)


class MaskGAE(Method):
    """Hides edges, encodes what is left, tells the hidden edges from absent pairs and counts how many each node lost.

    ``masker`` hides single edges or the edges of random walks (``Edges``, ``Paths``). ``alpha`` weighs the second loss.
    ``restore`` shows an edge that is hidden in one direction only in both, as the reference code does: what it predicts
    may then be seen. ``negatives`` is "absent" or "fast", see ``methods.pairs``.
    """

    tells_edges = True

    def __init__(
        self, encoder: Encoder, decoder: EdgeMLP, masker: Masker = HIDDEN, alpha: float = 0.0, inner: int = 32,
        negatives: str = "absent", restore: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.masker, self.alpha, self.negatives, self.restore = masker, alpha, negatives, restore
        self.degree = mlp(encoder.backbone.dim, inner, 1, torch.nn.ReLU) if alpha else None

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.masker(graph, generator)
        shown = ~hidden | both_ways(~hidden, graph) if self.restore else ~hidden
        seen, pairs = graph.keep_edges(shown), graph.edge_index[:, counted_edges(graph, hidden)]
        codes = self.encoder.backbone(seen, seen.x)
        others = absent_pairs(graph, pairs.size(1), self.negatives, generator)
        losses = {"edges": edge_bce(self.decoder(codes, pairs)[:, 0], self.decoder(codes, others)[:, 0])}
        if self.degree is not None:
            lost = torch.bincount(graph.edge_index[1, hidden], minlength=graph.num_nodes).to(codes.dtype)
            said = self.degree(graph.of_seeds(codes)).relu().squeeze(1)
            losses["degree"] = self.alpha * mean_square(said, graph.of_seeds(lost))
        return losses

    def pair_codes(self, graph: Graph) -> Tensor:
        return self.encoder.backbone(graph, graph.x)

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor | None:
        """The decoder's logit; None where codes are those of several layers side by side."""
        if codes.size(1) != self.encoder.backbone.dim:
            return None
        return self.decoder(codes, pairs)[:, 0]
