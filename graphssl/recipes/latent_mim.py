"""Latent MIM's settings: yibingwei-1/LatentMIM at 3e7953c, configs/lmim.yaml, at the size of small images."""

from __future__ import annotations

from torch import nn

from graphssl.backbones.positions import position_named
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods import LatentMIM
from graphssl.methods.latent_mim import Reader
from graphssl.recipes.base import Plan, Spec, adam, recipe, warmed_up
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.hiding import masker_named, ramped


@recipe("latent-mim")
def latent_mim(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, edges: str | None = None,
    augment: str = "none", encoder: str | nn.Module = "transformer", width: int = 96, layers: int = 3, heads: int = 4,
    dropout: float = 0.0, position: str | None = None, pool: str = "mean", inner: int = 256, decoder_width: int = 64,
    decoder_layers: int = 3, masker: str = "uniform", mask: float = 0.9, mask_end: float | None = None,
    tau: float = 0.2, momentum: float = 0.99, whole: bool = False, lr: float = 1e-3, weight_decay: float = 0.05,
    warmup: float = 0.1, epochs: int = 200, batch_size: int = 128, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Prediction of a slow teacher's codes of hidden patches, each to be told from the other patches of its image.

    Meant for images, videos, voxels, points and skeletons; any graph with ``pos`` will do. One without is refused:
    where a node stands is all that a prediction knows of it.

    ``mask`` is the share of hidden nodes (the reference shows 20 of 196 patches), which moves to ``mask_end`` as
    training goes on, ``masker`` which ones, as in ``mae`` save "disjoint". ``tau`` is the temperature of the contrast,
    ``momentum`` the teacher's at first, which rises to 1. With ``whole`` the teacher sees all nodes and not the hidden
    ones only: for encoders that read edges. ``inner`` is the width within the projection (the reference: 4096 of 768).
    ``patch``, ``frames``, ``edges``, ``augment`` and ``position`` as in ``mae``. Mask share, decoder layers,
    temperature, momentum, decay, betas and share of warm-up are the reference's, whose learning rate ends at a quarter
    and not at zero; the rest is for small images. What is measured of it stands in benchmarks/results/quality.md.
    """
    cut = cut_for(
        spec, encoder, width, layers, pool=pool, augment=augment, edges=edges, position=position, patch=patch,
        frames=frames, heads=heads, dropout=dropout,
    )  # fmt: skip
    places = position_named(cut.position, decoder_width, spec.axes)
    if places is None:
        lacks = "position='none' hides that" if spec.axes else f"{spec.name!r} has no pos"
        raise UserError(f"latent-mim tells hidden nodes apart by where they stand, but {lacks}; choose graphmae2")
    method = LatentMIM(
        Encoder(cut.body, pool=pool), [Reader(decoder_width, heads, dropout) for _ in range(decoder_layers)], places,
        ramped(masker_named(masker, mask, spec, cut.tokenizer), mask_end), inner, tau, momentum, whole,
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, betas=(0.9, 0.95), spare=method),
        epochs=epochs, schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=cut.tokenizer,
        alter=cut.alter,
    )  # fmt: skip
