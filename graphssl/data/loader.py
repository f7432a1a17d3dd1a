"""Which Graph a training step sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from graphssl.data.dataset import Dataset
from graphssl.graph import Graph


class Full:
    """The one graph of a node or link set, whole, in every step."""

    def __init__(self, dataset: Dataset, transform: Callable[[Graph], Graph], device: torch.device | str):
        self.graph, self.device = transform(dataset.graph).to(device), torch.device(device)
        self.per_epoch = 1

    def __call__(self, step: int) -> Graph:
        return self.graph

    def sample(self) -> Graph:
        """A Graph to look at codes on, the same at each call."""
        return self.graph

    def largest(self) -> tuple[int, int]:
        """Nodes and edges of the largest batch."""
        return self.graph.num_nodes, self.graph.num_edges


class Batches:
    """``batch_size`` graphs a step; the order of an epoch comes from (seed, epoch) alone."""

    def __init__(
        self, dataset: Dataset, transform: Callable[[Graph], Graph], device: torch.device | str, batch_size: int,
        seed: int = 0,
    ):  # fmt: skip
        self.graphs = [transform(graph).replace(items=torch.tensor([i])) for i, graph in enumerate(dataset.graphs)]
        self.device, self.batch_size, self.seed = torch.device(device), batch_size, seed
        self.per_epoch = -(-len(self.graphs) // batch_size)
        self._epoch, self._order = -1, np.empty(0, int)

    def __call__(self, step: int) -> Graph:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.graphs))
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return Graph.stack([self.graphs[i] for i in chosen]).to(self.device)

    def sample(self) -> Graph:
        """A Graph to look at codes on, the same at each call: the first 64 graphs."""
        return Graph.stack(self.graphs[:64]).to(self.device)

    def largest(self) -> tuple[int, int]:
        """Nodes and edges of the largest batch that could be drawn."""
        nodes = sorted((graph.num_nodes for graph in self.graphs), reverse=True)[: self.batch_size]
        edges = sorted((graph.num_edges for graph in self.graphs), reverse=True)[: self.batch_size]
        return sum(nodes), sum(edges)

    def in_order(self) -> Iterator[Graph]:
        """All graphs once, in their own order."""
        for first in range(0, len(self.graphs), self.batch_size):
            yield Graph.stack(self.graphs[first : first + self.batch_size]).to(self.device)
