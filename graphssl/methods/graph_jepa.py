"""Graph-JEPA: Graph-level Representation Learning with Joint-Embedding Predictive Architectures, arXiv:2309.16014.

Reference: geriskenderi/graph-jepa at 72df1b7, core/model.py and train/zinc.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.backbones.encodings import STEPS, return_probabilities
from graphssl.encoder import Encoder, pool
from graphssl.errors import unknown
from graphssl.graph import Graph
from graphssl.losses import smooth_l1
from graphssl.masks import lowest_in
from graphssl.methods.base import Method
from graphssl.structure import induced
from graphssl.teacher import Teacher

TARGETS = ("hyperbola", "latent")


class GraphJEPA(Method):
    """Predicts a slow teacher's codes of some parts of each graph from the code of another part and where they are.

    Each graph is cut anew into ``parts``, each widened by one hop. One part, the context, is read by the encoder, and
    ``targets`` others by the teacher, each by itself. Where a part is, is told by how likely random walks of up to 16
    steps (in the reference 20) return to its nodes, the most over them. Predicted are two coordinates of a point on a
    hyperbola, (cosh a, sinh a) with the mean a of the target's code ("hyperbola", the paper's), or that code itself,
    its entries scaled to mean 0 and variance 1 ("latent"). The teacher follows with a momentum that rises from
    ``momentum`` to 1.

    The reference cuts by METIS after dropping edges at random, once a graph and epoch; ours are regions that grow from
    random nodes, at once for a whole batch. Its GNN hears the other parts between layers, and Transformers stand above
    it, of which the target's follows the context's; ours is the encoder alone, whose codes of whole graphs are what is
    kept, and all of it is followed.
    """

    why_whole = "it learns from sets of graphs, which come in batches already"

    def __init__(
        self, encoder: Encoder, parts: int = 8, targets: int = 4, predicts: str = "hyperbola",
        momentum: float = 0.996,
    ):  # fmt: skip
        super().__init__()
        if predicts not in TARGETS:
            raise unknown("target of graph-jepa", predicts, TARGETS)
        self.parts, self.targets, self.predicts, self.momentum = parts, targets, predicts, momentum
        self.encoder, self.teacher, D = encoder, Teacher(encoder), encoder.dim
        self.here, self.there = nn.Linear(STEPS, D), nn.Linear(STEPS, D)
        self.predict = nn.Sequential(
            nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, 2 if predicts == "hyperbola" else D)
        )

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        cut = regions(graph, self.parts, generator)
        context, target = self.draw(cut, generator)
        if not target.any():
            return {"latent": 0.0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()}
        (shown, here), (hidden, there) = (self._pieces(graph, cut.part, chosen) for chosen in (context, target))
        code = pool(shown, self.encoder(shown), "mean") + self.here(here)  # cosh of a sum over nodes might overflow
        own = torch.searchsorted(cut.graph[context], cut.graph[target])
        return {"latent": smooth_l1(self.predict(code[own] + self.there(there)), self.wanted(hidden), beta=0.5)}

    def draw(self, cut: Cut, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which parts are a context and which are targets, each True [P]; none of a graph in one part."""
        score = torch.rand(len(cut.graph), generator=generator, device=cut.graph.device)
        several = cut.counts > 1
        context, both = (
            lowest_in(score, cut.counts.clamp(max=most) * several, cut.graph, cut.counts)
            for most in (1, 1 + self.targets)
        )
        return context, both & ~context

    @torch.no_grad()
    def wanted(self, hidden: Graph) -> Tensor:
        """What is to be predicted of the B parts ``hidden``, [B, 2] or [B, D]."""
        codes = pool(hidden, self.teacher(hidden), "mean")
        if self.predicts == "latent":
            return F.layer_norm(codes, codes.shape[1:])
        angle = codes.mean(1, keepdim=True)
        return torch.cat([angle.cosh(), angle.sinh()], dim=1)

    def _pieces(self, graph: Graph, part: Tensor, chosen: Tensor) -> tuple[Graph, Tensor]:
        """The ``chosen`` parts [P], widened by a hop, as a Graph, and where each of them is, [B, 16]."""
        there, back = torch.cat([graph.edge_index, graph.edge_index.flip(0)], dim=1)
        node, of = torch.cat([torch.arange(graph.num_nodes, device=part.device), there]), torch.cat([part, part[back]])
        taken = chosen[of]
        pieces, node = induced(graph, node[taken], (chosen.cumsum(0) - 1)[of[taken]], int(chosen.sum()))
        chance = graph.remember("encodings.walk", return_probabilities, shared=True)
        return pieces, pool(pieces, chance[node], "max")

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, self.momentum + (1 - self.momentum) * progress)

    def step_bytes(self, nodes: int, edges: int) -> int:
        """A part's share of the nodes; those of the teacher are not kept."""
        return super().step_bytes(nodes, edges) // self.parts


class Cut(NamedTuple):
    """Graphs in parts."""

    part: Tensor  # [N] the part of each node
    graph: Tensor  # [P] the graph of each part, ascending
    counts: Tensor  # [B] parts of each graph


def regions(graph: Graph, parts: int, generator: Generator | None = None) -> Cut:
    """Cuts each graph of n nodes into min(``parts``, n) connected regions, which grow by a hop at a time from random
    nodes. Nodes that none of them reaches join their graph's first.
    """
    counts = graph.size.clamp(max=parts)
    score = torch.rand(graph.num_nodes, generator=generator, device=graph.device)
    seeds = ops.places(lowest_in(score, counts, graph.batch, graph.size))
    part = torch.full_like(graph.batch, -1).index_put_((seeds,), torch.arange(len(seeds), device=graph.device))
    source, target = torch.cat([graph.edge_index, graph.edge_index.flip(0)], dim=1)
    while (reached := (part[source] >= 0) & (part[target] < 0)).any():
        part = part.scatter_reduce(0, target[reached], part[source[reached]], "amax")
    part = part.where(part >= 0, (counts.cumsum(0) - counts)[graph.batch])
    return Cut(part, graph.batch[seeds], counts)
