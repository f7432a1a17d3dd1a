"""Which part of one large graph a training step sees.

Order and draws of a part come from (seed, epoch) and (seed, step, slot) alone, so that neither threads that draw ahead
nor a resumed run change them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from graphssl import ops, structure
from graphssl.data.loader import generator_of, shard
from graphssl.data.stored import Stored
from graphssl.errors import UserError, unknown
from graphssl.graph import Graph

LOADERS = ("auto", "full", "neighbor", "walk", "cluster", "local")
SEEDS = 1024  # nodes, or edges, that a step asks about where nobody says
TOGETHER = 8  # clusters in a batch: several, so that edges between some of them are there
COVERAGE = 20  # how often a node is met on average while GraphSAINT's frequencies are counted; 50 there
RARE = 0.1  # nodes met less often than this share of all count in every batch that they are in
HEAVIEST = 1e4  # the weight of an edge that was hardly ever met, as in PyG's GraphSAINTSampler


class Part(NamedTuple):
    """A part of a graph: its nodes, ascending within each of the graphs it makes, and edges among them."""

    nodes: Tensor  # [n] ids in the whole graph
    edges: Tensor  # [2, e], source and target as places in ``nodes``, by target, then by source
    place: Tensor  # [e], which of the whole graph's edges each is
    seeds: Tensor | None = None  # [M], places in ``nodes`` that count, ascending; None: all do
    sizes: tuple[int, ...] | None = None  # nodes of each graph; None: one graph
    weight: Tensor | None = None  # [e], what each edge weighs beside its own weight; None: 1


class Sampler(Protocol):
    """Cuts a part out of a graph around some of its units: nodes, edges or clusters."""

    def units(self, source: Stored | Graph) -> int:
        """How many units an epoch hands out, each once."""
        ...

    def __call__(self, source: Stored | Graph, chosen: Tensor, generator: Generator) -> Part: ...


@dataclass(frozen=True)
class Neighbors:
    """The chosen nodes and what is drawn of their neighbours, ``fanouts[k]`` of each node that is new at hop k.

    The chosen nodes count. With ``pairs`` the units are edges, their ends count, and the part holds all edges among its
    nodes, so that a pair without an edge has none in the whole graph either; the order of an epoch is then one number
    an edge. GraphSAGE, arXiv:1706.02216.
    """

    fanouts: tuple[int, ...]
    pairs: bool = False

    def units(self, source: Stored | Graph) -> int:
        return source.num_edges if self.pairs else source.num_nodes

    def __call__(self, source: Stored | Graph, chosen: Tensor, generator: Generator) -> Part:
        csr = source.csr
        if not self.pairs:
            drawn = ops.sample_hops(csr, chosen, self.fanouts, generator)
            return Part(drawn.nodes, drawn.edges, drawn.place, drawn.seeds)
        ends = torch.cat([csr.col[chosen].long(), torch.searchsorted(csr.ptr, chosen, right=True) - 1])
        drawn = ops.sample_hops(csr, ends, self.fanouts, generator)
        return Part(drawn.nodes, *ops.induced_edges(csr, drawn.nodes), drawn.seeds)


class Walks:
    """The nodes on a random walk of ``length`` steps from each chosen node, and all edges among them.

    GraphSAINT, ICLR 2020, arXiv:1907.04931, whose random-walk sampler this is, and its normalisation: parts drawn
    beforehand, from ``seed``, tell how often a node and an edge are met. An edge weighs the inverse of how often it
    comes along with its target (alpha, eq. 4), which encoders that read edge weights heed. Where the paper weighs a
    node's loss by the inverse of how often the node is met (lambda, eq. 2), ours lets it count that often, as methods
    compare rows and do not weigh them: all nodes count equally often but the rarest. Both are kept, 4 bytes a node and
    an edge.
    """

    def __init__(self, source: Stored | Graph, length: int, batch_size: int, seed: int = 0):
        self.length = length
        N, rng = source.num_nodes, torch.Generator().manual_seed(seed)
        met, along = torch.zeros(N, dtype=torch.int32), torch.zeros(source.num_edges, dtype=torch.int32)
        total = 0
        while total < COVERAGE * N:
            nodes, _, place = self._draw(source, torch.randint(N, (min(batch_size, N),), generator=rng), rng)
            met[nodes] += 1
            along[place] += 1
            total += len(nodes)
        self.met, self.along = met, along
        self.often = float(np.quantile(met[met > 0].numpy(), RARE))

    def units(self, source: Stored | Graph) -> int:
        return source.num_nodes

    def _draw(self, source: Stored | Graph, roots: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        nodes = ops.sample_walks(source.csr, roots, self.length, generator).unique()
        return nodes, *ops.induced_edges(source.csr, nodes)

    def __call__(self, source: Stored | Graph, chosen: Tensor, generator: Generator) -> Part:
        nodes, edges, place = self._draw(source, chosen, generator)
        often = self.often / self.met[nodes].clamp(min=1)
        counts = torch.rand(len(nodes), generator=generator) < often
        target = self.met[nodes[edges[1]]].clamp(min=1)
        weight = (target / self.along[place].clamp(min=1)).clamp(max=HEAVIEST)
        return Part(nodes, edges, place, counts.nonzero().squeeze(1) if counts.any() else None, weight=weight)


class Clusters:
    """The nodes of the chosen clusters and all edges among them; all count. ClusterGCN, arXiv:1905.07953.

    Clusters are METIS's parts of the whole graph, ``TOGETHER`` of them about ``batch_size`` nodes; it is cut once, from
    ``seed``, with its edges, not its content, in memory.
    """

    def __init__(self, source: Stored | Graph, batch_size: int, seed: int = 0):
        N = source.num_nodes
        count = max(1, min(N, math.ceil(TOGETHER * N / batch_size)))
        part = torch.zeros(N, dtype=torch.long)
        if count > 1:
            target = torch.arange(N).repeat_interleave(source.csr.ptr.diff(), output_size=source.num_edges)
            edges = torch.stack([source.csr.col.long(), target])
            part = structure.partition(
                Graph(x=torch.empty(N, 0), edge_index=edges, batch=part, sizes=(N,)), count, seed
            )
        members = part.argsort(stable=True).split(torch.bincount(part, minlength=count).tolist())
        self.members = [nodes for nodes in members if len(nodes)]

    def units(self, source: Stored | Graph) -> int:
        return len(self.members)

    def __call__(self, source: Stored | Graph, chosen: Tensor, generator: Generator) -> Part:
        nodes = torch.cat([self.members[i] for i in chosen.tolist()]).sort().values
        return Part(nodes, *ops.induced_edges(source.csr, nodes))


@dataclass(frozen=True)
class Local:
    """For each chosen node a graph of its own: the ``count`` nodes nearest by personalised PageRank, all edges among.

    GraphMAE2's local clustering (arXiv:2304.04779, section 4.3). All nodes count, as in its reconstruction loss, where
    its second loss counts the chosen nodes alone; with ``chosen_alone`` ours does so too. A pair without an edge has
    none in the whole graph either.
    """

    count: int
    chosen_alone: bool = False

    def units(self, source: Stored | Graph) -> int:
        return source.num_nodes

    def __call__(self, source: Stored | Graph, chosen: Tensor, generator: Generator) -> Part:
        parts, start, seeds = [], 0, []
        for node, near in zip(chosen, ops.near_nodes(source.csr, chosen, self.count), strict=True):
            nodes = near.sort().values
            seeds.append(int(torch.searchsorted(nodes, node)) + start)
            edges, place = ops.induced_edges(source.csr, nodes)
            parts.append((nodes, edges + start, place))
            start += len(nodes)
        sizes = tuple(len(nodes) for nodes, _, _ in parts)
        edges = torch.cat([edges for _, edges, _ in parts], dim=1)
        counted = torch.tensor(seeds) if self.chosen_alone else None
        return Part(torch.cat([p[0] for p in parts]), edges, torch.cat([p[2] for p in parts]), counted, sizes)


def cut(source: Stored | Graph, part: Part) -> Graph:
    """The ``part`` as a Graph: what its nodes and edges carry is read from ``source``, content as float32."""
    x = source.x.index_select(0, part.nodes).float() if isinstance(source.x, Tensor) else source.x[part.nodes]
    along = {
        k: v.index_select(0, part.place) for k in ("edge_attr", "edge_weight") if (v := getattr(source, k)) is not None
    }
    if part.weight is not None:
        along["edge_weight"] = part.weight * along.get("edge_weight", 1.0)
    if source.pos is not None:
        along["pos"] = source.pos.index_select(0, part.nodes)
    sizes = part.sizes or (len(part.nodes),)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return Graph(x=x, edge_index=part.edges, batch=batch, sizes=sizes, seeds=part.seeds, rows=part.nodes, **along)  # type: ignore[arg-type]


class Sampled:
    """A part of one graph a step, around ``batch_size`` units; the order of an epoch comes from (seed, epoch) alone.

    ``source`` is what parts are cut from, after what asks for the whole graph; ``local`` is done to each part. A step
    has ``slots`` parts, which several processes or micro-batches share.
    """

    def __init__(
        self, source: Stored | Graph, sampler: Sampler, local: Callable[[Graph], Graph], device: torch.device | str,
        batch_size: int, seed: int = 0, slots: int = 1,
    ):  # fmt: skip
        self.source, self.sampler, self.local = source, sampler, local
        self.device, self.batch_size, self.seed, self.slots = torch.device(device), batch_size, seed, slots
        self.count = sampler.units(source)
        self.per_epoch = -(-self.count // (batch_size * slots))
        self._orders: dict[int, np.ndarray] = {}  # of this epoch and of the next, which a thread may have begun
        self._lock = threading.Lock()
        self._largest: tuple[int, int] | None = None

    def __call__(self, step: int, slot: int = 0) -> Graph:
        epoch, place = divmod(step, self.per_epoch)
        return self.around(shard(self._order(epoch), place, self.batch_size, self.slots, slot), step, slot)

    def _order(self, epoch: int) -> np.ndarray:
        """The units in the order of that ``epoch``."""
        with self._lock:
            if epoch not in self._orders:
                order = np.arange(self.count, dtype=np.int32 if self.count < 2**31 else np.int64)
                np.random.default_rng([self.seed, epoch]).shuffle(order)
                self._orders = {near: old for near, old in self._orders.items() if abs(near - epoch) == 1}
                self._orders[epoch] = order
            return self._orders[epoch]

    def around(self, chosen: np.ndarray, step: int, slot: int = 0) -> Graph:
        """The part around the ``chosen`` units that (seed, step, slot) draws."""
        generator = generator_of(self.seed, step, slot, use=2)
        part = self.sampler(self.source, torch.from_numpy(chosen.astype(np.int64)), generator)
        return self.local(cut(self.source, part)).to(self.device)

    def sample(self) -> Graph:
        """A Graph to look at codes on, the same at each call."""
        few = min(self.batch_size, self.count)
        return self.around(np.arange(few) * self.count // few, 0)  # from all over: on the disk near ones are alike

    def largest(self) -> tuple[int, int]:
        """Nodes and edges of a batch that was drawn to see how large they are."""
        if self._largest is None:
            some = self(0)
            self._largest = some.num_nodes, some.num_edges
        return self._largest


class Ahead:
    """``batches`` whose next Graphs are made by ``workers`` threads while a step computes; the same Graphs.

    ``mine`` are the slots of a step that this process asks for, in order.
    """

    def __init__(self, batches: Sampled, workers: int, mine: Sequence[int] = (0,)):
        self.batches, self.workers, self.mine = batches, workers, tuple(mine)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="graphssl-sampler")
        self.waiting: dict[tuple[int, int], Future[Graph]] = {}

    def __getattr__(self, name: str):
        return getattr(self.batches, name)

    def __call__(self, step: int, slot: int = 0) -> Graph:
        place = step * len(self.mine) + self.mine.index(slot)
        for i in range(place, place + self.workers + 1):
            key = (i // len(self.mine), self.mine[i % len(self.mine)])
            if key not in self.waiting:
                self.waiting[key] = self.pool.submit(self.batches, *key)
        found = self.waiting.pop((step, slot))
        self.waiting = {key: future for key, future in self.waiting.items() if key >= (step, slot)}
        return found.result()

    def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Loading:
    """How the steps of one graph are made; ``chosen`` in ``graphssl.loading`` says which loader "auto" is."""

    loader: str = "auto"
    fanouts: tuple[int, ...] = (10, 10)
    walk_length: int = 4
    ego: int = 256
    workers: int = 0


def read_fanouts(words: str) -> tuple[int, ...]:
    """ "10,10" as (10, 10): how many neighbours are drawn at each hop, -1 for all; UserError where it says no such."""
    try:
        fanouts = tuple(int(word) for word in words.split(","))
    except ValueError:
        fanouts = ()
    if not fanouts or any(fanout < 1 and fanout != -1 for fanout in fanouts):
        raise UserError(
            f"fanouts are {words!r}; say how many neighbours to draw at each hop, as in '10,10' (-1 for all)"
        )
    return fanouts


def sampler_for(
    how: str, loading: Loading, source: Stored | Graph, batch_size: int, pairs: bool, contrasts: bool, seed: int
) -> tuple[Sampler, int]:  # fmt: skip
    """The sampler of that name, one of ``LOADERS`` but the first two, for ``source``, and how many units make a batch.

    ``pairs``: parts are for a method that tells edges from pairs that are none; ``contrasts``: for one that contrasts
    all that counts. Raises UserError for another name.
    """
    if how == "neighbor":
        return Neighbors(loading.fanouts, pairs), batch_size
    if how == "walk":
        return Walks(source, loading.walk_length, batch_size, seed), batch_size
    if how == "cluster":
        return Clusters(source, batch_size, seed), TOGETHER
    if how == "local":
        if pairs and contrasts:
            raise UserError(
                "loader='local' lets one node of each part count where a method contrasts nodes, and this one also "
                "tells edges from pairs of nodes that count; choose loader='neighbor', 'walk' or 'cluster'"
            )
        return Local(loading.ego, contrasts), batch_size
    raise unknown("loader", how, LOADERS)
