"""Where a node stands among the edges of its graph, as a code to add to its own.

They are made of the edges of the graph at hand, so that what a method hides from the encoder is hidden from them, and
take these as undirected and simple: directions, self-loops, duplicates and weights are not looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import CSR

STEPS = 16  # of random walks, even
VECTORS = 8  # of the Laplacian
INNER = 16  # width of what is made of each of them
LARGEST = 2000  # nodes of a graph whose eigenvectors are taken
ENTRIES = 2**22  # numbers held at a time
DEAREST = 2**33  # of what return probabilities cost: about a minute on one core
NODE = 8  # edges that a node costs as much as there
SAME = 1e-6  # eigenvalues nearer than that are one, taken twice


def simple(graph: Graph) -> tuple[CSR, Tensor]:
    """The undirected simple graph and the entries of D^-1/2 A D^-1/2 in float64."""
    N, edges = max(graph.num_nodes, 1), graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    key = torch.cat([edges[1] * N + edges[0], edges[0] * N + edges[1]]).unique()
    target, source = key // N, key % N
    csr = CSR(ops.pointers(target, graph.num_nodes), source, None, (graph.num_nodes, graph.num_nodes))
    scale = csr.degree.double().rsqrt()
    return csr, scale[target] * scale[source]


def _simple(graph: Graph) -> tuple[CSR, Tensor]:
    return graph.remember("encodings.simple", simple, shared=True)


def _rank(graph: Graph) -> tuple[Tensor, Tensor]:
    """The first node of each graph, [B], and each node's place behind it, [N]."""
    first = graph.size.cumsum(0) - graph.size
    return first, torch.arange(graph.num_nodes, device=graph.device) - first[graph.batch]


@torch.no_grad()
def return_probabilities(graph: Graph) -> Tensor:
    """How likely a random walk from each node is back after 1 to 16 steps: diag((D^-1 A)^k), [N, 16].

    Exact, by sparse products of S = D^-1/2 A D^-1/2 for some nodes of each graph at a time: the diagonal of S^(a + b)
    holds the products of S^a e and S^b e. In time that grows with the nodes and edges times the nodes of the largest
    graph.
    """
    (csr, weight), (_, rank), N = _simple(graph), _rank(graph), graph.num_nodes
    found, part = torch.zeros(N, STEPS, device=graph.device), ops.groups(graph.batch, graph.num_graphs)
    most, weight = max(graph.sizes, default=0), weight.float()
    width = max(1, ENTRIES // max(N, 1))
    with torch.autocast(graph.device.type, enabled=False):
        for begin in range(0, most, width):
            here = ((rank >= begin) & (rank < begin + width)).nonzero().squeeze(1)
            column = rank[here] - begin
            h = torch.zeros(N, min(width, most - begin), device=graph.device).index_put_(
                (here, column), weight.new_ones(())
            )
            for step in range(0, STEPS, 2):
                later = ops.spmm(csr, h, weight)
                for place, product in ((step, h * later), (step + 1, later * later)):
                    found[here, place] = ops.segment_reduce(part, product)[graph.batch[here], column]
                h = later
    return found


def affordable(graph: Graph) -> Tensor:
    """``return_probabilities``, or a UserError where they would take more than about a minute on one core."""
    N, edges, most = graph.num_nodes, _simple(graph)[0].col.numel(), max(graph.sizes, default=0)
    if (edges + NODE * N) * most > DEAREST:
        raise UserError(
            f"random-walk encodings of {N} nodes and {edges // 2} edges, with {most} nodes in the largest graph, would "
            "take minutes; leave out '+walk', or give smaller graphs or batches"
        )
    return return_probabilities(graph)


class Walk(nn.Module):
    """Random-walk encoding, Dwivedi et al. 2022, arXiv:2110.07875: a linear map of 16 return probabilities.

    UserError for graphs, or batches of them, whose probabilities would take more than about a minute on one core.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(STEPS, dim)

    def forward(self, graph: Graph) -> Tensor:
        """[N, dim]."""
        return self.linear(graph.remember("encodings.walk", affordable, shared=True))


@torch.no_grad()
def spectrum(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Of each graph's normalised Laplacian the eigenvectors 2 to 9, their eigenvalues, and whether there are so many.

    Each is [N, 8]. Vectors have mean square 1 and come with either sign. Where an eigenvalue is there m times, any
    basis of its space would do, so all m stand for the space: the root of the mean of its squares at each node. That
    of a node without neighbours is 0. UserError for graphs of more than 2000 nodes.
    """
    if max(graph.sizes, default=0) > LARGEST:
        raise UserError(
            f"Laplacian encodings are for graphs of up to {LARGEST} nodes, but this has {max(graph.sizes)}; choose "
            "'+walk' instead of '+laplace'"
        )
    (csr, weight), (first, rank), B = _simple(graph), _rank(graph), graph.num_graphs
    vectors, values = (torch.zeros(graph.num_nodes, VECTORS, device=graph.device) for _ in range(2))
    joined = (csr.degree > 0).double()
    for n in sorted({*graph.sizes} - {0, 1}):
        for members in (graph.size == n).nonzero().squeeze(1).split(max(1, ENTRIES // n**2)):
            nodes = first[members][:, None] + torch.arange(n, device=graph.device)  # [M, n]
            place = members.new_full((B,), -1).index_copy_(0, members, torch.arange(len(members), device=graph.device))
            which = place[graph.batch[csr.row]]
            inside = which >= 0
            at = which[inside], rank[csr.row[inside]], rank[csr.col[inside]]
            matrix = torch.diag_embed(joined[nodes]).index_put_(at, -weight[inside])
            value, vector = torch.linalg.eigh(matrix)
            some = slice(1, 1 + VECTORS)
            same = ((value[:, :, None] - value[:, None, some]).abs() < SAME).double()  # [M, n, up to 8]
            many, space = same.sum(1, keepdim=True), vector.square() @ same
            seen = torch.where(many > 1, (space / many).sqrt(), vector[:, :, some]) * n**0.5
            count = seen.size(2)
            vectors[nodes, :count] = seen.float()
            values[nodes, :count] = value[:, None, some].expand(-1, n, -1).float()
    there = torch.arange(1, 1 + VECTORS, device=graph.device) < graph.size[graph.batch][:, None]
    return vectors, values, there


class Laplace(nn.Module):
    """Laplacian encoding that does not hang on signs, Lim et al. 2022, arXiv:2202.13013: rho of phi(v) + phi(-v).

    phi reads a vector's entry with its eigenvalue at a node and, on average, at its neighbours, so that it sees which
    have the same sign; rho is a linear map of what phi makes of all eight.
    Reference: cptq/SignNet-BasisNet at 0ccce32, GraphPrediction/layers/deepsigns.py.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.own, self.both, self.rho = nn.Linear(2, INNER), nn.Linear(INNER, INNER), nn.Linear(VECTORS * INNER, dim)

    def forward(self, graph: Graph) -> Tensor:
        """[N, dim]."""
        vectors, values, there = graph.remember("encodings.laplace", spectrum, shared=True)
        said = self._phi(graph, vectors, values) + self._phi(graph, -vectors, values)
        return self.rho((said * there[:, :, None]).flatten(1))

    def _phi(self, graph: Graph, vectors: Tensor, values: Tensor) -> Tensor:
        """[N, 8, inner]."""
        own = self.own(torch.stack([vectors, values], dim=2)).relu()
        return self.both(own + ops.spmm(_simple(graph)[0], own.flatten(1), reduce="mean").view_as(own)).relu()
