"""Bandana's settings: Newiz430/Bandana at 6cd81cf, config/*.yml; figures from its run.ipynb."""

from __future__ import annotations

from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import unknown
from graphssl.heads import EdgeMLP
from graphssl.masks import Bandwidths, Edges
from graphssl.methods import Bandana
from graphssl.methods.pairs import check_pairs
from graphssl.recipes.base import Plan, Published, Select, Spec, adam, backbone_of, recipe, selecting

NODE = "Bandana run.ipynb (WWW 2024); one pretraining, ± over ten probes"
LINK = "Bandana run.ipynb (WWW 2024); ten runs on one split"
WEIGHED = ("gcn", "gin", "sage")
RAW = {"unit": False}
LINKS = {"read": "last", "unit": False, "layers": 2}


@recipe(
    "bandana",
    by_name={
        "cora": {"width": 256, "layers": 3, "inner": 256, "decoder_dropout": 0.0, "temperature": 0.9},
        "citeseer": {
            "width": 256,
            "layers": 5,
            "inner": 256,
            "decoder_dropout": 0.0,
            "temperature": 0.2,
            "shuffle": True,
            "lr": 0.02,
        },
        "pubmed": {"width": 64, "dropout": 0.6, "inner": 32, "decoder_dropout": 0.7, "temperature": 0.2, "lr": 1e-3},
        "amazon-photo": {**RAW, "lr": 2e-3},
        "amazon-computers": {
            **RAW,
            "layers": 3,
            "dropout": 0.5,
            "temperature": 0.4,
            "lr": 1e-3,
            "weight_decay": 0.0,
        },
        "coauthor-cs": {**RAW, "width": 64, "inner": 32, "temperature": 1e-6},
        "coauthor-physics": {**RAW, "inner": 128, "temperature": 0.4, "lr": 2e-3},
        "wikics": {**RAW, "layers": 3, "dropout": 0.5, "temperature": 0.4, "lr": 1e-3, "weight_decay": 0.0},
        "ogbn-arxiv": {
            **RAW,
            "layers": 4,
            "dropout": 0.2,
            "inner": 256,
            "decoder_dropout": 0.0,
            "temperature": 0.4,
            "lr": 5e-4,
            "epochs": 100,
        },
        "cora/link": {**LINKS, "width": 128, "temperature": 0.9, "lr": 1e-3, "weight_decay": 5e-4},
        "citeseer/link": {
            **LINKS,
            "width": 128,
            "layers": 1,
            "decoder_dropout": 0.7,
            "temperature": 0.4,
            "lr": 0.02,
            "weight_decay": 0.0,
        },
        "pubmed/link": {**LINKS, "weight_decay": 5e-4},
        "amazon-photo/link": {**LINKS, "layers": 3, "inner": 256, "lr": 2e-3, "weight_decay": 5e-4},
        "amazon-computers/link": {
            **LINKS,
            "layers": 3,
            "dropout": 0.5,
            "temperature": 0.6,
            "lr": 1e-3,
            "weight_decay": 1e-4,
        },
        "coauthor-cs/link": {**LINKS, "width": 64, "layers": 1, "temperature": 0.9, "lr": 1e-3},
        "coauthor-physics/link": {**LINKS, "inner": 32, "lr": 1e-3, "weight_decay": 1e-3},
    },
    by_task={
        "link": {**LINKS, "width": 128, "temperature": 0.9, "lr": 1e-3, "weight_decay": 5e-4},
        "graph": {
            "encoder": "gin",
            "select": False,
            "read": "last",
            "unit": False,
            "dropout": 0.2,
            "lr": 1e-3,
            "epochs": 50,
        },
    },
    published={
        "cora": {"node-linear": Published(84.62, 0.37, NODE)},
        "citeseer": {"node-linear": Published(73.60, 0.16, NODE)},
        "pubmed": {"node-linear": Published(83.53, 0.51, NODE)},
        "amazon-photo": {"node-linear": Published(93.44, 0.11, NODE)},
        "amazon-computers": {"node-linear": Published(89.62, 0.09, NODE)},
        "coauthor-cs": {"node-linear": Published(93.10, 0.05, NODE)},
        "coauthor-physics": {"node-linear": Published(95.57, 0.04, NODE)},
        "ogbn-arxiv": {"node-linear": Published(71.09, 0.24, NODE)},
        "cora/link": {"link-dot": Published(95.71, 0.12, LINK)},
        "citeseer/link": {"link-dot": Published(96.89, 0.21, LINK)},
        "pubmed/link": {"link-dot": Published(97.26, 0.16, LINK)},
        "amazon-photo/link": {"link-dot": Published(97.24, 0.11, LINK)},
        "amazon-computers/link": {"link-dot": Published(97.33, 0.06, LINK)},
        "coauthor-cs/link": {"link-dot": Published(97.42, 0.08, LINK)},
        "coauthor-physics/link": {"link-dot": Published(97.02, 0.04, LINK)},
    },
)
def bandana(
    spec: Spec, *, encoder: str = "gcn", width: int = 256, layers: int = 2, dropout: float = 0.8,
    norm: str = "batch", activation: str = "elu", read: str = "all", unit: bool = True, pool: str = "mean",
    inner: int = 64, decoder_dropout: float = 0.2, temperature: float = 1.0, discrete: float = 0.0,
    shuffle: bool = False, negatives: str = "absent", lr: float = 0.01, weight_decay: float = 5e-5,
    clip: float | None = 1.0, epochs: int = 1000, select: bool = True, patience: int = 30, edge_attr: bool = True,
    batch_size: int | None = None,
) -> Plan:  # fmt: skip
    """Bandwidth prediction, layer by layer.

    ``graphssl pretrain cora/link --method bandana`` is the paper's link row (AUC 95.71 by ``link-dot``), ``cora`` its
    node row (84.62 by ``node-linear``, of one pretraining): both with the values of config/*.yml; what they reach here
    stands in benchmarks/results/quality.md. PubMed, Amazon, Coauthor, WikiCS and ogbn-arxiv have theirs too and were
    never run here. Data without a name: a GCN of width 256 for one graph (meant for node classification), of width 128
    for a link set, a GIN for a list of graphs.

    ``temperature`` is that of the softmax of noise; small ones let a single neighbour through. ``discrete`` above 0
    hides that share of the edges in place of bandwidths, ``shuffle`` weighs the loss as the reference code does: the
    paper's ablation and ours; CiteSeer's node row has it on, since without it held-out pairs are told apart worse.
    ``inner`` is the decoder's width. ``read`` "all" lays all layers side by side as codes, ``unit`` scales them to
    length one. ``negatives`` "fast" draws pairs without a look whether they are edges. With ``select`` the run ends
    with the weights that score held-out pairs best, looking every ten epochs and stopping after ``patience`` looks
    without a gain: a link set's validation pairs by dot products, or a tenth of a node set's edges by the decoder; no
    labels. ``edge_attr`` lets a GIN's messages carry the edges' attributes where the data has any. The reference takes
    a step for every 65,536 edges, ours one an epoch, and it sets another 5 % of a node set's edges aside.
    """
    check_pairs("bandana", spec.edges, negatives)
    if encoder not in WEIGHED:
        raise unknown("encoder of bandana, which widens and narrows messages by edge weights,", encoder, WEIGHED)
    body = backbone_of(
        spec, encoder, [width] * layers, dropout=dropout, norm=norm, activation=activation, edge_attr=edge_attr,
    )  # fmt: skip
    method = Bandana(
        Encoder(body, read, pool, unit), EdgeMLP(width, inner, 2, dropout=decoder_dropout),
        Edges(discrete) if discrete else Bandwidths(temperature), shuffle, negatives,
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, clip=clip, batch_size=batch_size,
        select=selecting(spec, select, Select(patience=patience, dot=spec.task == "link")),
        transform=Transform(undirected=True),
    )  # fmt: skip
