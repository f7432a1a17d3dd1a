"""Which nodes, edges or columns to hide: a masker maps (graph, generator) to booleans; True is hidden.

What happens to them is the method's line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl.graph import Graph
from graphssl.ops import CSR, places, segment_softmax


class Masker(Protocol):
    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        """True [N] where a node is hidden, [E] for edges, [F] for columns; of Bandwidths numbers [E]."""


def lowest(score: Tensor, ratio: float, graph: Graph) -> Tensor:
    """True [N] for the floor(ratio * n) lowest-scoring nodes of each n-node graph, and for one at least."""
    return lowest_in(score, share(ratio, graph.size, 1), graph.batch, graph.size)


def lowest_in(score: Tensor, wanted: Tensor, part: Tensor, counts: Tensor) -> Tensor:
    """True [M] for the ``wanted`` [B] lowest-scoring elements of each graph.

    ``part`` [M] is the graph of each element, ascending, and ``counts`` [B] how many each graph has.
    """
    order = _by_part(score, part)
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(score), device=score.device) - first[part]
    hidden = torch.empty(len(score), dtype=torch.bool, device=score.device)
    hidden[order] = rank < wanted[part]
    return hidden


def _by_part(score: Tensor, part: Tensor) -> Tensor:
    """The order of elements by ``part``, then by ``score``."""
    order = score.argsort(stable=True)
    return order[part[order].argsort(stable=True)]


def share(ratio: float, counts: Tensor, least: int = 0) -> Tensor:
    """floor(ratio * count) of each of ``counts`` [B], and ``least`` at least where there are as many."""
    # in float64: float32 turns 0.3 of 10 nodes into 3.0000001 or 2.9999999, machine by machine
    return torch.minimum((counts.double() * ratio + 1e-9).floor().long().clamp(min=least), counts)


def _check(ratio: float, what: str) -> None:
    if not 0 < ratio <= 1:
        raise ValueError(f"cannot hide a share of {ratio} of the {what}; choose a ratio above 0 and up to 1")


@dataclass(frozen=True)
class Uniform:
    """Hides a share ``ratio`` of each graph's nodes, uniformly at random."""

    ratio: float

    def __post_init__(self):
        _check(self.ratio, "nodes")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        return lowest(torch.rand(graph.num_nodes, generator=generator, device=graph.device), self.ratio, graph)


def degree(graph: Graph) -> Tensor:
    """log(1 + incoming edges) of each node, [N]."""
    return graph.csr.degree.float().log1p()


@dataclass(frozen=True)
class Guided:
    """Hides the share ``ratio`` of each graph's nodes with the highest ``score(graph)`` [N] plus Gumbel noise.

    Without ``noise`` those are the top ones. With it each next node is drawn with probability proportional to
    exp(score / noise), without putting back (Kool et al., ICML 2019, arXiv:1903.06059), so that a large ``noise`` is
    uniform.
    """

    ratio: float
    score: Callable[[Graph], Tensor] = degree
    noise: float = 1.0

    def __post_init__(self):
        _check(self.ratio, "nodes")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"cannot scale the noise by {self.noise}; choose 0 for none, or a positive number")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        score = self.score(graph)
        if score.shape != (graph.num_nodes,):
            raise ValueError(
                f"the score has shape {tuple(score.shape)} for {graph.num_nodes} nodes; give one number each"
            )
        draw = torch.empty(graph.num_nodes, device=graph.device).exponential_(generator=generator)
        gumbel = -draw.clamp(min=1e-30).log()  # some devices may draw a zero
        return lowest(-(score + self.noise * gumbel), self.ratio, graph)


@dataclass(frozen=True)
class Block:
    """Hides a connected block, a share ``ratio`` of each graph's nodes: those nearest to a random one.

    Nodes are taken by their hops from the start, whichever way edges point, at random among those equally far. Where
    a component is used up, random nodes outside it are the next starts: 1, then 2, 4, ... of them, so that a graph of
    isolated nodes takes log N rounds. Costs O(N + E) a hop.
    """

    ratio: float

    def __post_init__(self):
        _check(self.ratio, "nodes")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        N, B = graph.num_nodes, graph.num_graphs
        draw = torch.rand(N, generator=generator, device=graph.device)
        order = _by_part(draw, graph.batch)
        wanted = share(self.ratio, graph.size, 1)
        source, target = graph.edge_index
        hop = torch.full_like(graph.batch, N)  # N: not reached
        starts = torch.zeros_like(wanted)  # that each graph has had
        for step in range(N):
            left = hop == N
            if (torch.bincount(graph.batch[~left], minlength=B) >= wanted).all():
                break
            front = hop == step - 1
            near = torch.zeros_like(front)
            near[target[front[source]]] = True
            near[source[front[target]]] = True
            near &= left
            used_up = torch.bincount(graph.batch[near], minlength=B) == 0
            fresh = torch.where(used_up, starts.clamp(min=1), 0)  # as many as before: 1, 1, 2, 4, ...
            starts = starts + fresh
            hop[near | _first(left, fresh, order, graph)] = step
        return lowest(hop + draw.double(), self.ratio, graph)


def _first(among: Tensor, count: Tensor, order: Tensor, graph: Graph) -> Tensor:
    """True [N] for the first ``count`` [B] nodes of each graph ``among`` [N] those that are true, in this ``order``."""
    before = F.pad(among[order].cumsum(0), (1, 0))
    nth = before[1:] - before[graph.size.cumsum(0) - graph.size][graph.batch]
    first = torch.empty_like(among)
    first[order] = among[order] & (nth <= count[graph.batch])
    return first


@dataclass(frozen=True)
class Features:
    """Hides each column of the content, in all nodes, with probability ``ratio``: True [F] (GRACE, BGRL)."""

    ratio: float

    def __post_init__(self):
        if not 0 <= self.ratio < 1:
            raise ValueError(
                f"cannot hide a share of {self.ratio} of the columns; choose a ratio from 0 up to, not including, 1"
            )

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        return torch.rand(graph.x.size(1), generator=generator, device=graph.device) < self.ratio


class Units(NamedTuple):
    """What is hidden as one: a pair of nodes with all edges between them, or a single edge; self-loops are in none."""

    edge: Tensor  # [E'] the edges that are no self-loops
    unit: Tensor  # [E'] the unit that each of them is of
    part: Tensor  # [U] the graph that each unit is of, ascending
    counts: Tensor  # [B] units of each graph


def _pairs(graph: Graph) -> Units:
    source, target = graph.edge_index
    edge = places(source != target)
    low, high = graph.edge_index[:, edge].aminmax(dim=0)
    pairs, unit = (low * graph.num_nodes + high).unique(return_inverse=True)
    return _units(graph, edge, unit, pairs // max(graph.num_nodes, 1))


def _edges(graph: Graph) -> Units:
    source, target = graph.edge_index
    edge = places(source != target)
    return _units(graph, edge, torch.arange(len(edge), device=graph.device), target[edge])


def _units(graph: Graph, edge: Tensor, unit: Tensor, node: Tensor) -> Units:
    """Units of which ``node`` [U] is one node each."""
    part = graph.batch[node]
    return Units(edge, unit, part, torch.bincount(part, minlength=graph.num_graphs))


@dataclass(frozen=True)
class Edges:
    """Hides a share ``ratio`` of each graph's edges, uniformly at random, never a self-loop: True [E].

    Both directions of an edge, and its duplicates, are hidden together and count once; with ``directed`` every row of
    the edge list counts and is hidden alone (S2GAE, WSDM 2023). As of nodes, floor(ratio * count) are hidden of each
    graph, and one at least where it has one.
    """

    ratio: float
    directed: bool = False

    def __post_init__(self):
        _check(self.ratio, "edges")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        if self.directed:
            units = graph.remember("masks.edges", _edges)
        else:
            units = graph.remember("masks.pairs", _pairs)
        score = torch.rand(len(units.part), generator=generator, device=graph.device)
        chosen = lowest_in(score, share(self.ratio, units.counts, 1), units.part, units.counts)
        hidden = torch.zeros(graph.num_edges, dtype=torch.bool, device=graph.device)
        hidden[units.edge] = chosen[units.unit]
        return hidden


@dataclass(frozen=True)
class Paths:
    """Hides the edges that random walks pass, never a self-loop: True [E] (MaskGAE, KDD 2023, arXiv:2205.10053).

    Walks start at a share ``starts`` of the nodes, or, if the ``origin`` is "edge", at the source of each edge with
    probability ``starts``: ``walks`` from each start, of ``length`` steps to a random target of an edge out of the
    node where they stand; a walk without a way on ends. ``both_ways`` hides all edges between two nodes where a walk
    passed one, so that none tells of it. Reference: EdisonLeeeee/MaskGAE at 343ced7, which hides only the edges
    passed, as without ``both_ways``, and whose walks take self-loops where there are any.
    """

    starts: float = 0.7
    length: int = 3
    walks: int = 1
    origin: str = "node"
    both_ways: bool = True

    def __post_init__(self):
        if not 0 < self.starts <= 1:
            raise ValueError(f"cannot start walks at a share of {self.starts}; choose starts above 0 and up to 1")
        if self.length < 1 or self.walks < 1:
            raise ValueError(f"cannot take {self.walks} walks of {self.length} steps; choose at least one of each")
        if self.origin not in ("node", "edge"):
            raise ValueError(f"walks cannot start at each {self.origin!r}; choose the origin 'node' or 'edge'")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        N, device = graph.num_nodes, graph.device
        out, edge = graph.remember("masks.outgoing", _outgoing)
        if self.origin == "node":
            start = torch.randperm(N, generator=generator, device=device)[: round(self.starts * N)]
        else:
            start = out.row[torch.rand(out.nnz, generator=generator, device=device) < self.starts]
        at = start.repeat(self.walks)
        draw = torch.rand(len(at), self.length, generator=generator, device=device, dtype=torch.float64)
        hidden = torch.zeros(graph.num_edges, dtype=torch.bool, device=device)
        for step in range(self.length):
            going = out.degree[at] > 0
            at, draw = at[going], draw[going]
            place = out.ptr[at] + (draw[:, step] * out.degree[at]).long()
            hidden[edge[place]] = True
            at = out.col[place]
        return both_ways(hidden, graph) if self.both_ways else hidden


def _outgoing(graph: Graph) -> tuple[CSR, Tensor]:
    """The targets of each node's outgoing edges but self-loops, and which edge of the graph each of these is."""
    source, target = graph.edge_index
    out = graph.csr.keep(source != target).transpose
    return out, places(source != target)[out.perm]


def both_ways(hidden: Tensor, graph: Graph) -> Tensor:
    """``hidden`` [E] and all other edges between the same two nodes."""
    pairs = graph.remember("masks.pairs", _pairs)
    touched = torch.zeros(len(pairs.part), dtype=torch.bool, device=graph.device)
    touched[pairs.unit[hidden[pairs.edge]]] = True
    whole = torch.zeros_like(hidden)
    whole[pairs.edge] = touched[pairs.unit]
    return whole


@dataclass(frozen=True)
class Bandwidths:
    """How much each edge lets through, [E]: random weights that sum to one over the edges into each node.

    The softmax of standard Gaussian noise over ``temperature``: a low one lets a single edge through, a high one all
    alike. Bandana: Masked Graph Autoencoder with Non-discrete Bandwidths, WWW 2024; reference Newiz430/Bandana at
    6cd81cf.
    """

    temperature: float = 1.0

    def __post_init__(self):
        if not 1e-30 <= self.temperature < math.inf:  # below, noise over temperature is beyond float32
            raise ValueError(
                f"cannot divide the noise by a temperature of {self.temperature}; choose a positive one, 1e-30 or more"
            )

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        noise = torch.randn(graph.num_edges, generator=generator, device=graph.device)
        return segment_softmax(graph, noise[:, None] / self.temperature).squeeze(1)


@dataclass(frozen=True)
class Ramp:
    """A ``masker`` whose ratio (of Paths: whose starts) moves in a straight line to ``end`` while training goes on.

    ``Ramp(Uniform(0.3), 0.7).at(0.5)`` is ``Uniform(0.5)``.
    """

    masker: Any  # Masker that is a dataclass with a ratio or starts
    end: float

    def __post_init__(self):
        if not is_dataclass(self.masker) or not (hasattr(self.masker, "ratio") or hasattr(self.masker, "starts")):
            raise ValueError(f"cannot ramp {self.masker}; choose a masker with a ratio or starts, as Uniform or Paths")
        self.at(1.0)  # the masker refuses an end that it cannot be given

    def at(self, progress: float) -> Masker:
        """The masker at this share of the training, from 0 to 1."""
        name = "ratio" if hasattr(self.masker, "ratio") else "starts"
        value = (1 - progress) * getattr(self.masker, name) + progress * self.end
        return replace(self.masker, **{name: value})


def at(masker: Masker | Ramp, progress: float) -> Masker:
    """What a Ramp is at this share of the training; any other masker as it is."""
    return masker.at(progress) if isinstance(masker, Ramp) else masker
