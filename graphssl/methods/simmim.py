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
from graphssl.masks import Masker, Ramp, Uniform, at
from graphssl.methods.base import Method

MOST = Uniform(0.6)


class SimMIM(Method):
    """Covers the content of the hidden nodes by a mask token, encodes all nodes and reads the hidden content linearly.

    A ``masker`` that is a ``Ramp`` goes with the progress of training. The mask token has the width of the content; the
    reference's stands behind the first linear map.
    """

    progress: Tensor | None  # how much of training is done, kept with the weights; None: no masker asks

    def __init__(
        self, encoder: Encoder, masker: Masker | Ramp = MOST,
        loss: Callable[[Tensor, Tensor | ops.Rows], Tensor] = mean_absolute,
    ):  # fmt: skip
        super().__init__()
        self.register_buffer("progress", torch.zeros(()) if isinstance(masker, Ramp) else None)
        self.encoder, self.masker, self.loss = encoder, masker, loss
        self.mask_token = nn.Parameter(torch.empty(encoder.dim_in).normal_(std=0.02))
        self.read = nn.Linear(encoder.dim, encoder.dim_in)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = at(self.masker, 0.0 if self.progress is None else float(self.progress))(graph, generator)
        return {"content": self.loss(self._read(graph, hidden), graph.x[hidden])}

    def after_step(self, progress: float) -> None:
        if self.progress is not None:
            self.progress.fill_(progress)

    def _read(self, graph: Graph, hidden: Tensor) -> Tensor:
        """What the head says of the ``hidden`` nodes, [M, F]."""
        covered = graph.replace(x=ops.cover(graph.x, hidden, self.mask_token))
        return self.read(self.encoder(covered, rows=hidden))

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], and the content [N, F] with what was read in their place."""
        hidden = at(self.masker, 1.0)(graph, generator)
        content = ops.dense(graph.x).clone()
        content[hidden] = self._read(graph, hidden).to(content.dtype)
        return hidden, content
