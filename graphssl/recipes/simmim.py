"""SimMIM's settings: microsoft/SimMIM at 0e71746, config.py, at the size of small images."""

from __future__ import annotations

from torch import nn

from graphssl.encoder import Encoder
from graphssl.methods import SimMIM
from graphssl.recipes.base import Plan, Spec, adam, recipe, warmed_up
from graphssl.recipes.cutting import cut_for
from graphssl.recipes.hiding import masker_named, ramped


@recipe("simmim")
def simmim(
    spec: Spec, *, patch: int | None = None, frames: int | None = None, groups: int | None = None,
    neighbours: int | None = None, edges: str | None = None, augment: str = "none",
    encoder: str | nn.Module = "transformer", width: int = 96, layers: int = 3, heads: int = 4, dropout: float = 0.0,
    norm: str = "none", activation: str = "prelu", position: str | None = None, pool: str = "mean", hops: int = 1,
    dilation: int = 1, global_nodes: int = 0, masker: str = "uniform", mask: float = 0.6,
    mask_end: float | None = None, lr: float = 1e-3, weight_decay: float = 0.05, warmup: float = 0.1,
    epochs: int = 200, batch_size: int | None = 128, clip: float | None = 5.0,
) -> Plan:  # fmt: skip
    """Masked image modeling with mask tokens at the input, a linear head and the absolute error.

    Meant for images, videos, points, voxels and skeletons; any graph will do. A "transformer" attends among all nodes
    and tells hidden ones apart by where they stand alone: for graphs without ``pos`` choose an encoder that reads
    edges, such as "gat" or "sparse-transformer".

    ``patch``, ``frames``, ``groups`` and ``neighbours`` say how raw items are cut where not as the data set does, and
    ``edges`` which pieces are joined, as in ``mae``. ``mask`` is the share of hidden nodes, which moves to ``mask_end``
    as training goes on, ``masker`` which ones, as in ``mae`` save "disjoint"; ``augment`` as there. ``position`` is how
    places are read ("sincos", "learned", "mlp" or "none"; by default what suits the data). A "sparse-transformer"
    attends as far as ``hops`` times ``dilation`` edges and has ``global_nodes`` that all nodes of a graph share.
    ``norm`` and ``activation`` are of other encoders than transformers. The mask share, weight decay and clipping are
    the reference's; width, layers and learning rate are those of ``mae`` here. What is measured of it stands in
    benchmarks/results/quality.md.
    """
    cut = cut_for(
        spec, encoder, width, layers, pool=pool, augment=augment, edges=edges, position=position, patch=patch,
        frames=frames, groups=groups, neighbours=neighbours, heads=heads, dropout=dropout, norm=norm,
        activation=activation, hops=hops, dilation=dilation, global_nodes=global_nodes,
    )  # fmt: skip
    method = SimMIM(Encoder(cut.body, pool=pool), ramped(masker_named(masker, mask, spec, cut.tokenizer), mask_end))
    return Plan(
        method=method, optimizer=adam(lr, weight_decay, decoupled=True, spare=method), epochs=epochs,
        schedule=warmed_up(warmup), batch_size=batch_size, clip=clip, tokenizer=cut.tokenizer, alter=cut.alter,
    )  # fmt: skip
