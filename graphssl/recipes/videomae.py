"""VideoMAE's settings: MCG-NJU/VideoMAE at 09c96a3, run_mae_pretraining.py, at the size of small videos."""

from __future__ import annotations

from torch import nn

from graphssl.errors import UserError
from graphssl.methods import MAE
from graphssl.recipes.base import Plan, Spec, recipe
from graphssl.recipes.hiding import TIMELESS
from graphssl.recipes.mae import mae


@recipe("videomae")
def videomae(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, edges: str | None = None,
    augment: str = "none", encoder: str | nn.Module = "transformer", width: int = 96, layers: int = 3, heads: int = 4,
    dropout: float = 0.0, position: str | None = None, pool: str = "mean", decoder_width: int = 64,
    decoder_layers: int = 2, mask: float = 0.9, normalize: bool = True, lr: float = 1e-3, weight_decay: float = 0.05,
    warmup: float = 0.05, epochs: int = 200, batch_size: int = 32, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked autoencoding of videos in which the same places are hidden at all times.

    ``mae`` with ``masker="tube"``, a share ``mask`` of 0.9 of the places hidden and normalised pixels, as in the paper,
    arXiv:2203.12602: each tubelet less its mean and over its deviation, of each colour by itself. Meant for videos
    [B, T, C, H, W], whose tokens are ``frames`` x ``patch`` x ``patch`` pixels; it takes skeletons and any graph whose
    ``pos`` has two axes or more, the first of them time, and says so of others at the first step. Other settings are
    those of ``mae``. Normalisation, weight decay, share of warm-up and betas (of its scripts) are the reference's,
    which has 4 decoder layers and hides 0.9 in its scripts; the rest is for small videos. What is measured of it stands
    in benchmarks/results/quality.md.
    """
    if spec.kind in TIMELESS:
        raise UserError(f"videomae hides the same places at all times, and {spec.kind} have no time; choose mae")
    plan = mae(
        spec, patch=patch, frames=frames, edges=edges, augment=augment, encoder=encoder, width=width, layers=layers,
        heads=heads, dropout=dropout, position=position, pool=pool, decoder_width=decoder_width,
        decoder_layers=decoder_layers, masker="tube", mask=mask, normalize=normalize, lr=lr,
        weight_decay=weight_decay, warmup=warmup, epochs=epochs, batch_size=batch_size, clip=clip,
    )  # fmt: skip
    assert isinstance(plan.method, MAE)
    plan.method.channels = (spec.shape[1] or 1) if spec.kind == "videos" else 1
    return plan
