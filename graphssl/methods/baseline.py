"""No pretext at all: an encoder as it is, to be judged beside those that were trained."""

from __future__ import annotations

from torch import Generator, Tensor

from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.methods.base import Method


class Baseline(Method):
    """Holds an encoder that has nothing to train, or is not to be trained."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        raise UserError("a baseline has no loss to train by; use it with epochs=0, or name a method that learns")
