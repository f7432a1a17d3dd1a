"""MAE: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv:2111.06377.

Reference: facebookresearch/mae at efb2a80, models_mae.py. With tubes hidden it is VideoMAE, arXiv:2203.12602, and on
groups of points with the Chamfer distance Point-MAE, arXiv:2203.06604.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from graphssl.backbones import Transformer
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import mean_square
from graphssl.masks import Masker, Ramp, Uniform
from graphssl.methods.masked import Masked, fill, put_back, target

MOST = Uniform(0.75)


class MAE(Masked):
    """Encodes the visible nodes only, then decodes all places and scores the content of the hidden ones.

    ``decoder`` is a Transformer without an embedding, ``dim`` the width of the content. With ``normalize`` the target
    is each node's content less its mean and divided by its deviation, of each of ``channels`` by itself where there are
    several, the last axis of what a node holds. A ``masker`` with several views, as ``Disjoint``, has each of them
    encoded and decoded, and the loss is their mean.
    """

    def __init__(
        self, encoder: Encoder, decoder: Transformer, dim: int, masker: Masker | Ramp = MOST, normalize: bool = True,
        loss: Callable[[Tensor, Tensor], Tensor] = mean_square, channels: int = 1,
    ):  # fmt: skip
        super().__init__(masker)
        self.encoder, self.decoder, self.loss = encoder, decoder, loss
        self.normalize, self.channels = normalize, channels
        self.bridge = nn.Linear(encoder.dim, decoder.dim)
        self.mask_token = nn.Parameter(torch.empty(decoder.dim).normal_(std=0.02))
        self.read = nn.Linear(decoder.dim, dim)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        masks = self.hide(graph, generator)
        losses = []
        for hidden in masks if masks.ndim == 2 else masks[None]:
            wanted = graph.counted(hidden)
            true = target(graph, wanted, self.normalize, self.channels)
            losses.append(self.loss(self._decode(graph, hidden, wanted), true))
        return {"content": torch.stack(losses).mean()}

    def _decode(self, graph: Graph, hidden: Tensor, wanted: Tensor) -> Tensor:
        """What the decoder says of the nodes ``wanted``, [M, dim], from those that are not ``hidden``."""
        shown = self.bridge(self.encoder(graph.keep_nodes(~hidden)))
        return self.read(self.decoder(graph, fill(shown, hidden, self.mask_token), rows=wanted))

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], in the first of several views, and all content [N, dim], theirs as decoded."""
        masks = self.hide(graph, generator, 1.0)
        hidden = masks[0] if masks.ndim == 2 else masks
        return hidden, put_back(graph, hidden, self._decode(graph, hidden, hidden), self.normalize, self.channels)
