"""LINE: Large-scale Information Network Embedding, Tang et al. 2015, arXiv:1503.03578.

Reference: tangjianpku/LINE at 2abea47, linux/line.cpp and train_youtube.sh; it takes one edge at a time and learns the
two orders one after the other, ours takes many at once and both orders from the same draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.backbones import Table
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.methods.base import Method
from graphssl.methods.pairs import plain

POWER = 0.75  # of a node's degree, in proportion to which it is drawn as the end of an edge that is not there


class LINE(Method):
    """Tells the two ends of an edge from nodes drawn at random, by codes of both (first order) and by codes of one
    and contexts of the other (second order), eq. 7.

    A step draws ``samples`` edges by weight, and for each ``negatives`` nodes. Losses are means over the edges drawn,
    their total the sum over them, so that ``lr`` is the step of one edge, as in the reference.
    """

    why_whole = "it learns a row for each node and draws its edges itself"

    def __init__(self, encoder: Encoder, samples: int, negatives: int = 5):
        super().__init__()
        if negatives < 1:
            raise ValueError(f"cannot learn from {negatives} negatives an edge; choose 1 or more")
        self.encoder, self.samples, self.negatives = encoder, samples, negatives
        self.context = nn.Parameter(torch.zeros_like(self.table.second))

    @property
    def table(self) -> Table:
        return self.encoder.backbone.layers[0].conv  # type: ignore[return-value, union-attr]

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        pairs, edges, nodes = graph.remember("line", laws)
        source, target = pairs[:, draw(edges, (self.samples, 1), generator)]
        others = torch.cat([target, draw(nodes, (self.samples, self.negatives), generator)], dim=1)
        return {
            "first": skip_gram(self.table.first, self.table.first, source, others),
            "second": skip_gram(self.table.second, self.context, source, others),
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        return self.samples * super().total(losses)


def skip_gram(a: Tensor, b: Tensor, source: Tensor, others: Tensor) -> Tensor:
    """-log sigmoid of <a_i, b_j> for the first of ``others`` [S, 1 + K] and of -<a_i, b_j> for the rest: the mean of
    the sums over each of ``source`` [S, 1]."""
    scores = (F.embedding(source, a) * F.embedding(others, b)).sum(-1)  # whose backward is bit-equal on a GPU too
    return -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(1)).mean()


def laws(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Edges [2, E] that are no self-loops, and running sums of what they [E] and nodes [N] are drawn by."""
    where = plain(graph)
    pairs = graph.edge_index[:, where]
    weight = torch.ones(pairs.size(1), device=graph.device) if graph.edge_weight is None else graph.edge_weight[where]
    if bool((weight < 0).any()) or not bool(weight.any()):
        raise UserError("line draws edges by their weights, which must be 0 or more and not all 0; change or drop them")
    csr = ops.CSR(ops.pointers(pairs[1], graph.num_nodes), pairs[0], None, (graph.num_nodes, graph.num_nodes))
    degree = ops.segment_reduce(csr, weight.double())
    return pairs, weight.double().cumsum(0), degree.pow(POWER).cumsum(0)


def draw(sums: Tensor, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """Places drawn in proportion to the steps between the running ``sums`` [n]."""
    uniform = torch.rand(shape, generator=generator, device=sums.device, dtype=torch.float64)
    return torch.searchsorted(sums, uniform * sums[-1], right=True)
