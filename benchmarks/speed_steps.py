"""What benchmarks/speed.py measures of whole training steps: draw, forward, loss, backward, Adam.

Peers are the plain way: dense features, the same model on the layers of dgl (``dgl``) or PyG (``pyg``), the losses as
the papers' codes write them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from speed_cases import ONLY_CUDA, Case, Side, edges_of, grace_eager, normal
from torch import Tensor, nn

import graphssl
from graphssl import ops
from graphssl.backbones.transformer import Attention, Dense, Sparse
from graphssl.graph import Graph
from graphssl.methods import Method
from graphssl.ops import dense
from graphssl.recipes import Plan, Spec, get_recipe
from graphssl.tokens import Patches
from graphssl.train import train


class GraphMAE(nn.Module):
    """GraphMAE's function on GAT layers of dgl or PyG, as its reference code spells it out."""

    def __init__(self, graph: Graph, settings: Mapping[str, Any], layers: str):
        super().__init__()
        self.x, self.s = dense(graph.x), settings
        width, heads, content = settings["width"], settings["heads"], self.x.size(1)
        drops = settings["dropout"], settings["attention_dropout"]
        if layers == "dgl":
            import dgl
            from dgl.nn.pytorch import GATConv

            edges = dgl.graph(tuple(graph.edge_index), num_nodes=graph.num_nodes)
            edges.create_formats_()

            def gat(before: int, after: int, heads: int) -> tuple[nn.Module, Callable]:
                conv = GATConv(before, after, heads, feat_drop=drops[0], attn_drop=drops[1])
                return conv, lambda x: conv(edges, x).flatten(1)
        else:
            from torch_geometric.nn import GATConv

            def gat(before: int, after: int, heads: int) -> tuple[nn.Module, Callable]:
                conv = GATConv(before, after, heads, dropout=drops[1], add_self_loops=False)
                return conv, lambda x: conv(F.dropout(x, drops[0], self.training), graph.edge_index)

        sizes = [(content, width // heads, heads), (width, width // heads, heads), (width, content, 1)]
        convs, self.run = zip(*(gat(*size) for size in sizes), strict=True)
        self.convs, self.activations = nn.ModuleList(convs), nn.ModuleList(nn.PReLU() for _ in range(2))
        self.bridge = nn.Linear(width, width, bias=False)
        self.token = nn.Parameter(torch.zeros(1, content))
        self.to(graph.device)

    def forward(self) -> Tensor:
        x, N = self.x, len(self.x)
        hidden = torch.randperm(N, device=x.device)[: int(self.s["mask"] * N)]
        shown = int(self.s["replace"] * len(hidden))
        h = x.clone()
        h[hidden[shown:]] = 0.0
        h[hidden[:shown]] = x[torch.randperm(N, device=x.device)[:shown]]
        h[hidden[shown:]] += self.token
        for layer, activation in zip(self.run, self.activations, strict=False):
            h = activation(layer(h))
        h = self.bridge(h)
        h[hidden] = 0.0
        out = self.run[-1](h)[hidden]
        cosine = (F.normalize(out, dim=-1) * F.normalize(x[hidden], dim=-1)).sum(-1)
        return (1 - cosine).pow(self.s["alpha"]).mean()


class GRACE(nn.Module):
    """GRACE on PyG's GCNConv and dense similarities, as its reference code spells it out."""

    def __init__(self, graph: Graph, settings: Mapping[str, Any]):
        from torch_geometric.nn import GCNConv

        super().__init__()
        self.x, self.edge_index, self.s = dense(graph.x), edges_by_source(graph), settings
        width, hidden = settings["width"], settings["hidden"]
        self.convs = nn.ModuleList([GCNConv(self.x.size(1), 2 * width), GCNConv(2 * width, width)])
        self.activation = nn.PReLU() if settings["activation"] == "prelu" else nn.ReLU()
        self.project = nn.Sequential(nn.Linear(width, hidden), nn.ELU(), nn.Linear(hidden, width))
        self.to(graph.device)

    def forward(self) -> Tensor:
        from torch_geometric.utils import dropout_edge

        views = []
        for view in (1, 2):
            edge_index, _ = dropout_edge(self.edge_index, self.s[f"edges_{view}"])
            h = self.x.clone()
            h[:, torch.rand(h.size(1), device=h.device) < self.s[f"features_{view}"]] = 0.0
            for conv in self.convs:
                h = self.activation(conv(h, edge_index))
            views.append(self.project(h))
        return grace_eager(*views, self.s["tau"]).mean()


def edges_by_source(graph: Graph) -> Tensor:
    source, target = graph.edge_index
    return graph.edge_index[:, (source * graph.num_nodes + target).argsort()]


def data(name: str, device: str) -> tuple[Graph, Spec]:
    """A graph and what the recipes may know of it; those without a name of their own get dense content of width 128."""
    if name in ("cora", "citeseer"):
        dataset = graphssl.load_dataset(name)
        return dataset.graph.to(device), Spec.of(dataset)
    graph = edges_of(name, device).graph
    graph = graph.replace(x=normal(graph.num_nodes, 128, device=device, seed=1).detach())
    return graph, Spec(name, "node", 128, graph.num_nodes, graph.num_edges, 1, False)


def step(method: str, name: str, device: str, given: Mapping[str, Any]) -> Case:
    """``given`` are settings of our side alone; "precision" among them is that of ``graphssl.pretrain``."""
    given = dict(given)
    half = given.pop("precision", "32") == "bf16-mixed"
    recipe = get_recipe(method)
    graph, spec = data(name, device)
    settings = recipe.settings(spec, {})

    def begin(given: Mapping[str, Any]) -> tuple[Plan, Graph]:
        torch.manual_seed(0)
        plan = recipe.plan(spec, recipe.settings(spec, given))
        return plan, plan.transform(graph)

    def ours() -> Side:
        plan, changed = begin(given)
        optimizer = plan.optimizer(plan.method.to(device).parameters())
        autocast = partial(torch.autocast, device, torch.bfloat16, enabled=half)
        steps = train(plan.method, lambda step: changed, optimizer, 10**6, autocast=autocast)
        return Side(lambda: next(steps)[1]["loss"])

    def theirs(make: Callable[[Graph], nn.Module]) -> Side:
        plan, changed = begin({})
        peer = make(changed)
        optimizer = plan.optimizer(peer.parameters())

        def run() -> Tensor:
            loss = peer()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return Side(run)

    if method == "graphmae":
        kinds = {kind: partial(GraphMAE, settings=settings, layers=kind) for kind in ("pyg", "dgl")}
    else:
        kinds = {"pyg": partial(GRACE, settings=settings)}
    peers = {kind: partial(theirs, make) for kind, make in kinds.items()}
    op = "gat_attention" if method == "graphmae" else "info_nce"
    return Case(op, {"ours": ours, **peers}, step=True, size={"nodes": graph.num_nodes, "edges": graph.num_edges})


def balanced(name: str, device: str) -> Case:
    """A step of paretognn beside its parts: a forward and a backward a task and a combined backward, then Adam.

    "parts" knows the weights beforehand, "equal" needs no gradients but those of the sum.
    """
    graph, spec = data(name, device)
    recipe = get_recipe("paretognn")

    def begin(**given: Any) -> tuple[Plan, Graph]:
        torch.manual_seed(0)
        plan = recipe.plan(spec, recipe.settings(spec, given))
        plan.method.to(device)
        return plan, plan.transform(graph)

    def ours(**given: Any) -> Side:
        plan, changed = begin(**given)
        steps = train(plan.method, lambda step: changed, plan.optimizer(plan.method.parameters()), 10**6)
        return Side(lambda: next(steps)[1]["loss"])

    def parts() -> Side:
        plan, changed = begin()
        optimizer = plan.optimizer(plan.method.parameters())
        generator = torch.Generator(device).manual_seed(0)

        def run() -> Tensor:
            losses = plan.method(changed, generator)
            for loss in losses.values():
                optimizer.zero_grad()
                loss.backward(retain_graph=True)
            optimizer.zero_grad()
            total = torch.stack(list(losses.values())).mean()
            total.backward()
            optimizer.step()
            return total.detach()

        return Side(run)

    sides = {"ours": ours, "parts": parts, "equal": partial(ours, balance="equal")}
    return Case("info_nce", sides, step=True, size={"nodes": graph.num_nodes, "edges": graph.num_edges})


def grid(count: int, width: int, edges: str, device: str) -> Graph:
    """``count`` graphs of 7 x 7 tokens of that width: MNIST in patches of 4 x 4, were their content pixels."""
    images = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    graph = Patches(4, edges)(images).to(device)
    return graph.replace(x=normal(graph.num_nodes, width, seed=1, device=device))


def tokens(width: int, heads: int, device: str) -> Case:
    """Attention among all 49 tokens of 128 graphs."""
    return attention(grid(128, width, "full", device), width, heads)


def attend(width: int, heads: int, bonds: bool, device: str) -> Case:
    """Attention among all atoms of 128 made-up molecules of 10 to 40 atoms, or along their ``bonds`` only.

    They are random trees with every sixth pair of atoms joined to a ring.
    """
    g, parts = torch.Generator().manual_seed(0), []
    for n in torch.randint(10, 41, (128,), generator=g).tolist():
        edges = (1 - torch.eye(n)).nonzero().T
        if bonds:
            parent = (torch.arange(1, n) - 1 - torch.randint(0, 2, (n - 1,), generator=g)).clamp(min=0)
            rings = torch.stack([torch.arange(0, n - 5, 6), torch.arange(5, n, 6)])
            edges = torch.cat([torch.stack([parent, torch.arange(1, n)]), rings], dim=1)
            edges = torch.cat([edges, edges.flip(0)], dim=1)
        parts.append(Graph.build(torch.zeros(n, 1), edges))
    graph = Graph.stack(parts).to(device)
    graph = graph.replace(x=normal(graph.num_nodes, width, seed=1, device=device))
    return attention(graph, width, heads, full=not bonds)


def attention(graph: Graph, width: int, heads: int, full: bool = True) -> Case:
    """Attention along edges and to oneself, projections included: ours and PyG's; dense too where graphs are ``full``.

    PyG's is its TransformerConv without the skip connection and with the projection of the output that ours has.
    """
    device = graph.device.type
    leaf = graph.x.detach().requires_grad_()

    def block() -> Attention:
        torch.manual_seed(0)
        return Attention(width, heads, 0.0).to(device)

    def ours(layout: Callable[[], Dense | Sparse]) -> Side:
        layer, place = block(), layout()
        return Side(lambda: place.unpack(layer(place.pack(leaf, None), place))[0], (leaf, *layer.out.parameters()))

    def pyg() -> Side:
        from torch_geometric.nn import TransformerConv

        layer, conv = block(), TransformerConv(width, width // heads, heads, root_weight=False).to(device)
        with torch.no_grad():
            parts = zip(layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3), strict=True)
            for linear, (weight, bias) in zip((conv.lin_query, conv.lin_key, conv.lin_value), parts, strict=True):
                linear.weight.copy_(weight)
                linear.bias.copy_(bias)
        loops = torch.arange(graph.num_nodes, device=device).expand(2, -1)
        edges = torch.cat([graph.edge_index, loops], dim=1)
        return Side(lambda: layer.out(conv(leaf, edges)), (leaf, *layer.out.parameters()))

    dense, sparse = (lambda: ours(lambda: Dense(graph, 0))), (lambda: ours(lambda: Sparse(graph, 0)))
    sides = {"ours": dense, "sparse": sparse, "pyg": pyg} if full else {"ours": sparse, "pyg": pyg}
    size = {"nodes": graph.num_nodes, "edges": graph.num_edges}
    return Case("qkv_attention", sides, size=size)


class Everything(nn.Module):
    """A masked autoencoder like ``method`` whose encoder sees all tokens, the hidden ones under a mask token."""

    def __init__(self, method: Method):
        super().__init__()
        self.method, self.token = method, nn.Parameter(torch.zeros(method.encoder.dim_in))

    def forward(self, graph: Graph, generator: torch.Generator) -> Tensor:
        hidden = self.method.masker(graph, generator)
        codes = self.method.encoder(graph.replace(x=ops.cover(graph.x, hidden, self.token)))
        said = self.method.read(self.method.decoder(graph, self.method.bridge(codes), rows=hidden))
        return self.method.loss(said, graph.x[hidden])


def visible(width: int, layers: int, device: str) -> Case:
    """A step of mae on 128 images of 49 patches, three quarters hidden, beside one that encodes all of them."""
    graph = grid(128, 16, "none", device)
    spec = Spec("data", "graph", 16, graph.num_nodes, 0, 128, False, axes=2)
    recipe = get_recipe("mae")

    def plan() -> Plan:
        torch.manual_seed(0)
        made = recipe.plan(spec, recipe.settings(spec, {"width": width, "layers": layers, "position": "sincos"}))
        made.method.to(device)
        return made

    def ours() -> Side:
        made = plan()
        steps = train(made.method, lambda step: graph, made.optimizer(made.method.parameters()), 10**6)
        return Side(lambda: next(steps)[1]["loss"])

    def everything() -> Side:
        made = plan()
        peer = Everything(made.method).to(device)
        optimizer, generator = made.optimizer(peer.parameters()), torch.Generator(device).manual_seed(0)

        def run() -> Tensor:
            loss = peer(graph, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return Side(run)

    return Case("qkv_attention", {"ours": ours, "everything": everything}, step=True, size={"nodes": graph.num_nodes})


def table(device: str, given: Mapping[str, Any]) -> dict[str, Callable[[], Case]]:
    """Every row of whole steps by its name; large graphs are for CUDA: a plain step on a CPU takes half a minute."""
    small = ("molecules", "cora", "citeseer")
    graphs = {
        "graphmae": (*small, *(("powerlaw-100k", *ONLY_CUDA[:1]) if device == "cuda" else ())),
        "grace": (*small, *(ONLY_CUDA[:1] if device == "cuda" else ())),
    }
    note = f" ({', '.join(f'{key}={value}' for key, value in given.items())})" if given else ""
    mgda = {f"paretognn-step/{name}": partial(balanced, name, device) for name in small[1:]}
    images = {
        **{f"tokens/128x49/{width}": partial(tokens, width, 4, device) for width in (64, 192)},
        "molecules/attend": partial(attend, 64, 4, False, device),
        "molecules/attend-bonds": partial(attend, 64, 4, True, device),
        **{
            f"mae-step/128x49/{width}": partial(visible, width, layers, device) for width, layers in ((96, 3), (192, 6))
        },
    }
    return (
        mgda
        | images
        | {
            f"{method}-step/{name}{note}": partial(step, method, name, device, given)
            for method, names in graphs.items()
            for name in names
        }
    )
