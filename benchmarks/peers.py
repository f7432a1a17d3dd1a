"""Bandana and MaskGAE written in plain PyG after their reference codes, on the splits that quality.py draws.

    python benchmarks/peers.py --method bandana --set cora --seeds 3     # five minutes a seed on one core
    python benchmarks/peers.py --show

What a published figure owes to its one split shows where the same code meets other splits. The layers are
torch_geometric.nn.GCNConv's, dropout and absent pairs are torch's and PyG's; nothing of graphssl is used but the data,
its split and the metrics. Writes benchmarks/results/peers/SET-METHOD-SEED.json and, with --show, peers.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from torch_geometric.utils import add_self_loops, negative_sampling, to_undirected

import graphssl
from graphssl.ops import dense
from graphssl.probes.metrics import auc, average_precision

RESULTS = Path(__file__).parent / "results" / "peers"
SETTINGS = {  # Newiz430/Bandana config/*.yml; EdisonLeeeee/MaskGAE train_linkpred.py's defaults with --bn
    ("bandana", "cora"): {"widths": [128, 128], "inner": 64, "drop": 0.2, "lr": 1e-3, "decay": 5e-4, "t": 0.9},
    ("bandana", "citeseer"): {"widths": [128], "inner": 64, "drop": 0.7, "lr": 0.02, "decay": 0.0, "t": 0.4},
    ("maskgae", "cora"): {"widths": [128], "inner": 64, "drop": 0.2, "lr": 0.01, "decay": 5e-5},
    ("maskgae", "citeseer"): {"widths": [128], "inner": 64, "drop": 0.2, "lr": 0.01, "decay": 5e-5},
}


class Peer(nn.Module):
    """GCN layers with batch norm and ELU behind dropout of 0.8, and an MLP on products of codes."""

    def __init__(self, dim_in: int, widths: list[int], inner: int, logits: int, drop: float):
        super().__init__()
        ins = [dim_in, *widths[:-1]]
        self.convs = nn.ModuleList(GCNConv(a, b) for a, b in zip(ins, widths, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for b in widths)
        self.first, self.last, self.drop = nn.Linear(widths[-1], inner), nn.Linear(inner, logits), drop
        self.degree = nn.Sequential(nn.Linear(widths[-1], inner), nn.Dropout(drop), nn.ReLU(), nn.Linear(inner, 1))

    def layer(self, i: int, h: Tensor, edges: Tensor, weight: Tensor | None = None) -> Tensor:
        return F.elu(self.norms[i](self.convs[i](F.dropout(h, 0.8, self.training), edges, weight)))

    def encode(self, h: Tensor, edges: Tensor) -> Tensor:
        for i in range(len(self.convs)):
            h = self.layer(i, h, edges)
        return h

    def pairs(self, codes: Tensor, pairs: Tensor) -> Tensor:
        return self.last(self.first(F.dropout(codes[pairs[0]] * codes[pairs[1]], self.drop, self.training)).relu())


def bandana_loss(peer: Peer, x: Tensor, edges: Tensor, absent: Tensor, t: float) -> Tensor:
    """Layer by layer; the weights of the loss are those of the propagation, as the paper's text has it."""
    losses, h = [], x
    for i in range(len(peer.convs)):
        noise = (torch.randn(edges.size(1)) / t).exp()
        width = noise / torch.zeros(len(x)).index_add(0, edges[1], noise)[edges[1]]
        h = peer.layer(i, h, edges, width)
        joined, apart = (peer.pairs(h, pairs).log_softmax(-1) for pairs in (edges, absent))
        losses.append(-(width * joined[:, 0]).mean() - apart[:, 1].mean())
    return torch.stack(losses).mean()


def maskgae_loss(peer: Peer, x: Tensor, edges: Tensor, steps: int = 2, share: float = 0.7) -> Tensor:
    """Paths from the sources of a share of the edges; what is left is made undirected again, as in the reference."""
    order = edges[0].argsort(stable=True)
    row, col = edges[:, order]
    degree = torch.bincount(row, minlength=len(x))
    start = degree.cumsum(0) - degree
    hidden = torch.zeros(len(row), dtype=torch.bool)
    at = row[torch.rand(len(row)) <= share]
    for _ in range(steps):
        at = at[degree[at] > 0]
        place = start[at] + (torch.rand(len(at)) * degree[at]).long()
        hidden[place] = True
        at = col[place]
    both = torch.stack([row, col])
    codes = peer.encode(x, to_undirected(both[:, ~hidden], num_nodes=len(x)))
    absent = negative_sampling(add_self_loops(edges)[0], len(x), int(hidden.sum()))
    loss = F.softplus(-peer.pairs(codes, both[:, hidden])).mean() + F.softplus(peer.pairs(codes, absent)).mean()
    lost = torch.bincount(col[hidden], minlength=len(x)).float()
    return loss + 0.003 * F.mse_loss(peer.degree(codes).relu().squeeze(1), lost)


def run(method: str, name: str, seed: int) -> dict:
    """One training; test figures of the epoch with the best validation AUC."""
    s = SETTINGS[method, name]
    data = graphssl.load_dataset(name).link(seed)
    split, edges, x = data.splits["link"][0], data.graph.edge_index, dense(data.graph.x)
    assert split.val_absent is not None
    assert split.test_absent is not None
    assert data.with_val is not None
    torch.manual_seed(seed)
    peer = Peer(x.size(1), s["widths"], s["inner"], 2 if method == "bandana" else 1, s["drop"])
    optimizer = torch.optim.Adam(peer.parameters(), lr=s["lr"], weight_decay=s["decay"])
    epochs, patience = (1000, 30) if method == "bandana" else (500, 50)
    best, found, waited = -1.0, {}, 0

    @torch.no_grad()
    def judge(present: Tensor, absent: Tensor, messages: Tensor) -> tuple[float, float]:
        peer.eval()
        codes, pairs = peer.encode(x, messages), torch.cat([present, absent], 1)
        dot = (codes[pairs[0]] * codes[pairs[1]]).sum(1)
        scores = dot if method == "bandana" else peer.pairs(codes, pairs)[:, 0]
        peer.train()
        truth = (torch.arange(pairs.size(1)) < present.size(1)).long()
        return float(auc(scores[None], truth)), float(average_precision(scores[None], truth))

    for epoch in range(1, epochs + 1):
        if method == "bandana":
            absent = negative_sampling(add_self_loops(edges)[0], len(x), edges.size(1))
            loss = bandana_loss(peer, x, edges, absent, s["t"])
        else:
            loss = maskgae_loss(peer, x, edges)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        if epoch % 10 == 0:
            now = judge(split.val, split.val_absent, edges)[0]
            waited += 1
            if now > best:
                seen = judge(split.test, split.test_absent, edges)
                later = judge(split.test, split.test_absent, data.with_val.edge_index)
                best, waited = now, 0
                found = {"epoch": epoch, "training edges": seen, "validation edges too": later}
            if waited == patience:
                break
    return {"method": method, "dataset": f"{name}/link", "seed": seed, "validation_auc": best, **found}


def show(results: Path) -> str:
    """The table from what is there, beside graphssl's own of the same splits."""
    lines = [
        "| data set | method | scored by | AUC / AP of the peer, a split each | ours on the same splits |",
        "|---|---|---|---|---|",
    ]
    units = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    for dataset, method in sorted({(unit["dataset"], unit["method"]) for unit in units}):
        dot = method == "bandana"
        protocol, key = ("link-dot", "training edges") if dot else ("link-mlp-valmsg", "validation edges too")
        mine = [unit for unit in units if (unit["dataset"], unit["method"]) == (dataset, method)]
        ours = [figures for unit in mine if (figures := graphssl_figures(results, unit, protocol))]
        lines.append(f"| {dataset} | {method} | {protocol} | {listed([u[key] for u in mine])} | {listed(ours)} |")
    return "\n".join(lines)


def graphssl_figures(results: Path, unit: dict, protocol: str) -> tuple[float, float] | None:
    """AUC and AP that quality.py found with the same split, where it has."""
    stem = f"{unit['dataset'].replace('/', '-')}-{unit['method']}-{unit['seed']}.json"
    path = results.parent / "quality" / stem
    rows = json.loads(path.read_text())["report"]["rows"] if path.exists() else []
    found = [row["metrics"] for row in rows if (row["protocol"], row["name"]) == (protocol, unit["method"])]
    return (found[0]["AUC"], found[0]["AP"]) if found else None


def listed(figures: list) -> str:
    if not figures:
        return ""
    middle = " / ".join(f"{mean(part):.2f}" for part in zip(*figures, strict=True))
    return f"{', '.join(f'{a:.1f} / {b:.1f}' for a, b in figures)}; mean {middle}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["bandana", "maskgae"], default="bandana")
    parser.add_argument("--set", choices=["cora", "citeseer"], default="cora")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on; each has its own split")
    parser.add_argument("--show", action="store_true", help="only make the table")
    a = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in range(0 if a.show else a.seeds):
        path = RESULTS / f"{a.set}-link-{a.method}-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(run(a.method, a.set, seed), indent=1) + "\n")
            print(f"{path.name} written", flush=True)
    text = "# Peers\n\nMade by `python benchmarks/peers.py --show`: the methods in plain PyG, on our splits.\n\n"
    text += f"{show(RESULTS)}\n"
    (RESULTS.parent / "peers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
