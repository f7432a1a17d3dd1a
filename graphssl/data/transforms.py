"""Changes to a graph that a recipe asks for before training, and again in ``embed`` and ``evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphssl.graph import Graph
from graphssl.ops import Content, Rows, dense


@dataclass(frozen=True)
class Transform:
    """Symmetrises edges, adds a self-loop a node, scales rows, then columns of ``x``: what is set, in this order."""

    self_loops: bool = False
    row_normalize: bool = False
    undirected: bool = False
    standardize: bool = False

    def __call__(self, graph: Graph) -> Graph:
        if self.undirected:
            graph = symmetrise(graph)
        if self.self_loops:
            graph = add_self_loops(graph)
        if self.row_normalize:
            graph = graph.replace(x=normalize_rows(graph.x))
        if self.standardize:
            parts = [graph.x] if graph.num_graphs == 1 else dense(graph.x).split(list(graph.sizes))
            graph = graph.replace(x=torch.cat([standardize(part) for part in parts]))
        return graph

    def split(self) -> tuple[Transform, Transform]:
        """What asks for the whole graph, and what comes to the same on any part of it that a node's own row is in.

        One after the other they are this transform.
        """
        whole = replace(self, self_loops=False, row_normalize=self.row_normalize and self.standardize)
        return whole, Transform(self.self_loops, self.row_normalize and not self.standardize)


def symmetrise(graph: Graph) -> Graph:
    """Every edge in both directions and once; what an edge carries is its first copy's, or that of its counterpart."""
    E = graph.num_edges
    edges = torch.cat([graph.edge_index, graph.edge_index.flip(0)], dim=1)
    key = edges[1] * graph.num_nodes + edges[0]
    order = key.argsort(stable=True)
    key = key[order]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    chosen = order[first]
    names = ("edge_attr", "edge_weight")
    along = {name: value[chosen % E] for name in names if (value := getattr(graph, name)) is not None} if E else {}
    return graph.replace(edge_index=edges[:, chosen], **along)


def add_self_loops(graph: Graph) -> Graph:
    """One self-loop at each node in place of those that were there; it weighs 1 and carries zeros."""
    graph = graph.keep_edges(graph.edge_index[0] != graph.edge_index[1])
    N, node = graph.num_nodes, torch.arange(graph.num_nodes, device=graph.device)
    edges = torch.cat([graph.edge_index, node.expand(2, N)], dim=1)
    order = (edges[1] * N + edges[0]).argsort(stable=True)
    along = {}
    if (attr := graph.edge_attr) is not None:
        along["edge_attr"] = torch.cat([attr, attr.new_zeros(N, *attr.shape[1:])])[order]
    if (weight := graph.edge_weight) is not None:
        along["edge_weight"] = torch.cat([weight, weight.new_ones(N)])[order]
    return graph.replace(edge_index=edges[:, order], **along)


def normalize_rows(x: Content) -> Tensor | Rows:
    """Each row divided by its sum, or by 1 where the sum is smaller: PyG's ``NormalizeFeatures`` on counts."""
    if isinstance(x, Rows):
        return x * (1 / x.row_sum.clamp(min=1))
    x = dense(x)
    return x / x.sum(-1, keepdim=True).clamp(min=1)


def standardize(x: Content) -> Tensor:
    """Each column less its mean and divided by its deviation, as scikit-learn's StandardScaler; dense."""
    x = dense(x)
    spread = x.std(0, correction=0)
    return (x - x.mean(0)) / torch.where(spread > 0, spread, 1.0)
