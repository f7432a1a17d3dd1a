"""SimSiam: Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv:2011.10566.

Reference: facebookresearch/simsiam at a7bc177, simsiam/builder.py and main_simsiam.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl.augment import GraphView
from graphssl.backbones.base import BatchNorm
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import full_precision
from graphssl.methods.base import Method


class SimSiam(Method):
    """Predicts the projection of one view of each graph from the other's, both ways, without negatives or a teacher.

    With ``paired`` a batch holds each item twice, side by side, as a Plan with two views has it, and ``view``, if there
    is one, is drawn for each of them; else each graph is seen through two draws of ``view``. ``dim`` is the width of
    projections, ``hidden`` that of the predictor within, a quarter of it in the paper. No gradient flows to what is
    predicted, which is what keeps codes from collapsing. Projector and predictor normalise over the items of a view; in
    a batch of one item they do with the running statistics of the batches before.
    """

    why_whole = "it learns from sets of graphs, which come in batches already"

    def __init__(
        self, encoder: Encoder, view: GraphView | None = None, dim: int = 128, hidden: int = 32, paired: bool = False
    ):
        super().__init__()
        if view is None and not paired:
            raise UserError("nothing tells two views of a graph apart; give a view, or paired=True for altered items")
        self.encoder, self.view, self.paired = encoder, view, paired
        self.project = nn.Sequential(
            nn.Linear(encoder.dim, dim, bias=False), BatchNorm(dim), nn.ReLU(),
            nn.Linear(dim, dim, bias=False), BatchNorm(dim), nn.ReLU(),
            nn.Linear(dim, dim, bias=False), BatchNorm(dim, affine=False),
        )  # fmt: skip
        self.predict = nn.Sequential(
            nn.Linear(dim, hidden, bias=False), BatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, dim)
        )

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        one, two = (self.project(codes) for codes in self._views(graph, generator))
        there, back = negative_cosine(self.predict(one), two), negative_cosine(self.predict(two), one)
        return {"cosine": (there + back) / 2}

    def _views(self, graph: Graph, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Codes [B, encoder.dim] of two views of each item."""
        if not self.paired:
            assert self.view is not None
            one, two = (self.encoder.of_graphs(self.view(graph, generator)) for _ in range(2))
            return one, two
        items = graph.items
        if graph.num_graphs % 2 or (items is not None and not torch.equal(items[0::2], items[1::2])):
            raise UserError(
                f"the {graph.num_graphs} graphs of the batch are not two views of each item side by side; load them "
                "with views=2, or leave out paired and give a view"
            )
        codes = self.encoder.of_graphs(graph if self.view is None else self.view(graph, generator))
        return codes[0::2], codes[1::2]

    def step_bytes(self, nodes: int, edges: int) -> int:
        """The graphs once where the batch holds both views, else each of their views."""
        return (1 if self.paired else 2) * super().step_bytes(nodes, edges)


@full_precision
def negative_cosine(pred: Tensor, target: Tensor) -> Tensor:
    """Mean of -cos between predictions and targets [B, D] of the same items; no gradient to targets; SimSiam eq. 1."""
    return -F.cosine_similarity(pred, target.detach(), dim=-1).mean()
