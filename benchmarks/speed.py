"""Seconds of a pretraining step beside the same model built on dgl's GATConv, interleaved in one process.

    pip install dgl==1.1.3 && python benchmarks/speed.py --sets cora citeseer --rounds 30 --threads 1

Both take a whole step at the paper's size: mask, forward, loss, backward, Adam. The peer is the plain way: dense
features, dgl's GATConv in encoder and decoder, losses on the rows of hidden nodes. Prints medians over the rounds and
their ratio, and writes benchmarks/results/speed-step-THREADSt.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from quality import commit, machine
from torch import nn

import graphssl
from graphssl.graph import Graph
from graphssl.ops import dense
from graphssl.recipes import Spec, get_recipe
from graphssl.store import write_json
from graphssl.train import train


class Peer(nn.Module):
    """GraphMAE's function on dgl's GATConv, as its reference code spells it out."""

    def __init__(self, graph: Graph, settings: dict):
        import dgl
        from dgl.nn.pytorch import GATConv

        super().__init__()
        source, target = graph.edge_index
        self.graph, self.x, self.s = dgl.graph((source, target), num_nodes=graph.num_nodes), dense(graph.x), settings
        width, heads, content = settings["width"], settings["heads"], self.x.size(1)
        drops = {"feat_drop": settings["dropout"], "attn_drop": settings["attention_dropout"]}
        self.layers = nn.ModuleList(
            GATConv(before, width // heads, heads, activation=nn.PReLU(), **drops) for before in (content, width)
        )
        self.decoder = GATConv(width, content, 1, **drops)
        self.bridge = nn.Linear(width, width, bias=False)
        self.token = nn.Parameter(torch.zeros(1, content))

    def forward(self) -> torch.Tensor:
        x, N = self.x, len(self.x)
        hidden = torch.randperm(N)[: int(self.s["mask"] * N)]
        shown = int(self.s["replace"] * len(hidden))
        h = x.clone()
        h[hidden[shown:]] = 0.0
        h[hidden[:shown]] = x[torch.randperm(N)[:shown]]
        h[hidden[shown:]] += self.token
        for layer in self.layers:
            h = layer(self.graph, h).flatten(1)
        h = self.bridge(h)
        h[hidden] = 0.0
        out = self.decoder(self.graph, h).flatten(1)[hidden]
        cosine = (F.normalize(out, dim=-1) * F.normalize(x[hidden], dim=-1)).sum(-1)
        return (1 - cosine).pow(self.s["alpha"]).mean()


def measure(name: str, rounds: int) -> dict:
    dataset = graphssl.load_dataset(name)
    recipe, spec = get_recipe("graphmae"), Spec.of(dataset)
    settings = recipe.settings(spec, {})
    torch.manual_seed(0)
    plan = recipe.plan(spec, settings)
    graph = plan.transform(dataset.graph)
    peer = Peer(graph, settings)
    ours = train(plan.method, lambda step: graph, plan.optimizer(plan.method.parameters()), 10**6)
    optimizer = plan.optimizer(peer.parameters())

    def theirs() -> float:
        loss = peer()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    seconds: dict[str, list[float]] = {"graphssl": [], "dgl": []}
    losses = {"graphssl": 0.0, "dgl": 0.0}
    for _ in range(rounds + 3):
        for who, step in (("graphssl", lambda: next(ours)[1]["loss"].item()), ("dgl", theirs)):
            began = time.perf_counter()
            losses[who] = step()
            seconds[who].append(time.perf_counter() - began)
    middle = {who: median(times[3:]) for who, times in seconds.items()}
    return {"dataset": name, "rounds": rounds, "milliseconds": {w: round(1e3 * t, 1) for w, t in middle.items()},
            "dgl / graphssl": round(middle["dgl"] / middle["graphssl"], 2), "loss at the end": losses}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["cora", "citeseer"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    rows = [measure(name, a.rounds) for name in a.sets]
    for row in rows:
        print(row)
    path = Path(__file__).parent / "results" / f"speed-step-{a.threads}t.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"rows": rows, "machine": machine(), "commit": commit(), "torch": torch.__version__})


if __name__ == "__main__":
    main()
