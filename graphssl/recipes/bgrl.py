"""BGRL's settings: nerdslab/bgrl at 60f9f19, config/; for Cora and CiteSeer those of THUDM/GraphMAE#4."""

from __future__ import annotations

from torch import nn

from graphssl.augment import Drop
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.methods import BGRL
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, recipe, warmed_up
from graphssl.recipes.cutting import placed

README = "GraphMAE README, public split; THUDM/GraphMAE#4: attention layers of width 4096 and 1024 to 8192"

CORA = {"epochs": 100, "lr": 1e-3, "edges_1": 0.5, "edges_2": 0.3, "features_1": 0.2, "features_2": 0.5}
CITESEER = {"epochs": 50, "lr": 5e-4, "edges_1": 0.4, "edges_2": 0.4, "features_1": 0.4, "features_2": 0.1}


@recipe(
    "bgrl",
    by_name={"cora": CORA, "cora/link": CORA, "citeseer": CITESEER, "citeseer/link": CITESEER},
    by_task={"graph": {"encoder": "gin", "width": 128, "epochs": 50, "batch_size": 32}},
    published={
        "cora": {"node-linear": Published(82.7, 0.6, README)},
        "citeseer": {"node-linear": Published(71.1, 0.8, README)},
    },
)  # fmt: skip
def bgrl(
    spec: Spec, *, encoder: str | nn.Module = "gcn", width: int = 256, inner: int = 512, hidden: int = 512,
    layers: int = 2, heads: int = 1, dropout: float = 0.0, attention_dropout: float = 0.0, norm: str = "batch",
    residual: bool = False, activation: str = "prelu", pool: str = "mean", edges_1: float = 0.3, edges_2: float = 0.3,
    features_1: float = 0.2, features_2: float = 0.3, momentum: float = 0.99, lr: float = 5e-4,
    weight_decay: float = 1e-5, warmup: float = 0.1, epochs: int = 200, batch_size: int | None = None,
    clip: float | None = None,
) -> Plan:  # fmt: skip
    """Prediction of a slow teacher's codes across two random views.

    The encoder, optimizer and momentum are those of the reference's WikiCS run (layers of ``inner`` and ``width``,
    batch norm). The paper has no Cora or CiteSeer run: epochs, learning rate and drop shares are those that GraphMAE's
    authors gave for their baseline row, whose attention layers of 4096 and 1024 (CiteSeer: 8192) are not kept.
    Measured here: benchmarks/results/quality.md. Data without a name: the signature's values for one graph (meant for
    node classification), and for a list of graphs a GIN in batches of 32 (meant for graph classification).

    ``edges_1`` and ``features_1`` are the shares that the first view drops, ``edges_2`` and ``features_2`` the second;
    ``warmup`` is the share of training in which the learning rate rises.
    """
    body = backbone_of(
        spec, encoder, [inner] * (layers - 1) + [width], heads=heads, dropout=dropout,
        attention_dropout=attention_dropout, norm=norm, residual=residual, activation=activation, **placed(spec),
    )  # fmt: skip
    views = Drop(features_1, edges_1), Drop(features_2, edges_2)
    return Plan(
        method=BGRL(Encoder(body, pool=pool), hidden, views, momentum),
        optimizer=adam(lr, weight_decay, decoupled=True), epochs=epochs,
        schedule=warmed_up(warmup), batch_size=batch_size, clip=clip,
        transform=Transform(row_normalize=spec.sparse),
    )  # fmt: skip
