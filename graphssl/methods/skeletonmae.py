"""SkeletonMAE: Graph-based Masked Autoencoder for Skeleton Sequence Pre-training, ICCV 2023, arXiv:2307.08476.

HongYan1123/SkeletonMAE at 33db8a0 holds no code, so that what the paper leaves open is as in GraphMAE and MaskGAE.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.backbones import Backbone
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import EdgeMLP
from graphssl.losses import edge_bce, mean_square, scaled_cosine
from graphssl.masks import Edges, Masker, Uniform
from graphssl.methods.base import Method
from graphssl.methods.masked import put_back, scaled_back
from graphssl.methods.pairs import absent_pairs, counted_edges

JOINTS, BONES = Uniform(0.5), Edges(0.2)


class SkeletonMAE(Method):
    """Covers joints and hides edges, encodes what is left, then rebuilds the joints and tells the edges from no edges.

    ``masker`` chooses the joints, ``cutter`` the edges, which the encoder does not see. The ``decoder`` sees the codes
    of the other joints along all edges. ``scorer`` tells hidden edges from absent pairs by the codes, its loss weighed
    by ``beta``. ``alpha`` is the exponent of the scaled cosine error of the content, None the mean squared one.
    """

    tells_edges = True

    def __init__(
        self, encoder: Encoder, decoder: Backbone, scorer: EdgeMLP, masker: Masker = JOINTS, cutter: Masker = BONES,
        alpha: float | None = 3.0, beta: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.decoder, self.scorer = encoder, decoder, scorer
        self.masker, self.cutter, self.beta = masker, cutter, beta
        self.loss = mean_square if alpha is None else partial(scaled_cosine, alpha=alpha)
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim_in))
        self.bridge = nn.Linear(encoder.dim, decoder.dim_in, bias=False)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden, cut = self.masker(graph, generator), self.cutter(graph, generator)
        codes = self._encode(graph, hidden, cut)
        pairs, wanted = graph.edge_index[:, counted_edges(graph, cut)], graph.counted(hidden)
        others = absent_pairs(graph, pairs.size(1), generator=generator)
        return {
            "content": self.loss(self._decode(graph, codes, hidden, wanted), graph.x[wanted]),
            "edges": self.beta * edge_bce(self.scorer(codes, pairs)[:, 0], self.scorer(codes, others)[:, 0]),
        }  # fmt: skip

    def _encode(self, graph: Graph, hidden: Tensor, cut: Tensor) -> Tensor:
        seen = graph.keep_edges(~cut)
        return self.encoder(seen.replace(x=ops.cover(graph.x, hidden, self.mask_token)))

    def _decode(self, graph: Graph, codes: Tensor, hidden: Tensor, wanted: Tensor) -> Tensor:
        """The content of the joints ``wanted``, [M, F], from the codes of those that are not ``hidden``."""
        return self.decoder(graph, self.bridge(codes.masked_fill(hidden[:, None], 0.0)), rows=wanted)

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor:
        """The scorer's logit."""
        return self.scorer(codes, pairs)[:, 0]

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which joints were hidden [N], and the content [N, F] with what was decoded in their place.

        The cosine error tells directions only: then what was decoded has the length of the content itself.
        """
        hidden = self.masker(graph, generator)
        said = self._decode(graph, self._encode(graph, hidden, self.cutter(graph, generator)), hidden, hidden)
        return hidden, put_back(graph, hidden, scaled_back(graph, hidden, said, self.loss))
