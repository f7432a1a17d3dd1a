"""Random views of a Graph: of its nodes, in the same rows, and of each graph of a batch, in the same place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from graphssl import ops
from graphssl.errors import unknown
from graphssl.graph import Graph
from graphssl.masks import lowest_in, share, undirected
from graphssl.ops import CSR, Rows, dense, pointers
from graphssl.structure import hops_from


@dataclass(frozen=True)
class Drop:
    """Zeroes a share ``features`` of the feature columns and removes a share ``edges`` of the edges (GRACE, BGRL).

    Each column and each directed edge is a draw of its own, as in the reference codes.
    """

    features: float
    edges: float

    def __post_init__(self):
        _check_share(self.features, "drop", "features")
        _check_share(self.edges, "drop", "edges")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Graph:
        return _drop(graph, self.features, self.edges, generator)


CUT = 0.7  # no probability of AdaptiveDrop is higher, as in GCA's reference code
LEAST = 1e-8  # what counts as the lowest centrality, so that none is without a log; GCA's reference code adds it
ROUNDS = 100  # of the two centralities that are worked out in steps


def _degree(graph: Graph) -> Tensor:
    """How many nodes [N] each has an edge with, whichever way it points; with a self-loop it is one of its own."""
    there, back = graph.edge_index, graph.edge_index.flip(0)
    target, source = torch.cat([there, back], 1)
    once = (target * graph.num_nodes + source).unique()
    return torch.bincount(once // max(graph.num_nodes, 1), minlength=graph.num_nodes).float()


def _eigenvector(graph: Graph) -> Tensor:
    """Centrality [N] of nodes that central ones point at, of length one in each graph."""
    members = ops.groups(graph.batch, graph.num_graphs)
    x = torch.ones(graph.num_nodes, 1, device=graph.device)
    for _ in range(ROUNDS):
        x = x + ops.spmm(graph.csr, x)  # with its own, else it swings where the graph has two sides
        x = x / ops.segment_reduce(members, x.square())[graph.batch].sqrt()
    return x[:, 0]


def _pagerank(graph: Graph) -> Tensor:
    """PageRank [N] with damping 0.85, 1 on average; the reference's steps keep 0.15 of a node's own in its place."""
    out = graph.csr.transpose.degree.clamp(min=1)[:, None]
    x = torch.ones(graph.num_nodes, 1, device=graph.device)
    for _ in range(ROUNDS):
        x = 0.15 + 0.85 * ops.spmm(graph.csr, x / out)
    return x[:, 0]


CENTRALITIES: dict[str, Callable[[Graph], Tensor]] = {
    "degree": _degree,
    "eigenvector": _eigenvector,
    "pagerank": _pagerank,
}


@dataclass(frozen=True)
class AdaptiveDrop:
    """A Drop that spares what is central; GCA, arXiv:2010.14945, sections 3.2.1 and 3.2.2.

    The higher the log centrality of its target among the edges of a graph, the less likely an edge is removed; the
    higher the log of its total in central nodes, the less likely a column is zeroed. The shares ``features`` and
    ``edges`` hold on average, up to the cut at 0.7; where nothing is more central than the rest, it is Drop.
    ``by`` is "degree", "eigenvector" or "pagerank". Of bags of words a word counts once a node, as in the reference
    (CRIPAC-DIG/GCA at c6027f7, pGRACE/functional.py); a column that is zero in all nodes is no part of the average.

    The reference later took log(1 + centrality), for nodes without incoming edges (its issue 4, commit 06187df). Ours
    is the paper's log: eigenvector centralities are far below 1, where log(1 + c) is c, and nearly all edges would be
    alike.
    """

    features: float
    edges: float
    by: str

    def __post_init__(self):
        if self.by not in CENTRALITIES:
            raise unknown("centrality", self.by, CENTRALITIES)
        _check_share(self.features, "adaptively drop", "features", CUT)
        _check_share(self.edges, "adaptively drop", "edges", CUT)

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Graph:
        columns, edges = graph.remember(f"augment.{self.by}", self._weights)
        return _drop(graph, (columns * self.features).clamp(max=CUT), (edges * self.edges).clamp(max=CUT), generator)

    def _weights(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """How much likelier than the average each column [F] and each edge [E] is to go."""
        central, target, x = CENTRALITIES[self.by](graph), graph.edge_index[1], graph.x
        if isinstance(x, Rows):
            total = central.new_zeros(x.size(1)).index_add_(0, x.csr.col, central[x.csr.row] * (x.value != 0))
        else:
            total = dense(x).abs().T @ central
        columns, found = torch.ones_like(total), total > 0
        columns[found] = _rarity(total[found], torch.zeros_like(total[found], dtype=torch.long), 1)
        return columns, _rarity(central[target], graph.batch[target], graph.num_graphs)


def _drop(graph: Graph, columns: float | Tensor, edges: float | Tensor, generator: Generator | None) -> Graph:
    """The graph with columns zeroed and edges removed, each with its own probability, [F] and [E], or all with one."""
    shown = torch.rand(graph.x.size(1), generator=generator, device=graph.device) >= columns
    kept = torch.rand(graph.num_edges, generator=generator, device=graph.device) >= edges
    return graph.keep_edges(kept).replace(x=graph.x * shown.to(graph.x.dtype))


def _rarity(central: Tensor, part: Tensor, count: int) -> Tensor:
    """(max - s) / (max - mean) of s = log ``central`` [M] within each part, 1 on average; ``part`` [M] ascends."""
    score = central.clamp(min=LEAST).log()
    members = ops.groups(part, count)
    top, mean = (ops.segment_reduce(members, score, how)[part] for how in ("max", "mean"))
    varies = top - mean > 1e-4  # else all are equal, up to rounding
    return torch.where(varies, (top - score) / torch.where(varies, top - mean, 1.0), 1.0)


def shuffle(graph: Graph, generator: Generator | None = None) -> Graph:
    """The same edges between nodes whose content was shuffled within each graph (DGI); sparse rows stay sparse."""
    order = torch.rand(graph.num_nodes, generator=generator, device=graph.device).argsort(stable=True)
    return graph.replace(x=graph.x[order[graph.batch[order].argsort(stable=True)]])


class GraphView(Protocol):
    """A random view of each graph of a batch; the graphs stay B, in their order, and none loses its last node.

    Reference of those below: Shen-Lab/GraphCL at 5003879, unsupervised_TU/aug.py; arXiv:2010.13902, table 1.
    """

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        """The view, with the graphs where ``only`` [B] is false left as they are; None: all are viewed."""


@dataclass(frozen=True)
class DropNodes:
    """Removes a share ``ratio`` of each graph's nodes, floor(ratio * n) of n, with their edges."""

    ratio: float

    def __post_init__(self):
        _check_share(self.ratio, "drop", "nodes")

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        gone = _some(self.ratio, graph.batch, graph.size, only, generator)
        return graph.keep_nodes(~gone)


@dataclass(frozen=True)
class MaskNodes:
    """Zeroes the content of a share ``ratio`` of each graph's nodes, floor(ratio * n) of n.

    The reference draws their content from a normal, which would make sparse content dense.
    """

    ratio: float

    def __post_init__(self):
        _check_share(self.ratio, "mask", "nodes")

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        shown = ~_some(self.ratio, graph.batch, graph.size, only, generator)
        return graph.replace(x=graph.x * shown[:, None].to(graph.x.dtype))


@dataclass(frozen=True)
class MoveEdges:
    """Removes a share ``ratio`` of each graph's edges and joins as many random pairs of its nodes instead.

    Every row of the edge list counts by itself, so that a direction may go and the other stay, as in the reference
    code. A new edge carries what a removed one did, joins two nodes wherever the graph has two, and may double
    another. (The paper drops and adds; the reference's code for TU sets only drops, that for fine-tuning does both.)
    """

    ratio: float

    def __post_init__(self):
        _check_share(self.ratio, "move", "edges")

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        N, size = graph.num_nodes, graph.size
        part = graph.batch[graph.edge_index[1]]
        moved = _some(self.ratio, part, torch.bincount(part, minlength=len(size)), only, generator)
        own, first = size[part[moved]], (size.cumsum(0) - size)[part[moved]]
        target = _below(own, generator)
        source = (target + 1 + _below(own - 1, generator)) % own
        edges = graph.edge_index.clone()
        edges[:, moved] = torch.stack([source, target]) + first
        order = (edges[1] * N + edges[0]).argsort(stable=True)
        along = {k: v[order] for k in ("edge_attr", "edge_weight") if (v := getattr(graph, k)) is not None}
        return graph.replace(edge_index=edges[:, order], **along)


@dataclass(frozen=True)
class Subgraph:
    """Keeps of each graph the nodes on a random walk, until they are a share ``ratio``: floor(ratio * n), one at least.

    Walks start anywhere, go along edges whichever way these point, and take n steps at most, so that fewer nodes are
    kept where there is no way on. What is left is connected. (The reference takes neighbours of the start alone.)
    """

    ratio: float

    def __post_init__(self):
        if not 0 < self.ratio <= 1:
            raise ValueError(f"cannot keep a share of {self.ratio} of the nodes; choose one above 0 and up to 1")

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        size, edges = graph.size, torch.cat([graph.edge_index, graph.edge_index.flip(0)], dim=1)
        edges = edges[:, edges[1].argsort(stable=True)]
        ways = CSR(pointers(edges[1], graph.num_nodes), edges[0], None, (graph.num_nodes, graph.num_nodes))
        walked = (size > 0) if only is None else only & (size > 0)
        wanted = share(self.ratio, size, 1)[walked]
        size, first = size[walked], (size.cumsum(0) - size)[walked]

        at = first + _below(size, generator)
        kept = ~walked[graph.batch]
        kept[at] = True
        found = torch.ones_like(at)
        for step in range(max(graph.sizes, default=0)):
            going = (found < wanted) & (step < size) & (ways.degree[at] > 0)
            if not going.any():
                break
            place = ways.ptr[at] + _below(ways.degree[at], generator)
            at = torch.where(going, ways.col[torch.where(going, place, 0)], at)
            found += ~kept[at]
            kept[at] = True
        return graph.keep_nodes(kept)


@dataclass(frozen=True)
class DropEdges:
    """Removes a share ``ratio`` of each graph's edges, floor(ratio * m) of m, both directions at once; no self-loop.

    MolCLR's deleted bonds, arXiv:2102.10056; yuyangw/MolCLR at c6d661e, dataset/dataset.py.
    """

    ratio: float

    def __post_init__(self):
        _check_share(self.ratio, "drop", "edges")

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        units = undirected(graph)
        gone = _some(self.ratio, units.part, units.counts, only, generator)
        kept = torch.ones(graph.num_edges, dtype=torch.bool, device=graph.device)
        kept[units.edge] = ~gone[units.unit]
        return graph.keep_edges(kept)


@dataclass(frozen=True)
class DropSubgraph:
    """Removes a connected share ``ratio`` of each graph's nodes, floor(ratio * n) of n: those nearest to a random one.

    Nodes go by their hops from the start, whichever way edges point, at random among those equally far; fewer where
    the start is joined to fewer. MolCLR's removed subgraph, which keeps such nodes under a mask token and without
    edges, and draws the share anew each time.
    """

    ratio: float

    def __post_init__(self):
        _check_share(self.ratio, "drop", "nodes")

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        wanted = share(self.ratio, graph.size)
        wanted = wanted if only is None else wanted * only
        draw = torch.rand(graph.num_nodes, generator=generator, device=graph.device, dtype=torch.float64)
        start = lowest_in(draw, wanted.clamp(max=1), graph.batch, graph.size)
        most = max(graph.sizes, default=0)  # as many hops reach all that can be reached
        away = hops_from(graph, start, most)
        gone = lowest_in(away + draw, wanted, graph.batch, graph.size) & (away <= most)
        return graph.keep_nodes(~gone)


@dataclass(frozen=True)
class OneOf:
    """Shows each graph through one of ``views``, every one as likely."""

    views: tuple[GraphView, ...]

    def __post_init__(self):
        if not self.views:
            raise ValueError("there is no view to choose from; give one or more")

    def __call__(self, graph: Graph, generator: Generator | None = None, only: Tensor | None = None) -> Graph:
        choice = torch.randint(len(self.views), (graph.num_graphs,), generator=generator, device=graph.device)
        for place, view in enumerate(self.views):
            chosen = choice == place
            graph = view(graph, generator, chosen if only is None else chosen & only)
        return graph


def _check_share(ratio: float, verb: str, what: str, most: float | None = None) -> None:
    if not (0 <= ratio < 1 if most is None else 0 <= ratio <= most):
        words = "from 0 up to, not including, 1" if most is None else f"from 0 to {most}"
        raise ValueError(f"cannot {verb} a share of {ratio} of the {what}; choose one {words}")


def _below(limit: Tensor, generator: Generator | None) -> Tensor:
    """A random whole number from 0 up to, not including, each ``limit`` [M]; 0 where that is 0."""
    return (torch.rand(len(limit), generator=generator, device=limit.device, dtype=torch.float64) * limit).long()


def _some(ratio: float, part: Tensor, counts: Tensor, only: Tensor | None, generator: Generator | None) -> Tensor:
    """True for a random share ``ratio`` of the ``counts`` [B] elements of each part, none where ``only`` [B] is false.

    ``part`` [M] says of which one each element is, ascending.
    """
    wanted = share(ratio, counts)
    draw = torch.rand(len(part), generator=generator, device=part.device)
    return lowest_in(draw, wanted if only is None else wanted * only, part, counts)
