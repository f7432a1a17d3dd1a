"""ParetoGNN's settings: jumxglhf/ParetoGNN at e6092b0, bash/*.sh, scripts/*.sh, src/options.py and src/model.py."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from graphssl.augment import Drop
from graphssl.backbones import backbone
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.masks import Uniform
from graphssl.methods import CCASSG, DGI, GRACE, GraphMAE, LinkPrediction, Method, MultiTask
from graphssl.methods.pairs import check_pairs
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, balance_named, names_in, recipe
from graphssl.recipes.cutting import placed

LARGE = 2000  # nodes: above, the contrast draws its negatives, where the reference samples a subgraph
NEGATIVES = 512

# each task of the paper around an encoder, with heads of that width
TASKS: dict[str, Callable[[Spec, Encoder, int], Method]] = {
    "features": lambda spec, encoder, hidden: GraphMAE(
        encoder, backbone("gcn", encoder.dim, [spec.dim], bare_end=True), Uniform(0.5), drop_edges=0.35
    ),
    "link": lambda spec, encoder, hidden: LinkPrediction(encoder, hidden),
    "node-graph": lambda spec, encoder, hidden: DGI(encoder),
    "node-subgraph": lambda spec, encoder, hidden: GRACE(
        encoder, hidden, (Drop(0.3, 0.3), Drop(0.3, 0.3)), tau=0.1,
        negatives=NEGATIVES if spec.nodes / spec.graphs > LARGE else None,
    ),
    "decorrelation": lambda spec, encoder, hidden: CCASSG(encoder, Drop(0.2, 0.2), 1e-3),
}  # fmt: skip


@recipe("paretognn", by_task={"graph": {"encoder": "gin", "inner": 128, "width": 128, "hidden": 128, "epochs": 50}})
def paretognn(
    spec: Spec, *, tasks: str = "all", balance: str = "mgda", encoder: str | nn.Module = "gcn", width: int = 256,
    inner: int = 512, hidden: int = 512, norm: str = "batch", activation: str = "relu", pool: str = "mean",
    lr: float = 1e-3, weight_decay: float = 1e-5, epochs: int = 200, batch_size: int | None = None,
    clip: float | None = None,
) -> Plan:  # fmt: skip
    """Five pretext tasks on one encoder, weighed in each step by how their gradients agree.

    ``tasks`` is "all", or some of features (GraphMAE), link, node-graph (DGI), node-subgraph (GRACE), decorrelation
    (CCA-SSG), parted by commas: ``--set tasks=link`` is a single-task run of the same budget. ``balance`` is "mgda"
    (the paper's: the shortest mixture of gradients of length one), "mgda-raw" (of gradients as they are), "equal",
    "uncertainty", "pcgrad" or "cagrad". Only "mgda-raw" promises that a small step raises no loss. The log has each
    task's loss and weight.

    Widths, heads, temperatures, shares, learning rate and weight decay are the reference's; it takes 10,000 steps on
    sampled subgraphs, ours 200 on the whole graph, with negatives drawn where there are more than 2,000 nodes.
    ``graphssl pretrain cora/link --method paretognn``, then ``graphssl evaluate RUN --protocol
    node-linear,node-cluster,link-mlp,partition``, give the paper's four tasks from one encoder;
    benchmarks/results/quality.md has them beside the single tasks. Data without a name: the same values for one graph,
    a GIN for a list of graphs.
    """
    check_pairs("paretognn", spec.edges, "absent")
    names = names_in(tasks, TASKS, "task of paretognn")
    body = backbone_of(spec, encoder, [inner, width], norm=norm, activation=activation, **placed(spec))
    shared = Encoder(body, pool=pool)
    made = {name: TASKS[name](spec, shared, hidden) for name in names}
    return Plan(
        method=MultiTask(made, balance_named(balance, len(names))),
        optimizer=adam(lr, weight_decay, decoupled=True), epochs=epochs, batch_size=batch_size, clip=clip,
        transform=Transform(undirected=True, row_normalize=spec.sparse),
    )  # fmt: skip
