"""SCGC's settings: gayanku/SCGC at e604e6a, README and train.py; the autoencoder's are SDCN's."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import backbone
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods import SCGC
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe

CITESEER = {"clusters": 6, "hops": 1, "tau": 4.0, "alpha": 1.0, "lr": 1e-4}
CORA = {**CITESEER, "clusters": 7}
FACEBOOK = {"clusters": 4, "hidden": 256, "inner": 512, "negative_nodes": 512}


@recipe(
    "scgc",
    by_name={
        "citeseer": CITESEER, "citeseer/link": CITESEER, "cora": CORA, "cora/link": CORA,
        "facebook-pagepage": FACEBOOK, "facebook-pagepage/link": FACEBOOK,
    },
)  # fmt: skip
def scgc(
    spec: Spec, *, encoder: str | nn.Module = "mlp", width: int = 10, hidden: int = 500, inner: int = 2000,
    pool: str = "mean", clusters: int = 0, hops: int = 2, influence: bool = False, walks: int = 8, tau: float = 1.0,
    alpha: float = 2.0, beta: float = 0.1, gamma: float = 1.0, negative_nodes: int | None = None, lr: float = 1e-3,
    weight_decay: float = 0.0, warmup: float = 2 / 3, warmup_lr: float = 1e-3, content_nodes: int = 256,
    epochs: int = 600, batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """An autoencoder without convolutions that learns the graph from its loss, and clusters.

    ``graphssl pretrain citeseer --method scgc`` has the README's settings (``tau`` is the inverse of its own), with
    400 steps of the autoencoder first, as many as SDCN's 30 passes in batches of 256, and the reference's 200 after;
    ``--set influence=true --set gamma=0`` is SCGC*. The published NMI and ARI are not quoted: they are the best of 200
    epochs, picked by labels; here the last epoch counts. The paper has no Cora, which takes CiteSeer's values, and no
    facebook-pagepage, whose smaller layers and sampled negatives save time. Data without a name: the signature's
    values, meant for clustering the nodes of one graph; say how many ``clusters`` there are, as without that (0) none
    are refined, and the codes are the autoencoder's, drawn to those of near nodes.

    The encoder's layers are ``hidden``, ``hidden``, ``inner`` and ``width`` wide. ``hops`` is the length of the
    ``walks`` that each node's neighbours are drawn by, and ``influence`` takes all nodes on them. ``alpha``, ``beta``
    and ``gamma`` weigh the contrast with near nodes, the clusters and the reconstruction. ``warmup`` is the share of
    training that does nothing else, at ``warmup_lr``, unless the run goes on from one that has; ``content_nodes``
    random nodes are reconstructed in a step. ``negative_nodes`` are drawn for each node to be pushed away from; none:
    all are, in time that grows with the square of the nodes. ``run.method.clusters(run.embed())`` says how much each
    node belongs to each cluster.
    """
    if clusters > spec.nodes:
        raise UserError(f"cannot find {clusters} clusters among {spec.nodes} nodes; choose fewer clusters")
    if clusters == 1:
        raise UserError("one cluster holds all nodes and teaches nothing; choose 2 clusters or more, or 0 for none")
    body = backbone_of(spec, encoder, [hidden, hidden, inner, width], activation="relu", bare_end=True)
    decoder = None
    if gamma or warmup:
        mirrored = [inner, hidden, hidden, spec.dim]
        decoder = backbone("mlp", body.dim, mirrored, activation="relu", bare_end=True)
    method = SCGC(
        Encoder(body, pool=pool), decoder, clusters, hops, influence, walks, tau, alpha, beta, gamma, warmup,
        content_nodes, negative_nodes,
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size, clip=clip,
        schedule=lambda progress: warmup_lr / lr if progress < warmup and not method.settled else 1.0,
        transform=Transform(undirected=True),
    )  # fmt: skip
