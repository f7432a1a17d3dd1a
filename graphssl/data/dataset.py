"""A data set: graphs, labels, splits and the protocols that can judge codes on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from graphssl.data.features import one_hot_degrees
from graphssl.data.splits import Split as Split
from graphssl.data.splits import link_split
from graphssl.errors import UserError
from graphssl.graph import Graph


class Graphs(Sequence[Graph]):
    """A list of Graphs made when asked for: ``make(i)`` builds the i-th of ``count``."""

    def __init__(self, count: int, make: Callable[[int], Graph]):
        self.total, self.make = count, make

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index):  # type: ignore[override]
        if not -self.total <= index < self.total:
            raise IndexError(f"graph {index} of {self.total}")
        return self.make(index % self.total)

    def __iter__(self) -> Iterator[Graph]:
        return (self.make(i) for i in range(self.total))


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Graphs with what is known about them.

    A node or link set has one graph, and ``y`` [N] is of its nodes; a graph set has B graphs, and ``y`` is [B] or
    [B, T] (NaN where a label is missing). ``y`` is None where nothing is labelled.
    """

    name: str  # "cora"; "data" for a user's own
    graphs: Sequence[Graph]
    task: str  # "node", "link" or "graph": what codes are about
    y: Tensor | None = None  # integers are classes, floats are numbers to predict
    splits: dict[str, tuple[Split, ...]] = field(default_factory=dict)  # by name, the default first; repeats in order
    metric: str = "accuracy"  # of node-linear and node-knn: "accuracy" or "auc"
    classes: tuple[str, ...] = ()  # names of the classes, where known
    node_names: tuple[Any, ...] | None = None  # the user's own names of nodes, for exports
    item_names: tuple[Any, ...] | None = None  # names of graphs, where known
    from_degrees: bool = False  # x is one-hot degrees, to be made anew where edges are held out
    raw: Any = None  # the items as they came in

    @property
    def graph(self) -> Graph:
        """The one graph of a node or link set."""
        return self.graphs[0]

    @property
    def dim(self) -> int:
        """Width of a node's content."""
        return self.graphs[0].x.size(1)

    @property
    def level(self) -> str:
        """What ``embed`` returns codes of: "node" or "graph"."""
        return "graph" if self.task == "graph" else "node"

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the protocols that can judge codes here."""
        if self.task == "link":
            return ("link-dot",)
        if self.y is None or self.y.numel() != len(self.y):  # several labels each
            return ()
        if self.y.is_floating_point():
            return ("graph-ridge",) if self.task == "graph" else ()
        return ("node-linear", "node-knn") if self.task == "node" else ("graph-svm",)

    def batch(
        self, indices: Sequence[int], tokenizer: Callable | None = None, generator: Generator | None = None
    ) -> Graph:
        """The graphs at ``indices`` laid end to end, their places in the data set in ``items``."""
        graphs = [self.graphs[i] for i in indices]
        graph = Graph.stack(graphs)
        graph = graph.replace(items=torch.as_tensor(list(indices)))
        return graph if tokenizer is None else tokenizer(graph, generator)

    def link(self, seed: int = 0) -> Dataset:
        """The link set of this graph: training edges as the graph, held-out pairs (5 % and 10 %) as its split.

        Labels and the raw items stay behind, and features made of degrees are made anew from the training edges.
        """
        if self.task != "node":
            raise UserError(f"data set {self.name!r} is about {self.task}s; only a set of one graph has a link set")
        graph, split = link_split(self.graph, seed)
        if self.from_degrees:
            graph = graph.replace(x=one_hot_degrees(graph.edge_index[1], graph.num_nodes, self.dim - 1))
        return self.replace(
            name=f"{self.name}/link",
            graphs=[graph],
            task="link",
            y=None,
            splits={"link": (split,)},
            classes=(),
            raw=None,
        )

    def replace(self, **changes: Any) -> Dataset:
        return replace(self, **changes)

    def numpy_labels(self) -> np.ndarray:
        if self.y is None:
            raise ValueError(f"data set {self.name!r} has no labels")
        return self.y.numpy()
