"""GraphMAE's settings: THUDM/GraphMAE at b14f080, configs.yml; figures from its README."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import backbone
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.losses import scaled_cosine
from graphssl.masks import Uniform
from graphssl.methods import GraphMAE
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, cosine_decay, recipe

README = "GraphMAE README (KDD 2022), public split; its probe fixes the weight decay"

CORA = {"epochs": 1500, "weight_decay": 2e-4, "replace": 0.05}
CITESEER = {"epochs": 300, "weight_decay": 2e-5, "replace": 0.1, "alpha": 1.0, "heads": 2}


@recipe(
    "graphmae",
    by_name={"cora": CORA, "cora/link": CORA, "citeseer": CITESEER, "citeseer/link": CITESEER},
    by_task={
        "graph": {
            "encoder": "gin", "decoder": "gin", "norm": "batch", "width": 256, "lr": 5e-4, "epochs": 50,
            "batch_size": 32, "alpha": 1.0, "decay": False,
        },
    },
    published={
        "cora": {"node-linear": Published(84.2, 0.4, README)},
        "citeseer": {"node-linear": Published(73.4, 0.4, README)},
    },
)  # fmt: skip
def graphmae(
    spec: Spec, *, encoder: str | nn.Module = "gat", width: int = 512, layers: int = 2, heads: int = 4,
    dropout: float = 0.2, attention_dropout: float = 0.1, norm: str = "none", residual: bool = False,
    activation: str = "prelu", pool: str = "mean", decoder: str = "gat", mask: float = 0.5, replace: float = 0.0,
    alpha: float = 3.0, lr: float = 1e-3, weight_decay: float = 0.0, decay: bool = True, epochs: int = 300,
    shared_dropout: bool = False, batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked feature reconstruction.

    ``graphssl pretrain cora`` is the paper's Cora row, 84.2 ± 0.4 by ``node-linear`` with GraphMAE's weight decay, and
    ``citeseer`` 73.4 ± 0.4: both from configs.yml, both reached over five seeds (benchmarks/results/quality.md). Cora
    takes five minutes on two cores (1500 steps: benchmarks/results/speed.md). Data without a name: the signature's
    values for one graph (meant for node classification on sparse or dense features), and for a list of graphs a GIN of
    width 256 in batches of 32 (meant for graph classification).

    ``mask`` is the share of hidden nodes, ``replace`` the share of those that show another node's content, ``alpha``
    the exponent of the scaled cosine error, ``decoder`` a name as for ``encoder`` ("mlp" decodes without re-masking),
    ``decay`` a cosine decay of the learning rate to zero. ``shared_dropout`` gives all mask tokens of a step one
    dropout mask, so that they cost one row: a faster step for about half a point of accuracy (five seeds:
    benchmarks/results/speed.md and quality.md).
    """
    body = backbone_of(
        encoder, spec.dim, [width] * layers, heads=heads, dropout=dropout, attention_dropout=attention_dropout,
        norm=norm, residual=residual, activation=activation,
    )  # fmt: skip
    reader = Encoder(body, pool=pool)
    widths = [width, spec.dim] if decoder == "mlp" else [spec.dim]
    writer = backbone(
        decoder, width, widths, dropout=dropout, attention_dropout=attention_dropout, activation=activation,
        bare_end=True,
    )  # fmt: skip
    method = GraphMAE(
        reader, writer, Uniform(mask), replace, remask=decoder != "mlp", shared_dropout=shared_dropout,
        loss=lambda a, b: scaled_cosine(a, b, alpha),
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, schedule=cosine_decay if decay else None,
        batch_size=batch_size, clip=clip, transform=Transform(self_loops=True, row_normalize=spec.sparse),
    )  # fmt: skip
