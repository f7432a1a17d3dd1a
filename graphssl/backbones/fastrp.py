"""FastRP: Fast and Accurate Network Embeddings via Very Sparse Random Projection, Chen et al. 2019, arXiv:1908.11512.

Reference: GTmac/FastRP at d45d1c6, fastrp.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphssl import ops
from graphssl.graph import Graph

COLUMNS = 64  # columns of the codes worked on at once: what is held beside the codes is a few times N x COLUMNS


class FastRP(nn.Module):
    """The weighted sum of the powers M L R, M^2 L R, ... whose columns are then standardised, as in the reference.

    M = D^-1 A is the transition matrix, L = D^beta, and R [N, dim] a very sparse random projection, drawn for the nodes
    at hand from ``seed``: node i of a graph of N nodes always has the same row. ``weights`` holds a number for each
    power from the first; ``normalize`` scales each row of each power to length one before the sum. Content is not
    looked at, and a node without edges counts as zeros.
    """

    reads_content = False

    def __init__(self, dim: int, weights: Sequence[float], beta: float, normalize: bool = False):
        super().__init__()
        if not any(weights):
            raise ValueError(f"weights of powers are {list(weights)}; choose one or more that differ from 0")
        self.dim, self.weights, self.beta, self.normalize = dim, tuple(weights), beta, normalize
        self.seed: Tensor
        self.register_buffer("seed", torch.randint(2**62, ()))  # in place of R, so that any graph can be embedded

    def forward(self, graph: Graph, x: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Codes [N, dim], or those of the ``rows`` asked for."""
        inverse, scale = self._degrees(graph)
        node, column, sign = (part.to(graph.device) for part in projection(graph.sizes, self.dim, int(self.seed)))
        entry = sign * scale[node]
        codes = torch.empty(graph.num_nodes, self.dim, device=graph.device)
        for part in torch.arange(self.dim, device=graph.device).split(self.dim if self.normalize else COLUMNS):
            first, width = int(part[0]), len(part)
            here = (column >= first) & (column < first + width)
            h = torch.zeros(graph.num_nodes, width, device=graph.device)
            h[node[here], column[here] - first] = entry[here]
            merged = torch.zeros_like(h)
            for weight in self.weights:
                h = ops.spmm(graph, h, graph.edge_weight).mul_(inverse)
                if weight:
                    merged.add_(F.normalize(h, dim=1) if self.normalize else h, alpha=weight)
            codes[:, first : first + width] = standardised(merged, graph.sizes)
        return codes if rows is None else codes[rows]

    def _degrees(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """The diagonals of D^-1 [N, 1] and, up to a factor that standardising takes out again, of D^beta [N]."""
        weight = graph.edge_weight
        degree = graph.csr.degree.double() if weight is None else ops.segment_reduce(graph, weight.double())
        log = degree.clamp(min=0).log() * self.beta
        known = degree > 0
        top = log[known].max() if bool(known.any()) else log.new_zeros(())
        inverse = torch.where(known, 1 / degree, 0.0).float()
        return inverse[:, None], torch.where(known, (log - top).exp(), 0.0).float()


def projection(sizes: Sequence[int], dim: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and signs of what is not zero in a very sparse random projection [N, dim], on the CPU.

    Each entry of a graph of n nodes is +1 or -1 with probability 1 / sqrt(n), else 0: s = sqrt(n), section 3.2 (Li et
    al. 2006), without the factor sqrt(s), which standardising takes out again. Graphs laid end to end, of ``sizes``,
    have one each. Gaps between entries are drawn, so the cost is that of the entries.
    """
    parts, offset = [], 0
    for n in sizes:
        generator = torch.Generator().manual_seed(seed)
        density = max(n, 2) ** -0.5
        mean = n * dim * density
        count = int(mean + 10 * mean**0.5) + 10  # ten deviations: there is never one too few
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        gaps = torch.log1p(-uniform).div_(torch.log1p(torch.tensor(-density, dtype=torch.float64))).long() + 1
        place = gaps.cumsum(0) - 1
        place = place[place < n * dim]
        sign = torch.randint(2, (len(place),), generator=generator) * 2.0 - 1.0
        parts.append((place % n + offset, place // n, sign))
        offset += n
    node, column, sign = (torch.cat(part) for part in zip(*parts, strict=True))
    return node, column, sign


def standardised(h: Tensor, sizes: Sequence[int]) -> Tensor:
    """``h`` [N, D] with the columns of each graph, of ``sizes``, at mean 0 and deviation 1, changed in place."""
    for part in h.split(list(sizes)):
        deviation, mean = torch.std_mean(part, dim=0, correction=0)
        part.sub_(mean).div_(torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0))
    return h
