"""MAE: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv:2111.06377.

Reference: facebookresearch/mae at efb2a80, models_mae.py. With tubes hidden it is VideoMAE, arXiv:2203.12602, and on
groups of points with the Chamfer distance Point-MAE, arXiv:2203.06604.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.backbones import Transformer
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import mean_square, normalize_rows
from graphssl.masks import Masker, Ramp, Uniform, at
from graphssl.methods.base import Method

MOST = Uniform(0.75)


class MAE(Method):
    """Encodes the visible nodes only, then decodes all places and scores the content of the hidden ones.

    ``decoder`` is a Transformer without an embedding, ``dim`` the width of the content. With ``normalize`` the target
    is each node's content less its mean and divided by its deviation. A ``masker`` that is a
    ``Ramp`` goes with the progress of training.
    """

    progress: Tensor | None  # how much of training is done, kept with the weights; None: no masker asks

    def __init__(
        self, encoder: Encoder, decoder: Transformer, dim: int, masker: Masker | Ramp = MOST, normalize: bool = True,
        loss: Callable[[Tensor, Tensor], Tensor] = mean_square,
    ):  # fmt: skip
        super().__init__()
        self.register_buffer("progress", torch.zeros(()) if isinstance(masker, Ramp) else None)
        self.encoder, self.decoder, self.masker, self.normalize, self.loss = encoder, decoder, masker, normalize, loss
        self.bridge = nn.Linear(encoder.dim, decoder.dim)
        self.mask_token = nn.Parameter(torch.empty(decoder.dim).normal_(std=0.02))
        self.read = nn.Linear(decoder.dim, dim)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = at(self.masker, 0.0 if self.progress is None else float(self.progress))(graph, generator)
        return {"content": self.loss(self._decode(graph, hidden), self._target(graph, hidden))}

    def after_step(self, progress: float) -> None:
        if self.progress is not None:
            self.progress.fill_(progress)

    def _decode(self, graph: Graph, hidden: Tensor) -> Tensor:
        """What the decoder says of the ``hidden`` nodes, [M, dim], from the others."""
        shown = self.bridge(self.encoder(graph.keep_nodes(~hidden)))
        tokens = self.mask_token.to(shown.dtype).repeat(graph.num_nodes, 1).index_put((~hidden,), shown)
        return self.read(self.decoder(graph, tokens, rows=hidden))

    def _target(self, graph: Graph, hidden: Tensor) -> Tensor:
        content = ops.dense(graph.x[hidden])
        return normalize_rows(content) if self.normalize else content

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], and the content [N, dim] with what was decoded in their place."""
        hidden = at(self.masker, 1.0)(graph, generator)
        content = ops.dense(graph.x).clone()
        said = self._decode(graph, hidden)
        if self.normalize:  # the mean and deviation were no part of the task
            true = content[hidden]
            said = said * (true.var(-1, keepdim=True) + 1e-6).sqrt() + true.mean(-1, keepdim=True)
        content[hidden] = said
        return hidden, content
