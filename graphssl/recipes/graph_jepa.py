"""Graph-JEPA's settings: geriskenderi/graph-jepa at 78a0823, train/configs/zinc.yaml and core/config.py."""

from __future__ import annotations

from torch import nn

from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods import GraphJEPA
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe
from graphssl.recipes.cutting import placed
from graphssl.recipes.molecules import CHEM


@recipe("graph-jepa", of_molecules={"width": CHEM["width"], "epochs": CHEM["epochs"]})
def graph_jepa(
    spec: Spec, *, encoder: str | nn.Module = "gine", width: int = 256, layers: int = 3, heads: int = 4,
    dropout: float = 0.0, norm: str = "batch", activation: str = "prelu", pool: str = "mean", parts: int = 8,
    targets: int = 4, predicts: str = "hyperbola", momentum: float = 0.996, lr: float = 5e-4,
    weight_decay: float = 0.0, epochs: int = 30, batch_size: int = 128, edge_attr: bool = True,
    clip: float | None = None,
) -> Plan:  # fmt: skip
    """Prediction of a slow teacher's codes of parts of a graph from the code of another part.

    Meant for sets of small graphs. Targets, momentum, rate, batches and epochs are the reference's for ZINC; it cuts
    into 32 parts, which of a molecule are single atoms with their neighbours, where ours are 8: the encoder reads whole
    graphs afterwards and should have seen more than stars. Its two layers of width 512 stand below Transformers that
    ours lacks (see ``graphssl.methods.GraphJEPA``). Molecules have the width of the other recipes for them, and fewer
    epochs. What is measured of it stands in benchmarks/results/quality.md.

    Each graph is cut into ``parts``, of which one tells of ``targets`` others; ``predicts`` is "hyperbola" (two
    coordinates, the paper's) or "latent" (the code itself), ``momentum`` the teacher's at first, which rises to 1.
    ``edge_attr`` lets backbones that can read the edges' attributes where the data has any.
    """
    if spec.graphs < 2:
        raise UserError(f"graph-jepa learns codes of whole graphs, but {spec.name!r} is one graph; use bgrl")
    if parts < 2:
        raise UserError("graph-jepa predicts one part of a graph from another; choose parts of 2 or more")
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, dropout=dropout, norm=norm, activation=activation,
        edge_attr=edge_attr, **placed(spec),
    )  # fmt: skip
    method = GraphJEPA(Encoder(body, pool=pool), parts, targets, predicts, momentum)
    return Plan(method=method, optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size, clip=clip)
