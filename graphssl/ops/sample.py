"""Draws from a graph, all on its device: neighbours of nodes, and pairs of nodes that are not edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl.errors import UserError
from graphssl.ops.choose import choose_on, kernels
from graphssl.ops.csr import CSR
from graphssl.ops.message import HasCSR


class Stacked(HasCSR, Protocol):
    """What these draws ask of a Graph: its edges, sorted by target, and which graph a node is of."""

    @property
    def edge_index(self) -> Tensor: ...
    @property
    def batch(self) -> Tensor: ...
    @property
    def size(self) -> Tensor: ...
    def remember(self, key: str, make: Callable[[Any], Any]) -> Any: ...


def sample_neighbors(
    graph: HasCSR | CSR, seeds: Tensor, fanout: int, generator: Generator | None = None, replace: bool = False
) -> CSR:
    """Up to ``fanout`` incoming edges of each of ``seeds`` [S], each subset equally likely, as an S x C pattern.

    Row s of the result holds, in the graph's order, sources of node ``seeds[s]``, and ``perm`` says which of the
    graph's edges each entry is, so that ``spmm(sample, x)`` and ``edge_attr[sample.perm]`` work. A seed with fewer
    edges has all of them. With ``replace`` each draw is of its own: ``fanout`` entries, some equal, for every seed that
    has an edge. A ``fanout`` of -1 takes all edges. Costs O(S fanout^2), whatever the degrees; the
    graph is read where edges are drawn alone, so it may lie in mapped files. arXiv:1706.02216.

    Raises UserError for another ``fanout`` and, on the CPU, for seeds that are no nodes.
    """
    csr = graph if isinstance(graph, CSR) else graph.csr
    check_fanout(fanout)
    check_nodes(csr, seeds, "seeds")
    if path_of("sample_neighbors", csr) == "c":
        seeds = seeds.long().contiguous()
        draws = uniform(len(seeds), fanout, generator)
        ptr, place, col = kernels("c").neighbors(csr, seeds, fanout, draws, replace)
    else:
        count, place = drawn(csr, seeds, fanout, generator, replace)
        ptr, col = F.pad(count.cumsum(0), (1, 0)), csr.col[place]
    return CSR(ptr, col, place if csr.perm is None else csr.perm[place], (len(seeds), csr.shape[1]))


def check_fanout(fanout: int) -> None:
    """Raises UserError where ``fanout`` is no number of edges to draw."""
    if fanout < 1 and fanout != -1:
        raise UserError(f"cannot draw {fanout} neighbours a node; choose a fanout of at least 1, or -1 for all")


def check_nodes(csr: CSR, nodes: Tensor, what: str) -> None:
    """Raises UserError where ``nodes`` are no rows of ``csr``; on the CPU only."""
    if nodes.device.type == "cpu" and len(nodes) and not 0 <= int(nodes.min()) <= int(nodes.max()) < csr.shape[0]:
        raise UserError(
            f"{what} reach from {int(nodes.min())} to {int(nodes.max())}; nodes are 0 to {csr.shape[0] - 1}"
        )


def path_of(op: str, csr: CSR) -> str:
    """The path of an op that draws from ``csr``: in C, as it lies in memory or in a mapped file, or else in torch."""
    fits = (
        len(csr.ptr) == csr.shape[0] + 1 and csr.ptr.dtype == torch.long and csr.col.dtype in (torch.int32, torch.long)
    )
    fits = fits and csr.ptr.is_contiguous() and csr.col.is_contiguous()
    return choose_on(op, csr.col.device.type, ("reference", "c") if fits else ("reference",))


def uniform(seeds: int, fanout: int, generator: Generator | None, device: torch.device | str = "cpu") -> Tensor | None:
    """What the draws of so many seeds go by, [S, fanout]; None where all edges are taken."""
    if fanout == -1:
        return None
    return torch.rand(seeds, fanout, generator=generator, device=device, dtype=torch.float64)


def drawn(
    csr: CSR, seeds: Tensor, fanout: int, generator: Generator | None, replace: bool = False
) -> tuple[Tensor, Tensor]:
    """How many entries each of ``seeds`` [S] has drawn and their places in ``csr.col``."""
    begin = csr.ptr[seeds].long()
    degree = csr.ptr[seeds + 1].long() - begin
    draws = uniform(len(seeds), fanout, generator, seeds.device)
    if draws is None:
        row = torch.arange(len(seeds), device=seeds.device).repeat_interleave(degree)
        first = degree.cumsum(0) - degree
        return degree, torch.arange(len(row), device=seeds.device) + (begin - first)[row]
    count = (degree > 0) * fanout if replace else degree.clamp(max=fanout)
    inside = torch.arange(fanout, device=seeds.device) < count[:, None]
    return count, (begin[:, None] + _ranks(degree, draws, replace))[inside]


def _ranks(degree: Tensor, uniform: Tensor, replace: bool) -> Tensor:
    """For each of S rows of ``degree`` entries which of them are drawn by ``uniform``, ascending, [S, fanout].

    Without ``replace`` by Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987), in all rows at once: draw k is of
    the first degree - fanout + k + 1 entries, and the last of these stands in for one that is there already.
    """
    fanout = uniform.size(1)
    if replace:
        return (uniform * degree[:, None]).long().sort(1).values
    ranks = torch.arange(fanout, device=degree.device).repeat(len(degree), 1)  # what rows that have no more take
    many = degree > fanout
    for k in range(fanout):
        last = degree - fanout + k
        drawn = (uniform[:, k] * (last + 1)).long()
        taken = (ranks[:, :k] == drawn[:, None]).any(1)
        ranks[:, k] = torch.where(many, torch.where(taken, last, drawn), ranks[:, k])
    return ranks.sort(1).values


def sample_negatives(graph: Stacked | CSR, count: int, generator: Generator | None = None) -> Tensor:
    """``count`` pairs (source, target) that are no edges, each equally likely in each draw, [2, count].

    In a Graph both nodes are of the same graph and differ; in a bare CSR the pairs are (column, row), and all places
    without an entry count. Exact, without rejection: place r among the free pairs is r plus the number of taken pairs
    before it, which a binary search finds. Costs O(count log E); the taken pairs are laid out once a Graph.

    Raises UserError where every pair is taken.
    """
    if isinstance(graph, CSR):
        rows, columns = (torch.tensor([size], device=graph.col.device) for size in graph.shape)
        taken = torch.unique(graph.row.long() * graph.shape[1] + graph.col.long())
        free, starts, pairs = _gaps(taken), torch.zeros_like(rows), rows * columns
    else:
        free, starts, pairs = graph.remember("free", _free)
        columns = graph.size - 1
    ends = pairs.cumsum(0)
    total = int(ends[-1]) - len(free) if len(ends) else 0
    if total <= 0:
        raise UserError("every pair of nodes is an edge, so no pair can be drawn that is none; leave some edges out")
    rank = torch.randint(total, (count,), generator=generator, device=ends.device)
    place = rank + torch.searchsorted(free, rank, right=True)
    part = torch.searchsorted(ends, place, right=True)
    place = place - (ends - pairs)[part]
    target, source = place // columns[part], place % columns[part]
    if not isinstance(graph, CSR):
        source = source + (source >= target)  # a node's pair with itself was left out of the count
    return torch.stack([source, target]) + starts[part]


def free_pairs(graph: Stacked) -> int:
    """How many pairs (source, target) ``sample_negatives`` can draw from a Graph."""
    taken, _, pairs = graph.remember("free", _free)
    return int(pairs.sum()) - len(taken)


def sample_pairs(graph: Stacked, count: int, generator: Generator | None = None) -> Tensor:
    """``count`` pairs (source, target) of nodes of the same graph, edges or not, [2, count].

    The fast stand-in for ``sample_negatives`` that reference codes call negative sampling: in a sparse graph few of
    them are edges. Graphs are drawn by their numbers of pairs; a node may meet itself.
    """
    size = graph.size
    ends = size.square().cumsum(0)
    rank = torch.randint(int(ends[-1]), (count,), generator=generator, device=ends.device)
    part = torch.searchsorted(ends, rank, right=True)
    place = rank - (ends - size.square())[part]
    return torch.stack([place % size[part], place // size[part]]) + (size.cumsum(0) - size)[part]


def _free(graph: Stacked) -> tuple[Tensor, Tensor, Tensor]:
    """Free pairs before each taken one [<= E], and of each graph its first node and its pairs [B]."""
    size = graph.size
    starts, pairs = size.cumsum(0) - size, size * (size - 1)
    source, target = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    part = graph.batch[target]
    source, target = source - starts[part], target - starts[part]
    place = (pairs.cumsum(0) - pairs)[part] + target * (size[part] - 1) + source - (source > target).long()
    return _gaps(place.unique_consecutive()), starts, pairs  # ascending, since edges stand by target, then source


def _gaps(taken: Tensor) -> Tensor:
    """How many places are free before each of the ``taken`` ones, ascending."""
    return taken - torch.arange(len(taken), device=taken.device)
