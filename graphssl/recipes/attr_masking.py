"""Attribute masking's settings: snap-stanford/pretrain-gnns at 01362ef, chem/pretrain_masking.py."""

from __future__ import annotations

from torch import nn

from graphssl.encoder import Encoder
from graphssl.errors import UserError, unknown
from graphssl.masks import Uniform
from graphssl.methods import AttrMasking
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, edges_read, recipe
from graphssl.recipes.cutting import placed
from graphssl.recipes.molecules import CHEM

CLASSES = ("type", "all")


@recipe("attr-masking", of_molecules=CHEM, by_task={"graph": {"batch_size": 256}})
def attr_masking(
    spec: Spec, *, encoder: str | nn.Module = "gine", width: int = 300, layers: int = 5, heads: int = 4,
    dropout: float = 0.0, norm: str = "batch", activation: str = "prelu", pool: str = "mean", mask: float = 0.15,
    targets: str = "type", lr: float = 1e-3, weight_decay: float = 0.0, epochs: int = 100, edge_attr: bool = True,
    batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Prediction of the classes of hidden nodes and of the edges at them.

    Meant for molecules, and for other graphs whose content is of classes: atom types, node labels. Data of which that
    is not known are refused. The signature's values are the reference's, but for its activation, a ReLU behind all
    layers but the last, where ours is a PReLU behind all; its own command hides edges only with --mask_edge 1.
    Molecules have fewer epochs.

    ``mask`` is the share of hidden nodes; ``targets`` is "type" (of what nodes and edges carry the first one-hot block
    alone, as in the paper: the type of atom and of bond) or "all" (every block, a mean over them). With ``edge_attr``
    a backbone that can reads what edges carry, which is hidden at hidden nodes, and its class is predicted where it
    has one.
    """
    if sum(spec.fields) != spec.dim:
        raise UserError(
            f"attr-masking predicts classes, but the content of {spec.name!r} is not known to be made of one-hot "
            "blocks; use graphmae, which rebuilds any content, or say what it is made of: "
            f"graphssl.to_dataset(data).replace(fields=(width of each block, ...)), {spec.dim} in all"
        )
    if targets not in CLASSES:
        raise unknown("targets of attr-masking", targets, CLASSES)
    first = 1 if targets == "type" else None
    edge_dim = edges_read(spec, encoder, edge_attr)
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, dropout=dropout, norm=norm, activation=activation,
        edge_attr=edge_attr, **placed(spec),
    )  # fmt: skip
    method = AttrMasking(
        Encoder(body, pool=pool), spec.fields[:first], spec.edge_fields[:first] if edge_dim else (), edge_dim,
        Uniform(mask),
    )  # fmt: skip
    return Plan(method=method, optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size, clip=clip)
