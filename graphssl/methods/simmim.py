"""SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022, arXiv:2111.09886.

Reference: microsoft/SimMIM at 0e71746, models/simmim.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import mean_absolute
from graphssl.masks import Masker, Ramp, Uniform
from graphssl.methods.masked import Masked, put_back

MOST = Uniform(0.6)


class SimMIM(Masked):
    """Covers the content of the hidden nodes by a mask token, encodes all nodes and reads the hidden content linearly.

    The mask token has the width of the content; the reference's stands behind the first linear map.
    """

    def __init__(
        self, encoder: Encoder, masker: Masker | Ramp = MOST,
        loss: Callable[[Tensor, Tensor | ops.Rows], Tensor] = mean_absolute,
    ):  # fmt: skip
        super().__init__(masker)
        self.encoder, self.loss = encoder, loss
        self.mask_token = nn.Parameter(torch.empty(encoder.dim_in).normal_(std=0.02))
        self.read = nn.Linear(encoder.dim, encoder.dim_in)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.hide(graph, generator)
        wanted = graph.counted(hidden)
        return {"content": self.loss(self._read(graph, hidden, wanted), graph.x[wanted])}

    def _read(self, graph: Graph, hidden: Tensor, wanted: Tensor) -> Tensor:
        """What the head says of the nodes ``wanted``, [M, F], with the ``hidden`` ones covered."""
        covered = graph.replace(x=ops.cover(graph.x, hidden, self.mask_token))
        return self.read(self.encoder(covered, rows=wanted))

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], and the content [N, F] with what was read in their place."""
        hidden = self.hide(graph, generator, 1.0)
        return hidden, put_back(graph, hidden, self._read(graph, hidden, hidden))
