"""MAE's settings: facebookresearch/mae at efb2a80, main_pretrain.py, at the size of small images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from graphssl.backbones import Transformer
from graphssl.encoder import Encoder
from graphssl.errors import UserError, unknown
from graphssl.masks import COLORS, Block, Color, Disjoint, Frames, Masker, Near, Parts, Ramp, Tube, Uniform
from graphssl.methods import MAE
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe, warmed_up
from graphssl.recipes.cutting import position_of, tokenizer_for, width_of
from graphssl.tokens import Joints, Tokenizer, alter_for
from graphssl.tokens.skeletons import limbs

MASKERS: dict[str, Callable[[float], Masker]] = {
    "uniform": Uniform, "near": Near, "block": Block, "tube": Tube, "frames": Frames, "disjoint": Disjoint,
    **{f"color-{color}": partial(Color, color=color) for color in COLORS},
}  # fmt: skip


@recipe("mae")
def mae(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, edges: str | None = None,
    encoder: str | nn.Module = "transformer", width: int = 96, layers: int = 3, heads: int = 4, dropout: float = 0.0,
    position: str | None = None, pool: str = "mean", hops: int = 1, dilation: int = 1, global_nodes: int = 0,
    decoder_width: int = 64, decoder_layers: int = 1, masker: str = "uniform", mask: float = 0.75,
    mask_end: float | None = None, normalize: bool = False, lr: float = 1e-3, weight_decay: float = 0.05,
    warmup: float = 0.05, augment: str = "none", epochs: int = 200, batch_size: int = 128, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked autoencoding of patches: the encoder sees the visible ones only, a small decoder rebuilds the others.

    Meant for images, videos, voxels and skeletons; for points, whose groups are sets, there is ``point-mae``. Any graph
    will do, but a transformer tells hidden nodes apart by where they stand alone: for graphs without ``pos`` choose
    ``graphmae``. Betas, weight decay, share of warm-up, mask share and pixels that are not normalised are the
    reference's; width, layers and learning rate are for small images, and nothing was tuned to a data set.

    ``patch`` and ``frames`` say how raw items are cut where not as the data set does, and ``edges`` which pieces are
    joined: "none", "grid", "diagonal", "full" or "knn8" (by default none for a "transformer", which attends among all
    nodes, and for other encoders those of the data set; of the edges only those among visible nodes are seen).
    ``position`` is how places are read: "sincos", "learned", "mlp" or "none" (by default what suits the data). A
    "sparse-transformer" attends as far as ``hops`` times ``dilation`` edges and has ``global_nodes`` that all nodes of
    a graph share. ``normalize`` takes each node's content less its mean and over its deviation as the target.

    ``augment`` is "none", "weak" or "strong": how raw items are altered before they are cut.

    ``mask`` is the share of hidden nodes, which moves to ``mask_end`` as training goes on, ``masker`` which ones:
    "uniform"; "near", those nearest by place to a random one; "block", those nearest along edges; "color-red",
    "color-blue", "color-green" or "color-purple", where filtered noise is low (ColorMAE, arXiv:2407.13036: regions,
    scattered nodes, clusters, and all but clusters); "tube", places at all times (VideoMAE); "frames", whole times;
    "parts", the trunk and limbs of a skeleton with bones; "disjoint", two views a step whose visible nodes do not
    overlap (arXiv:2301.00230). Of tubes, frames and parts ``mask`` is the share of places, times and parts.
    """
    tokenizer = joined(spec, edges, encoder, patch=patch, frames=frames)
    dim, where = width_of(spec, tokenizer), position_of(spec, position)
    body = backbone_of(
        encoder, dim, [width] * layers, heads=heads, dropout=dropout, axes=spec.axes, position=where,
        extra=int(pool == "class"), hops=hops, dilation=dilation, global_nodes=global_nodes,
    )  # fmt: skip
    writer = Transformer(decoder_width, decoder_width, decoder_layers, heads, axes=spec.axes, position=where)
    hider = masker_named(masker, mask, spec, tokenizer)
    method = MAE(Encoder(body, pool=pool), writer, dim, hider if mask_end is None else Ramp(hider, mask_end), normalize)
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, betas=(0.9, 0.95)), epochs=epochs,
        schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=tokenizer,
        alter=alter_for(spec.kind, augment),
    )  # fmt: skip


def joined(spec: Spec, edges: str | None, encoder: str | nn.Module, **cut: int | None) -> Tokenizer | None:
    """``tokenizer_for`` with these ``edges``, by default none for a "transformer"; UserError where items have some."""
    if edges is not None and "edges" not in (spec.tokens or {}):
        raise UserError(f"edges is no setting for {spec.kind}, which come with theirs; leave it out")
    return tokenizer_for(spec, edges or ("none" if encoder == "transformer" else None), **cut)


def masker_named(name: str, mask: float, spec: Spec, tokenizer: Tokenizer | None) -> Masker:
    """The masker of that name for ``spec``'s items cut so; UserError where they lack what it needs."""
    if name == "parts":
        bones = tokenizer.bones if isinstance(tokenizer, Joints) else ()
        if not bones or spec.shape[1] is None:
            raise UserError(f"masker 'parts' needs skeletons with bones; {spec.name!r} has none, so choose 'uniform'")
        return Parts(mask, limbs(bones, spec.shape[1]))
    if name not in MASKERS:
        raise unknown("masker", name, (*MASKERS, "parts"), see="the recipe of mae")
    if name == "block" and (not spec.edges if tokenizer is None else getattr(tokenizer, "edges", "") == "none"):
        raise UserError(
            f"masker 'block' goes along edges, and {spec.name!r} has none; choose "
            + ("'uniform'" if tokenizer is None else "edges='grid', or masker='near', which goes by place")
        )
    return MASKERS[name](mask)
