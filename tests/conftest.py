"""The two tables: kinds of data and methods. Every contract runs on every pair that fits."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton, as torch_geometric does

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from graphssl.data import Dataset
from graphssl.graph import Graph
from graphssl.methods import Method
from graphssl.ops import Rows
from graphssl.recipes import Plan, Spec, get_recipe
from graphssl.tokens import Cubes, Items, Joints, Patches, PointGroups, Tokenizer, Tubelets
from graphssl.train import seeded

torch.set_num_threads(1)

F = 12  # width of the content of every kind but cubes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(n: int, seed: int, *, directed: bool = False, edges_per_node: float = 3.0, **extra: Any) -> Graph:
    g = generator(seed)
    edges = torch.randint(n, (2, int(edges_per_node * n)), generator=g)
    edges = edges[:, edges[0] != edges[1]]  # self-loops are in "odd"
    if not directed:
        edges = torch.cat([edges, edges.flip(0)], dim=1)
    if extra.pop("attributes", False):
        extra["edge_attr"] = torch.rand(edges.size(1), 3, generator=g)
    if extra.pop("weights", False):
        extra["edge_weight"] = torch.rand(edges.size(1), generator=g)
    return Graph.build(torch.randn(n, F, generator=g), edges, pos=torch.randn(n, 2, generator=g), **extra)


def words(n: int = 40) -> Graph:
    graph = random_graph(n, 1)
    counts = (torch.rand(n, F, generator=generator(2)) < 0.2).float()
    counts[0] = 0  # a document without words
    return graph.replace(x=Rows.from_dense(counts))


def star() -> Graph:
    spokes = torch.stack([torch.zeros(39, dtype=torch.long), torch.arange(1, 40)])
    return Graph.build(torch.randn(40, F, generator=generator(3)), torch.cat([spokes, spokes.flip(0)], dim=1))


def molecules() -> Graph:
    return Graph.stack([random_graph(n, n, attributes=True, edges_per_node=1.2) for n in (7, 1, 12, 30)])


FIELDS, EDGE_FIELDS = (6, 4, 2), (3, 2)  # widths of the one-hot blocks of the kind "classes"


def one_hots(count: int, widths: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    return torch.cat([torch.eye(w)[torch.randint(w, (count,), generator=g)] for w in widths], dim=1)


def classes() -> Graph:
    """Chains of 7, 1, 9 and 12 nodes, closed to rings of six; sparse content and edges of one-hot blocks."""
    graphs = []
    for n in (7, 1, 9, 12):
        g, chain = generator(n), torch.stack([torch.arange(n - 1), torch.arange(1, n)])
        bonds = torch.cat([chain, torch.tensor([[0], [5]])], dim=1) if n > 6 else chain
        kinds = one_hots(bonds.size(1), EDGE_FIELDS, g).repeat(2, 1)
        x = Rows.from_dense(one_hots(n, FIELDS, g))
        graphs.append(Graph.build(x, torch.cat([bonds, bonds.flip(0)], dim=1), edge_attr=kinds))
    return Graph.stack(graphs)


def odd() -> Graph:
    """Isolated nodes, self-loops and duplicate edges."""
    edges = torch.tensor([[0, 0, 1, 1, 2, 5, 5], [1, 1, 0, 1, 1, 5, 4]])
    return Graph.build(torch.randn(9, F, generator=generator(4)), edges)


def draws(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(10))


BODY = ((0, 1), (1, 2), (1, 3), (3, 4))  # a skeleton of five joints

# four raw items of each kind, and how they are cut where no method says otherwise
ITEMS: dict[str, tuple[Items, Tokenizer]] = {
    "patches": (Items("images", draws(4, 3, 8, 8)), Patches(2, "grid")),
    "tubelets": (Items("videos", draws(4, 6, 1, 8, 8)), Tubelets(3, 2)),
    "cubes": (Items("voxels", draws(4, 4, 4, 4)), Cubes(2)),
    "points": (Items("points", draws(4, 60, 3)), PointGroups(16, 4, "knn4")),
    "skeleton": (Items("skeletons", draws(4, 16, 5, 3)), Joints(BODY, frames=4, steps=None)),
}


def raw(kind: str, count: int) -> Dataset:
    """The first ``count`` items of that kind."""
    items, tokenizer = ITEMS[kind]
    return Dataset.of_items(Items(items.kind, items.values[:count]), tokenizer, name=kind)


KINDS: dict[str, Callable[[], Graph]] = {
    "citation": lambda: random_graph(60, 0),
    "words": words,
    "directed": lambda: random_graph(30, 5, directed=True),
    "weighted": lambda: random_graph(30, 6, weights=True),
    "star": star,
    "molecules": molecules,
    "classes": classes,
    "odd": odd,
    "one-node": lambda: Graph.build(torch.randn(1, F, generator=generator(7)), torch.empty(2, 0, dtype=torch.long)),
    "no-edges": lambda: Graph.build(torch.randn(8, F, generator=generator(8)), torch.empty(2, 0, dtype=torch.long)),
    "patches": lambda: Graph.stack(raw("patches", 2).graphs[:]),
    "tubelets": lambda: raw("tubelets", 1).graph,
    "points": lambda: raw("points", 1).graph,
    "skeleton": lambda: raw("skeleton", 1).graph,
}

EVERY = (*KINDS, "cubes")


@dataclass(frozen=True)
class Case:
    """A row of the table of methods: a recipe with small settings and what is known to be special about it."""

    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    no_gradient: dict[str, str] = field(default_factory=dict)  # parameter -> why its gradient is zero
    cancelling: frozenset[str] = frozenset()  # parameters whose gradient adds up to 0, on some machines to the bit
    skips: dict[str, str] = field(default_factory=dict)  # kind -> why it does not fit
    several: bool = False  # it needs several graphs: kinds of one graph come with parts of themselves
    kinds: tuple[str, ...] = ("citation", "words", "molecules", "patches")  # of a further row of the same recipe

    def given(self, kind: str) -> Graph:
        """A batch of that kind; of raw items as training makes it, altered and cut as the recipe says."""
        if kind in ITEMS:
            data, plan = self._raw(kind), self._plan(Spec.of(self._raw(kind)))
            assert plan.tokenizer is not None
            twice = [i for i in range(len(data.graphs)) for _ in range(plan.views)]
            return data.tokenize(plan.tokenizer).batch(twice, plan.alter, generator())
        graph = KINDS[kind]()
        if not self.several or graph.num_graphs > 1:
            return graph
        N, node = graph.num_nodes, torch.arange(graph.num_nodes)
        return Graph.stack([graph, graph.keep_nodes(node < (N + 1) // 2), graph.keep_nodes(node >= N // 2)])

    def make(self, graph: Graph, seed: int = 0, kind: str = "") -> Method:
        """The method for a ``graph``, or, where ``kind`` is one of raw items, for these."""
        if kind in ITEMS:
            return self._plan(Spec.of(self._raw(kind)), seed).method
        spec = Spec(
            "data", "node" if graph.num_graphs == 1 else "graph", graph.x.size(1), graph.num_nodes, graph.num_edges,
            graph.num_graphs, isinstance(graph.x, Rows),
            edge_dim=0 if graph.edge_attr is None else graph.edge_attr.size(1),
            axes=0 if graph.pos is None else graph.pos.size(1),
            fields=FIELDS if kind == "classes" else (), edge_fields=EDGE_FIELDS if kind == "classes" else (),
        )  # fmt: skip
        return self._plan(spec, seed).method

    def _raw(self, kind: str) -> Dataset:
        return raw(kind, 4 if self.several else 2 if kind == "patches" else 1)

    def _plan(self, spec: Spec, seed: int = 0) -> Plan:
        recipe = get_recipe(self.recipe)
        with seeded(seed):
            return recipe.plan(spec, recipe.settings(spec, {"width": 16, **self.settings}))


ORDER = frozenset({"rate.bias", "predictor.norm.bias"})  # they move all ratings alike, and only their order counts
REMASKED = {"decoder.layers.0.conv.target": "hidden targets are zero before the decoder (re-masking)"}
BONES = ("citation", "words", "molecules", "skeleton")  # for what goes by edges, which patches lack, or by time
ALONE = {"one-node": "one node has no other node to be told from"}
EDGELESS = dict.fromkeys(("one-node", "no-edges"), "it predicts edges, and there are none")

UNJOINED = dict.fromkeys(("one-node", "no-edges"), "it hides along edges, and there are none")
NO_TIME = dict.fromkeys(("patches", "points", "cubes"), "it goes by time, and they have none")
NOWHERE = dict.fromkeys(
    ("classes", "star", "odd", "one-node", "no-edges"), "it goes by where nodes stand, and they have no pos"
)

FEW = {"one-node": "one node makes no three clusters"}
ONE_GRAPH = {
    "one-node": "one node makes no groups",
    **dict.fromkeys(("molecules", "classes", "patches"), "it groups the nodes of one graph"),
}
NO_GROUPS = {**ONE_GRAPH, "no-edges": "it groups by edges, and there are none"}
NARROW = {"hidden": 16, "inner": 16}
FEW_DROPS = {"edges_1": 0.1, "edges_2": 0.1, "features_1": 0.1, "features_2": 0.1}

# what has no loss, or no encoder that could embed another graph: tests/test_baselines.py holds what these keep
BASELINES = ("fastrp", "line", "raw", "sgc", "untrained")

METHODS: dict[str, Case] = {
    "graphmae": Case("graphmae", {"encoder": "gat", "decoder": "gat", "replace": 0.1, "norm": "none"}, REMASKED),
    "graphmae-gin": Case("graphmae", {"encoder": "gin", "decoder": "gin", "norm": "batch"}),
    "graphmae-mlp": Case("graphmae", {"encoder": "gcn", "decoder": "mlp", "norm": "layer", "residual": True}),
    "grace": Case("grace", {"hidden": 16, "encoder": "gcn", "norm": "none", **FEW_DROPS}, skips=ALONE),
    "grace-adaptive": Case("grace", {"hidden": 16, "adaptive": "pagerank", **FEW_DROPS}, skips=ALONE),
    "graphmae-dropping-edges": Case("graphmae", {"drop_edges": 0.3, "mask_end": 0.8, "masker": "degree"}, REMASKED),
    "graphmae-mse": Case("graphmae", {"encoder": "gcn", "decoder": "gcn", "loss": "mse"}),
    "graphmae-block": Case("graphmae", {"masker": "block"}, REMASKED),
    "graphmae2": Case("graphmae2"),
    "graphmae2-remasking-the-hidden": Case("graphmae2", {"random": False, "momentum": 0.0}, REMASKED),
    "bandana": Case("bandana", {"inner": 8, "dropout": 0.2}, skips=EDGELESS),
    "bandana-discrete": Case("bandana", {"discrete": 0.5, "encoder": "sage", "dropout": 0.2}, skips=EDGELESS),
    "bandana-shuffled": Case("bandana", {"shuffle": True, "encoder": "gin", "dropout": 0.2}, skips=EDGELESS),
    "maskgae": Case("maskgae", {"degree": 0.01, "dropout": 0.2}, skips=EDGELESS),
    "maskgae-edge": Case("maskgae", {"first_width": 8, "masker": "edge", "negatives": "fast"}, skips=EDGELESS),
    "paretognn": Case("paretognn", {"inner": 16, "hidden": 16}, skips=EDGELESS),
    "s2gae": Case("s2gae", {"inner": 16}, skips=EDGELESS),
    "gae": Case("gae", skips=EDGELESS),
    "vgae": Case("vgae", {"encoder": "sage"}, skips=EDGELESS),
    "bgrl": Case("bgrl", {"hidden": 16, "encoder": "sage", "norm": "layer"}),
    "cca-ssg": Case("cca-ssg", skips=ALONE),
    "dgi": Case("dgi"),
    "graphcl": Case("graphcl", {"pool": "mean", "view": "random4", "ratio": 0.3, "kept": 0.5}, several=True),
    "graphcl-gcn": Case("graphcl", {"pool": "mean", "encoder": "gcn", "norm": "layer", "layers": 2}, several=True),
    "infograph": Case("infograph", {"pool": "mean", "layers": 3, "dropout": 0.2}, several=True),
    "simgrace": Case("simgrace", {"pool": "mean", "layers": 3, "eta": 0.3}, several=True),
    "selftask-attribute-mask": Case("selftask", {"tasks": "attribute-mask"}),
    "selftask-attribute-similarity": Case("selftask", {"tasks": "attribute-similarity"}),
    "selftask-cluster": Case("selftask", {"tasks": "cluster", "groups": 3}, skips=ONE_GRAPH),
    "selftask-cluster-distance": Case("selftask", {"tasks": "cluster-distance", "groups": 3}, skips=NO_GROUPS),
    "selftask-clustering-coefficient": Case("selftask", {"tasks": "clustering-coefficient"}, skips=EDGELESS),
    "selftask-degree": Case("selftask", {"tasks": "degree", "encoder": "gin"}, skips=EDGELESS),
    "selftask-edge-mask": Case("selftask", {"tasks": "edge-mask", "mask": 0.5, "dropout": 0.2}, skips=EDGELESS),
    "selftask-pairwise-distance": Case("selftask", {"tasks": "pairwise-distance"}, skips=EDGELESS),
    "selftask-partition": Case("selftask", {"tasks": "partition", "groups": 3}, skips=NO_GROUPS),
    "scgc": Case("scgc", {**NARROW, "clusters": 3, "warmup": 0.0}, skips=FEW),
    "scgc-influence": Case("scgc", {**NARROW, "influence": True, "gamma": 0.0, "warmup": 0.0}, skips=ALONE),
    "scgc-warming-up": Case("scgc", {**NARROW, "warmup": 0.99, "content_nodes": 5}),
}

NO_CLASSES = {kind: "its content is not of classes" for kind in EVERY if kind != "classes"}
NO_POINTS = {kind: "its nodes are no groups of points" for kind in EVERY if kind != "points"}

METHODS |= {
    "simmim": Case("simmim", {"layers": 2, "mask_end": 0.8}),
    "simmim-gat": Case("simmim", {"layers": 2, "encoder": "gat"}),
    "simmim-sparse": Case("simmim", {"layers": 2, "encoder": "sparse-transformer", "hops": 2, "global_nodes": 1}),
    "crossmae": Case("crossmae", {"layers": 2, "decoder_width": 16, "dropout": 0.1}),
    "crossmae-sparse": Case(
        "crossmae",
        {"layers": 2, "decoder_width": 16, "encoder": "sparse-transformer", "normalize": True, "decoded": 1.0},
    ),
    "maskfeat": Case("maskfeat", {"layers": 2, "dropout": 0.1}),
    "maskfeat-gcn": Case("maskfeat", {"layers": 2, "encoder": "gcn", "masker": "block"}),
    "simsiam": Case("simsiam", {"projection": 16, "hidden": 8, "view": "random4", "kept": 0.5}, several=True),
    "simsiam-gcn": Case(
        "simsiam", {"projection": 16, "hidden": 8, "encoder": "gcn", "norm": "layer", "dropout": 0.1}, several=True
    ),
    "point-mae": Case("point-mae", {"inner": 8, "layers": 1, "decoder_width": 16}, skips=NO_POINTS),
    "point-mae-near": Case(
        "point-mae", {"inner": 8, "layers": 1, "masker": "near", "dropout": 0.1}, skips=NO_POINTS, kinds=("points",)
    ),
    "skeletonmae": Case("skeletonmae", {"inner": 8, "layers": 2, "dropout": 0.1}, skips=EDGELESS),
    "skeletonmae-gat": Case(
        "skeletonmae",
        {"inner": 8, "layers": 2, "encoder": "gat", "decoder": "gat", "loss": "mse"},
        REMASKED,
        skips=EDGELESS,
        kinds=BONES,
    ),
    "mae": Case("mae", {"layers": 2, "decoder_width": 16, "dropout": 0.1}),
    "mae-gcn": Case("mae", {"layers": 2, "decoder_width": 16, "encoder": "gcn", "normalize": True, "mask": 0.5}),
    "mae-disjoint": Case("mae", {"layers": 2, "decoder_width": 16, "masker": "disjoint"}),
    "mae-block": Case(
        "mae", {"layers": 2, "decoder_width": 16, "masker": "block", "mask_end": 0.5}, skips=UNJOINED, kinds=BONES
    ),
    "mae-near": Case("mae", {"layers": 2, "decoder_width": 16, "masker": "near", "dropout": 0.1}, skips=NOWHERE),
    "mae-green": Case("mae", {"layers": 2, "decoder_width": 16, "masker": "color-green"}, skips=UNJOINED),
    "mae-frames": Case(
        "mae",
        {"decoder_width": 16, "masker": "frames", "mask": 0.5, "dropout": 0.1},
        skips=NOWHERE | NO_TIME,
        kinds=BONES,
    ),
    "videomae": Case("videomae", {"layers": 2, "decoder_width": 16, "dropout": 0.1}, skips=NOWHERE | NO_TIME),
    "hpm": Case("hpm", {"layers": 2, "decoder_width": 16, "dropout": 0.1}, cancelling=ORDER),
    "hpm-gcn": Case(
        "hpm", {"decoder_width": 16, "encoder": "gcn", "momentum": 0.5, "normalize": True}, cancelling=ORDER
    ),
    "latent-mim": Case("latent-mim", {"layers": 2, "decoder_width": 16, "inner": 16, "mask": 0.75}, skips=NOWHERE),
    "latent-mim-whole": Case(
        "latent-mim",
        {"layers": 2, "decoder_width": 16, "inner": 16, "mask": 0.5, "whole": True, "encoder": "gcn"},
        skips=NOWHERE,
    ),
    "attr-masking": Case("attr-masking", {"layers": 2}, skips=NO_CLASSES),
    "attr-masking-all": Case(
        "attr-masking",
        {"layers": 2, "targets": "all", "mask": 0.4, "dropout": 0.1},
        skips=NO_CLASSES,
        kinds=("classes",),
    ),
    "attr-masking-gcn": Case(
        "attr-masking", {"layers": 2, "encoder": "gcn", "edge_attr": False}, skips=NO_CLASSES, kinds=("classes",)
    ),
    "context-pred": Case("context-pred", {"layers": 2}, several=True),
    "context-pred-sage": Case(
        "context-pred", {"layers": 1, "r2": 2, "encoder": "sage", "norm": "layer", "dropout": 0.1}, several=True
    ),
    "graph-jepa": Case("graph-jepa", {"layers": 2, "parts": 4}, several=True),
    "graph-jepa-latent": Case(
        "graph-jepa", {"predicts": "latent", "targets": 1, "encoder": "gcn", "norm": "layer"}, several=True
    ),
    "graphcl-chemical": Case("graphcl", {"pool": "mean", "view": "chemical", "ratio": 0.4}, several=True),
    "graphmae-gine": Case(
        "graphmae",
        {"encoder": "gine+virtual+walk", "decoder": "gin", "norm": "batch"},
        kinds=("citation", "words", "molecules"),
    ),
    "infograph-gps": Case(
        "infograph",
        {"pool": "mean", "encoder": "gps+laplace", "layers": 2, "dropout": 0.1},
        several=True,
        kinds=("citation", "words", "molecules"),
    ),
    "dgi-gen": Case("dgi", {"encoder": "gen+checkpoint", "layers": 3}, kinds=("citation", "words", "molecules")),
    "graphmae-transformer": Case("graphmae", {"encoder": "transformer"}, REMASKED),
    "graphmae-sparse-transformer": Case("graphmae", {"encoder": "sparse-transformer"}, REMASKED),
}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def graph(kind: str) -> Graph:
    return KINDS[kind]()
