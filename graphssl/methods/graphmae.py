"""GraphMAE: Self-Supervised Masked Graph Autoencoders, KDD 2022, arXiv:2205.10803.

Reference: THUDM/GraphMAE at b14f080, graphmae/models/edcoder.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.backbones import Backbone
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import scaled_cosine
from graphssl.masks import Edges, Masker, Ramp, Uniform, at
from graphssl.methods.base import Method

HALF = Uniform(0.5)
Loss = Callable[[Tensor, Tensor | ops.Rows], Tensor]  # of rows [M, F] and their content, which may be sparse


class GraphMAE(Method):
    """Covers the content of some nodes, encodes the graph, covers the same codes again and decodes the content.

    ``replace`` is the share of the hidden nodes that show another node's content in place of the mask token. ``remask``
    zeroes the hidden nodes' codes before the decoder: sensible where the decoder sees neighbours, not for an MLP.
    ``drop_edges`` leaves that share of the edges out of what the encoder sees; self-loops stay. A ``masker`` that is a
    ``Ramp`` goes with the progress of training. ``shared_dropout`` gives all mask tokens of a step one dropout mask, so
    that they stay one row and cost one; the reference draws one for each.
    """

    progress: Tensor | None  # how much of training is done, kept with the weights; None: no masker asks

    def __init__(
        self, encoder: Encoder, decoder: Backbone, masker: Masker | Ramp = HALF, replace: float = 0.0,
        remask: bool = True, shared_dropout: bool = False, drop_edges: float = 0.0, loss: Loss = scaled_cosine,
    ):  # fmt: skip
        super().__init__()
        self.dropper = Edges(drop_edges, directed=True) if drop_edges else None
        self.register_buffer("progress", torch.zeros(()) if isinstance(masker, Ramp) else None)
        self.encoder, self.decoder, self.loss = encoder, decoder, loss
        self.masker, self.replace, self.remask, self.shared_dropout = masker, replace, remask, shared_dropout
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim_in))
        self.bridge = nn.Linear(encoder.dim, decoder.dim_in, bias=False)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = at(self.masker, 0.0 if self.progress is None else float(self.progress))(graph, generator)
        covered = self._cover(graph, hidden, generator)
        if self.dropper is not None:
            covered = covered.keep_edges(~self.dropper(graph, generator))
        if self.remask:  # zero rows stay zero under the bridge, so only the others are encoded to the end and cross it
            shown = self.bridge(self.encoder(covered, rows=~hidden))
            codes = shown.new_zeros(len(hidden), shown.size(1)).index_put_((~hidden,), shown)
        else:
            codes = self.bridge(self.encoder(covered))
        content = self.decoder(graph, codes, rows=hidden)
        return {"content": self.loss(content, graph.x[hidden])}

    def after_step(self, progress: float) -> None:
        if self.progress is not None:
            self.progress.fill_(progress)

    def _cover(self, graph: Graph, hidden: Tensor, generator: Generator | None) -> Graph:
        """The graph with most hidden nodes under the mask token and a share ``replace`` under other nodes' content."""
        N, where = graph.num_nodes, hidden.nonzero().squeeze(1)
        noisy = where[torch.randperm(len(where), generator=generator, device=where.device)]
        noisy = noisy[: int(self.replace * len(where))]
        shown = torch.arange(N, device=where.device)
        shown[noisy] = torch.randperm(N, generator=generator, device=where.device)[: len(noisy)]
        token = hidden.index_fill(0, noisy, False)
        content = graph.x[shown] if len(noisy) else graph.x
        return graph.replace(x=ops.cover(content, token, self.mask_token, self.shared_dropout))
