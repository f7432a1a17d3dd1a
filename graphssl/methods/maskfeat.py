"""MaskFeat: Masked Feature Prediction for Self-Supervised Visual Pre-Training, CVPR 2022, arXiv:2112.09133.

Reference: facebookresearch/SlowFast at 198bf9d, slowfast/models/masked.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import mean_square
from graphssl.masks import Masker, Uniform
from graphssl.methods.base import Method

SOME = Uniform(0.4)
FLAT = 1e-5  # a variance that is a smaller share of the mean square than this is rounding


class MaskFeat(Method):
    """Covers the content of some nodes, encodes all, and predicts a descriptor of the hidden ones by one linear map.

    ``target`` (graph) -> [N, dim] describes the nodes of the graph as it is, nothing hidden: ``tokens.HOG`` of images
    and videos, ``surroundings`` of any graph. The mask token takes the place of content; the reference's stands behind
    the embedding of patches.
    """

    def __init__(self, encoder: Encoder, target: Callable[[Graph], Tensor], dim: int, masker: Masker = SOME):
        super().__init__()
        self.encoder, self.target, self.masker = encoder, target, masker
        self.mask_token = nn.Parameter(torch.empty(encoder.dim_in).normal_(std=0.02))
        self.predict = nn.Linear(encoder.dim, dim)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.masker(graph, generator)
        covered = graph.replace(x=ops.cover(graph.x, hidden, self.mask_token))
        wanted = graph.counted(hidden)
        said = self.predict(self.encoder(covered, rows=wanted))
        return {"descriptor": mean_square(said, self.target(graph)[wanted])}


def surroundings(graph: Graph) -> Tensor:
    """What HOG is to a patch to any node: the content about it and how many neighbours it has, [N, 2 F + 1].

    Mean and deviation of the content of the node and of those with an edge to it, each row scaled to length one, as
    the histograms are, and log(1 + incoming edges) as a share of its graph's largest. Worked out once for a Graph.
    """
    return graph.remember("maskfeat.surroundings", _surroundings)


@torch.no_grad()
def _surroundings(graph: Graph) -> Tensor:
    x, degree = ops.dense(graph.x), graph.csr.degree.float()[:, None]
    mean, square = ((ops.spmm(graph.csr, v) + v) / (degree + 1) for v in (x, x.square()))
    variance = square - mean.square()
    spread = torch.where(variance > FLAT * square, variance, 0.0).sqrt()
    many = degree.log1p()
    most = ops.segment_reduce(ops.groups(graph.batch, graph.num_graphs), many, "max")[graph.batch]
    return torch.cat([F.normalize(mean), F.normalize(spread), many / most.clamp(min=1e-12)], 1)
