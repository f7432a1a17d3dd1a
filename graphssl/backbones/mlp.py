"""A linear map of each node on its own: the backbone that never looks at the edges."""

from __future__ import annotations

from torch import Tensor, nn

from graphssl import ops
from graphssl.graph import Graph


class NodeLinear(nn.Module):
    """x_i' = W x_i + b."""

    def __init__(self, dim_in: int, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim_in, dim)

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to [N, dim], or to the ``rows`` asked for."""
        if rows is not None and isinstance(x, Tensor):
            return self.linear(x[rows])
        out = ops.linear(x, self.linear.weight) + self.linear.bias
        return out if rows is None else out[rows]
