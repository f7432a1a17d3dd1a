"""A row of numbers for each node of one graph: the backbone of methods that learn codes and no encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Content


class Table(nn.Module):
    """Two learned rows of width ``dim`` a node, each scaled to length one, side by side: codes [nodes, 2 dim].

    LINE's ``first`` and ``second`` order, uniform within 1 / (2 dim) at the start as in its reference. Neither content
    nor edges are looked at, so no other graph can be embedded.
    """

    transductive = True
    reads_content = False

    def __init__(self, nodes: int, dim: int):
        super().__init__()
        self.first, self.second = (nn.Parameter((torch.rand(nodes, dim) - 0.5) / dim) for _ in range(2))

    def forward(self, graph: Graph, x: Content, rows: Tensor | None = None) -> Tensor:
        """Codes [N, 2 dim], or those of the ``rows`` asked for; UserError for a graph of another size."""
        if graph.num_nodes != len(self.first):
            raise UserError(
                f"this encoder has learned a row for each of {len(self.first)} nodes and cannot embed another graph "
                f"(of {graph.num_nodes}); pretrain on that"
            )
        codes = torch.cat([F.normalize(self.first, dim=1), F.normalize(self.second, dim=1)], dim=1)
        return codes if rows is None else codes[rows]
