"""Which Graph a training step sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from graphssl.data.dataset import Alter, Dataset
from graphssl.graph import Graph


def shard(order: np.ndarray, place: int, size: int, slots: int, slot: int) -> np.ndarray:
    """What ``slot`` of ``slots`` gets of the batch at ``place`` of an epoch's ``order``, about ``size`` of them.

    The last batch of an epoch may hold less; of one that holds fewer than there are slots some come twice.
    """
    chosen = order[place * size * slots : (place + 1) * size * slots]
    if len(chosen) < slots:
        chosen = np.resize(chosen, slots)
    return np.array_split(chosen, slots)[slot]


def generator_of(seed: int, step: int, slot: int, use: int) -> torch.Generator:
    """The generator that a batch is made with; ``use``, 1 or more, tells its draws from other ones of the same step."""
    # one word more than in ``train.generator_for``, and not 0, as zeros at the end make no difference
    drawn = np.random.SeedSequence([seed, step, slot, use]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(drawn >> np.uint64(1)))


class Full:
    """The one graph of a node or link set, whole, in every step."""

    def __init__(self, dataset: Dataset, transform: Callable[[Graph], Graph], device: torch.device | str):
        self.graph, self.device = transform(dataset.graph).to(device), torch.device(device)
        self.per_epoch = self.count = 1

    def __call__(self, step: int, slot: int = 0) -> Graph:
        return self.graph

    def sample(self) -> Graph:
        """A Graph to look at codes on, the same at each call."""
        return self.graph

    def largest(self) -> tuple[int, int]:
        """Nodes and edges of the largest batch."""
        return self.graph.num_nodes, self.graph.num_edges


class Batches:
    """``batch_size`` graphs a step; the order of an epoch comes from (seed, epoch) alone.

    Raw items are cut anew in each step, unless that is costly; with ``alter`` they are changed before, by draws from
    (seed, step, slot), ``views`` times each, the views of an item side by side. A step has ``slots`` batches, which
    several processes or micro-batches share.
    """

    def __init__(
        self, dataset: Dataset, transform: Callable[[Graph], Graph], device: torch.device | str, batch_size: int,
        seed: int = 0, alter: Alter | None = None, views: int = 1, slots: int = 1,
    ):  # fmt: skip
        self.dataset, self.transform, self.alter, self.views = dataset, transform, alter, views
        self.device, self.batch_size, self.seed, self.slots = torch.device(device), batch_size, seed, slots
        self.count = len(dataset.graphs)
        self.per_epoch = -(-self.count // (batch_size * slots))
        self._epoch, self._order = -1, np.empty(0, int)
        self.kept: list[Graph] | None = None
        if dataset.tokenizer is None or (dataset.tokenizer.costly and alter is None):
            self.kept = [transform(graph) for graph in dataset.graphs]

    def __call__(self, step: int, slot: int = 0) -> Graph:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        chosen = shard(self._order, place, self.batch_size, self.slots, slot).repeat(self.views)
        if self.alter is None:
            return self.of(chosen.tolist())
        generator = generator_of(self.seed, step, slot, use=1)
        return self.transform(self.dataset.batch(chosen.tolist(), self.alter, generator)).to(self.device)

    def of(self, indices: Sequence[int]) -> Graph:
        """The graphs at ``indices``, as they are."""
        if self.kept is None:
            return self.transform(self.dataset.batch(indices)).to(self.device)
        stacked = Graph.stack([self.kept[i] for i in indices])
        return stacked.replace(items=torch.as_tensor(list(indices))).to(self.device)

    def sample(self) -> Graph:
        """A Graph to look at codes on, the same at each call: the first 64 graphs."""
        return self.of(range(min(64, self.count)))

    def largest(self) -> tuple[int, int]:
        """Nodes and edges of the largest batch that could be drawn."""
        count = min(self.batch_size, self.count)
        if self.kept is None and self.dataset.items is not None:  # the more numbers an item has, the more tokens
            values = self.dataset.items.values
            order = list(range(self.count))
            if not isinstance(values, Tensor):
                order.sort(key=lambda i: values[i].numel(), reverse=True)
            most = self.of(order[:count])
            return most.num_nodes * self.views, most.num_edges * self.views
        kept = self.kept or []
        nodes = sorted((graph.num_nodes for graph in kept), reverse=True)[:count]
        edges = sorted((graph.num_edges for graph in kept), reverse=True)[:count]
        return sum(nodes) * self.views, sum(edges) * self.views

    def in_order(self) -> Iterator[Graph]:
        """All graphs once, in their own order."""
        for first in range(0, self.count, self.batch_size):
            yield self.of(range(first, min(first + self.batch_size, self.count)))
