"""A data set: graphs, labels, splits and the protocols that can judge codes on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Generator, Tensor

from graphssl.data.features import one_hot_degrees
from graphssl.data.splits import Split as Split
from graphssl.data.splits import labelled, link_split
from graphssl.data.stored import Stored
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.tokens import Items, Tokenizer, default_tokenizer

Alter = Callable[[Any, Generator | None], Any]  # raw items, as ``Items.take`` gives them, to others of their kind
TOLD = ("metric", "classes", "fields", "edge_fields", "from_degrees", "known", "notes")  # of a stored set, in its meta
FEWEST_TO_PART = 100  # nodes of a graph that is worth cutting into ten parts


class Graphs(Sequence[Graph]):
    """A list of Graphs made when asked for: ``make(i)`` builds the i-th of ``count``.

    Each is made once and kept, so that a source which draws anew at each reading gives the same Graph ever after.
    ``several`` builds those at many places at once, which going through all of them then does.
    """

    def __init__(
        self, count: int, make: Callable[[int], Graph], several: Callable[[Sequence[int]], list[Graph]] | None = None
    ):
        self.make, self.several = make, several
        self.made: list[Graph | None] = [None] * count

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self) -> Iterator[Graph]:
        if self.several is not None:
            count, several = len(self), self.several
            self.made = [graph for a in range(0, count, 256) for graph in several(range(a, min(a + 256, count)))]
            self.several = None
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):  # type: ignore[override]
        place = range(len(self))[index]  # counts from the end and raises as a list does
        if isinstance(place, range):
            return [self[i] for i in place]
        graph = self.made[place]
        if graph is None:
            graph = self.made[place] = self.make(place)
        return graph


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
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
    metric: str = "accuracy"  # of classes on a split: "accuracy" or "auc"
    classes: tuple[str, ...] = ()  # names of the classes, where known
    node_names: Sequence[Any] | None = None  # the user's own names of nodes, for exports
    item_names: tuple[Any, ...] | None = None  # names of graphs, where known
    with_val: Graph | None = None  # of a link set: ``graph`` with the validation edges; test pairs are in neither
    nodes: Dataset | None = None  # of a link set: its graph as a node set, with the labels and splits it came with
    stored: Stored | None = None  # of a node set in a folder: its graph there, where it may not fit in memory
    items: Items | None = None  # of a graph set: images, videos, ... whose tokens the graphs are
    tokenizer: Tokenizer | None = None  # what makes graphs of the items
    fields: tuple[int, ...] = ()  # widths of the one-hot blocks that content is made of; (): it is not of classes
    edge_fields: tuple[int, ...] = ()  # those that edge_attr is made of
    from_degrees: bool = False  # x is one-hot degrees, to be made anew where edges are held out
    known: bool = False  # loaded by name, so that the papers' settings and figures for that name are meant
    notes: tuple[str, ...] = ()  # what reports say beside figures on it
    raw: Any = None  # the items as they came in

    @classmethod
    def of_items(cls, items: Items, tokenizer: Tokenizer | None = None, **fields: Any) -> Dataset:
        """A graph set whose graphs are the ``items``' tokens; without a ``tokenizer`` by the one that suits them."""
        cutter = tokenizer or default_tokenizer(items)
        cutter.width(items.shape)

        def cut(places: Sequence[int]) -> list[Graph]:
            return cutter(items.take(places)).parts()

        graphs = items.remember(cutter, lambda: Graphs(len(items), lambda i: cut([i])[0], cut))
        return cls(task="graph", graphs=graphs, items=items, tokenizer=cutter, **fields)

    @classmethod
    def of_stored(cls, stored: Stored, name: str | None = None) -> Dataset:
        """A node set whose graph stays in its folder until ``graph`` is asked for, which reads it into memory."""
        said = {key: value for key, value in stored.meta.get("set", {}).items() if key in TOLD}
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in said.items()}
        return cls(
            name=name or stored.name, graphs=Graphs(1, lambda _: stored.graph()), task="node", y=stored.y,
            splits=stored.splits, node_names=stored.node_names, stored=stored, raw=stored, **fields,
        )  # fmt: skip

    def tokenize(self, tokenizer: Tokenizer) -> Dataset:
        """The same items cut by another ``tokenizer``; UserError where it does not fit them."""
        if self.items is None:
            raise UserError(
                f"data set {self.name!r} holds graphs already; a tokenizer is for images and other raw items"
            )
        if tokenizer == self.tokenizer:
            return self
        if tokenizer.kind != self.items.kind:
            raise UserError(
                f"data set {self.name!r} holds {self.items.kind}, but {type(tokenizer).__name__} cuts {tokenizer.kind}"
            )
        tokenizer.width(self.items.shape)
        cut = Dataset.of_items(self.items, tokenizer, name=self.name)
        return self.replace(graphs=cut.graphs, tokenizer=tokenizer)

    def __repr__(self) -> str:
        size = f"{len(self.graphs)} graphs" if self.task == "graph" else repr(self.source)
        size = repr(self.items) if self.items is not None else size
        splits = ", ".join(f"{name} x{len(repeats)}" for name, repeats in self.splits.items()) or "none"
        protocols = ", ".join(self.protocols) or "none"
        return f"Dataset({self.name!r}, task {self.task!r}, {size}, splits: {splits}, protocols: {protocols})"

    @property
    def graph(self) -> Graph:
        """The one graph of a node or link set, in memory."""
        return self.graphs[0]

    @property
    def source(self) -> Stored | Graph:
        """The one graph of a node or link set where it is: what samplers read.

        Both kinds have ``x`` (of a Stored perhaps float16, to be cast once rows are taken), ``csr``, ``edge_weight``,
        ``edge_attr``, ``num_nodes`` and ``num_edges``.
        """
        return self.stored or self.graph

    @property
    def num_nodes(self) -> int:
        """Nodes of all graphs."""
        return self.stored.num_nodes if self.stored else sum(graph.num_nodes for graph in self.graphs)

    @property
    def dim(self) -> int:
        """Width of a node's content."""
        if self.items is not None and self.tokenizer is not None:
            return self.tokenizer.width(self.items.shape)
        return (self.stored or self.graphs[0]).x.size(1)

    @property
    def level(self) -> str:
        """What ``embed`` returns codes of: "node" or "graph"."""
        return "graph" if self.task == "graph" else "node"

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the protocols that can judge codes here.

        Those that fit a probe to classes and the decoders of link sets need a default split with rows in each part, dot
        products and few labels of nodes one without validation, numbers such a one, or ten labelled graphs; clusters
        and a support vector machine for graphs need none, and the latter is not offered for raw items, which come in
        thousands. What a graph's edges ask needs edges, and parts of it 100 nodes. A link set offers what its
        ``nodes`` do after its own. Labels that no protocol takes yet offer none: several an item, numbers of nodes, and
        yes/no labels that come as floats (0, 1, NaN where unknown: OGB's molecules), which are no numbers to predict.
        """
        if self.task == "link":
            return (*self._of_links(), *self.as_nodes().protocols)
        if self.task == "node":
            return (*self._of_labels(), *self._of_edges())
        if self.y is None or self.y.numel() != len(self.y):  # several labels each
            return ()
        y, numbers = self.y.flatten(), self.y.is_floating_point()
        values = y[labelled(y)]
        if not numbers:
            if len(values.unique()) < 2:
                return ()
            folds = ("graph-svm",) if self.items is None else ()
            return (*folds, *(("graph-linear", "graph-knn", "graph-few-shot") if self._has_split() else ()))
        if ((values == 0) | (values == 1)).all():
            return ()
        enough = self._has_split(needs_validation=False) if self.splits else len(values) >= 10
        return ("graph-ridge",) if enough else ()

    def _of_links(self) -> tuple[str, ...]:
        if not self._has_split():
            return ("link-dot",) if self._has_split(needs_validation=False) else ()
        return ("link-dot", "link-mlp", *(() if self.with_val is None else ("link-mlp-valmsg",)))

    def _of_labels(self) -> tuple[str, ...]:
        """Of the protocols for nodes, those about their classes."""
        if self.y is None or self.y.numel() != len(self.y) or self.y.is_floating_point():
            return ()
        some = self._has_split(needs_validation=False)
        offered = {
            "node-linear": self._has_split(),
            "node-knn": self._has_split(),
            "node-cluster": len(self.y[labelled(self.y.flatten())].unique()) > 1,
            "node-few-shot": some,
        }
        return tuple(name for name, fits in offered.items() if fits)

    def _of_edges(self) -> tuple[str, ...]:
        """Of the protocols for nodes, those about what the graph's edges tell; parts need METIS, too.

        None of a stored set: they take the graph into memory.
        """
        if self.stored is not None:
            return ()
        source, target = self.graph.edge_index
        if not (source != target).any():
            return ()
        parts = self.graph.num_nodes >= FEWEST_TO_PART and find_spec("pymetis") is not None
        return ("partition", "reconstruct") if parts else ("reconstruct",)

    def _has_split(self, needs_validation: bool = True) -> bool:
        """Whether the default split has rows in each part, in all its repeats."""
        splits = next(iter(self.splits.values()), ())
        for split in splits:
            if not (split.train.numel() and split.test.numel() and (split.val.numel() or not needs_validation)):
                return False
        return len(splits) > 0

    def batch(self, indices: Sequence[int], alter: Alter | None = None, generator: Generator | None = None) -> Graph:
        """The graphs at ``indices`` laid end to end, their places in the data set in ``items``.

        ``alter`` (values, generator) -> values changes raw items before they are cut, as training's augmentation does.
        """
        if self.items is not None and self.tokenizer is not None:
            values = self.items.take(indices)
            graph = self.tokenizer(values if alter is None else alter(values, generator))
        else:
            graph = Graph.stack([self.graphs[i] for i in indices])
        return graph.replace(items=torch.as_tensor(list(indices)))

    def link(self, seed: int = 0) -> Dataset:
        """The link set of this graph: training edges as the graph, held-out pairs (5 % and 10 %) as its split.

        Labels and splits of nodes go along in ``nodes``, on the graph of the training edges too, so that codes
        pretrained on this link set can be judged by all that is known of the nodes. The raw items stay behind, and
        features made of degrees are made anew from the training edges where the data set knows that they are such
        (``from_degrees``: sets by name). Degrees that you put into ``x`` yourself count the held-out edges and so give
        them away: say ``dataset.replace(from_degrees=True).link()`` where ``x`` is ``degree_features`` of this graph,
        and leave out other features made of edges.
        """
        if self.task != "node":
            raise UserError(f"data set {self.name!r} is about {self.task}s; only a set of one graph has a link set")
        graph, split, with_val = link_split(self.graph, seed)
        if self.from_degrees:
            graph = graph.replace(x=one_hot_degrees(graph.edge_index[1], graph.num_nodes, self.dim - 1))
            with_val = with_val.replace(x=graph.x)  # what the encoder was pretrained on
        nodes = self.replace(name=f"{self.name}/link", graphs=[graph], raw=None)
        return nodes.replace(task="link", y=None, splits={"link": (split,)}, with_val=with_val, nodes=nodes, classes=())

    def training(self) -> Dataset:
        """The graphs or items that the default split does not test on: to pretrain on, and be evaluated on the whole.

        They keep their order, labels and names, and have no splits. UserError where there is no default split of a
        graph set, or it is repeated, so that several parts test.
        """
        if self.task != "graph":
            raise UserError(f"data set {self.name!r} is about {self.task}s; only a set of graphs can leave some out")
        splits = next(iter(self.splits.values()), ())
        if len(splits) != 1:
            raise UserError(
                f"data set {self.name!r} has {len(splits) or 'no'} test parts, not one; choose a split: "
                "dataset.replace(splits={'mine': (split,)}).training()"
            )
        keep = torch.ones(len(self.graphs), dtype=torch.bool)
        keep[splits[0].test] = False
        places = keep.nonzero().flatten().tolist()
        fields: dict[str, Any] = {
            "name": f"{self.name}/training", "y": None if self.y is None else self.y[places], "classes": self.classes,
            "item_names": None if self.item_names is None else tuple(self.item_names[i] for i in places),
            "metric": self.metric, "notes": self.notes, "fields": self.fields, "edge_fields": self.edge_fields,
        }  # fmt: skip
        if self.items is not None:
            values = self.items.values
            some = values[places] if isinstance(values, Tensor) else [values[i] for i in places]
            return Dataset.of_items(replace(self.items, values=some), self.tokenizer, **fields)
        graphs = [self.graphs[i] for i in places]
        return Dataset(graphs=graphs, task="graph", from_degrees=self.from_degrees, **fields)

    def as_nodes(self) -> Dataset:
        """This node set, or that of a link set's graph: its ``nodes``, or, where there are none, one without labels."""
        if self.task != "link":
            return self
        if self.nodes is None:
            return self.replace(task="node", y=None, splits={}, with_val=None)
        return self.nodes.replace(graphs=self.graphs)

    def replace(self, **changes: Any) -> Dataset:
        """The same data set with other fields; one with other ``graphs`` is no longer that in the folder."""
        return replace(self, **({"stored": None} if "graphs" in changes else {}) | changes)
