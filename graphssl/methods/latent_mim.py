"""Latent MIM: Towards Latent Masked Image Modeling for Self-Supervised Visual Representation Learning, ECCV 2024.

arXiv:2407.15837; reference yibingwei-1/LatentMIM at 3e7953c, models_lmim.py and xvits.py. Its gaps between patches,
which are part of how images are cut, and its class token in the decoder are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl.backbones import CrossBlock, Side
from graphssl.backbones.positions import positions_of
from graphssl.backbones.transformer import Attention, Dense, attend
from graphssl.encoder import Encoder, pool
from graphssl.graph import Graph
from graphssl.heads import glorot
from graphssl.losses import full_precision
from graphssl.masks import Masker, Ramp, Uniform
from graphssl.methods.masked import Masked
from graphssl.teacher import Teacher, cosine

MOST = Uniform(0.9)


class Reader(nn.Module):
    """Attention among the tokens of hidden nodes, then to the visible ones', then an MLP; norms before, residuals."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.dim, self.norm = dim, nn.LayerNorm(dim)
        self.attention, self.cross = glorot(Attention(dim, heads, 0.0)), CrossBlock(dim, dim, heads, dropout)

    def forward(self, h: Tensor, memory: Tensor, own: Dense, query: Side, key: Side) -> Tensor:
        """``h`` [M, dim] to [M, dim], each token reading those of ``memory`` [N - M, dim] that are of its graph."""
        return self.cross(h + self.attention(self.norm(h), own), memory, query, key)


class LatentMIM(Masked):
    """Predicts a slow teacher's codes of the hidden nodes, each to be told from the others of its graph.

    The encoder sees the visible nodes. A hidden node starts as a mask token, its place, and the visible codes weighted
    by how alike places are; ``blocks`` make it a prediction. The teacher follows encoder and projection with a momentum
    that rises from ``momentum`` to 1. It sees the hidden nodes only, or, if ``whole``, all. ``position`` maps
    ``graph.pos`` to the blocks' width: without places hidden nodes would all be predicted alike. ``inner`` is the width
    within the projection, an MLP of three layers.
    """

    why_whole = "it tells each hidden node from all others of its graph"

    def __init__(
        self, encoder: Encoder, blocks: list[Reader], position: nn.Module, masker: Masker | Ramp = MOST,
        inner: int = 256, tau: float = 0.2, momentum: float = 0.99, whole: bool = False,
    ):  # fmt: skip
        super().__init__(masker)
        self.encoder, self.position = encoder, position
        self.tau, self.momentum, self.whole, width = tau, momentum, whole, blocks[0].dim
        self.project, self.bridge = projection(encoder.dim, inner), nn.Linear(encoder.dim, width)
        self.mask_token, self.blocks = nn.Parameter(torch.zeros(width)), nn.ModuleList(blocks)
        self.norm, self.predict = nn.LayerNorm(width), nn.Linear(width, encoder.dim)
        self.teacher, self.teacher_project = Teacher(encoder), Teacher(self.project)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.hide(graph, generator)
        visible, covered = graph.keep_nodes(~hidden), graph.keep_nodes(hidden)
        codes = self.teacher(graph, rows=hidden) if self.whole else self.teacher(covered)
        contrast = infonce_within(self.predicted(visible, covered), self.teacher_project(codes), covered, self.tau)
        return {"latent": contrast}

    def predicted(self, visible: Graph, covered: Graph) -> Tensor:
        """What is predicted of the teacher's codes of the ``covered`` nodes, [M, dim], whose content is not read."""
        shown = self.bridge(self.project(self.encoder(visible)))
        here, there = self.position(positions_of(covered)), self.position(positions_of(visible))
        query, key = Side(covered.sizes, covered.batch), Side(visible.sizes, visible.batch)
        near = attend(query, key, here[:, None], there[:, None], shown[:, None])[:, 0]
        h, memory, own = self.mask_token + near + here, shown + there, Dense(covered, 0)
        for block in self.blocks:
            h = block(h, memory, own, query, key)
        return self.predict(self.norm(h))

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        momentum = cosine(self.momentum, 1.0, progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_project.follow(self.project, momentum)


def projection(dim: int, inner: int) -> nn.Sequential:
    """Three linear maps [*, dim] -> [*, inner] -> [*, inner] -> [*, dim], a norm behind each and GELU between."""
    layers: list[nn.Module] = []
    for before, after in ((dim, inner), (inner, inner), (inner, dim)):
        layers += [nn.Linear(before, after, bias=False), nn.LayerNorm(after), nn.GELU()]
    return glorot(nn.Sequential(*layers[:-1]))


@full_precision
def infonce_within(pred: Tensor, target: Tensor, graph: Graph, tau: float) -> Tensor:
    """Row i of ``pred`` and of ``target`` [N, D] are the same node; its graph's other targets are negatives.

    A mean over nodes of -log softmax of cosines over ``tau``, times 2 ``tau``, as in the reference. Columns of the
    predictions are first standardised over the nodes of each graph, so that what they share cannot tell them apart. No
    gradient to targets. Memory grows with the square of a graph's nodes.
    """
    pred = pred - pool(graph, pred, "mean")[graph.batch]
    variance = pool(graph, pred.square(), "sum") / (graph.size - 1).clamp(min=1)[:, None]
    pred = pred / (variance + 1e-8).sqrt()[graph.batch]  # reference: deviation + 1e-4, with a gradient of NaN at zero
    side = Side(graph.sizes, graph.batch)
    one, two = side.pack(F.normalize(pred, dim=1)), side.pack(F.normalize(target.detach(), dim=1))
    cosines = one @ two.transpose(1, 2) / tau
    if side.mask is not None:
        cosines = cosines.masked_fill(~side.mask[:, 0], -torch.inf)
    loss = side.unpack(cosines.logsumexp(2) - (one * two).sum(2) / tau)
    return 2 * tau * loss.sum() / max(1, len(loss))
