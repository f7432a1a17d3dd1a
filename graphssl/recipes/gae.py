"""GAE's and VGAE's settings: Kipf and Welling 2016, arXiv:1611.07308, section 3 and table 1."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from graphssl.backbones import backbone
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.methods import GAE, VGAE
from graphssl.methods.pairs import check_pairs
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, edges_read, recipe

TABLE = "arXiv:1611.07308, table 1; ten runs on one split"
ERROR = "standard error, as published"


def table(**auc: tuple[float, float]) -> Mapping[str, Mapping[str, Published]]:
    return {f"{name}/link": {"link-dot": Published(*figure, TABLE, ERROR)} for name, figure in auc.items()}


@recipe("gae", published=table(cora=(91.0, 0.02), citeseer=(89.5, 0.04), pubmed=(96.4, 0.00)))
def gae(
    spec: Spec, *, encoder: str | nn.Module = "gcn", width: int = 16, first_width: int = 32, dropout: float = 0.0,
    pool: str = "mean", negatives: str = "absent", lr: float = 0.01, weight_decay: float = 5e-4, epochs: int = 200,
    edge_attr: bool = True, batch_size: int | None = None,
) -> Plan:  # fmt: skip
    """Reconstruction of all edges by dot products of codes.

    ``graphssl pretrain cora/link --method gae`` is table 1's row with features (AUC 91.0 by ``link-dot``). Two layers
    of widths ``first_width`` and ``width``; the reference weighs all N x N pairs, ours draws as many absent ones as
    edges, anew each step, which overfits without ``weight_decay`` (the ablation in benchmarks/results/quality.md): the
    paper has none, ours was chosen by validation pairs. PubMed was never run here. ``edge_attr`` lets a GIN's messages
    carry the edges' attributes where the data has any. Data without a name: the same values, meant as a baseline.
    """
    check_pairs("gae", spec.edges, negatives)
    body = backbone_of(
        spec, encoder, [first_width, width], dropout=dropout, activation="relu", bare_end=True, edge_attr=edge_attr,
    )  # fmt: skip
    return Plan(
        method=GAE(Encoder(body, pool=pool), negatives), optimizer=adam(lr, weight_decay), epochs=epochs,
        batch_size=batch_size, transform=Transform(undirected=True),
    )  # fmt: skip


@recipe("vgae", published=table(cora=(91.4, 0.01), citeseer=(90.8, 0.02), pubmed=(94.4, 0.02)))
def vgae(
    spec: Spec, *, encoder: str = "gcn", width: int = 16, first_width: int = 32, dropout: float = 0.0,
    pool: str = "mean", negatives: str = "absent", lr: float = 0.01, weight_decay: float = 5e-4, epochs: int = 200,
    edge_attr: bool = True, batch_size: int | None = None,
) -> Plan:  # fmt: skip
    """Reconstruction of all edges by dot products of draws around codes.

    ``graphssl pretrain cora/link --method vgae`` is table 1's row with features (AUC 91.4 by ``link-dot``). As ``gae``;
    codes are the means.
    """
    check_pairs("vgae", spec.edges, negatives)
    body = backbone_of(
        spec, encoder, [first_width, width], dropout=dropout, activation="relu", bare_end=True, edge_attr=edge_attr,
    )  # fmt: skip
    edge_dim = edges_read(spec, encoder, edge_attr)
    spread = backbone(encoder, first_width, [width], dropout=dropout, bare_end=True, edge_dim=edge_dim)
    return Plan(
        method=VGAE(Encoder(body, pool=pool), spread, negatives), optimizer=adam(lr, weight_decay), epochs=epochs,
        batch_size=batch_size, transform=Transform(undirected=True),
    )  # fmt: skip
