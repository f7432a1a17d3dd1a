"""Random views of a Graph with the same nodes in the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from graphssl.graph import Graph
from graphssl.masks import Features


@dataclass(frozen=True)
class Drop:
    """Zeroes a share ``features`` of the feature columns and removes a share ``edges`` of the edges (GRACE, BGRL).

    Each column and each directed edge is a draw of its own, as in the reference codes.
    """

    features: float
    edges: float

    def __post_init__(self):
        for name, share in (("features", self.features), ("edges", self.edges)):
            if not 0 <= share < 1:
                raise ValueError(
                    f"cannot drop a share of {share} of the {name}; choose one from 0 up to, not including, 1"
                )

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Graph:
        columns = ~Features(self.features)(graph, generator)
        kept = torch.rand(graph.num_edges, generator=generator, device=graph.device) >= self.edges
        return graph.keep_edges(kept).replace(x=graph.x * columns.to(graph.x.dtype))
