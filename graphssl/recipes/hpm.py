"""HPM's settings: Haochen-Wang409/HPM at fa489c3, main_pretrain.py, at the size of small images."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import Transformer
from graphssl.encoder import Encoder
from graphssl.methods import HPM
from graphssl.recipes.base import Plan, Spec, adam, recipe, warmed_up
from graphssl.recipes.cutting import cut_for


@recipe("hpm")
def hpm(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, edges: str | None = None,
    augment: str = "none", encoder: str | nn.Module = "transformer", width: int = 96, layers: int = 3, heads: int = 4,
    dropout: float = 0.0, position: str | None = None, pool: str = "mean", decoder_width: int = 64,
    decoder_layers: int = 1, mask: float = 0.75, hardest: float = 0.5, momentum: float = 0.999,
    normalize: bool = False, lr: float = 1e-3, weight_decay: float = 0.05, warmup: float = 0.05, epochs: int = 200,
    batch_size: int = 128, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked autoencoding that predicts which patches are hard to rebuild and hides more and more of those.

    Meant for images, videos, voxels and skeletons; any graph will do, as of ``mae``. A step encodes the whole graph
    once more than ``mae``'s, for the teacher, and has a second decoder. There is no choice of masker: which nodes are
    hidden is what it learns.

    ``mask`` is the share of hidden nodes, ``hardest`` the share of these that are the hardest at the end of training,
    to which it grows from 0, ``momentum`` the teacher's at first, which rises until a tenth is left of what it lacks of
    1. ``patch``, ``frames``, ``edges``, ``augment``, ``position`` and ``normalize`` as in ``mae``. Shares, momentum,
    betas and weight decay are the reference's; the rest is ``mae``'s for small images. On short runs a lower
    ``momentum`` lets the teacher keep up: 0.999 averages over about 1000 steps. What is measured of it stands in
    benchmarks/results/quality.md.
    """
    cut = cut_for(
        spec, encoder, width, layers, pool=pool, augment=augment, edges=edges, position=position, patch=patch,
        frames=frames, heads=heads, dropout=dropout,
    )  # fmt: skip
    writer, predictor = (
        Transformer(decoder_width, decoder_width, decoder_layers, heads, axes=spec.axes, position=cut.position)
        for _ in range(2)
    )
    method = HPM(Encoder(cut.body, pool=pool), writer, predictor, cut.dim, mask, hardest, momentum, normalize)
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, betas=(0.9, 0.95), spare=method),
        epochs=epochs, schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=cut.tokenizer,
        alter=cut.alter,
    )  # fmt: skip
