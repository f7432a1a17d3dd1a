"""ParetoGNN's link task: Multi-task Self-supervised GNNs Enable Stronger Task Generalization, ICLR 2023, 2210.02016.

The other four are GraphMAE, DGI, GRACE and CCA-SSG; MultiTask weighs them. Reference: jumxglhf/ParetoGNN at e6092b0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import edge_bce
from graphssl.methods.base import Method
from graphssl.methods.pairs import absent_pairs, plain


class LinkPrediction(Method):
    """Drops a share ``drop`` of the content, encodes, and tells edges from absent pairs by the product of two codes.

    A layer of ``hidden`` and a ReLU stand between a node's code, scaled to length one, and the product. Of more than
    ``most`` edges so many are drawn each step; those edges stay messages, as in the reference.
    """

    tells_edges = True

    def __init__(self, encoder: Encoder, hidden: int, drop: float = 0.4, negatives: str = "absent", most: int = 10240):
        super().__init__()
        self.encoder, self.drop, self.negatives, self.most = encoder, drop, negatives, most
        self.inner, self.outer = nn.Linear(encoder.dim, hidden), nn.Linear(hidden, 1)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        codes = self.encoder(graph.replace(x=ops.dropout(graph.x, self.drop if self.training else 0.0)))
        pairs = graph.edge_index[:, plain(graph)]
        if pairs.size(1) > self.most:
            pairs = pairs[:, torch.randint(pairs.size(1), (self.most,), generator=generator, device=pairs.device)]
        absent = absent_pairs(graph, pairs.size(1), self.negatives, generator)
        hidden = self.inner(F.normalize(codes, dim=1)).relu()
        return {"edges": edge_bce(self._logits(hidden, pairs), self._logits(hidden, absent)) / 2}

    def _logits(self, hidden: Tensor, pairs: Tensor) -> Tensor:
        return self.outer(hidden[pairs[0]] * hidden[pairs[1]]).squeeze(1)
