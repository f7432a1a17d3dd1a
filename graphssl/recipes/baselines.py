"""What every method stands beside: the content as it is, and an encoder with the weights that its seed gives it."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import Backbone, Layer, Propagate
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods.baseline import Baseline
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe
from graphssl.recipes.cutting import placed


def without_training(name: str, encoder: Encoder, epochs: int, transform: Transform) -> Plan:
    """The Plan of an encoder that is used as it is; UserError where ``epochs`` are asked for."""
    if epochs:
        raise UserError(f"{name} has nothing to train; leave out epochs, or name a method that learns")
    return Plan(method=Baseline(encoder), optimizer=adam(1e-3, 0.0), epochs=0, transform=transform)


@recipe("raw")
def raw(spec: Spec, *, pool: str = "mean", epochs: int = 0) -> Plan:
    """The content of each node as its code: no encoder, no training.

    Codes of graphs are pooled as ``pool`` says ("mean", "sum" or "max").
    """
    body = Backbone([Layer(Propagate(0), spec.dim, spec.dim)])
    return without_training("raw", Encoder(body, pool=pool), epochs, Transform())


@recipe("untrained", by_task={"graph": {"encoder": "gin", "norm": "batch", "width": 128}})
def untrained(
    spec: Spec, *, encoder: str | nn.Module = "gcn", width: int = 256, layers: int = 2, heads: int = 1,
    norm: str = "none", residual: bool = False, activation: str = "prelu", pool: str = "mean", epochs: int = 0,
) -> Plan:  # fmt: skip
    """An encoder with the weights that the seed gives it: what its shape alone is worth.

    A GCN for one graph, a GIN for a list of graphs. The control row of every report is not this but the encoder of its
    own method before training.
    """
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, norm=norm, residual=residual, activation=activation
    , **placed(spec))  # fmt: skip
    return without_training("untrained", Encoder(body, pool=pool), epochs, Transform(row_normalize=spec.sparse))
