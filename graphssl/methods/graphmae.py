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
from graphssl.masks import Edges, Masker, Ramp, Uniform
from graphssl.methods.masked import Masked, put_back, scaled_back

HALF = Uniform(0.5)
Loss = Callable[[Tensor, Tensor | ops.Rows], Tensor]  # of rows [M, F] and their content, which may be sparse


class GraphMAE(Masked):
    """Covers the content of some nodes, encodes the graph, covers the same codes again and decodes the content.

    ``replace`` is the share of the hidden nodes that show another node's content in place of the mask token. ``remask``
    zeroes the hidden nodes' codes before the decoder: sensible where the decoder sees neighbours, not for an MLP.
    ``drop_edges`` leaves that share of the edges out of what the encoder sees; self-loops stay. ``shared_dropout``
    gives all mask tokens of a step one dropout mask, so that they stay one row and cost one; the reference draws one
    for each. The decoder rebuilds as many columns of the content, the first ones, as it is wide.
    """

    def __init__(
        self, encoder: Encoder, decoder: Backbone, masker: Masker | Ramp = HALF, replace: float = 0.0,
        remask: bool = True, shared_dropout: bool = False, drop_edges: float = 0.0, loss: Loss = scaled_cosine,
    ):  # fmt: skip
        super().__init__(masker)
        self.dropper = Edges(drop_edges, directed=True) if drop_edges else None
        self.encoder, self.decoder, self.loss = encoder, decoder, loss
        self.replace, self.remask, self.shared_dropout = replace, remask, shared_dropout
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim_in))
        self.bridge = nn.Linear(encoder.dim, decoder.dim_in, bias=False)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.hide(graph, generator)
        covered = self._cover(graph, hidden, generator)
        if self.dropper is not None:
            covered = covered.keep_edges(~self.dropper(graph, generator))
        wanted = graph.counted(hidden)
        said = self._decode(graph, covered, hidden, wanted)
        return {"content": self.loss(said, self._wanted(graph.x[wanted]))}

    def _wanted(self, content: Tensor | ops.Rows) -> Tensor | ops.Rows:
        """Those columns of ``content`` [M, F] that are rebuilt."""
        width = self.decoder.dim
        return content if content.size(1) == width else ops.dense(content)[:, :width]

    def _decode(self, graph: Graph, covered: Graph, hidden: Tensor, wanted: Tensor) -> Tensor:
        """What the decoder says of the nodes ``wanted``, [M, F], with the ``hidden`` ones ``covered``."""
        if self.remask:  # zero rows stay zero under the bridge, so only the others are encoded to the end and cross it
            shown = self.bridge(self.encoder(covered, rows=~hidden))
            codes = shown.new_zeros(len(hidden), shown.size(1)).index_put_((~hidden,), shown)
        else:
            codes = self.bridge(self.encoder(covered))
        return self.decoder(graph, codes, rows=wanted)

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor] | None:
        """Which nodes were hidden [N], all under the mask token, and the content [N, F] with what was decoded for it.

        The cosine error tells directions only: then what was decoded has the length of the content itself. None where
        only some columns are rebuilt.
        """
        if self.decoder.dim != graph.x.size(1):
            return None
        hidden = self.hide(graph, generator, 1.0)
        covered = graph.replace(x=ops.cover(graph.x, hidden, self.mask_token))
        said = self._decode(graph, covered, hidden, hidden)
        return hidden, put_back(graph, hidden, scaled_back(graph, hidden, said, self.loss))

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
