"""SimSiam's settings: facebookresearch/simsiam at a7bc177, main_simsiam.py, at the size of small data."""

from __future__ import annotations

from torch import nn

from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods import SimSiam
from graphssl.recipes.base import Plan, Spec, adam, cosine_decay, recipe
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.graphcl import view_named


@recipe("simsiam")
def simsiam(
    spec: Spec, *, augment: str | None = None, view: str | None = None, ratio: float = 0.1, kept: float = 0.2,
    patch: int | None = None, frames: int | None = None, groups: int | None = None, neighbours: int | None = None,
    encoder: str | nn.Module | None = None, width: int = 96, layers: int = 3, heads: int = 4, dropout: float = 0.0,
    norm: str = "batch", activation: str = "relu", position: str | None = None, pool: str = "mean",
    projection: int = 128, hidden: int = 32, lr: float = 1e-3, weight_decay: float = 1e-4, epochs: int = 100,
    batch_size: int = 128, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Prediction of one view of an item from another, without negatives.

    Meant for images; other raw items and sets of graphs are taken too. Raw items are altered before they are cut,
    twice each; graphs are seen through two random views as ``graphcl`` has them. The predictor is a quarter as wide
    within as the projection, weights decay by 1e-4 and the learning rate along a cosine as in the reference, whose
    command keeps the predictor's where it began (--fix-pred-lr); here it decays with the others. The reference's SGD,
    batches of 512 and width of 2048 are for a ResNet-50 on ImageNet; ours has Adam and is small. Codes that collapse
    are warned of: the log's effective rank and spread. What is measured of it stands in benchmarks/results/quality.md.

    ``augment`` is what alters raw items: "weak" (as None is), for small images and digits, which it does not mirror,
    "strong", nearer to the paper's, or "none". ``view`` is one of graphcl's views of a graph, with its ``ratio`` and
    ``kept``; None: "random2" for graphs, none of raw items. ``encoder`` None is a transformer for raw items and a GIN
    for graphs, which ``norm`` and ``activation`` are of. ``projection`` and ``hidden`` are the widths of projection and
    predictor, and ``patch``, ``frames``, ``groups`` and ``neighbours`` say how raw items are cut.
    """
    if spec.graphs < 2:
        raise UserError(f"simsiam compares views of whole items, but {spec.name!r} is one graph; use bgrl")
    if batch_size < 2:
        raise UserError("simsiam normalises over the items of a batch; choose a batch_size of 2 or more")
    raw = spec.tokens is not None
    strength, seen = augment or ("weak" if raw else "none"), view or (None if raw else "random2")
    if strength == "none" and seen is None:
        raise UserError(
            f"nothing tells two views of {spec.name!r} apart; choose augment='strong' or 'weak', or a view such as "
            "'nodes'"
        )
    cut = cut_for(
        spec, encoder or ("transformer" if raw else "gin"), width, layers, pool=pool, augment=strength,
        joined=seen is not None, position=position, patch=patch, frames=frames, groups=groups, neighbours=neighbours,
        heads=heads, dropout=dropout, norm=norm, activation=activation,
    )  # fmt: skip
    views = None if seen is None else view_named("simsiam", seen, ratio, kept)
    return Plan(
        method=SimSiam(Encoder(cut.body, pool=pool), views, projection, hidden, paired=raw),
        optimizer=adam(lr, weight_decay), schedule=cosine_decay, epochs=epochs, batch_size=batch_size, clip=clip,
        tokenizer=cut.tokenizer, alter=cut.alter, views=2 if raw else 1,
    )  # fmt: skip
