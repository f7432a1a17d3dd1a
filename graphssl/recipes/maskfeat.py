"""MaskFeat's settings: facebookresearch/SlowFast at 198bf9d, configs/masked_ssl, at the size of small images."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from graphssl.encoder import Encoder
from graphssl.errors import unknown
from graphssl.masks import Block, Masker, Uniform
from graphssl.methods import MaskFeat
from graphssl.methods.maskfeat import surroundings
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe, warmed_up
from graphssl.recipes.cutting import position_of, tokenizer_for, width_of
from graphssl.tokens import HOG, alter_for

TARGETS = ("hog", "surroundings")
MASKERS: dict[str, Callable[[float], Masker]] = {"uniform": Uniform, "block": Block}
PIXELS = ("images", "videos")


@recipe("maskfeat")
def maskfeat(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, groups: int | None = None,
    neighbours: int | None = None, target: str | None = None, encoder: str | nn.Module | None = None, width: int = 96,
    layers: int = 3, heads: int = 4, dropout: float = 0.0, position: str | None = None, pool: str = "mean",
    mask: float = 0.4, masker: str = "uniform", augment: str = "none", lr: float = 1e-3, weight_decay: float = 0.05,
    warmup: float = 0.1, epochs: int = 200, batch_size: int = 128, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Prediction of local descriptors of hidden nodes: of HOG for images and videos, of their surroundings else.

    Meant for images and videos, whose hidden patches' histograms of oriented gradients are predicted from the others; a
    cell has 8 x 8 pixels where the patch is a multiple of that, else the patch's size. Other data has the mean and
    deviation of the content about a node and its degree. The share of hidden nodes, decay, warm-up and optimizer are
    those of the reference's ViT-B run, which hides blocks, crops images to half or more, and bounds the gradient's norm
    by 0.02 (``clip``); width, depth and learning rate are for small images on a CPU.

    ``patch``, ``frames``, ``groups`` and ``neighbours`` say how raw items are cut. ``target`` is "hog" or
    "surroundings", None what fits. ``encoder`` None is a transformer among all tokens of raw items, and along the edges
    of graphs. ``masker`` is "uniform" or "block" (connected by edges). ``augment`` is "none", "weak" or "strong", for
    raw items. ``warmup`` is the share of training in which the learning rate rises.
    """
    if masker not in MASKERS:
        raise unknown("masker of maskfeat", masker, MASKERS)
    goal = target or ("hog" if spec.kind in PIXELS else "surroundings")
    if goal not in TARGETS:
        raise unknown("target of maskfeat", goal, TARGETS)
    name = encoder or ("sparse-transformer" if spec.tokens is None else "transformer")
    no_edges = name == "transformer" and goal == "hog" and masker == "uniform"  # nothing looks at them
    tokenizer = tokenizer_for(
        spec, "none" if no_edges else None, patch=patch, frames=frames, groups=groups, neighbours=neighbours
    )
    dim = width_of(spec, tokenizer)
    described = HOG(tokenizer) if goal == "hog" else surroundings
    body = backbone_of(
        name, dim, [width] * layers, heads=heads, dropout=dropout, axes=spec.axes, position=position_of(spec, position),
        extra=int(pool == "class"),
    )  # fmt: skip
    method = MaskFeat(
        Encoder(body, pool=pool), described,
        described.width(spec.shape) if isinstance(described, HOG) else 2 * dim + 1, MASKERS[masker](mask),
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True), epochs=epochs,
        schedule=warmed_up(warmup) if warmup else None, batch_size=batch_size, clip=clip, tokenizer=tokenizer,
        alter=alter_for(spec.kind, augment),
    )  # fmt: skip
