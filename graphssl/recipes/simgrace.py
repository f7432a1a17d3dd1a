"""SimGRACE's settings: junxia97/SimGRACE, unsupervised_TU, go.sh and arguments.py."""

from __future__ import annotations

from torch import nn

from graphssl.methods import SimGRACE
from graphssl.recipes.base import Plan, Spec, adam, recipe
from graphssl.recipes.infograph import check_graphs, reader_of


@recipe("simgrace")
def simgrace(
    spec: Spec, *, encoder: str | nn.Module = "gin", width: int = 32, layers: int = 5, dropout: float = 0.0,
    norm: str = "batch", activation: str = "relu", pool: str = "sum", eta: float = 1.0, tau: float = 0.2,
    lr: float = 0.01, weight_decay: float = 0.0, epochs: int = 20, batch_size: int = 128,
    edge_attr: bool | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Contrast between each graph's codes by the encoder and by a perturbed copy of it.

    All data sets have the reference's defaults: five GIN layers of width 32 whose codes, laid side by side, are summed
    over the nodes, and 20 epochs of batches of 128. The reference tunes ``eta`` among 0.1, 1, 10 and 100 for each data
    set and does not say which it chose; ours is its default. Meant for sets of graphs; data without a name has the same
    values.

    ``eta`` is the noise on each parameter, in its standard deviations, ``tau`` the temperature. ``edge_attr`` None lets
    a "gine", "gen" or "gps" read the edges' attributes where the data has any, True a "gin" too.
    """
    check_graphs("simgrace", spec, batch_size, "grace")
    reader = reader_of(
        spec, encoder, [width] * layers, pool, dropout=dropout, norm=norm, activation=activation, edge_attr=edge_attr
    )
    return Plan(
        method=SimGRACE(reader, tau, eta), optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size,
        clip=clip,
    )  # fmt: skip
