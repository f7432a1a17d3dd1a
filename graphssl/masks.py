"""Which nodes to hide: a masker maps (graph, generator) to Bool [N]; True is hidden.

What happens to them is the method's line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from graphssl.graph import Graph


class Masker(Protocol):
    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        """True [N] where a node is hidden, or [E] for edges."""


def lowest(score: Tensor, ratio: float, graph: Graph) -> Tensor:
    """True [N] for the floor(ratio * n) lowest-scoring nodes of each n-node graph, and for one at least."""
    order = score.argsort(stable=True)
    order = order[graph.batch[order].argsort(stable=True)]  # by graph, then by score
    first = graph.size.cumsum(0) - graph.size
    rank = torch.arange(graph.num_nodes, device=score.device) - first[graph.batch]
    # in float64: float32 turns 0.3 of 10 nodes into 3.0000001 or 2.9999999, machine by machine
    count = (graph.size.double() * ratio + 1e-9).floor().long().clamp(min=1 if ratio > 0 else 0)
    hidden = torch.empty(graph.num_nodes, dtype=torch.bool, device=score.device)
    hidden[order] = rank < count[graph.batch]
    return hidden


@dataclass(frozen=True)
class Uniform:
    """Hides a share ``ratio`` of each graph's nodes, uniformly at random."""

    ratio: float

    def __post_init__(self):
        if not 0 < self.ratio <= 1:
            raise ValueError(f"cannot hide a share of {self.ratio} of the nodes; choose a ratio above 0 and up to 1")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        return lowest(torch.rand(graph.num_nodes, generator=generator, device=graph.device), self.ratio, graph)
