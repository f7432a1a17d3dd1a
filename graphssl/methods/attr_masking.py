"""Attribute masking: Strategies for Pre-training Graph Neural Networks, ICLR 2020, arXiv:1905.12265, section 3.1.2.

Reference: snap-stanford/pretrain-gnns at 01362ef, chem/util.py (MaskAtom) and chem/pretrain_masking.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import block_cross_entropy
from graphssl.masks import Masker, Ramp, Uniform
from graphssl.methods.masked import Masked

FEW = Uniform(0.15)


class AttrMasking(Masked):
    """Hides nodes and all edges at them, and tells the classes of both from the codes.

    Content and ``edge_attr`` are one-hot blocks laid side by side; ``fields`` and ``edge_fields`` are the widths of the
    first of them, whose classes are told: of a hidden node from its code, of a hidden edge from the sum of its ends'.
    Of ``edge_dim`` attributes all are hidden; with 0 edges are left as they are. The reference hides floor(ratio * n) +
    1 of n nodes, ours floor(ratio * n) and one at least; it counts each edge once, ours each direction, which is the
    same mean.
    """

    def __init__(
        self, encoder: Encoder, fields: Sequence[int], edge_fields: Sequence[int] = (), edge_dim: int = 0,
        masker: Masker | Ramp = FEW,
    ):  # fmt: skip
        super().__init__(masker)
        self.encoder, self.fields, self.edge_fields = encoder, (*fields,), (*edge_fields,)
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim_in))
        self.edge_token = nn.Parameter(torch.zeros(edge_dim)) if edge_dim else None
        self.node_classes = nn.Linear(encoder.dim, sum(fields))
        self.edge_classes = nn.Linear(encoder.dim, sum(edge_fields)) if edge_fields else None

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.hide(graph, generator)
        source, target = graph.edge_index
        touched = hidden[source] | hidden[target]
        codes = self.encoder(self.cover(graph, hidden, touched))
        wanted = graph.counted(hidden)
        losses = {"nodes": block_cross_entropy(self.node_classes(codes[wanted]), graph.x[wanted], self.fields)}
        if self.edge_classes is not None and graph.edge_attr is not None:
            said = self.edge_classes(codes[source[touched]] + codes[target[touched]])
            losses["edges"] = block_cross_entropy(said, graph.edge_attr[touched], self.edge_fields)
        return losses

    def cover(self, graph: Graph, hidden: Tensor, touched: Tensor) -> Graph:
        """The graph with tokens for the content of ``hidden`` nodes [N] and the attributes of ``touched`` edges [E]."""
        attr = graph.edge_attr
        if self.edge_token is not None and attr is not None:
            attr = torch.where(touched[:, None], self.edge_token, attr.reshape(graph.num_edges, len(self.edge_token)))
        return graph.replace(x=ops.cover(graph.x, hidden, self.mask_token), edge_attr=attr)
