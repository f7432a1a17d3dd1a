"""Point-MAE's settings: Pang-Yatian/Point-MAE at 3208f17, cfgs/pretrain.yaml, at the size of small clouds."""

from __future__ import annotations

from functools import partial

from torch import nn

from graphssl.backbones import PointNet, Transformer
from graphssl.encoder import Encoder
from graphssl.errors import UserError, unknown
from graphssl.losses import chamfer_rows
from graphssl.masks import Near, Uniform
from graphssl.methods import MAE
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe, warmed_up
from graphssl.recipes.cutting import tokenizer_for, width_of
from graphssl.tokens import alter_for

MASKERS: dict[str, type[Uniform] | type[Near]] = {"uniform": Uniform, "block": Near}


@recipe("point-mae")
def point_mae(
    spec: Spec, *, groups: int | None = None, neighbours: int | None = None, encoder: str | nn.Module = "transformer",
    width: int = 96, inner: int = 32, layers: int = 3, heads: int = 4, dropout: float = 0.0, pool: str = "mean",
    decoder_width: int = 96, decoder_layers: int = 1, masker: str = "uniform", mask: float = 0.6, lr: float = 1e-3,
    weight_decay: float = 0.05, warmup: float = 0.03, epochs: int = 50, batch_size: int = 128,
    clip: float | None = None, augment: str = "none",
) -> Plan:  # fmt: skip
    """Masked autoencoding of groups of points, each rebuilt as a set.

    Meant for point clouds [B, P, 3 (+C)]. ``groups`` far points of each are taken with their ``neighbours`` nearest
    points (the data set's own numbers, 32 and 16 where it has none; the reference: 64 and 32 of 1024 points). A share
    ``mask`` of the groups is hidden, "uniform" or, by ``masker``, a "block" around one of them; the transformer sees
    the others only, and the loss is the Chamfer distance of the hidden groups' points. ``inner`` is the width of the
    PointNet that reads a group: the reference has 128, a ``width`` of 384, 12 ``layers``, 6 ``heads``, 4
    ``decoder_layers`` and 300 ``epochs``, and stretches clouds along each axis at random, as ``augment`` "weak" does
    (or "strong"; groups are then made anew in each step). Mask share, learning rate, decay and warm-up are the
    reference's. Another ``encoder`` by name reads groups laid flat, nearest point first, and, where it needs them, the
    data set's edges.
    """
    if spec.kind != "points" and (spec.kind != "graphs" or spec.axes != 3 or spec.dim % 3):
        raise UserError(
            f"point-mae needs points: clouds [B, P, 3], or graphs whose nodes are groups of points laid flat, "
            f"with their centres as pos [N, 3]; {spec.name!r} has neither, so choose graphmae or mae"
        )
    if masker not in MASKERS:
        raise unknown("masker of point-mae", masker, MASKERS)
    attends = encoder == "transformer"
    tokenizer = tokenizer_for(spec, "none" if attends else None, groups=groups, neighbours=neighbours)
    dim, channels = width_of(spec, tokenizer), int(spec.shape[1] or 0) if spec.kind == "points" else 3
    body = backbone_of(
        encoder, dim, [width] * layers, heads=heads, dropout=dropout, axes=spec.axes, position="mlp",
        extra=int(pool == "class"),
    )  # fmt: skip
    if isinstance(encoder, str) and isinstance(body, Transformer):
        body.embed = PointNet(channels, width, inner)
    writer = Transformer(decoder_width, decoder_width, decoder_layers, heads, axes=spec.axes, position="mlp")
    method = MAE(
        Encoder(body, pool=pool), writer, dim, MASKERS[masker](mask), normalize=False,
        loss=partial(chamfer_rows, width=channels),
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True), epochs=epochs, schedule=warmed_up(warmup),
        batch_size=batch_size, clip=clip, tokenizer=tokenizer, alter=alter_for(spec.kind, augment),
    )  # fmt: skip
