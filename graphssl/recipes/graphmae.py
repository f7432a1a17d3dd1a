"""GraphMAE's settings: THUDM/GraphMAE at b14f080, configs.yml; figures from its README."""

from __future__ import annotations

from functools import partial

from torch import nn

from graphssl.backbones import backbone
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError, unknown
from graphssl.losses import mean_square, scaled_cosine
from graphssl.masks import Block, Guided, Ramp, Uniform
from graphssl.methods import GraphMAE
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, cosine_decay, edges_read, recipe
from graphssl.recipes.cutting import placed
from graphssl.recipes.molecules import CHEM

README = "GraphMAE README (KDD 2022), public split; its probe fixes the weight decay"
README_TU = "GraphMAE README (KDD 2022), ten folds, five seeds"

CORA = {"epochs": 1500, "weight_decay": 2e-4, "replace": 0.05}
CITESEER = {"epochs": 300, "weight_decay": 2e-5, "replace": 0.1, "alpha": 1.0, "heads": 2}
PUBMED = {"epochs": 1000, "weight_decay": 1e-5, "width": 1024, "mask": 0.75}

GRAPHS = {
    "encoder": "gin", "decoder": "gin", "norm": "batch", "batch_size": 32, "alpha": 1.0, "decay": False, "lr": 1.5e-4,
    "width": 512, "epochs": 50, "edge_attr": None,
}  # fmt: skip
# configs.yml says "pool: sum" of NCI1 and "pool: max" of COLLAB, but the code reads "pooling" and so takes the mean
NCI1 = {
    **GRAPHS,
    "lr": 1e-3,
    "epochs": 300,
    "mask": 0.25,
    "replace": 0.1,
    "alpha": 2.0,
    "batch_size": 16,
    "decay": True,
}
ARXIV = {
    "epochs": 1000, "width": 1024, "layers": 3, "norm": "layer", "drop_edges": 0.5, "standardize": True,
    "undirected": True,
}  # fmt: skip
# chem/pretraining.py at a8a51cf, which rebuilds the atom's type alone
CHEMICAL = {
    **GRAPHS, **CHEM, "decoder": "gine", "dropout": 0.0, "mask": 0.25, "targets": "type", "edge_attr": True,
    "self_loops": False,
}  # fmt: skip
MASKERS = {"uniform": Uniform, "degree": Guided, "block": Block}
MUTAG = {
    **GRAPHS, "width": 32, "layers": 5, "lr": 5e-4, "epochs": 20, "mask": 0.75, "replace": 0.1, "alpha": 2.0,
    "batch_size": 64, "pool": "sum",
}  # fmt: skip


@recipe(
    "graphmae",
    by_name={
        "cora": CORA, "cora/link": CORA, "citeseer": CITESEER, "citeseer/link": CITESEER,
        "pubmed": PUBMED, "ogbn-arxiv": ARXIV,
        "mutag": MUTAG, "nci1": NCI1,
        "proteins": {**GRAPHS, "layers": 3, "epochs": 100, "pool": "max"},
        "imdb-binary": {**GRAPHS, "epochs": 60}, "imdb-multi": {**GRAPHS, "layers": 3},
        "collab": {
            **GRAPHS, "width": 256, "epochs": 20, "mask": 0.75, "alpha": 2.0, "activation": "relu", "decay": True,
        },
        "reddit-binary": {
            **GRAPHS, "epochs": 100, "mask": 0.75, "replace": 0.1, "alpha": 2.0, "batch_size": 8, "norm": "layer",
            "pool": "sum", "decay": True,
        },
    },
    of_molecules=CHEMICAL,
    by_task={"graph": {**GRAPHS, "width": 256, "lr": 5e-4, "edge_attr": True}},
    published={
        "cora": {"node-linear": Published(84.2, 0.4, README)},
        "citeseer": {"node-linear": Published(73.4, 0.4, README)},
        "pubmed": {"node-linear": Published(81.1, 0.4, README)},
        "ogbn-arxiv": {"node-linear": Published(71.75, 0.17, README)},
        "mutag": {"graph-svm": Published(88.19, 1.26, README_TU)},
        "proteins": {"graph-svm": Published(75.30, 0.39, README_TU)},
        "nci1": {"graph-svm": Published(80.40, 0.30, README_TU)},
        "imdb-binary": {"graph-svm": Published(75.52, 0.66, README_TU)},
        "imdb-multi": {"graph-svm": Published(51.63, 0.52, README_TU)},
        "collab": {"graph-svm": Published(80.32, 0.46, README_TU)},
        "reddit-binary": {"graph-svm": Published(88.01, 0.19, README_TU)},
    },
)  # fmt: skip
def graphmae(
    spec: Spec, *, encoder: str | nn.Module = "gat", width: int = 512, layers: int = 2, heads: int = 4,
    dropout: float = 0.2, attention_dropout: float = 0.1, norm: str = "none", residual: bool = False,
    activation: str = "prelu", pool: str = "mean", decoder: str = "gat", mask: float = 0.5, replace: float = 0.0,
    loss: str = "sce", alpha: float = 3.0, lr: float = 1e-3, weight_decay: float = 0.0, decay: bool = True,
    epochs: int = 300, masker: str = "uniform", mask_end: float | None = None, drop_edges: float = 0.0,
    shared_dropout: bool = False, edge_attr: bool | None = True, standardize: bool = False, undirected: bool = False,
    self_loops: bool = True, targets: str = "all", batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked feature reconstruction.

    ``graphssl pretrain cora`` is the paper's Cora row, 84.2 ± 0.4 by ``node-linear`` with GraphMAE's weight decay, and
    ``citeseer`` 73.4 ± 0.4: both from configs.yml, both reached over five seeds (benchmarks/results/quality.md). Cora
    takes five minutes on two cores (1500 steps: benchmarks/results/speed.md). ``mutag``, ``proteins``, ``nci1`` and
    ``imdb-binary`` are rows of its graph table, with configs.yml's values; what they reach stands in
    benchmarks/results/quality.md. pubmed, ogbn-arxiv, imdb-multi, collab and reddit-binary have configs.yml's values
    too and were never run here. Molecules have the values of its chem part, with fewer epochs. Other data without a
    name: the signature's values for one graph (meant for node classification on sparse or dense features), and for a
    list of graphs a GIN of width 256 in batches of 32 (meant for graph classification).

    ``mask`` is the share of hidden nodes, ``masker`` which ones: "uniform", "degree" (those of many neighbours sooner)
    or "block" (a connected one); with ``mask_end`` the share moves there as training goes on. ``replace`` is the share
    of the hidden ones that show another node's content, ``loss`` "sce", the scaled cosine error with the exponent
    ``alpha``, or "mse", the mean squared one, ``decoder`` a name as for ``encoder`` ("mlp" decodes without re-masking),
    ``decay`` a cosine decay of the learning rate to zero. ``shared_dropout`` gives all mask tokens of a step one
    dropout mask, so that they cost one row: a faster step for about half a point of accuracy (five seeds:
    benchmarks/results/speed.md and quality.md). ``edge_attr`` lets messages carry the edges' attributes where the data
    has any: True in all backbones that can, None in those made for it ("gine", "gen", "gps"). ``drop_edges`` leaves
    that share of the edges out of what the encoder sees, ``standardize`` scales each feature to mean 0 and deviation 1,
    ``undirected`` gives every edge its counterpart. ``targets`` is "all" or, for content of classes, "type": the first
    one-hot block of the content alone is rebuilt, the type of an atom.

    ``self_loops`` gives each node an edge to itself. Molecules get none, as in all recipes for them: the chem part's
    convolution adds one of a bond type of its own, whose place the node's own term of a GINE takes (chem/model.py).
    Sparse content that is not of classes has its rows scaled to sum 1.
    """
    if masker not in MASKERS:
        raise unknown("masker of graphmae", masker, MASKERS)
    if loss not in ("sce", "mse"):
        raise unknown("loss of graphmae", loss, ("sce", "mse"))
    if targets not in ("all", "type"):
        raise unknown("targets of graphmae", targets, ("all", "type"))
    if targets == "type" and not spec.fields:
        raise UserError(f"the content of {spec.name!r} is not known to be of one-hot blocks; choose targets='all'")
    dim = spec.dim if targets == "all" else spec.fields[0]
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, dropout=dropout, attention_dropout=attention_dropout,
        norm=norm, residual=residual, activation=activation, edge_attr=edge_attr, **placed(spec),
    )  # fmt: skip
    reader = Encoder(body, pool=pool)
    widths = [width, dim] if decoder == "mlp" else [dim]
    writer = backbone(
        decoder, width, widths, dropout=dropout, attention_dropout=attention_dropout, activation=activation,
        bare_end=True, edge_dim=edges_read(spec, decoder, edge_attr),
    )  # fmt: skip
    hider = MASKERS[masker](mask)
    method = GraphMAE(
        reader, writer, hider if mask_end is None else Ramp(hider, mask_end), replace, remask=decoder != "mlp",
        shared_dropout=shared_dropout, drop_edges=drop_edges,
        loss=partial(scaled_cosine, alpha=alpha) if loss == "sce" else mean_square,
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, schedule=cosine_decay if decay else None,
        batch_size=batch_size, clip=clip,
        transform=Transform(self_loops, spec.sparse and not (spec.fields or standardize), undirected, standardize),
    )  # fmt: skip
