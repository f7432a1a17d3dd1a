"""MAE's settings: facebookresearch/mae at efb2a80, main_pretrain.py, at the size of small images."""

from __future__ import annotations

from torch import nn

from graphssl.backbones import Transformer
from graphssl.encoder import Encoder
from graphssl.methods import MAE
from graphssl.recipes.base import Plan, Spec, adam, recipe, warmed_up
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.hiding import masker_named, ramped

DIGITS = {"width": 64, "layers": 2, "batch_size": 32, "normalize": True, "epochs": 75}


@recipe("mae", by_name={"digits": DIGITS})
def mae(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, steps: int | None = None,
    edges: str | None = None, augment: str = "none", encoder: str | nn.Module = "transformer", width: int = 96,
    layers: int = 3, heads: int = 4, dropout: float = 0.0, position: str | None = None, pool: str = "mean",
    hops: int = 1, dilation: int = 1, global_nodes: int = 0, decoder_width: int = 64, decoder_layers: int = 1,
    masker: str = "uniform", mask: float = 0.75, mask_end: float | None = None, normalize: bool = False,
    lr: float = 1e-3, weight_decay: float = 0.05, warmup: float = 0.05, epochs: int = 200, batch_size: int | None = 128,
    clip: float | None = None,
) -> Plan:  # fmt: skip
    """Masked autoencoding of patches: the encoder sees the visible ones only, a small decoder rebuilds the others.

    Meant for images, videos, voxels and skeletons; for points, whose groups are sets, there is ``point-mae``. Any graph
    will do, but a transformer tells hidden nodes apart by where they stand alone: for graphs without ``pos`` choose
    ``graphmae``. Betas, weight decay and what it spares, share of warm-up, mask share and pixels that are not
    normalised are the reference's; width, layers and learning rate are for small images. ``digits`` has a
    smaller model, smaller batches and normalised pixels, chosen by cross-validation on 1400 items, some of which its
    random splits test on too; what is measured stands in benchmarks/results/quality.md.

    ``patch``, ``frames`` and, of skeletons, ``steps`` say how raw items are cut where not as the data set does, and
    ``edges`` which pieces are joined: "none", "grid", "diagonal", "full" or "knn8" (by default none for a
    "transformer", which attends among all nodes, and for other encoders those of the data set; of the edges only those
    among visible nodes are seen). ``augment`` is "none", "weak" or "strong": how raw items are altered before they are
    cut. ``position`` is how places are read: "sincos", "learned", "mlp" or "none" (by default what suits the data). A
    "sparse-transformer" attends as far as ``hops`` times ``dilation`` edges and has ``global_nodes`` that all nodes of
    a graph share. ``normalize`` takes each node's content less its mean and over its deviation as the target.

    ``mask`` is the share of hidden nodes, which moves to ``mask_end`` as training goes on, ``masker`` which ones:
    "uniform"; "near", those nearest by place to a random one; "block", those nearest along edges; "color-red",
    "color-blue", "color-green" or "color-purple", where filtered noise is low (ColorMAE, arXiv:2407.13036: regions,
    scattered nodes, clusters, and all but clusters); "tube", places at all times (VideoMAE); "frames", whole times;
    "parts", the trunk and limbs of a skeleton with bones; "disjoint", two views a step whose visible nodes do not
    overlap (arXiv:2301.00230). Of tubes, frames and parts ``mask`` is the share of places, times and parts.
    """
    cut = cut_for(
        spec, encoder, width, layers, pool=pool, augment=augment, edges=edges, position=position, patch=patch,
        frames=frames, steps=steps, heads=heads, dropout=dropout, hops=hops, dilation=dilation,
        global_nodes=global_nodes,
    )  # fmt: skip
    writer = Transformer(decoder_width, decoder_width, decoder_layers, heads, axes=spec.axes, position=cut.position)
    hider = ramped(masker_named(masker, mask, spec, cut.tokenizer, views=True), mask_end)
    method = MAE(Encoder(cut.body, pool=pool), writer, cut.dim, hider, normalize)
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, betas=(0.9, 0.95), spare=method),
        epochs=epochs, schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=cut.tokenizer,
        alter=cut.alter,
    )  # fmt: skip
