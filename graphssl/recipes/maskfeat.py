"""MaskFeat's settings: facebookresearch/SlowFast at 198bf9d, configs/masked_ssl, at the size of small images."""

from __future__ import annotations

from torch import nn

from graphssl.encoder import Encoder
from graphssl.errors import unknown
from graphssl.methods import MaskFeat
from graphssl.methods.maskfeat import surroundings
from graphssl.recipes.base import Plan, Spec, adam, recipe, warmed_up
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.hiding import masker_named
from graphssl.tokens import HOG

TARGETS = ("hog", "surroundings")
PIXELS = ("images", "videos")


@recipe("maskfeat")
def maskfeat(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, groups: int | None = None,
    neighbours: int | None = None, augment: str = "none", target: str | None = None,
    encoder: str | nn.Module | None = None, width: int = 96, layers: int = 3, heads: int = 4, dropout: float = 0.0,
    position: str | None = None, pool: str = "mean", masker: str = "uniform", mask: float = 0.4, lr: float = 1e-3,
    weight_decay: float = 0.05, warmup: float = 0.1, epochs: int = 200, batch_size: int | None = 128,
    clip: float | None = None,
) -> Plan:  # fmt: skip
    """Prediction of local descriptors of hidden nodes: of HOG for images and videos, of their surroundings else.

    Meant for images and videos, whose hidden patches' histograms of oriented gradients are predicted from the others; a
    cell has 8 x 8 pixels where the patch is a multiple of that, else the patch's size. Other data has the mean and
    deviation of the content about a node and its degree. The share of hidden nodes, decay, warm-up and optimizer are
    those of the reference's ViT-B run, which hides blocks, crops images to half or more, and bounds the gradient's norm
    by 0.02 (``clip``); width, depth and learning rate are for small images on a CPU. What is measured of it stands in
    benchmarks/results/quality.md.

    ``patch``, ``frames``, ``groups`` and ``neighbours`` say how raw items are cut. ``target`` is "hog" or
    "surroundings", None what fits. ``encoder`` None is a transformer among all tokens of raw items, and along the edges
    of graphs. ``mask`` is the share of hidden nodes, ``masker`` which ones, as in ``mae`` save "disjoint"; ``augment``
    as there. ``warmup`` is the share of training in which the learning rate rises.
    """
    goal = target or ("hog" if spec.kind in PIXELS else "surroundings")
    if goal not in TARGETS:
        raise unknown("target of maskfeat", goal, TARGETS)
    cut = cut_for(
        spec, encoder or ("sparse-transformer" if spec.tokens is None else "transformer"), width, layers, pool=pool,
        augment=augment, joined=goal != "hog" or masker == "block", position=position, patch=patch, frames=frames,
        groups=groups, neighbours=neighbours, heads=heads, dropout=dropout,
    )  # fmt: skip
    described = HOG(cut.tokenizer) if goal == "hog" else surroundings
    method = MaskFeat(
        Encoder(cut.body, pool=pool), described,
        described.width(spec.shape) if isinstance(described, HOG) else 2 * cut.dim + 1,
        masker_named(masker, mask, spec, cut.tokenizer),
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, spare=method), epochs=epochs,
        schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=cut.tokenizer, alter=cut.alter,
    )  # fmt: skip
