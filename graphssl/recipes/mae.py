"""MAE's settings: facebookresearch/mae at efb2a80, main_pretrain.py, at the size of small images."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import Transformer
from graphssl.encoder import Encoder
from graphssl.masks import Ramp, Uniform
from graphssl.methods import MAE
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, recipe, warmed_up
from graphssl.recipes.cutting import position_of, tokenizer_for, width_of


@recipe("mae")
def mae(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, encoder: str | nn.Module = "transformer",
    width: int = 96, layers: int = 3, heads: int = 4, dropout: float = 0.0, position: str | None = None,
    pool: str = "mean", decoder_width: int = 64, decoder_layers: int = 1, mask: float = 0.75,
    mask_end: float | None = None, normalize: bool = False, lr: float = 1e-3, weight_decay: float = 0.05,
    warmup: float = 0.05, epochs: int = 200, batch_size: int = 128, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked autoencoding of patches: the encoder sees the visible ones only."""
    tokenizer = tokenizer_for(spec, "none", patch=patch, frames=frames)
    dim, where = width_of(spec, tokenizer), position_of(spec, position)
    body = backbone_of(
        encoder, dim, [width] * layers, heads=heads, dropout=dropout, axes=spec.axes, position=where,
        extra=int(pool == "class"),
    )  # fmt: skip
    writer = Transformer(decoder_width, decoder_width, decoder_layers, heads, axes=spec.axes, position=where)
    hider = Uniform(mask)
    method = MAE(Encoder(body, pool=pool), writer, dim, hider if mask_end is None else Ramp(hider, mask_end), normalize)
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, betas=(0.9, 0.95)), epochs=epochs,
        schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=tokenizer,
    )  # fmt: skip
