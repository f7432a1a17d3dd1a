"""The thing that survives pretraining."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones import Backbone
from graphssl.errors import UserError, unknown
from graphssl.graph import Graph

POOLS = ("mean", "sum", "max")
CLASS = "class"  # reads the class token instead
ATTENTION = "attention"  # a learned mean


class Encoder(nn.Module):
    """A backbone and its readout: codes of nodes [N, dim] and, pooled, codes of graphs [B, dim].

    ``read`` says which layers the codes are made of: "last", or "all" laid side by side. ``unit`` scales each node's
    codes to length one. ``pool`` is "mean", "sum" or "max"; or "attention", the mean weighted by a softmax over the
    graph's nodes of a learned map of their codes (Li et al. 2016, arXiv:1511.05493, eq. 7, as PyG's GlobalAttention),
    which starts as the mean; or, of a transformer with extra tokens, "class": the first of these is a graph's code.
    What pretrains on codes of nodes alone, as DGI and GraphMAE do, never calls ``pool``, and so leaves "attention" the
    mean that it starts as until ``finetune`` trains it; GraphCL, InfoGraph, SimGRACE and SimSiam train it.
    """

    def __init__(self, backbone: Backbone, read: str = "last", pool: str = "mean", unit: bool = False):
        super().__init__()
        if read not in ("last", "all"):
            raise unknown("readout", read, ("last", "all"))
        if pool not in (*POOLS, ATTENTION, CLASS):
            raise unknown("pooling", pool, (*POOLS, ATTENTION, CLASS))
        if pool == CLASS and (read != "last" or not getattr(backbone, "extra", 0)):
            raise UserError("pool='class' needs a transformer with a class token; choose 'mean', 'sum' or 'max'")
        self.backbone, self.read, self.pooling, self.unit = backbone, read, pool, unit
        self.transform: Callable[[Graph], Graph] | None = None  # what a graph goes through first; a recipe sets it
        self.dim_in = backbone.dim_in
        self.dim = backbone.dim if read == "last" else sum(backbone.widths)
        self.gate: nn.Linear | None = None
        if pool == ATTENTION:
            self.gate = nn.Linear(self.dim, 1, bias=False)
            nn.init.zeros_(self.gate.weight)
        self.here: Tensor
        self.register_buffer("here", torch.empty(0), persistent=False)  # so that one without weights has a device

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), self.here.device)

    @property
    def transductive(self) -> bool:
        """Whether it holds a row for each node of one graph, so that it can embed no other."""
        return any(getattr(part, "transductive", False) for part in self.backbone.modules())

    @property
    def reads_content(self) -> bool:
        """Whether codes depend on the content of nodes, whose width then has to fit."""
        return all(getattr(part, "reads_content", True) for part in self.backbone.modules())

    def forward(self, graph: Graph, rows: Tensor | None = None) -> Tensor:
        """Codes of the nodes, [N, dim]; with a boolean ``rows`` [N] only those of these nodes."""
        if self.read == "last":
            codes = self.backbone(graph, graph.x) if rows is None else self.backbone(graph, graph.x, rows)
        else:
            codes = torch.cat(list(self.backbone.walk(graph, graph.x)), dim=1)
            codes = codes if rows is None else codes[rows]
        return torch.nn.functional.normalize(codes, dim=1) if self.unit else codes

    def of_graphs(self, graph: Graph) -> Tensor:
        """Codes of the graphs, [B, dim]."""
        if self.pooling != CLASS:
            return self.pool(graph, self(graph))
        codes = self.backbone.whole(graph, graph.x)[1][:, 0]  # type: ignore[operator]
        return torch.nn.functional.normalize(codes, dim=1) if self.unit else codes

    def pool(self, graph: Graph, codes: Tensor) -> Tensor:
        """Codes of nodes [N, dim] to codes of graphs [B, dim], by their mean where the class token is read."""
        if self.gate is not None:
            nodes = ops.groups(graph.batch, graph.num_graphs)
            return ops.spmm(nodes, codes, ops.segment_softmax(nodes, self.gate(codes))[:, 0])
        return pool(graph, codes, plain(self.pooling))


def plain(pooling: str) -> str:
    """The pooling without weights that comes nearest."""
    return pooling if pooling in POOLS else "mean"


def pool(graph: Graph, codes: Tensor, how: str) -> Tensor:
    """The mean, sum or max of the ``codes`` [N, D] of each graph's nodes, [B, D]; zeros for a graph without nodes."""
    if how not in POOLS:
        raise unknown("pooling", how, POOLS)
    return ops.segment_reduce(ops.groups(graph.batch, graph.num_graphs), codes, how)
