"""SkeletonMAE's settings: the paper's shape, arXiv:2307.08476, at the size of small sets; no code of it is public."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import backbone
from graphssl.encoder import Encoder
from graphssl.errors import unknown
from graphssl.heads import EdgeMLP
from graphssl.masks import Edges
from graphssl.methods import SkeletonMAE
from graphssl.methods.pairs import check_pairs
from graphssl.recipes.base import Plan, Spec, adam, cosine_decay, edges_read, recipe
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.hiding import masker_named


@recipe("skeletonmae")
def skeletonmae(
    spec: Spec, *, frames: int | None = None, steps: int | None = None, augment: str = "none",
    encoder: str | nn.Module = "gin", width: int = 128, layers: int = 3, heads: int = 4, dropout: float = 0.0,
    norm: str = "batch", activation: str = "relu", pool: str = "mean", decoder: str = "gin", inner: int = 64,
    masker: str = "uniform", mask: float = 0.5, cut: float = 0.2, loss: str = "sce", alpha: float = 2.0,
    beta: float = 1.0, lr: float = 1e-3, weight_decay: float = 0.0, epochs: int = 50, batch_size: int | None = 32,
    clip: float | None = None,
) -> Plan:  # fmt: skip
    """Reconstruction of hidden joints and of hidden edges between joints.

    Meant for skeleton sequences, whose tokens are joints at steps of time; any graph with edges will do. As in the
    paper a GIN of three layers encodes and one of a single layer decodes. What the paper does not say is this project's
    choice; its spatial-temporal head for recognition is left out. What is measured of it stands in
    benchmarks/results/quality.md.

    ``frames`` is how many frames a token holds, ``steps`` how many tokens a joint has in time, ``masker`` which joints
    are hidden: "uniform", a share ``mask`` of them; "parts", such a share of the body's parts (the trunk and the limbs
    that the bones make up) at all times; "tube", of the joints at all times; or another of ``mae``'s save "disjoint".
    ``cut`` is the share of edges that the encoder does not see and that ``beta`` weighs the prediction of; ``inner`` is
    the width of the MLP that tells them from pairs that are none. ``loss`` is of the joints: "sce", the scaled cosine
    error with the exponent ``alpha``, as in the paper, or "mse", the mean squared one, which tells their distance from
    the middle of the body, too. ``augment`` is what alters raw sequences: "none", "weak" or "strong".
    """
    check_pairs("skeletonmae", spec.edges, "absent")
    if loss not in ("sce", "mse"):
        raise unknown("loss of skeletonmae", loss, ("sce", "mse"))
    seen = cut_for(
        spec, encoder, width, layers, pool=pool, augment=augment, joined=True, frames=frames, steps=steps, heads=heads,
        dropout=dropout, norm=norm, activation=activation,
    )  # fmt: skip
    writer = backbone(
        decoder, seen.body.dim, [seen.dim], heads=heads, dropout=dropout, activation=activation, bare_end=True,
        edge_dim=edges_read(spec, decoder),
    )  # fmt: skip
    method = SkeletonMAE(
        Encoder(seen.body, pool=pool), writer, EdgeMLP(seen.body.dim, inner),
        masker_named(masker, mask, spec, seen.tokenizer), Edges(cut), alpha if loss == "sce" else None, beta,
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay), epochs=epochs, schedule=cosine_decay, batch_size=batch_size,
        clip=clip, tokenizer=seen.tokenizer, alter=seen.alter,
    )  # fmt: skip
