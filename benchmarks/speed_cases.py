"""What benchmarks/speed.py measures of single ops: the graphs, and beside each of our ops the same sum done by others.

Peers: ``pyg`` is PyG's own code on edges as its data sets come (sorted by source), ``pyg sorted`` the same on edges
sorted by target, ``pyg compiled`` that under torch.compile with fixed shapes, ``EdgeIndex`` its class for sorted edges
with both directions cached, ``torch CSR`` a sparse CSR tensor of torch (``mm``: its ``torch.sparse.mm`` with a reduce),
``scatter`` and ``segment`` torch-scatter's two ways, ``dgl`` its kernels on a graph whose formats are made before,
``flex`` FlexAttention under a block mask of the edges. All get the same inputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphssl
from graphssl import ops
from graphssl.backbones.gat import GATConv
from graphssl.errors import UserError
from graphssl.graph import Graph

HEADS = 4


@dataclass
class Side:
    """One way to do what a row is about: ``run()`` is the forward, ``leaves`` are what gradients are taken to."""

    run: Callable[[], Tensor | tuple[Tensor, ...]]
    leaves: tuple[Tensor, ...] = ()
    order: Tensor | None = None  # place of each of its edges among ours; None: the same order


@dataclass
class Case:
    """The sides of a row; each is made only when its turn comes, and may lack its package."""

    op: str  # as ops.backend calls it
    sides: dict[str, Callable[[], Side]]  # "ours" first
    exact: Callable[[], Side] | None = None  # ours on float64
    edgewise: tuple[int, ...] = ()  # of (output, gradients ...), which have a row an edge
    traffic: tuple[float, float] | None = None  # bytes of forward + backward: each row read once; once an edge
    gathers: int = 0  # passes over rows picked by edge, of those bytes
    rows: tuple[Tensor, Tensor] | None = None  # what such a pass reads: x [N, F] and the index [E]
    flops: float = 0.0  # of forward + backward, where they are the limit
    size: dict[str, int] = field(default_factory=dict)
    step: bool = False  # a whole training step: no backward of its own, nothing to compare


class Edges:
    """A graph's edges in the layouts that the peers want, each made once and outside the clock."""

    def __init__(self, graph: Graph):
        self.graph, self.N, self.E = graph, graph.num_nodes, graph.num_edges
        self.sorted, self.csr = graph.edge_index, graph.csr
        self.source, self.target = graph.edge_index
        self.degree = graph.csr.degree, graph.csr.transpose.degree  # made here, as all that a graph keeps

    @cached_property
    def order(self) -> Tensor:
        return (self.source * self.N + self.target).argsort()

    @cached_property
    def default(self) -> Tensor:
        return self.sorted[:, self.order].contiguous()

    @cached_property
    def edge_index(self):
        from torch_geometric import EdgeIndex

        flipped = EdgeIndex(self.sorted.flip(0), sparse_size=(self.N, self.N), sort_order="row")
        return flipped.fill_cache_()

    @cached_property
    def dgl(self):
        import dgl

        graph = dgl.graph((self.source, self.target), num_nodes=self.N)
        graph.create_formats_()
        return graph


def power_law(N: int, E: int, device: str, seed: int = 0) -> Graph:
    """A Chung-Lu graph of about N nodes and E directed edges, both directions of each, numbered at random."""
    g = torch.Generator(device).manual_seed(seed)
    share = torch.arange(1, N + 1, device=device, dtype=torch.float64).pow(-0.5).cumsum(0)
    name = torch.randperm(N, generator=g, device=device)
    draws = torch.rand(2, int(0.51 * E), generator=g, device=device, dtype=torch.float64) * share[-1]
    a, b = name[torch.searchsorted(share, draws).clamp(max=N - 1)]
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    pairs = (a * N + b)[a != b].unique()
    pairs = pairs[torch.randperm(len(pairs), generator=g, device=device)[: E // 2]]
    a, b = pairs // N, pairs % N
    both = torch.cat([a * N + b, b * N + a]).sort().values
    edges = torch.stack([both % N, both // N])
    x, batch = torch.empty(N, 1, device=device), torch.zeros(N, dtype=torch.long, device=device)
    return Graph(x=x, edge_index=edges, batch=batch, sizes=(N,))


def molecules(device: str) -> Graph:
    """128 molecules of NCI1 where it is at hand, else trees of their size with rings closed."""
    g = torch.Generator().manual_seed(0)
    try:
        graphs = graphssl.load_dataset("nci1").graphs
        picked = [graphs[i] for i in torch.randperm(len(graphs), generator=g)[:128].tolist()]
    except (UserError, OSError):
        picked = []
        for N in torch.randint(12, 36, (128,), generator=g).tolist():
            parent = (torch.arange(1, N) - 1 - torch.randint(0, 2, (N - 1,), generator=g)).clamp(min=0)
            rings = torch.stack([torch.arange(0, N - 6, 6), torch.arange(5, N - 1, 6)[: len(range(0, N - 6, 6))]])
            edges = torch.cat([torch.stack([parent, torch.arange(1, N)]), rings], dim=1)
            picked.append(Graph.build(torch.zeros(N, 1), torch.cat([edges, edges.flip(0)], dim=1)))
    return Graph.stack(picked).to(device)


GRAPHS: dict[str, Callable[[str], Graph]] = {
    "molecules": molecules,
    "cora": lambda device: graphssl.load_dataset("cora").graph.to(device),
    "citeseer": lambda device: graphssl.load_dataset("citeseer").graph.to(device),
    "powerlaw-100k": partial(power_law, 100_000, 1_000_000),
    "arxiv-size": partial(power_law, 169_343, 2_315_598),
    "products-size": partial(power_law, 2_449_029, 123_718_280),
}
ONLY_CUDA = ("arxiv-size", "products-size")


@cache
def edges_of(name: str, device: str) -> Edges:
    return Edges(GRAPHS[name](device))


def normal(*shape: int, device: str, seed: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)
    return drawn.requires_grad_()


def pure(function: Callable[..., Tensor], leaves: tuple[Tensor, ...], order: Tensor | None = None) -> Side:
    return Side(lambda: function(*leaves), leaves, order)


def doubled(function: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> Side:
    return pure(function, tuple(leaf.detach().double().requires_grad_() for leaf in leaves))


def compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=False)


def pyg_sides(
    edges: Edges, leaves: tuple[Tensor, ...], make: Callable[[Tensor], Callable[..., Tensor]], edgewise: int = -1
) -> dict[str, Callable[[], Side]]:
    """PyG's three sides; ``make(edge_index)`` gives the function of the leaves, of which ``edgewise`` has E rows."""

    def default() -> Side:
        moved = [
            leaf.detach()[edges.order].requires_grad_() if i == edgewise else leaf for i, leaf in enumerate(leaves)
        ]
        return pure(make(edges.default), tuple(moved), edges.order)

    return {
        "pyg": default,
        "pyg sorted": lambda: pure(make(edges.sorted), leaves),
        "pyg compiled": lambda: pure(compiled(make(edges.sorted)), leaves),
    }


def spmm(graph: str, width: int, device: str, reduce: str = "sum", weighted: bool = False) -> Case:
    edges = edges_of(graph, device)
    N, E, csr = edges.N, edges.E, edges.csr
    x = normal(N, width, device=device, seed=1)
    leaves = (x, normal(E, device=device, seed=2)) if weighted else (x,)

    def ours(x: Tensor, weight: Tensor | None = None) -> Tensor:
        return ops.spmm(edges.graph, x, weight, reduce=reduce)

    def pyg(index: Tensor) -> Callable[..., Tensor]:
        from torch_geometric.nn import MessagePassing

        class Aggregate(MessagePassing):
            def forward(self, x, weight=None):
                return self.propagate(index, x=x, weight=weight)

            def message(self, x_j, weight):
                return x_j if weight is None else x_j * weight[:, None]

        return Aggregate(aggr=reduce)

    def edge_index(x: Tensor, weight: Tensor | None = None) -> Tensor:
        return edges.edge_index.matmul(x, weight, reduce=reduce)

    def torch_csr(how: str | None) -> Side:
        weight = leaves[1].detach() if weighted else torch.ones(E, device=device)
        matrix = torch.sparse_csr_tensor(csr.ptr.int(), csr.col.int(), weight, size=(N, N), check_invariants=False)
        if how is None:
            return pure(lambda x: matrix @ x, leaves)
        mine = (x, matrix.requires_grad_()) if weighted else (x,)
        return Side(lambda: torch.sparse.mm(matrix, x, how), mine)

    def scatter(segment: bool) -> Side:
        import torch_scatter

        def run(x: Tensor, weight: Tensor | None = None) -> Tensor:
            messages = x.index_select(0, edges.source)
            messages = messages if weight is None else messages * weight[:, None]
            if segment:
                return torch_scatter.segment_csr(messages, csr.ptr.long(), reduce=reduce)
            return torch_scatter.scatter(messages, edges.target, 0, dim_size=N, reduce=reduce)

        return pure(run, leaves)

    def dgl() -> Side:
        from dgl import ops as kernels

        if weighted:
            return pure(lambda x, weight: kernels.u_mul_e_sum(edges.dgl, x, weight[:, None]), leaves)
        return pure(partial(getattr(kernels, f"copy_u_{reduce}"), edges.dgl), leaves)

    row, own = 4 * N * width, 4 * E + 8 * N  # bytes of x; of the pattern
    each, pattern = 4 * E * width, 2 * own + (12 * E + row if weighted else 0)
    return Case(
        "spmm",
        {
            "ours": lambda: pure(ours, leaves),
            **pyg_sides(edges, leaves, pyg, edgewise=1),
            **({"EdgeIndex": lambda: pure(edge_index, leaves)} if not weighted else {}),  # it takes no gradient to it
            **({"torch CSR": lambda: torch_csr(None)} if reduce == "sum" and not weighted else {}),  # N x N gradient
            "torch CSR mm": lambda: torch_csr({"max": "amax"}.get(reduce, reduce)),
            "segment": lambda: scatter(True),
            "scatter": lambda: scatter(False),
            "dgl": dgl,
        },
        exact=lambda: doubled(ours, leaves),
        edgewise=(2,) if weighted else (),
        traffic=(4 * row + pattern, 2 * (each + row) + pattern) if reduce != "max" else None,
        gathers=2 if reduce != "max" else 0,
        rows=(x.detach(), csr.col),
        size={"nodes": N, "edges": E},
    )


def attention(graph: str, heads: int, dim: int, device: str, kind: str) -> Case:
    """Attention on values that are projected already: ``kind`` is "gat", "gatv2" or "qkv"."""
    edges = edges_of(graph, device)
    N, E, width = edges.N, edges.E, heads * dim
    make = partial(normal, device=device)
    x = make(N, heads, dim, seed=1)
    leaves = {
        "gat": lambda: (x, make(N, heads, seed=2), make(N, heads, seed=3)),
        "gatv2": lambda: (x, make(N, heads, dim, seed=2), make(heads, dim, seed=3)),
        "qkv": lambda: (make(N, heads, dim, seed=2), make(N, heads, dim, seed=3), x),
    }[kind]()
    ours = partial(getattr(ops, f"{kind}_attention"), edges.graph)

    def pyg(index: Tensor) -> Callable[..., Tensor]:
        from torch_geometric.utils import scatter, softmax

        source, target = index

        def weigh(scores: Tensor, x: Tensor) -> Tensor:
            weights = softmax(scores, target, num_nodes=N)
            return scatter(x[source] * weights[..., None], target, 0, N, "sum")

        def gat(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
            return weigh(F.leaky_relu(a[source] + b[target], 0.2), x)

        def gatv2(x: Tensor, b: Tensor, vector: Tensor) -> Tensor:
            x_j = x[source]  # GATv2Conv.edge_update and message share it
            weights = softmax((F.leaky_relu(x_j + b[target], 0.2) * vector).sum(-1), target, num_nodes=N)
            return scatter(x_j * weights[..., None], target, 0, N, "sum")

        def qkv(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return weigh((q[target] * k[source]).sum(-1) / math.sqrt(dim), v)

        return {"gat": gat, "gatv2": gatv2, "qkv": qkv}[kind]

    def dgl() -> Side:
        from dgl import ops as kernels

        def gat(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
            scores = F.leaky_relu(kernels.u_add_v(edges.dgl, a, b), 0.2)
            return kernels.u_mul_e_sum(edges.dgl, x, kernels.edge_softmax(edges.dgl, scores)[..., None])

        def gatv2(x: Tensor, b: Tensor, vector: Tensor) -> Tensor:
            scores = (F.leaky_relu(kernels.u_add_v(edges.dgl, x, b), 0.2) * vector).sum(-1)
            return kernels.u_mul_e_sum(edges.dgl, x, kernels.edge_softmax(edges.dgl, scores)[..., None])

        def qkv(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = kernels.u_dot_v(edges.dgl, k, q) / math.sqrt(dim)
            return kernels.u_mul_e_sum(edges.dgl, v, kernels.edge_softmax(edges.dgl, scores))

        return pure({"gat": gat, "gatv2": gatv2, "qkv": qkv}[kind], leaves)

    def flex() -> Side:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        joined = torch.zeros(N, N, dtype=torch.bool, device=device)
        joined[edges.target, edges.source] = True
        mask = create_block_mask(lambda b, h, q, k: joined[q, k], 1, 1, N, N, device=device)
        function = compiled(flex_attention)

        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
            return function(q, k, v, block_mask=mask)[0].transpose(0, 1)

        if device == "cpu":  # there it has no backward
            return pure(run, tuple(leaf.detach() for leaf in leaves))
        return pure(run, leaves)

    row, pattern, each, few = 4 * N * width, 4 * E + 8 * N, 4 * E * width, 4 * N * heads
    traffic, gathers = {
        "gat": ((7 * row + 3 * pattern + 5 * few, 2 * each + 5 * row + 3 * pattern + 24 * E * heads), 2),
        "gatv2": ((8 * row + 3 * pattern + 3 * few, 3 * each + 7 * row + 3 * pattern + 3 * few), 3),
        "qkv": ((12 * row + 3 * pattern + 3 * few, 5 * each + 7 * row + 3 * pattern + 3 * few), 5),
    }[kind]
    return Case(
        f"{kind}_attention",
        {
            "ours": lambda: pure(ours, leaves),
            **pyg_sides(edges, leaves, pyg),
            "dgl": dgl,
            **({"flex": flex} if kind == "qkv" and graph == "molecules" else {}),
        },
        exact=lambda: doubled(ours, leaves),
        traffic=traffic,
        gathers=gathers,
        rows=(x.detach().flatten(1), edges.csr.col),
        size={"nodes": N, "edges": E},
    )


def gat_layer(graph: str, heads: int, dim: int, device: str) -> Case:
    """GATConv from content of the same width: the dense product, the attention and the bias."""
    edges = edges_of(graph, device)
    N, E, width = edges.N, edges.E, heads * dim
    x = normal(N, width, device=device, seed=1)
    torch.manual_seed(0)
    layer = GATConv(width, width, heads).to(device)
    own = (layer.linear.weight, layer.source, layer.target, layer.bias)

    def side(conv: nn.Module, weights: list[nn.Parameter], run: Callable[[Tensor], Tensor], x: Tensor = x) -> Side:
        """``weights`` of ``conv`` are ours; they get our values."""
        with torch.no_grad():
            for weight, value in zip(weights, own, strict=True):
                weight.copy_(value.view_as(weight))
        return Side(lambda: run(x), (x, *weights))

    def ours(double: bool = False) -> Side:
        conv, content = layer, x
        if double:
            conv, content = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
        weights = [conv.linear.weight, conv.source, conv.target, conv.bias]
        return side(conv, weights, lambda x: conv(edges.graph, x), content)

    def pyg(index: Tensor, wrap: Callable = lambda conv: conv) -> Side:
        from torch_geometric.nn import GATConv as Conv

        conv = Conv(width, dim, heads, add_self_loops=False).to(device)
        run = wrap(conv)
        return side(conv, [conv.lin.weight, conv.att_src, conv.att_dst, conv.bias], lambda x: run(x, index))

    def dgl() -> Side:
        from dgl.nn.pytorch import GATConv as Conv

        conv = Conv(width, dim, heads, allow_zero_in_degree=True).to(device)
        weights = [conv.fc.weight, conv.attn_l, conv.attn_r, conv.bias]
        return side(conv, weights, lambda x: conv(edges.dgl, x).flatten(1))

    row, pattern, each, few = 4 * N * width, 4 * E + 8 * N, 4 * E * width, 4 * N * heads
    dense = 5 * row + 12 * width**2
    return Case(
        "gat_attention",
        {
            "ours": ours,
            "pyg": lambda: pyg(edges.default),
            "pyg sorted": lambda: pyg(edges.sorted),
            "pyg compiled": lambda: pyg(edges.sorted, compiled),
            "dgl": dgl,
        },
        exact=lambda: ours(double=True),
        traffic=(
            dense + 7 * row + 3 * pattern + 5 * few,
            dense + 2 * each + 5 * row + 3 * pattern + 24 * E * heads,
        ),
        size={"nodes": N, "edges": E},
    )


def segment_softmax(graph: str, heads: int, device: str) -> Case:
    edges = edges_of(graph, device)
    N, E = edges.N, edges.E
    leaves = (normal(E, heads, device=device, seed=1),)
    ours = partial(ops.segment_softmax, edges.graph)

    def pyg(index: Tensor) -> Callable[..., Tensor]:
        from torch_geometric.utils import softmax

        return lambda scores: softmax(scores, index[1], num_nodes=N)

    def pyg_ptr() -> Side:
        from torch_geometric.utils import softmax

        return pure(lambda scores: softmax(scores, ptr=edges.csr.ptr.long(), num_nodes=N), leaves)

    def scatter() -> Side:
        import torch_scatter

        return pure(lambda scores: torch_scatter.scatter_softmax(scores, edges.target, 0, dim_size=N), leaves)

    def dgl() -> Side:
        from dgl.ops import edge_softmax

        return pure(partial(edge_softmax, edges.dgl), leaves)

    bytes_ = 5 * 4 * E * heads + 2 * 8 * N
    return Case(
        "segment_softmax",
        {
            "ours": lambda: pure(ours, leaves),
            **pyg_sides(edges, leaves, pyg, edgewise=0),
            "pyg ptr": pyg_ptr,
            "scatter": scatter,
            "dgl": dgl,
        },
        exact=lambda: doubled(ours, leaves),
        edgewise=(0, 1),
        traffic=(bytes_, bytes_),
        size={"nodes": N, "edges": E},
    )


def scaled_cosine(M: int, width: int, device: str) -> Case:
    leaves = (normal(M, width, device=device, seed=1),)
    target = normal(M, width, device=device, seed=2).detach()

    def ours(pred: Tensor) -> Tensor:
        return ops.scaled_cosine(pred, target.to(pred.dtype), 3.0)

    def eager(pred: Tensor) -> Tensor:  # sce_loss of THUDM/GraphMAE at b14f080
        cosine = (F.normalize(pred, p=2, dim=-1) * F.normalize(target, p=2, dim=-1)).sum(dim=-1)
        return (1 - cosine).pow_(3.0)

    bytes_ = 5 * 4 * M * width
    return Case(
        "scaled_cosine",
        {
            "ours": lambda: pure(ours, leaves),
            "eager": lambda: pure(eager, leaves),
            "compiled": lambda: pure(compiled(eager), leaves),
        },
        exact=lambda: doubled(ours, leaves),
        traffic=(bytes_, bytes_),
        size={"rows": M},
    )


def prelu(M: int, width: int, device: str) -> Case:
    leaves = (normal(M, width, device=device, seed=1), torch.full((1,), 0.25, device=device, requires_grad=True))
    return Case(
        "prelu",
        {"ours": lambda: pure(ops.prelu, leaves), "torch": lambda: pure(F.prelu, leaves)},
        exact=lambda: doubled(ops.prelu, leaves),
        traffic=(20.0 * M * width, 20.0 * M * width),
        size={"rows": M},
    )


def grace_eager(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """Loss of each row as in CRIPAC-DIG/GRACE at 700be33, model.py: dense similarities, both views as anchors."""
    a, b = F.normalize(a), F.normalize(b)

    def half(a: Tensor, b: Tensor) -> Tensor:
        own, between = torch.exp(a @ a.t() / tau), torch.exp(a @ b.t() / tau)
        return -torch.log(between.diag() / (own.sum(1) + between.sum(1) - own.diag()))

    return (half(a, b) + half(b, a)) * 0.5


def info_nce(N: int, width: int, device: str) -> Case:
    leaves = (normal(N, width, device=device, seed=1), normal(N, width, device=device, seed=2))
    ours = partial(ops.info_nce, tau=0.5, intra=True, symmetric=True)
    eager = partial(grace_eager, tau=0.5)
    return Case(
        "info_nce",
        {
            "ours": lambda: pure(ours, leaves),
            "eager": lambda: pure(eager, leaves),
            "compiled": lambda: pure(compiled(eager), leaves),
        },
        exact=lambda: doubled(ours, leaves),
        flops=24.0 * N**2 * width,  # three similarities, each a product forward and three backward
        size={"rows": N},
    )


def keep_edges(graph: str, device: str) -> Case:
    """A graph without a fifth of its edges, both of its directions ready for a sum."""
    edges = edges_of(graph, device)
    N, E = edges.N, edges.E
    keep = torch.rand(E, generator=torch.Generator(device).manual_seed(1), device=device) >= 0.2

    def ours() -> tuple[Tensor, ...]:
        csr = edges.graph.keep_edges(keep).csr
        back = csr.transpose
        return csr.ptr, csr.col, back.ptr, back.col

    def sort() -> tuple[Tensor, ...]:
        source, target = edges.sorted[:, keep]
        order, back = target.argsort(stable=True), source.argsort(stable=True)
        return ops.pointers(target, N), source[order], ops.pointers(source, N), target[back]

    def edge_index() -> tuple[Tensor, ...]:
        kept = edges.edge_index[:, keep].fill_cache_()
        (ptr, col), _ = kept.get_csr()
        (back, row), _ = kept.get_csc()
        return ptr, col, back, row

    def pyg() -> Side:
        assert edges.edge_index is not None  # made here, outside the clock
        return Side(edge_index)

    return Case(
        "keep_edges",
        {"ours": lambda: Side(ours), "sort": lambda: Side(sort), "EdgeIndex": pyg},
        exact=lambda: Side(sort),
        traffic=(60.0 * E, 60.0 * E),
        size={"nodes": N, "edges": E},
    )


def sample_negatives(graph: str, device: str) -> Case:
    """As many pairs that are no edges as there are edges."""
    edges = edges_of(graph, device)
    N, E = edges.N, edges.E

    def pyg(method: str) -> Side:
        from torch_geometric.utils import negative_sampling

        return Side(lambda: negative_sampling(edges.sorted, N, E, method=method))

    def dgl() -> Side:
        from dgl.sampling import global_uniform_negative_sampling

        return Side(lambda: global_uniform_negative_sampling(edges.dgl, E))

    return Case(
        "sample_negatives",
        {
            "ours": lambda: Side(lambda: ops.sample_negatives(edges.graph, E)),
            "pyg": lambda: pyg("sparse"),
            **({"pyg dense": lambda: pyg("dense")} if N < 10_000 else {}),
            "dgl": dgl,
        },
        traffic=(24.0 * E, 24.0 * E),
        size={"nodes": N, "edges": E},
    )


def table(device: str) -> dict[str, Callable[[], Case]]:
    """Every row of single ops by its name, ``op/graph/width``."""
    rows: dict[str, Callable[[], Case]] = {}
    graphs = [name for name in GRAPHS if device == "cuda" or name not in ONLY_CUDA]

    def add(op: str, make: Callable[..., Case], sizes: dict[str, tuple]) -> None:
        for graph in graphs:
            for size, numbers in sizes.items():
                rows[f"{op}/{graph}{size}"] = partial(make, graph, *numbers, device)

    widths = {"/64": (64,), "/256": (256,)}
    headed = {"/4x16": (HEADS, 16), "/4x64": (HEADS, 64), "/4x256": (HEADS, 256)}
    add("spmm", spmm, widths)
    add("spmm-weighted", partial(spmm, weighted=True), widths)
    add("spmm-mean", partial(spmm, reduce="mean"), {"/64": (64,)})
    add("spmm-max", partial(spmm, reduce="max"), {"/64": (64,)})
    add("gat", partial(attention, kind="gat"), headed)
    add("gat-layer", gat_layer, headed)
    add("gatv2", partial(attention, kind="gatv2"), headed)
    add("qkv", partial(attention, kind="qkv"), headed)
    add("segment_softmax", segment_softmax, {"/4": (HEADS,)})
    add("keep_edges", keep_edges, {"": ()})
    add("sample_negatives", sample_negatives, {"": ()})
    rows["scaled_cosine/50000/128"] = partial(scaled_cosine, 50_000, 128, device)
    for M, width in ((860, 128), (2708, 512)):
        rows[f"prelu/{M}/{width}"] = partial(prelu, M, width, device)
    for N in (4_000, 15_000):
        rows[f"info_nce/{N}/128"] = partial(info_nce, N, 128, device)
    return rows
