"""CrossMAE's settings: TonyLianLong/CrossMAE at 6e1b329, main_pretrain.py, at the size of small images."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import CrossBlock
from graphssl.backbones.positions import position_named
from graphssl.encoder import Encoder
from graphssl.methods import CrossMAE
from graphssl.recipes.base import Plan, Spec, adam, recipe, warmed_up
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.hiding import masker_named, ramped


@recipe("crossmae")
def crossmae(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, groups: int | None = None,
    neighbours: int | None = None, edges: str | None = None, augment: str = "none",
    encoder: str | nn.Module = "transformer", width: int = 96, layers: int = 3, heads: int = 4, dropout: float = 0.0,
    position: str | None = None, pool: str = "mean", hops: int = 1, dilation: int = 1, global_nodes: int = 0,
    decoder_width: int = 64, decoder_layers: int = 2, masker: str = "uniform", mask: float = 0.75,
    mask_end: float | None = None, decoded: float = 1 / 3, normalize: bool = False, lr: float = 1e-3,
    weight_decay: float = 0.05, warmup: float = 0.1, epochs: int = 200, batch_size: int | None = 128,
    clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked autoencoding with a decoder in which hidden nodes read the visible ones only, and a part is decoded.

    Meant for images, videos, points, voxels and skeletons. Any graph will do, but hidden nodes are told apart by where
    they stand alone, so that without ``pos`` all of a graph are decoded alike.

    ``patch``, ``frames``, ``groups`` and ``neighbours`` say how raw items are cut where not as the data set does, and
    ``edges`` which pieces are joined, as in ``mae``. ``mask`` is the share of hidden nodes, which moves to ``mask_end``
    as training goes on, ``masker`` which ones, as in ``mae`` save "disjoint"; ``augment`` as there. ``decoded`` is the
    share of the hidden ones that is decoded; ``position`` as in ``simmim``, and so ``hops``, ``dilation`` and
    ``global_nodes`` of a "sparse-transformer", which sees the edges among visible nodes. ``normalize`` takes each
    node's content less its mean and over its deviation as the target. Mask share, decay, warm-up and betas are the
    reference's defaults, ``decoded`` its README's: 0.25 of all nodes at a mask of 0.75. There the input of the first
    layer is summed, too (--use_input), and the weights of the sums decay; neither is so here. Width, layers and
    learning rate are those of ``mae`` here. What is measured of it stands in benchmarks/results/quality.md.
    """
    cut = cut_for(
        spec, encoder, width, layers, pool=pool, augment=augment, edges=edges, position=position, patch=patch,
        frames=frames, groups=groups, neighbours=neighbours, heads=heads, dropout=dropout, hops=hops,
        dilation=dilation, global_nodes=global_nodes,
    )  # fmt: skip
    blocks = [CrossBlock(decoder_width, cut.body.dim, heads, dropout) for _ in range(decoder_layers)]
    method = CrossMAE(
        Encoder(cut.body, pool=pool), blocks, cut.dim, position_named(cut.position, decoder_width, spec.axes),
        ramped(masker_named(masker, mask, spec, cut.tokenizer), mask_end), decoded, normalize,
    )  # fmt: skip
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, betas=(0.9, 0.95), spare=method),
        epochs=epochs, schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=cut.tokenizer,
        alter=cut.alter,
    )  # fmt: skip
