"""GPS layers: messages along edges beside attention among all nodes, Rampasek et al. 2022, arXiv:2205.12454.

Reference: rampasek/GraphGPS at 016956a, graphgps/layer/gps_layer.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import Step, activation_named, norm_named
from graphssl.backbones.gine import GINEConv
from graphssl.backbones.transformer import Attention, Dense
from graphssl.graph import Graph


class GPSLayer(Step):
    """A GINE convolution and attention among all nodes of a graph, each with a residual and a norm, summed; then an MLP
    with a residual and a norm, section 3.1.

    The convolution's MLP is ``dim`` wide and has no norm, as in the reference; the MLP is twice as wide.
    """

    def __init__(
        self, dim: int, heads: int = 1, *, dropout: float = 0.0, attention_dropout: float = 0.0, norm: str = "batch",
        activation: str = "relu", edge_dim: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.dim_in, self.dim, self.dropout = dim, dim, dropout
        self.conv = GINEConv(dim, dim, activation, dim, edge_dim, "none")
        self.attention = Attention(dim, heads, attention_dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 2 * dim), activation_named(activation), nn.Dropout(dropout), nn.Linear(2 * dim, dim)
        )
        self.norm1, self.norm2, self.norm3 = (norm_named(norm, dim) for _ in range(3))

    def forward(self, graph: Graph, h: Tensor) -> Tensor:
        """``h`` [N, dim] to [N, dim]."""
        layout = graph.remember("gps", lambda graph: Dense(graph, 0), shared=True)
        near = self.norm1(h + self._drop(self.conv(graph, h)))
        far = self.norm2(h + self._drop(self.attention(h, layout)))
        h = near + far
        return self.norm3(h + self._drop(self.mlp(h)))

    def _drop(self, h: Tensor) -> Tensor:
        return ops.dense(ops.dropout(h, self.dropout if self.training else 0.0))
