"""CCA-SSG's settings: hengruizhang98/CCA-SSG at d8bbfcd, README."""

from __future__ import annotations

from torch import nn

from graphssl.augment import Drop
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.methods import CCASSG
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, recipe

README = "GraphMAE README, public split"

CORA = {"epochs": 50, "features": 0.1, "edges": 0.4, "weight": 1e-3}
CITESEER = {"epochs": 20, "layers": 1, "features": 0.0, "edges": 0.4, "weight": 5e-4}
PUBMED = {"epochs": 100, "features": 0.3, "edges": 0.5, "weight": 1e-3}


@recipe(
    "cca-ssg",
    by_name={
        "cora": CORA, "cora/link": CORA, "citeseer": CITESEER, "citeseer/link": CITESEER, "pubmed": PUBMED,
        "pubmed/link": PUBMED, "amazon-computers": {"epochs": 50, "features": 0.1, "edges": 0.3, "weight": 5e-4},
        "amazon-photo": {"epochs": 50, "features": 0.2, "edges": 0.3, "weight": 1e-3},
    },
    by_task={"graph": {"encoder": "gin", "norm": "batch", "width": 128, "epochs": 50, "batch_size": 32}},
    published={
        "cora": {"node-linear": Published(84.0, 0.4, README)},
        "citeseer": {"node-linear": Published(73.1, 0.3, README)},
        "pubmed": {"node-linear": Published(81.0, 0.4, README)},
    },
)  # fmt: skip
def cca_ssg(
    spec: Spec, *, encoder: str | nn.Module = "gcn", width: int = 512, layers: int = 2, heads: int = 1,
    norm: str = "none", activation: str = "relu", pool: str = "mean", features: float = 0.2, edges: float = 0.2,
    weight: float = 1e-3, lr: float = 1e-3, weight_decay: float = 0.0, epochs: int = 100,
    batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Two views of each node made alike, the columns of the codes uncorrelated; no negatives.

    ``graphssl pretrain cora --method cca-ssg`` has the README's values, as have CiteSeer, PubMed and the Amazon graphs
    (the last three were never run here); the last layer has neither norm nor activation. Measured:
    benchmarks/results/quality.md. Data without a name: the reference's defaults, which are the signature's, for one
    graph (meant for node classification), and for a list of graphs a GIN in batches of 32 (meant for graph
    classification).

    Each view drops a share ``features`` of the columns and a share ``edges`` of the edges; ``weight`` is the paper's
    lambda, of the decorrelation.
    """
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, norm=norm, activation=activation, bare_end=True,
    )  # fmt: skip
    return Plan(
        method=CCASSG(Encoder(body, pool=pool), Drop(features, edges), weight), optimizer=adam(lr, weight_decay),
        epochs=epochs, batch_size=batch_size, clip=clip, transform=Transform(row_normalize=spec.sparse),
    )  # fmt: skip
