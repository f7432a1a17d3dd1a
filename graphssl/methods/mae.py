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
    is each node's content less its mean and divided by its deviation. A ``masker`` that is a ``Ramp`` goes with the
    progress of training; one with several views, as ``Disjoint``, has each of them encoded and decoded, and the loss is
    their mean.
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
        masks = at(self.masker, 0.0 if self.progress is None else float(self.progress))(graph, generator)
        views = masks if masks.ndim == 2 else masks[None]
        losses = [self.loss(self._decode(graph, hidden), target(graph, hidden, self.normalize)) for hidden in views]
        return {"content": torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        if self.progress is not None:
            self.progress.fill_(progress)

    def _decode(self, graph: Graph, hidden: Tensor) -> Tensor:
        """What the decoder says of the ``hidden`` nodes, [M, dim], from the others."""
        shown = self.bridge(self.encoder(graph.keep_nodes(~hidden)))
        return self.read(self.decoder(graph, fill(shown, hidden, self.mask_token), rows=hidden))

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], in the first of several views, and all content [N, dim], theirs as decoded."""
        hidden = at(self.masker, 1.0)(graph, generator)
        hidden = hidden[0] if hidden.ndim == 2 else hidden
        return hidden, put_back(graph, hidden, self._decode(graph, hidden), self.normalize)


def fill(shown: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
    """[N, D] of what is ``shown`` [N - M, D], in order, and the ``token`` [D] where ``hidden`` [N] is true."""
    return token.to(shown.dtype).repeat(len(hidden), 1).index_put((~hidden,), shown)


def target(graph: Graph, hidden: Tensor, normalize: bool) -> Tensor:
    """Content [M, F] of the ``hidden`` nodes, each less its mean and over its deviation where ``normalize``."""
    content = ops.dense(graph.x[hidden])
    return normalize_rows(content) if normalize else content


def put_back(graph: Graph, hidden: Tensor, said: Tensor, normalized: bool) -> Tensor:
    """All content [N, F] with what is ``said`` [M, F] of the ``hidden`` nodes in place of theirs.

    Where it is ``normalized``, each gets the mean and the deviation of its true content, which were no part of the
    task.
    """
    content = ops.dense(graph.x).clone()
    if normalized:
        true = content[hidden]
        deviation = (true.var(-1, keepdim=True, correction=min(1, true.size(-1) - 1)) + 1e-6).sqrt()
        said = said * deviation + true.mean(-1, keepdim=True)
    content[hidden] = said.to(content.dtype)
    return content
