"""The virtual node, Gilmer et al. 2017, arXiv:1704.01212, section 5.2, as OGB's baselines have it.

Reference: snap-stanford/ogb at 856f6f5, examples/graphproppred/mol/conv.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.graph import Graph


class VirtualNode(nn.Module):
    """A state a graph, learned from 0, that is added to its nodes before each layer.

    Between two layers it becomes the MLP of itself and the sum of the nodes' codes that went into the first of them.
    ``widths`` are those of what goes into each layer. Norms are layer norms, where OGB's are batch norms, which have no
    statistics where a batch is one graph.
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.0):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(widths[0]))
        self.updates = nn.ModuleList(self._update(a, b, dropout) for a, b in pairwise(widths))

    @staticmethod
    def _update(dim_in: int, dim: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(dim_in, 2 * dim), nn.LayerNorm(2 * dim), nn.ReLU(),
            nn.Linear(2 * dim, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Dropout(dropout),
        )  # fmt: skip

    def begin(self, graph: Graph) -> Tensor:
        """The state before the first layer, [B, width]."""
        return self.first.expand(graph.num_graphs, -1)

    def update(self, place: int, graph: Graph, h: Tensor, state: Tensor) -> Tensor:
        """The state behind layer ``place``, into which ``h`` [N, width] went with the ``state`` [B, width] in it."""
        return self.updates[place](state + ops.segment_reduce(ops.groups(graph.batch, graph.num_graphs), h))
