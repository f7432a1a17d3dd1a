"""Which nodes, edges or columns to hide: a masker maps (graph, generator) to booleans; True is hidden.

What happens to them is the method's line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl.errors import UserError, unknown
from graphssl.graph import Graph
from graphssl.ops import CSR, places, segment_softmax, spmm

COLORS = ("red", "blue", "green", "purple")
PROBES = 16  # draws from which the deviation of a node's filtered noise is estimated, to a fifth


class Masker(Protocol):
    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        """True [N] where a node is hidden, [E] for edges, [F] for columns; of Bandwidths numbers [E].

        Of Disjoint [views, N]: a mask a view, of which methods that say so make a pass each.
        """


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


def places_of(graph: Graph, axes: int, what: str) -> Tensor:
    """``graph.pos`` as [N, d]; UserError where it has fewer than ``axes`` axes, saying ``what`` needs them."""
    pos = None if graph.pos is None else _columns(graph.pos)
    if pos is None or pos.size(1) < axes:
        has = "has no pos" if pos is None else f"has a pos of {pos.size(1)} axes"
        need = "one" if axes == 1 else f"one of {axes} axes or more, time first"
        raise UserError(f"{what}, but the graph {has}; give it {need}, or choose a uniform masker")
    return pos


def _columns(values: Tensor) -> Tensor:
    """[N] or [N, ...] as [N, d]."""
    return values[:, None] if values.ndim == 1 else values.flatten(1)


def together(key: Tensor, ratio: float, graph: Graph, generator: Generator | None = None) -> Tensor:
    """True [N] for a share ``ratio`` of each graph's groups, floor and one at least, uniformly at random.

    A group is the nodes of one graph with the same ``key`` [N] or [N, d].
    """
    unit = graph.batch
    for column in _columns(key).T:
        known, value = column.unique(return_inverse=True)
        unit = (unit * len(known) + value).unique(return_inverse=True)[1]  # ascending by graph, as before
    count = int(unit.max()) + 1 if len(unit) else 0
    part = graph.batch.new_empty(count).index_put_((unit,), graph.batch)
    counts = torch.bincount(part, minlength=graph.num_graphs)
    draw = torch.rand(count, generator=generator, device=graph.device)
    return lowest_in(draw, share(ratio, counts, 1), part, counts)[unit]


@dataclass(frozen=True)
class Together:
    """Hides nodes of one graph with the same ``key(graph)`` [N] or [N, d] together: a share ``ratio`` of such groups.

    floor(ratio * groups) of each graph, and one group at least.
    """

    ratio: float
    key: Callable[[Graph], Tensor]

    def __post_init__(self):
        _check(self.ratio, "groups")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        key = self.key(graph)
        if key.size(0) != graph.num_nodes:
            raise ValueError(f"the key has shape {tuple(key.shape)} for {graph.num_nodes} nodes; give one row a node")
        return together(key, self.ratio, graph, generator)


@dataclass(frozen=True)
class Tube:
    """Hides a share ``ratio`` of each graph's places at all times: VideoMAE's tubes, arXiv:2203.12602.

    ``pos`` [N, d] is the time first, then the place. Raises UserError for a graph without such a pos.
    """

    ratio: float

    def __post_init__(self):
        _check(self.ratio, "places")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        pos = places_of(graph, 2, "tubes are places (pos after its first axis) hidden at all times")
        return together(pos[:, 1:], self.ratio, graph, generator)


@dataclass(frozen=True)
class Frames:
    """Hides a share ``ratio`` of each graph's times, whole: all nodes with the same first coordinate of ``pos``.

    Raises UserError for a graph whose pos has not two axes or more.
    """

    ratio: float

    def __post_init__(self):
        _check(self.ratio, "times")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        pos = places_of(graph, 2, "frames are all nodes of one time (pos along its first axis)")
        return together(pos[:, 0], self.ratio, graph, generator)


@dataclass(frozen=True)
class Parts:
    """Hides a share ``ratio`` of each graph's body parts, at all times; SkeletonMAE's body-part masking.

    ``parts`` says which part each joint is of; a node's joint is the last coordinate of its ``pos``.
    SkeletonMAE: Graph-based Masked Autoencoder for Skeleton Sequence Pre-training, ICCV 2023, arXiv:2307.08476.
    Raises UserError for a graph without pos or with joints that ``parts`` does not name.
    """

    ratio: float
    parts: tuple[int, ...]

    def __post_init__(self):
        _check(self.ratio, "parts")
        object.__setattr__(self, "parts", tuple(self.parts))

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        joint = places_of(graph, 1, "parts are groups of joints (pos along its last axis)")[:, -1]
        if ((joint != joint.floor()) | (joint < 0) | (joint >= len(self.parts))).any():
            raise UserError(
                f"parts are known of joints 0 to {len(self.parts) - 1}, but nodes stand at {float(joint.min()):g} to "
                f"{float(joint.max()):g} along the last axis of pos; give the part of each joint"
            )
        return together(torch.tensor(self.parts, device=graph.device)[joint.long()], self.ratio, graph, generator)


@dataclass(frozen=True)
class Near:
    """Hides a share ``ratio`` of each graph's nodes: those nearest by ``pos`` to a random one, which is among them.

    Point-MAE's block masking, arXiv:2203.06604; Block goes by hops along edges instead. Nodes equally far are taken at
    random. Raises UserError for a graph without pos.
    """

    ratio: float

    def __post_init__(self):
        _check(self.ratio, "nodes")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        pos = places_of(graph, 1, "a block by place needs to know where nodes stand")
        draw = torch.rand(graph.num_nodes, generator=generator, device=graph.device)
        start = lowest_in(draw, graph.size.clamp(max=1), graph.batch, graph.size)
        centre = pos.new_zeros(graph.num_graphs, pos.size(1))
        centre[graph.batch[start]] = pos[start]
        away = (pos - centre[graph.batch]).square().sum(1).unique(return_inverse=True)[1]
        return lowest(away + draw.double(), self.ratio, graph)


@dataclass(frozen=True)
class Color:
    """Hides the share ``ratio`` of each graph's nodes where filtered noise is lowest; ColorMAE, arXiv:2407.13036.

    The ``color`` says which frequencies of white noise are left: "red" the low ones (whole regions are hidden), "blue"
    the high ones (hidden nodes lie scattered), "green" a band between, "purple" all but that band. A blur is so many
    ``steps`` of a lazy random walk along edges, whichever way they point; in a graph without edges it is a Gaussian of
    the distance by ``pos``, as wide as that walk gets along a line of nodes, whose step is the mean distance of a node
    to its nearest. ``steps`` are those of the weak and of the strong blur: red is the strongly blurred noise, blue the
    noise less the weakly blurred, green the weakly less the strongly blurred, purple the noise less the green. Each
    node's noise is divided by its deviation, so that all are hidden about equally often. Without edges it takes memory
    with the square of a graph's nodes. Raises UserError where there is neither an edge nor a pos.
    Reference: carlosh93/ColorMAE at 8d173eb, which loads such noise from files.
    """

    ratio: float
    color: str = "green"
    steps: tuple[int, int] = (1, 4)

    def __post_init__(self):
        _check(self.ratio, "nodes")
        if self.color not in COLORS:
            raise unknown("color of noise", self.color, COLORS)
        object.__setattr__(self, "steps", tuple(self.steps))
        if len(self.steps) != 2 or not 1 <= self.steps[0] < self.steps[1]:
            raise ValueError(f"cannot blur by {self.steps} steps; choose two numbers, the first 1 or more and below")

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        white = torch.randn(graph.num_nodes, 1, generator=generator, device=graph.device)
        if graph.num_edges:
            colored = self._filter(lambda steps: _walked(graph, white, steps))
            spread = graph.remember(f"masks.{self.color}.{self.steps}", self._spread, shared=True)
        else:
            colored, spread = self._by_place(graph, white)
        flat = spread < 1e-3  # nothing is left of such frequencies, as where all nodes stand at one place
        return lowest(torch.where(flat, white, colored / spread.clamp(min=1e-3)).squeeze(1), self.ratio, graph)

    def _filter(self, blurred: Callable[[int], Tensor]) -> Tensor:
        """What the color leaves of what is ``blurred`` by so many steps, by none at 0."""
        weak, strong = self.steps
        if self.color == "red":
            return blurred(strong)
        if self.color == "blue":
            return blurred(0) - blurred(weak)
        green = blurred(weak) - blurred(strong)
        return green if self.color == "green" else blurred(0) - green

    def _spread(self, graph: Graph) -> Tensor:
        """About the deviation of each node's noise filtered along edges, [N, 1]; always of the same draws."""
        draws = torch.randn(graph.num_nodes, PROBES, generator=Generator().manual_seed(0)).to(graph.device)
        filtered = self._filter(lambda steps: _walked(graph, draws, steps))
        return filtered.square().mean(1, keepdim=True).sqrt()

    def _by_place(self, graph: Graph, white: Tensor) -> tuple[Tensor, Tensor]:
        """``white`` [N, 1] filtered by distance, and the deviation of each node's noise, [N, 1]."""
        pos = places_of(graph, 1, "without edges, noise is filtered by where nodes stand")
        even = len(set(graph.sizes)) == 1  # graphs of one size are filtered at once
        sizes = [graph.num_nodes] if even else list(graph.sizes)
        rows = []
        for where, noise in zip(pos.split(sizes), white.split(sizes), strict=True):
            if len(where):
                shape = (graph.num_graphs if even else 1, -1)
                where, noise = where.unflatten(0, shape), noise.unflatten(0, shape)  # [B, L, d] and [B, L, 1]
                same = where[:1] if (where == where[:1]).all() else where  # pieces of a grid
                weight = self._filter(partial(_gaussian, same))
                spread = weight.norm(dim=-1, keepdim=True).expand_as(noise)
                rows.append(torch.cat([weight @ noise, spread], dim=-1).flatten(0, 1))
        colored, spread = (torch.cat(rows) if rows else white.expand(-1, 2)).split(1, dim=1)
        return colored, spread


def _walked(graph: Graph, noise: Tensor, steps: int) -> Tensor:
    """``noise`` [N, C] after so many means of a node's own and the mean of its neighbours'."""
    into, out = graph.csr, graph.csr.transpose
    count = (into.degree + out.degree).clamp(min=1)[:, None]
    for _ in range(steps):
        noise = (noise + (spmm(into, noise) + spmm(out, noise)) / count) / 2
    return noise


def _gaussian(pos: Tensor, steps: int) -> Tensor:
    """How much of each node's noise reaches each other of those at ``pos`` [B, L, d], [B, L, L]; rows sum to one."""
    away = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    itself = torch.eye(away.size(1), dtype=torch.bool, device=away.device)
    if not steps:
        return itself.to(away.dtype)
    spacing = away.masked_fill(itself, torch.inf).amin(-1).mean(-1).clamp(min=1e-12)[:, None, None]
    return (-((away / spacing) ** 2) / steps).softmax(-1)  # a variance of steps / 2


@dataclass(frozen=True)
class Disjoint:
    """Several masks of each graph whose visible nodes do not overlap: True [views, N] where a view hides a node.

    A view hides floor(ratio * n) of n nodes and one at least, and more where so many visible ones would overlap: no
    view shows more than n // ``views``. Disjoint Masking with Joint Distillation, arXiv:2301.00230; reference
    mx-mark/DMJD at daf954a, models_dmjd.py, whose second view may share some nodes with the first.
    """

    ratio: float
    views: int = 2

    def __post_init__(self):
        _check(self.ratio, "nodes")
        if self.views < 1 or self.views * (1 - self.ratio) > 1 + 1e-9:
            raise ValueError(
                f"{self.views} views that hide a share of {self.ratio} cannot show different nodes; choose a ratio of "
                "1 - 1 / views or more"
            )

    def __call__(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        size = graph.size
        shown = torch.minimum(size - share(self.ratio, size, 1), size // self.views)
        draw = torch.rand(graph.num_nodes, generator=generator, device=graph.device)
        upto = [lowest_in(draw, shown * view, graph.batch, size) for view in range(self.views + 1)]
        return torch.stack([before | ~now for before, now in pairwise(upto)])


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


def undirected(graph: Graph) -> Units:
    """Pairs of nodes that are joined, whichever way their edges point, worked out once a Graph."""
    return graph.remember("masks.pairs", _pairs)


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
            units = undirected(graph)
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
    pairs = undirected(graph)
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
