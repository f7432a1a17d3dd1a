"""Point-MAE's settings: Pang-Yatian/Point-MAE at 3208f17, cfgs/pretrain.yaml, at the size of small clouds."""

from __future__ import annotations

from functools import partial

from torch import nn

from graphssl.backbones import PointNet, Transformer
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.losses import chamfer_rows
from graphssl.methods import MAE
from graphssl.recipes.base import Plan, Spec, adam, recipe, warmed_up
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.hiding import masker_named


@recipe("point-mae")
def point_mae(
    spec: Spec, *, groups: int | None = None, neighbours: int | None = None, augment: str = "none",
    encoder: str | nn.Module = "transformer", width: int = 96, inner: int = 32, layers: int = 3, heads: int = 4,
    dropout: float = 0.0, pool: str = "mean", decoder_width: int = 96, decoder_layers: int = 1,
    masker: str = "uniform", mask: float = 0.6, lr: float = 1e-3, weight_decay: float = 0.05, warmup: float = 0.03,
    epochs: int = 50, batch_size: int = 128, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked autoencoding of groups of points, each rebuilt as a set.

    Meant for point clouds [B, P, 3 (+C)]. Graphs are taken too whose ``pos`` has three axes and whose content has a
    multiple of three numbers: these must be places, a group of points laid flat around its ``pos``, which the numbers
    alone do not show. ``groups`` far points of each cloud are taken with their ``neighbours`` nearest points (the data
    set's own numbers, 32 and 16 where it has none; the reference: 64 and 32 of 1024 points). A share ``mask`` of the
    groups is hidden, by ``masker`` "uniform" or "near", those around one of them (the paper's block), or another of
    ``mae``'s; the transformer sees the others only, and the loss is the Chamfer distance of the hidden groups' points.
    ``inner`` is the width of the PointNet that reads a group: the reference has 128, a ``width`` of 384, 12 ``layers``,
    6 ``heads``, 4 ``decoder_layers`` and 300 ``epochs``, and stretches clouds along each axis at random, as ``augment``
    "weak" does (or "strong"; groups are then made anew in each step). Mask share, learning rate, decay and warm-up are
    the reference's. Another ``encoder`` by name reads groups laid flat, nearest point first, and, where it needs them,
    the data set's edges. What is measured of it stands in benchmarks/results/quality.md.
    """
    if spec.kind != "points" and (spec.kind != "graphs" or spec.axes != 3 or spec.dim % 3):
        raise UserError(
            f"point-mae needs points: clouds [B, P, 3], or graphs whose nodes are groups of points laid flat, "
            f"with their centres as pos [N, 3]; {spec.name!r} has neither, so choose graphmae or mae"
        )
    cut = cut_for(
        spec, encoder, width, layers, pool=pool, augment=augment, position="mlp", groups=groups,
        neighbours=neighbours, heads=heads, dropout=dropout,
    )  # fmt: skip
    channels = int(spec.shape[1] or 0) if spec.kind == "points" else 3
    if isinstance(encoder, str) and isinstance(cut.body, Transformer):
        cut.body.embed = PointNet(channels, width, inner)
    writer = Transformer(decoder_width, decoder_width, decoder_layers, heads, axes=spec.axes, position="mlp")
    method = MAE(
        Encoder(cut.body, pool=pool), writer, cut.dim, masker_named(masker, mask, spec, cut.tokenizer, views=True),
        normalize=False, loss=partial(chamfer_rows, width=channels),
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, spare=method), epochs=epochs,
        schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=cut.tokenizer, alter=cut.alter,
    )  # fmt: skip
