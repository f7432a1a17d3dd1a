"""DeeperGCN, Li et al. 2020, arXiv:2006.07739: generalised aggregation and pre-activation residuals.

Reference: lightaime/deep_gcns_torch at 149cd38, gcn_lib/sparse/torch_message.py and examples/ogb/ogbg_mol/model.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import Step, activation_named, edge_attributes, norm_named
from graphssl.errors import unknown
from graphssl.graph import Graph

AGGREGATIONS = ("softmax", "power")
EPS = 1e-7  # what is said is above 0
FAR = 80.0  # the exponential of minus this is not yet zero
LOW, HIGH = 1e-4, 100.0  # powers are taken between; the reference has 1e-7 and 10


class GENConv(nn.Module):
    """x_i' = MLP(x_i + the aggregate of relu(x_j + W e_ij) + 1e-7 over its neighbours), section 3.

    ``aggregation`` "softmax" weighs what is said by its softmax at a learned inverse temperature, of 1 at first;
    "power" takes the power mean of a learned power, of 1 at first. With ``message_norm`` the aggregate gets the length
    of x_i times a learned scale, eq. 7. The MLP is linear, norm, activation, linear, twice as wide between. Weights of
    edges are not looked at. A node without neighbours hears zeros.
    """

    def __init__(
        self, dim: int, activation: str = "relu", edge_dim: int = 0, norm: str = "batch", aggregation: str = "softmax",
        message_norm: bool = False,
    ):  # fmt: skip
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise unknown("aggregation", aggregation, AGGREGATIONS)
        self.aggregation = aggregation
        self.sharpness = nn.Parameter(torch.ones(1))  # inverse temperature or power
        self.scale = nn.Parameter(torch.ones(1)) if message_norm else None
        self.edge = nn.Linear(edge_dim, dim) if edge_dim else None
        self.mlp = nn.Sequential(
            nn.Linear(dim, 2 * dim), norm_named(norm, 2 * dim), activation_named(activation), nn.Linear(2 * dim, dim)
        )

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        """Codes [N, dim] to [N, dim]."""
        if self.edge is None:
            heard = self._hear(graph, x.relu() + EPS)
        else:
            edges = self.edge(edge_attributes(graph, self.edge.in_features, x))
            heard = self._hear_along(graph, (x[graph.edge_index[0]] + edges).relu() + EPS)
        if self.scale is not None:
            heard = F.normalize(heard, dim=1) * x.norm(dim=1, keepdim=True) * self.scale
        return self.mlp(x + heard)

    def _hear_along(self, graph: Graph, said: Tensor) -> Tensor:
        """What is ``said`` along edges, [E, dim], as what nodes hear, [N, dim]."""
        if self.aggregation == "power":
            return self._root(graph, ops.segment_reduce(graph, said.clamp(LOW, HIGH).pow(self.sharpness), "mean"))
        return ops.segment_reduce(graph, said * ops.segment_softmax(graph, said * self.sharpness))

    def _hear(self, graph: Graph, said: Tensor) -> Tensor:
        """The same of what each node says to all, [N, dim], without a row an edge: ten times as fast.

        What is further than ``FAR`` below the largest that is said in its graph counts as if it were that far.
        """
        if self.aggregation == "power":
            return self._root(graph, ops.spmm(graph, said.clamp(LOW, HIGH).pow(self.sharpness), reduce="mean"))
        score = said * self.sharpness
        most = ops.segment_reduce(ops.groups(graph.batch, graph.num_graphs), score.detach(), "max")
        weight = (score - most[graph.batch]).clamp(min=-FAR).exp()
        total = torch.where(graph.csr.degree[:, None] > 0, ops.spmm(graph, weight), 1.0)
        return ops.spmm(graph, weight * said) / total

    def _root(self, graph: Graph, mean: Tensor) -> Tensor:
        return torch.where(graph.csr.degree[:, None] > 0, mean.clamp(LOW, HIGH).pow(1 / self.sharpness), 0.0)


class PreActivation(Step):
    """h + conv(dropout(activation(norm(h)))), the paper's "res+".

    The reference's first layer is a bare convolution; ours are all alike.
    """

    def __init__(self, conv: GENConv, dim: int, *, dropout: float = 0.0, norm: str = "batch", activation: str = "relu"):
        super().__init__()
        self.conv, self.dim_in, self.dim, self.dropout = conv, dim, dim, dropout
        self.norm, self.activation = norm_named(norm, dim), activation_named(activation)

    def forward(self, graph: Graph, h: Tensor) -> Tensor:
        """``h`` [N, dim] to [N, dim]."""
        seen = ops.dropout(self.activation(self.norm(h)), self.dropout if self.training else 0.0)
        return h + self.conv(graph, ops.dense(seen))
