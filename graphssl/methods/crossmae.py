"""CrossMAE: Rethinking Patch Dependence for Masked Autoencoders, TMLR 2025, arXiv:2401.14391.

Reference: TonyLianLong/CrossMAE at 6e1b329, models_cross.py, with weighted feature maps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from graphssl.backbones import CrossBlock, Side
from graphssl.backbones.positions import positions_of
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import mean_square
from graphssl.masks import Masker, Ramp, Uniform, lowest_in, share
from graphssl.methods.masked import Masked, put_back, target

MOST = Uniform(0.75)


class CrossMAE(Masked):
    """Encodes the visible nodes only, and decodes a share ``decoded`` of the hidden ones, each by itself, from these.

    ``blocks`` are the decoder: hidden nodes read the visible ones of their graph and not one another, and block by
    block another learned sum of the encoder's layers, which are all as wide as the encoder's codes; of a transformer
    the last of these is normed, the reference's is not. ``position`` maps ``graph.pos`` to the decoder's width; None:
    hidden nodes of a graph are all alike. ``dim`` is the width of the content, ``normalize`` as in MAE.
    """

    def __init__(
        self, encoder: Encoder, blocks: list[CrossBlock], dim: int, position: nn.Module | None = None,
        masker: Masker | Ramp = MOST, decoded: float = 1 / 3, normalize: bool = True,
        loss: Callable[[Tensor, Tensor], Tensor] = mean_square,
    ):  # fmt: skip
        super().__init__(masker)
        layers, width = len(encoder.backbone.widths), blocks[0].dim
        if set(encoder.backbone.widths) != {encoder.dim}:
            raise ValueError(
                f"the decoder sums the encoder's layers, whose widths are {encoder.backbone.widths} and whose codes "
                f"have {encoder.dim}; give them one width and read the last"
            )
        self.encoder, self.decoded, self.normalize, self.loss = encoder, decoded, normalize, loss
        self.mix = nn.Parameter(torch.randn(len(blocks), layers) / layers**0.5)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.position, self.blocks = position, nn.ModuleList(blocks)
        self.norm, self.read = nn.LayerNorm(width), nn.Linear(width, dim)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.hide(graph, generator)
        asked = graph.counted(self._some(graph, hidden, generator))
        return {"content": self.loss(self._decode(graph, ~hidden, asked), target(graph, asked, self.normalize))}

    def _some(self, graph: Graph, hidden: Tensor, generator: Generator | None) -> Tensor:
        """The share of the ``hidden`` nodes that is decoded, and one at least, [N]."""
        where = hidden.nonzero().squeeze(1)
        draw = torch.rand(len(where), generator=generator, device=where.device)
        part = graph.batch[where]
        counts = torch.bincount(part, minlength=graph.num_graphs)
        chosen = where[lowest_in(draw, share(self.decoded, counts, 1), part, counts)]
        return torch.zeros_like(hidden).index_fill(0, chosen, True)

    def _decode(self, graph: Graph, visible: Tensor, asked: Tensor) -> Tensor:
        """What the decoder says of the nodes ``asked`` for, [M, dim], from the ``visible`` ones."""
        shown = graph.keep_nodes(visible)
        layers = torch.stack(list(self.encoder.backbone.walk(shown, shown.x)), dim=-1)
        h = self.mask_token.expand(int(asked.sum()), -1)
        if self.position is not None:
            h = h + self.position(positions_of(graph)[asked])
        query, key = Side.of(graph.batch[asked], graph.num_graphs), Side(shown.sizes, shown.batch)
        for block, weight in zip(self.blocks, self.mix, strict=True):
            h = block(h, layers @ weight, query, key)
        return self.read(self.norm(h))

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], and the content [N, dim] with what was decoded in their place."""
        hidden = self.hide(graph, generator, 1.0)
        return hidden, put_back(graph, hidden, self._decode(graph, ~hidden, hidden), self.normalize)
