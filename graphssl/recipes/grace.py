"""GRACE's settings: CRIPAC-DIG/GRACE at 700be33, config.yaml."""

from __future__ import annotations

from torch import nn

from graphssl.augment import AdaptiveDrop, Drop
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.methods import GRACE
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, cosine_decay, recipe
from graphssl.recipes.cutting import placed

INDEPENDENT = "independent reproduction (SSL-GNN-Project), public split; GRACE's own paper uses other splits"

CORA = {
    "width": 128, "hidden": 128, "activation": "relu", "lr": 5e-4, "edges_1": 0.2, "edges_2": 0.4, "features_1": 0.3,
    "features_2": 0.4, "tau": 0.4,
}  # fmt: skip
CITESEER = {
    "width": 256, "hidden": 256, "activation": "prelu", "lr": 1e-3, "edges_1": 0.2, "edges_2": 0.0, "features_1": 0.3,
    "features_2": 0.2, "tau": 0.9,
}  # fmt: skip


@recipe(
    "grace",
    by_name={"cora": CORA, "cora/link": CORA, "citeseer": CITESEER, "citeseer/link": CITESEER},
    by_task={
        "graph": {"encoder": "gin", "norm": "batch", "width": 128, "hidden": 128, "epochs": 50, "batch_size": 32},
    },
    published={
        "cora": {"node-linear": Published(82.5, None, INDEPENDENT)},
        "citeseer": {"node-linear": Published(69.7, None, INDEPENDENT)},
    },
)  # fmt: skip
def grace(
    spec: Spec, *, encoder: str | nn.Module = "gcn", width: int = 256, hidden: int = 256, layers: int = 2,
    heads: int = 1, dropout: float = 0.0, norm: str = "none", residual: bool = False, activation: str = "prelu",
    pool: str = "mean", edges_1: float = 0.2, edges_2: float = 0.4, features_1: float = 0.3, features_2: float = 0.4,
    adaptive: str = "none", tau: float = 0.5, lr: float = 1e-3, weight_decay: float = 1e-5, decay: bool = False,
    epochs: int = 200, batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Contrast between two random views of each node.

    Cora and CiteSeer have the reference's config.yaml, which is meant for other splits: all layers but the last are
    twice as wide as ``width``. Measured here: benchmarks/results/quality.md. Data without a name: the signature's
    values for one graph (meant for node classification), and for a list of graphs a GIN in batches of 32 (meant for
    graph classification).

    ``edges_1`` and ``features_1`` are the shares that the first view drops, ``edges_2`` and ``features_2`` the second;
    with ``adaptive`` "degree", "eigenvector" or "pagerank" what is central is dropped less often, as GCA does
    (arXiv:2010.14945). ``tau`` is the temperature, ``hidden`` the width within the projection. Time grows with the
    square of the nodes, memory does not.
    """
    body = backbone_of(
        spec, encoder, [2 * width] * (layers - 1) + [width], heads=heads, dropout=dropout, norm=norm,
        residual=residual, activation=activation, **placed(spec),
    )  # fmt: skip
    shares = (features_1, edges_1), (features_2, edges_2)
    one, two = (Drop(*both) if adaptive == "none" else AdaptiveDrop(*both, adaptive) for both in shares)
    method = GRACE(Encoder(body, pool=pool), hidden, (one, two), tau)
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, schedule=cosine_decay if decay else None,
        batch_size=batch_size, clip=clip, transform=Transform(row_normalize=spec.sparse),
    )  # fmt: skip
