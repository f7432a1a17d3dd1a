"""S2GAE's settings: qiaoyu-tan/S2GAE at 4fd6ebe, s2gae_small_lp.py with runs.sh's mask type; figures of its README."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import Layer
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.masks import Edges
from graphssl.methods import S2GAE
from graphssl.methods.pairs import check_pairs
from graphssl.recipes.base import Plan, Published, Select, Spec, adam, backbone_of, recipe, selecting
from graphssl.recipes.cutting import placed

README = "S2GAE README (WSDM 2023), its decoder"


@recipe(
    "s2gae",
    by_task={"graph": {"encoder": "gin", "select": False, "norm": "batch", "dropout": 0.2, "lr": 1e-3, "epochs": 50}},
    published={
        "cora/link": {"link-mlp": Published(95.05, 0.76, README)},
        "citeseer/link": {"link-mlp": Published(94.85, 0.49, README)},
        "pubmed/link": {"link-mlp": Published(97.38, 0.17, README)},
    },
)
def s2gae(
    spec: Spec, *, encoder: str | nn.Module = "gcn", width: int = 128, layers: int = 2, heads: int = 4,
    dropout: float = 0.5, norm: str = "none", activation: str = "relu", pool: str = "mean", inner: int = 256,
    mask: float = 0.7, both_ways: bool = False, negatives: str = "absent", lr: float = 0.01, weight_decay: float = 0.0,
    clip: float | None = 1.0, epochs: int = 200, select: bool = True, patience: int = 50, edge_attr: bool = True,
    batch_size: int | None = None,
) -> Plan:  # fmt: skip
    """Prediction of hidden directed edges by a decoder that reads all pairs of layers.

    ``graphssl pretrain cora/link --method s2gae`` is the README's link row (AUC 95.05, the method's own decoder); the
    README's node figures come from a support vector machine on all nodes, five folds, and are not comparable with
    ``node-linear``. One set of values serves all; PubMed was never run here. Data without a name: the same, and a GIN
    for a list of graphs.

    ``mask`` is the share of hidden edges; ``both_ways`` hides both directions together, else each is drawn by itself.
    ``inner`` is the decoder's width. ``negatives`` "fast" draws pairs without a look whether they are edges. With
    ``select`` the run ends with the weights that score held-out pairs best, looking at every epoch and stopping after
    ``patience`` looks without a gain: a link set's validation pairs, or a tenth of a node set's edges; no labels.
    ``edge_attr`` lets a GIN's messages carry the edges' attributes where the data has any. The reference drops out
    after each layer, before the decoder reads it; ours before the next one.
    """
    check_pairs("s2gae", spec.edges, negatives)
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, dropout=dropout, norm=norm, activation=activation,
        edge_attr=edge_attr, **placed(spec),
    )  # fmt: skip
    first = body.layers[0]
    if isinstance(encoder, str) and isinstance(first, Layer):
        first.dropout = 0.0  # the reference leaves the content as it is
    method = S2GAE(Encoder(body, "all", pool), Edges(mask, directed=not both_ways), inner, dropout, negatives)
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, clip=clip, batch_size=batch_size,
        select=selecting(spec, select, Select(every=1, patience=patience)), transform=Transform(undirected=True),
    )  # fmt: skip
