"""What methods that predict edges share: pairs of nodes that are none, and whether a backbone hears edge weights."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from graphssl import ops
from graphssl.errors import UserError, unknown
from graphssl.graph import Graph

NEGATIVES = ("absent", "fast")


def negatives(graph: Graph, count: int, how: str = "absent", generator: Generator | None = None) -> Tensor:
    """``count`` pairs [2, count] to tell edges from; none where every pair of nodes is an edge.

    "absent": pairs that are no edges of ``graph``, in neither direction where it is undirected; "fast": any pairs, as
    the reference codes have it for large graphs.
    """
    if how not in NEGATIVES:
        raise unknown("kind of negatives", how, NEGATIVES)
    size, plain = graph.size, graph.edge_index[0] != graph.edge_index[1]
    if count == 0 or (how == "absent" and int((size * (size - 1)).sum()) <= int(plain.sum())):
        return torch.empty(2, 0, dtype=torch.long, device=graph.device)
    draw = ops.sample_negatives if how == "absent" else ops.sample_pairs
    return draw(graph, count, generator)


def need_edges(method: str, edges: int) -> None:
    """Raises UserError where a data set has no edges to predict."""
    if edges == 0:
        raise UserError(f"{method} learns by predicting edges, but the data has none; use graphmae, or give edges")
