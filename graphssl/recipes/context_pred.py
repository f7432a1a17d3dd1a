"""Context prediction's settings: snap-stanford/pretrain-gnns at 6e69a06, chem/pretrain_contextpred.py."""

from __future__ import annotations

from typing import Any

from torch import nn

from graphssl.encoder import Encoder
from graphssl.methods import ContextPred
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe
from graphssl.recipes.cutting import placed
from graphssl.recipes.infograph import check_graphs
from graphssl.recipes.molecules import CHEM


@recipe("context-pred", of_molecules=CHEM)
def context_pred(
    spec: Spec, *, encoder: str | nn.Module = "gine", width: int = 300, layers: int = 5, heads: int = 4,
    dropout: float = 0.0, norm: str = "batch", activation: str = "prelu", pool: str = "mean", r1: int | None = None,
    r2: int | None = None, lr: float = 1e-3, weight_decay: float = 0.0, epochs: int = 100, batch_size: int = 256,
    edge_attr: bool = True, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Telling what surrounds a node of one graph from what surrounds a node of another.

    Meant for sets of graphs in which most nodes have others ``r1`` hops away, as molecules. The signature's values are
    the reference's, but for its activation, a ReLU behind all layers but the last, where ours is a PReLU behind all:
    dot products of codes without a sign would never be below zero. Molecules have fewer epochs.

    The substructure is as many hops wide as the encoder has layers. The context is the nodes more than ``r1`` (None:
    one less than layers) and up to ``r2`` hops away (None: three more): 4 and 7 of five layers, the paper's. It is read
    by a second backbone of the same name ("gine" beside a module), of r2 - r1 layers. ``edge_attr`` lets backbones that
    can read the edges' attributes where the data has any.
    """
    check_graphs("context-pred", spec, batch_size, "dgi")
    r1 = layers - 1 if r1 is None else r1
    r2 = r1 + 3 if r2 is None else r2
    options: dict[str, Any] = {
        "heads": heads, "dropout": dropout, "norm": norm, "activation": activation, "edge_attr": edge_attr,
        **placed(spec),
    }  # fmt: skip
    reader = Encoder(backbone_of(spec, encoder, [width] * layers, **options), pool=pool)
    around = encoder if isinstance(encoder, str) else "gine"
    context = Encoder(backbone_of(spec, around, [reader.dim] * max(1, r2 - r1), **options))
    method = ContextPred(reader, context, layers, r1, r2)
    return Plan(method=method, optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size, clip=clip)
