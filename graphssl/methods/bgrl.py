"""BGRL: Large-Scale Representation Learning on Graphs via Bootstrapping, ICLR 2022, arXiv:2102.06514.

Reference: nerdslab/bgrl at 60f9f19, bgrl/bgrl.py.
"""

from __future__ import annotations

from torch import Generator, Tensor

from graphssl.augment import Drop
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import mlp
from graphssl.losses import bootstrap
from graphssl.methods.base import Method
from graphssl.teacher import Teacher, cosine


class BGRL(Method):
    """Predicts a slow teacher's code of each node in the other view; no negatives."""

    def __init__(self, encoder: Encoder, hidden: int, views: tuple[Drop, Drop], momentum: float = 0.99):
        super().__init__()
        self.encoder, self.views, self.momentum = encoder, views, momentum
        self.teacher = Teacher(encoder)  # reference draws the teacher anew; a copy starts both at the same point
        self.predict = mlp(encoder.dim, hidden, encoder.dim)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        one, two = (view(graph, generator) for view in self.views)
        return {
            "one": bootstrap(self.predict(graph.of_seeds(self.encoder(one))), graph.of_seeds(self.teacher(two))),
            "two": bootstrap(self.predict(graph.of_seeds(self.encoder(two))), graph.of_seeds(self.teacher(one))),
        }

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, cosine(self.momentum, 1.0, progress))
