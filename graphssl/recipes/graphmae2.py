"""GraphMAE2's settings: THUDM/GraphMAE2 at 1a28045, configs/cora.yaml; the paper's random re-masking elsewhere."""

from __future__ import annotations

from functools import partial

from torch import nn

from graphssl.backbones import backbone
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.losses import scaled_cosine
from graphssl.masks import Uniform
from graphssl.methods import GraphMAE2
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, cosine_decay, edges_read, recipe
from graphssl.recipes.cutting import placed

REPRODUCED = "an independent reproduction of GraphMAE2, SSL-GNN-Project"


@recipe(
    "graphmae2",
    by_name={
        "cora": {
            "width": 1024, "heads": 8, "weight_decay": 2e-4, "epochs": 2000, "random": False, "momentum": 0.0,
            "latent": 0.15,
        },
    },
    by_task={
        "graph": {
            "encoder": "gin", "decoder": "gin", "norm": "batch", "width": 256, "lr": 5e-4, "epochs": 50, "alpha": 1.0,
            "decay": False,
        },
    },
    published={
        "cora": {"node-linear": Published(83.90, None, REPRODUCED)},
    },
)  # fmt: skip
def graphmae2(
    spec: Spec, *, encoder: str | nn.Module = "gat", width: int = 256, layers: int = 2, heads: int = 4,
    dropout: float = 0.2, attention_dropout: float = 0.1, norm: str = "none", residual: bool = False,
    activation: str = "prelu", pool: str = "mean", decoder: str = "gat", mask: float = 0.5, random: bool = True,
    remask: float = 0.5, views: int = 3, latent: float = 0.5, momentum: float = 0.996, alpha: float = 3.0,
    lr: float = 1e-3, weight_decay: float = 2e-4, decay: bool = True, epochs: int = 300,
    edge_attr: bool = True, batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked feature reconstruction from codes covered again in several ways, and prediction of a teacher's codes.

    ``graphssl pretrain cora --method graphmae2`` has the values of configs/cora.yaml, which re-mask as GraphMAE does
    and take the teacher's weights to be the student's. configs/ogbn-arxiv.yaml is not here: it trains on sampled
    clusters. Data without a name: the paper's random
    re-masking, width 256; a GIN for a list of graphs. What they reach stands in benchmarks/results/quality.md.

    ``mask`` is the share of hidden nodes. With ``random`` a share ``remask`` of the codes is covered before each of
    ``views`` decodings, else those of the hidden nodes, once. ``latent`` weighs the prediction of the teacher, which
    follows with ``momentum``. ``alpha`` is the exponent of the scaled cosine error, ``decay`` a cosine decay of the
    learning rate to zero, ``edge_attr`` lets a GIN's messages carry the edges' attributes where the data has any.
    """
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, dropout=dropout, attention_dropout=attention_dropout,
        norm=norm, residual=residual, activation=activation, edge_attr=edge_attr, **placed(spec),
    )  # fmt: skip
    writer = backbone(
        decoder, width, [spec.dim], dropout=dropout, attention_dropout=attention_dropout, activation=activation,
        bare_end=True, edge_dim=edges_read(spec, decoder, edge_attr),
    )  # fmt: skip
    method = GraphMAE2(
        Encoder(body, pool=pool), writer, Uniform(mask), Uniform(remask) if random else None, views, latent, momentum,
        loss=partial(scaled_cosine, alpha=alpha),
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, schedule=cosine_decay if decay else None,
        batch_size=batch_size, clip=clip, transform=Transform(self_loops=True, row_normalize=spec.sparse),
    )  # fmt: skip
