"""Context prediction: Strategies for Pre-training Graph Neural Networks, ICLR 2020, arXiv:1905.12265, section 3.1.1.

Reference: snap-stanford/pretrain-gnns at 6e69a06, chem/pretrain_contextpred.py and chem/util.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from graphssl import ops
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import edge_bce
from graphssl.masks import lowest_in
from graphssl.methods.base import Method
from graphssl.structure import hops_from


class Pieces(NamedTuple):
    """What is looked at of each graph that has a context; each True [N] where a node is of it."""

    centre: Tensor  # one node a graph
    near: Tensor  # the substructure
    around: Tensor  # the context
    anchors: Tensor  # nodes of both


class ContextPred(Method):
    """Tells the surroundings of a random node of each graph from those of another graph's.

    The substructure is all nodes up to ``hops`` edges from the centre, whose code stands for it. The context is the
    nodes more than ``r1`` and up to ``r2`` edges from it, read by the encoder ``context``; the mean of its codes of the
    anchors, the nodes that are also in the substructure, stands for it. The dot product of both is to tell pairs of the
    same graph from those with the next graph's context. Graphs without an anchor are left out; the loss is zero where
    fewer than two are left. The reference pairs such a single graph with itself as its own negative.
    """

    why_whole = "it learns from sets of graphs, which come in batches already"

    def __init__(self, encoder: Encoder, context: Encoder, hops: int = 5, r1: int = 4, r2: int = 7):
        super().__init__()
        if not 0 <= r1 < min(hops, r2):
            raise ValueError(
                f"a context of {r1} to {r2} hops shares no nodes with a substructure of {hops}; choose r1 from 0 to "
                f"{hops - 1}, and r2 above it"
            )
        self.encoder, self.context, self.hops, self.r1, self.r2 = encoder, context, hops, r1, r2

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        centre, near, around, anchors = self.draw(graph, generator)
        if centre.sum() < 2:
            return {"context": 0.0 * torch.stack([p.sum() for p in self.parameters()]).sum()}
        codes = self.encoder(graph.keep_nodes(near), rows=centre[near])
        surroundings = self.context(graph.keep_nodes(around), rows=anchors[around])
        members = ops.groups(torch.searchsorted(graph.batch[centre], graph.batch[anchors]), len(codes))
        contexts = ops.segment_reduce(members, surroundings, "mean")
        return {"context": edge_bce((codes * contexts).sum(1), (codes * contexts.roll(-1, 0)).sum(1))}

    def draw(self, graph: Graph, generator: Generator | None = None) -> Pieces:
        """Random centres, and what lies around them."""
        score = torch.rand(graph.num_nodes, generator=generator, device=graph.device)
        centre = lowest_in(score, graph.size.clamp(max=1), graph.batch, graph.size)
        away = hops_from(graph, centre, max(self.hops, self.r2))
        near, around = away <= self.hops, (away > self.r1) & (away <= self.r2)
        has = torch.zeros(graph.num_graphs, dtype=torch.bool, device=graph.device)
        has[graph.batch[near & around]] = True
        return Pieces(*(part & has[graph.batch] for part in (centre, near, around, near & around)))

    def step_bytes(self, nodes: int, edges: int) -> int:
        """Both encoders."""
        return super().step_bytes(nodes, edges) + 4 * nodes * 3 * sum(getattr(self.context.backbone, "widths", ()))
