"""InfoGraph's settings: fanyun-sun/InfoGraph, unsupervised; figures from GraphMAE's README."""

from __future__ import annotations

from torch import nn

from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.heads import glorot
from graphssl.methods import InfoGraph
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, recipe
from graphssl.recipes.cutting import placed
from graphssl.recipes.molecules import BESIDE

README = "GraphMAE README (KDD 2022)"


@recipe(
    "infograph",
    of_molecules=BESIDE,
    published={
        "mutag": {"graph-svm": Published(89.01, 1.13, README)},
        "proteins": {"graph-svm": Published(74.44, 0.31, README)},
        "nci1": {"graph-svm": Published(76.20, 1.06, README)},
        "imdb-binary": {"graph-svm": Published(73.03, 0.87, README)},
        "imdb-multi": {"graph-svm": Published(49.69, 0.53, README)},
        "collab": {"graph-svm": Published(70.65, 1.13, README)},
        "reddit-binary": {"graph-svm": Published(82.50, 1.42, README)},
    },
)  # fmt: skip
def infograph(
    spec: Spec, *, encoder: str | nn.Module = "gin", width: int = 32, layers: int = 5, dropout: float = 0.0,
    norm: str = "batch", activation: str = "relu", pool: str = "sum", lr: float = 0.01, weight_decay: float = 0.0,
    epochs: int = 20, batch_size: int = 128, edge_attr: bool | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Information that the nodes of a graph and the whole share.

    Molecules have the settings of Infomax in snap-stanford/pretrain-gnns at 6e69a06, chem/pretrain_deepgraphinfomax.py,
    with 64 for its width of 300 and fewer epochs. All others have the reference's defaults: GIN layers of width 32
    whose codes, laid side by side, are summed over the nodes, and 20 epochs of batches of 128. The reference takes the
    best epoch by its cross-validated score, which looks at labels; ours is the last. Measured here:
    benchmarks/results/quality.md. Meant for sets of graphs; data without a name has the same values.

    On NCI1 the rate of 0.01 leaves a few graphs of rare atoms with codes millions of times larger than all others,
    from norm statistics that training no longer meets, and no probe can use them: take ``lr=0.001`` there.

    ``edge_attr`` None lets a "gine", "gen" or "gps" read the edges' attributes where the data has any, True a "gin"
    too.
    """
    check_graphs("infograph", spec, batch_size, "dgi")
    reader = reader_of(
        spec, encoder, [width] * layers, pool, dropout=dropout, norm=norm, activation=activation, edge_attr=edge_attr
    )
    return Plan(
        method=InfoGraph(reader), optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size, clip=clip
    )


def check_graphs(method: str, spec: Spec, batch_size: int, instead: str) -> None:
    """Raises UserError where there is no other graph to tell a graph from."""
    if spec.graphs < 2:
        raise UserError(f"{method} tells graphs from one another, but {spec.name!r} is one graph; use {instead}")
    if batch_size < 2:
        raise UserError(f"{method} tells the graphs of a batch from one another; choose a batch_size of 2 or more")


def reader_of(
    spec: Spec, encoder: str | nn.Module, widths: list[int], pool: str, *, dropout: float, norm: str, activation: str,
    edge_attr: bool | None,
) -> Encoder:  # fmt: skip
    """An encoder that reads all layers; one built by name is laid out and starts as InfoGraph's gin.py has it.

    Norms stand behind activations, none within a GIN's MLP, weights are Glorot uniform and biases start at zero.
    """
    body = backbone_of(
        spec, encoder, widths, dropout=dropout, norm=norm, activation=activation, norm_last=True,
        edge_attr=edge_attr, **placed(spec),
    )  # fmt: skip
    return Encoder(glorot(body) if isinstance(encoder, str) else body, read="all", pool=pool)
