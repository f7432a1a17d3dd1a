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
from graphssl.graph import Graph
from graphssl.ops import dense
from graphssl.recipes import Plan, Spec, get_recipe
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


def table(device: str, given: Mapping[str, Any]) -> dict[str, Callable[[], Case]]:
    """Every row of whole steps by its name; large graphs are for CUDA: a plain step on a CPU takes half a minute."""
    small = ("molecules", "cora", "citeseer")
    graphs = {
        "graphmae": (*small, *(("powerlaw-100k", *ONLY_CUDA[:1]) if device == "cuda" else ())),
        "grace": (*small, *(ONLY_CUDA[:1] if device == "cuda" else ())),
    }
    note = f" ({', '.join(f'{key}={value}' for key, value in given.items())})" if given else ""
    mgda = {f"paretognn-step/{name}": partial(balanced, name, device) for name in small[1:]}
    return mgda | {
        f"{method}-step/{name}{note}": partial(step, method, name, device, given)
        for method, names in graphs.items()
        for name in names
    }
