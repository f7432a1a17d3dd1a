"""A user's own module as a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import Backbone, Step, evaluating
from graphssl.errors import UserError
from graphssl.graph import Graph


class ForeignConv(nn.Module):
    """Calls ``module(x, edge_index)`` and hands on what comes back."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        out = self.module(ops.dense(x), graph.edge_index)
        return out if rows is None else out[rows]


class ForeignLayer(Step):
    """The one layer of a foreign backbone."""

    def __init__(self, conv: ForeignConv, dim_in: int, dim: int):
        super().__init__()
        self.conv, self.dim_in, self.dim = conv, dim_in, dim

    def forward(self, graph: Graph, h: ops.Content, rows: Tensor | None = None) -> Tensor:
        return self.conv(graph, h, rows)


def foreign(module: nn.Module, dim_in: int) -> Backbone:
    """``module`` (x [N, dim_in], edge_index [2, E]) -> codes [N, D] as a Backbone; its width is found by a try.

    Raises UserError where the module does not take that call or returns something else.
    """
    x, edges = torch.zeros(3, dim_in), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(module):
            codes = module(x, edges)
    except Exception as error:
        raise UserError(
            f"the encoder {type(module).__name__} could not be called as encoder(x, edge_index) with x [3, {dim_in}]: "
            f"{error}; give a module with that call, or a name from graphssl.list_encoders()"
        ) from error
    if not isinstance(codes, Tensor) or codes.ndim != 2 or codes.size(0) != 3:
        came = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
        raise UserError(f"the encoder {type(module).__name__} returned {came} for 3 nodes; expected codes [3, width]")
    return Backbone([ForeignLayer(ForeignConv(module), dim_in, codes.size(1))])
