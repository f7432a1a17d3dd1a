"""Bandana: Masked Graph Autoencoder with Non-discrete Bandwidths, WWW 2024, arXiv:2402.03814.

Reference: Newiz430/Bandana at 6cd81cf, src/model.py.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import EdgeMLP
from graphssl.losses import soft_edge_ce
from graphssl.masks import Bandwidths, Masker
from graphssl.methods.base import Method
from graphssl.methods.pairs import absent_pairs, plain

WIDTHS = Bandwidths(1.0)


class Bandana(Method):
    """Lets each edge's message through in part, drawn anew in each layer, and has each layer predict how wide it was.

    ``masker`` draws the bandwidths [E]. A masker that hides edges (Bool [E]) is the paper's ablation: what is hidden
    says nothing, what is shown says all, and the hidden edges are predicted. ``shuffle`` weighs the loss of each edge
    with another one's bandwidth, as the reference code does by an order that it mixes up; the paper's text does not.
    ``negatives`` is "absent" or "fast", see ``methods.pairs``.
    """

    tells_edges = True

    def __init__(
        self, encoder: Encoder, decoder: EdgeMLP, masker: Masker = WIDTHS, shuffle: bool = False,
        negatives: str = "absent",
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.masker, self.shuffle, self.negatives = masker, shuffle, negatives

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        shown = plain(graph)  # self-loops carry messages, but there is nothing in them to predict
        edges = graph.edge_index[:, shown]
        others = absent_pairs(graph, edges.size(1), self.negatives, generator)
        h, losses = graph.x, []
        for layer in self.encoder.backbone.layers:
            band = self.masker(graph, generator)
            hidden = band if band.dtype == torch.bool else None
            width = band if hidden is None else (~band).to(torch.get_default_dtype())
            h = layer(graph.replace(edge_weight=width if graph.edge_weight is None else width * graph.edge_weight), h)
            target = (width if hidden is None else hidden.to(width.dtype))[shown]
            if self.shuffle:
                target = target[torch.randperm(len(target), generator=generator, device=target.device)]
            losses.append(soft_edge_ce(self.decoder(h, edges), self.decoder(h, others), target))
        return {"bandwidth": torch.stack(losses).mean()}

    def pair_codes(self, graph: Graph) -> Tensor:
        return self.encoder.backbone(graph, graph.x)

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor | None:
        """The logit of "joined" by the decoder; None where codes are those of several layers side by side."""
        if codes.size(1) != self.encoder.backbone.dim:
            return None
        joined, apart = self.decoder(codes, pairs).unbind(1)
        return joined - apart
