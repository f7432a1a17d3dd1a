"""What methods that predict edges share: pairs of nodes that are none, and whether a backbone hears edge weights."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from graphssl import ops
from graphssl.errors import UserError, unknown
from graphssl.graph import Graph

NEGATIVES = ("absent", "fast")


def absent_pairs(graph: Graph, count: int, how: str = "absent", generator: Generator | None = None) -> Tensor:
    """``count`` pairs [2, count] to tell edges from; none where every pair of nodes is an edge.

    "absent": pairs that are no edges of ``graph``, in neither direction where it is undirected; "fast": any pairs, as
    the reference codes have it for large graphs.
    """
    check_negatives(how)
    if graph.seeds is not None:  # others have but some of their edges and would be known by that
        return graph.seeds[absent_pairs(graph.remember("pairs.seeds", _among_seeds), count, how, generator)]
    if how == "fast":
        return ops.sample_pairs(graph, count, generator)
    if count == 0 or ops.free_pairs(graph) == 0:
        return torch.empty(2, 0, dtype=torch.long, device=graph.device)
    return ops.sample_negatives(graph, count, generator)


def _among_seeds(graph: Graph) -> Graph:
    """The graph of the seeds [M], in their order, and the edges among them."""
    return graph.keep_nodes(graph.counts).replace(seeds=None)


def plain(graph: Graph) -> Tensor:
    """Places [<= E] of the edges that count and are no self-loops, worked out once a Graph."""
    return graph.remember("plain", lambda g: ops.places(counted_edges(g, g.edge_index[0] != g.edge_index[1])))


def counted_edges(graph: Graph, chosen: Tensor) -> Tensor:
    """Those of the ``chosen`` edges [E] that count: all, or in a sampled batch those with both ends among the seeds.

    All again where none does.
    """
    if graph.seeds is None:
        return chosen
    source, target = graph.edge_index
    both = chosen & graph.counts[source] & graph.counts[target]
    return both if both.any() else chosen


def check_pairs(method: str, edges: int, how: str) -> None:
    """Raises UserError where a data set has no edges to predict, or for an unknown kind of negatives."""
    if edges == 0:
        raise UserError(f"{method} learns by predicting edges, but the data has none; use graphmae, or give edges")
    check_negatives(how)


def check_negatives(how: str) -> None:
    if how not in NEGATIVES:
        raise unknown("kind of negatives", how, NEGATIVES)
