"""Parts of one huge graph around some of its nodes, at a cost that goes by the parts and not by the graph.

The graph is an N x N CSR by target: row i holds the sources of i's incoming edges, ascending. Its ``ptr`` (int64) and
``col`` (int32 or int64) may lie in mapped files: neither is copied, converted or passed over. Several threads may draw
at once, each call on one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl.errors import UserError
from graphssl.ops.choose import kernels
from graphssl.ops.csr import CSR
from graphssl.ops.message import HasCSR
from graphssl.ops.sample import check_fanout, check_nodes, drawn, path_of, uniform


@dataclass(frozen=True, eq=False)
class Drawn:
    """Nodes of a graph and edges among them, by their places among these nodes."""

    nodes: Tensor  # [n], ascending
    seeds: Tensor  # [S], places in ``nodes`` of those that were asked for, ascending, each once
    edges: Tensor  # [2, e], source and target as places in ``nodes``, by target and then by source
    place: Tensor  # [e], which of the graph's edges each is, as places in its CSR's ``col``


def sample_hops(
    graph: HasCSR | CSR, seeds: Tensor, fanouts: Sequence[int], generator: Generator | None = None
) -> Drawn:
    """The nodes met from ``seeds`` [S] along up to ``fanouts[k]`` incoming edges of each node that is new at hop k.

    Hop 0 draws for the seeds, of which duplicates count once; a node is drawn for once, each subset of its edges
    equally likely; a fanout of -1 takes all. Messages along the edges of the result give the seeds what they receive
    in as many layers as there are fanouts. GraphSAGE, NeurIPS 2017, arXiv:1706.02216.

    Raises UserError for no fanouts or one that is neither -1 nor at least 1 and, on the CPU, for seeds that are no
    nodes.
    """
    csr = _square(graph)
    if not len(fanouts):
        raise UserError("cannot draw without fanouts; give one for each hop, such as (10, 10)")
    for fanout in fanouts:
        check_fanout(fanout)
    check_nodes(csr, seeds, "seeds")
    seeds = seeds.long().unique()
    if path_of("sample_hops", csr) == "c":
        return Drawn(*kernels("c").hops(csr, seeds, fanouts, partial(uniform, generator=generator)))
    nodes = targets = seeds
    target, place = [], []
    for fanout in fanouts:
        count, found = drawn(csr, targets, fanout, generator)
        target.append(targets.repeat_interleave(count))
        place.append(found)
        met = csr.col[found].long().unique()
        targets = met[~torch.isin(met, nodes)]
        nodes = torch.cat([nodes, targets]).sort().values
    local, places = torch.searchsorted(nodes, torch.cat(target)), torch.cat(place)
    local, order = local.sort(stable=True)
    places = places[order]
    source = torch.searchsorted(nodes, csr.col[places].long())
    return Drawn(nodes, torch.searchsorted(nodes, seeds), torch.stack([source, local]), places)


def induced_edges(graph: HasCSR | CSR, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """All edges among ``nodes`` [M], ascending: edges [2, e] as places in ``nodes``, and their places in the CSR, [e].

    They stand by target and then by source. Costs the edges at those nodes, but O(M log E) at most at each.

    Raises UserError for ``nodes`` that do not ascend and, on the CPU, for some that are no nodes.
    """
    csr = _square(graph)
    check_nodes(csr, nodes, "nodes")
    if not bool((nodes.diff() > 0).all()):
        raise UserError("nodes have to ascend, each once, for edges among them; pass nodes.unique()")
    nodes = nodes.long().contiguous()
    if path_of("induced_edges", csr) == "c":
        edges, place = kernels("c").induced(csr, nodes)
        return edges, place
    degree, place = drawn(csr, nodes, -1, None)
    target = torch.arange(len(nodes), device=nodes.device).repeat_interleave(degree)
    wanted = csr.col[place].long()
    source = torch.searchsorted(nodes, wanted)
    inside = F.pad(nodes, (0, 1), value=-1)[source] == wanted
    return torch.stack([source, target])[:, inside], place[inside]


def sample_walks(graph: HasCSR | CSR, starts: Tensor, length: int, generator: Generator | None = None) -> Tensor:
    """The nodes on a random walk of ``length`` steps from each of ``starts`` [S], itself first, [S, length + 1].

    A step goes to the source of an incoming edge, each equally likely; a node without any is stayed at.

    Raises UserError for a ``length`` below 1 and, on the CPU, for starts that are no nodes.
    """
    csr = _square(graph)
    if length < 1:
        raise UserError(f"cannot walk {length} steps; choose a length of at least 1")
    check_nodes(csr, starts, "starts")
    draws = uniform(len(starts), length, generator, starts.device)
    assert draws is not None
    walk = [starts.long()]
    for step in range(length):
        at = walk[-1]
        begin = csr.ptr[at]
        degree = csr.ptr[at + 1] - begin
        going = degree > 0
        place = (begin + (draws[:, step] * degree).long())[going]
        walk.append(at.masked_scatter(going, csr.col[place].long()))
    return torch.stack(walk, dim=1)


def near_nodes(graph: HasCSR | CSR, seeds: Tensor, count: int, alpha: float = 0.15, eps: float = 1e-4) -> list[Tensor]:
    """The up to ``count`` nodes of largest personalised PageRank of each of ``seeds`` [S], itself first, then the best.

    PageRank comes by pushing (Andersen, Chung and Lang, FOCS 2006) along the CSR's rows as neighbours: no score is
    above the true one, and in an undirected graph none is more than ``eps`` times the node's degree below it, which
    costs O(1 / (alpha eps)) steps a seed, and the seed's degree. ``alpha`` is that of the paper's lazy walk: a plain
    one goes back to the seed with probability 2 alpha / (1 + alpha) before each step. Where mass waits below the
    threshold, its node's own share counts too. A node without neighbours is stayed at. Of equal scores the lower id
    comes first. As GraphMAE2 (THUDM/GraphMAE2 at 1a28045, localclustering.py) the nodes are chosen by their scores as
    they are; it then orders the chosen ones by score over degree.

    Raises UserError for a ``count`` below 1, an ``alpha`` outside (0, 1], an ``eps`` that is not above 0 and, on the
    CPU, for seeds that are no nodes.
    """
    return scored_nodes(graph, seeds, count, alpha, eps)[0]


def scored_nodes(
    graph: HasCSR | CSR, seeds: Tensor, count: int, alpha: float = 0.15, eps: float = 1e-4
) -> tuple[list[Tensor], list[Tensor]]:
    """As ``near_nodes``, with the score of each."""
    csr = _square(graph)
    if count < 1:
        raise UserError(f"cannot find {count} nodes near a seed; choose a count of at least 1, the seed")
    if not 0 < alpha <= 1 or not eps > 0:
        raise UserError(f"cannot push with alpha {alpha} and eps {eps}; choose alpha above 0 up to 1 and eps above 0")
    check_nodes(csr, seeds, "seeds")
    restart, count = 2 * alpha / (1 + alpha), min(count, csr.shape[0])
    if path_of("near_nodes", csr) == "c":
        *rows, size = kernels("c").near(csr, seeds.long().contiguous(), count, restart, restart * eps)
        nodes, scores = ([row[:n] for row, n in zip(table, size.tolist(), strict=True)] for table in rows)
        return nodes, scores
    best = [_push(csr, seed, count, restart, restart * eps) for seed in seeds.tolist()]
    nodes = [torch.tensor([node for node, _ in one], device=seeds.device) for one in best]
    scores = [torch.tensor([score for _, score in one], dtype=torch.float64, device=seeds.device) for one in best]
    return nodes, scores


def _push(csr: CSR, seed: int, count: int, restart: float, enough: float) -> list[tuple[int, float]]:
    """Nodes and their scores, the ``seed`` first, then the ``count`` - 1 of the largest.

    Mass is carried times ``restart``, so that what a node keeps of its own is what is left there; a node waits for its
    turn to push once that is at least ``enough`` times its degree.
    """
    row: dict[int, list[int]] = {}
    kept: dict[int, float] = {}
    left = {seed: restart}
    turn, waiting = deque([seed]), {seed}
    while turn:
        node = turn.popleft()
        waiting.remove(node)
        mass, left[node] = left[node], 0.0
        near = _row(csr, node, row)
        if not near:
            kept[node] = kept.get(node, 0.0) + mass / restart
            continue
        kept[node] = kept.get(node, 0.0) + mass
        share = (1 - restart) * mass / len(near)
        for other in near:
            left[other] = left.get(other, 0.0) + share
            if other not in waiting and left[other] >= enough * max(len(_row(csr, other, row)), 1):
                waiting.add(other)
                turn.append(other)
    score = {node: kept.get(node, 0.0) + mass for node, mass in left.items()}
    others = sorted((node for node in score if node != seed), key=lambda node: (-score[node], node))
    return [(node, score[node]) for node in [seed, *others[: count - 1]]]


def _row(csr: CSR, node: int, known: dict[int, list[int]]) -> list[int]:
    if node not in known:
        known[node] = csr.col[int(csr.ptr[node]) : int(csr.ptr[node + 1])].tolist()
    return known[node]


def _square(graph: HasCSR | CSR) -> CSR:
    """The adjacency of ``graph``; raises UserError where it is not of nodes with themselves."""
    csr = graph if isinstance(graph, CSR) else graph.csr
    if csr.shape[0] != csr.shape[1]:
        raise UserError(f"this needs the edges of one set of nodes, not a pattern of shape {tuple(csr.shape)}")
    return csr
