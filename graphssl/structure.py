"""Facts computed once from a Graph, outside any method: parts, clusters, distances, degrees, triangles, labels.

All take edges as undirected and simple: loops, directions, duplicates and weights are not looked at; ``Reach`` alone
goes along directions, and ``induced`` takes edges along as they are. All run on the CPU, whatever the Graph's device
is, but for two that say so, and hold nothing N x N.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import CSR, Rows, dense

FARTHEST = torch.iinfo(torch.int16).max - 1  # hops that can be counted
CHUNK = 2**23  # distances or cosines at a time
MANY = 20_000  # from here on nodes are clustered in mini-batches
SAMPLE = 4096  # nodes that each is compared with where there are more than twice as many


def adjacency(graph: Graph) -> sp.csr_matrix:
    """The undirected simple graph as a symmetric N x N scipy matrix of ones, made once a Graph."""
    return graph.remember("structure.adjacency", _adjacency)


def _adjacency(graph: Graph) -> sp.csr_matrix:
    source, target = graph.edge_index.cpu().numpy()
    apart = source != target
    source, target = source[apart], target[apart]
    both = np.concatenate([source, target]), np.concatenate([target, source])
    matrix = sp.csr_matrix((np.ones(len(both[0])), both), shape=(graph.num_nodes, graph.num_nodes))
    return _simple(matrix)


def _simple(matrix: sp.csr_matrix) -> sp.csr_matrix:
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def degree(graph: Graph) -> Tensor:
    """How many neighbours each node has, [N] int64."""
    return torch.from_numpy(np.diff(adjacency(graph).indptr).astype(np.int64)).to(graph.device)


def partition(graph: Graph, parts: int, seed: int = 0) -> Tensor:
    """The part of each node, [N] int64 from 0 to ``parts`` - 1: parts of about one size with few edges between them.

    METIS by recursive bisection (Karypis and Kumar, SIAM J. Sci. Comput. 1998); the same ``seed`` gives the same
    parts. Where there are not two nodes for each part, some may be empty. Several graphs in one Graph are cut as one.
    Raises UserError for fewer than one part or more parts than nodes, and where pymetis is not installed.
    """
    if not 1 <= parts <= max(graph.num_nodes, 1):
        raise UserError(f"cannot cut {graph.num_nodes} nodes into {parts} parts; choose from 1 to {graph.num_nodes}")
    try:
        import pymetis  # has no builds for some systems
    except ImportError as error:
        raise UserError("partitions need METIS, which is not installed; run: pip install pymetis") from error
    matrix = adjacency(graph)
    pattern = pymetis.CSRAdjacency(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
    options = pymetis.Options(seed=seed % 2**31)
    _, part = pymetis.part_graph(parts, pattern, options=options, recursive=True)
    return torch.tensor(part, dtype=torch.long, device=graph.device)


@dataclass(frozen=True)
class Reach:
    """Which nodes each attends to: those ``dilation``, 2 ``dilation``, ... ``hops * dilation`` edges before it.

    Distances are along the directions of edges, as messages go; undilated those are all nodes from which it is at most
    ``hops`` edges away. Made for a sparse Transformer's ``pattern``; k-hop and dilated neighbourhoods are those of mesh
    transformers, arXiv:2508.18051. ``Reach(hops, dilation)(graph)`` is an N x N CSR without a node's own place; it
    costs a sparse product an edge of distance, and holds what it finds.
    Raises UserError for fewer than one hop or a dilation below 1.
    """

    hops: int = 1
    dilation: int = 1

    def __post_init__(self):
        if self.hops < 1 or self.dilation < 1:
            raise UserError(f"cannot reach {self.hops} hops at a dilation of {self.dilation}; choose 1 or more of each")

    def __call__(self, graph: Graph) -> CSR:
        source, target = graph.edge_index.cpu().numpy()
        N = graph.num_nodes
        step = _simple(sp.csr_matrix((np.ones(len(source)), (target, source)), shape=(N, N)))  # the sources of a row
        seen = sp.identity(N, format="csr")
        front, found = seen, sp.csr_matrix(seen.shape)
        for away in range(1, self.hops * self.dilation + 1):
            front = front @ step
            front.data[:] = 1.0
            front = front - front.multiply(seen)
            front.eliminate_zeros()
            if front.nnz == 0:
                break
            seen = seen + front
            if away % self.dilation == 0:
                found = found + front
        found.sort_indices()
        ptr, col = (torch.from_numpy(a.astype(np.int64)).to(graph.device) for a in (found.indptr, found.indices))
        return CSR(ptr, col, None, (N, N))


def hops(graph: Graph, sources: Tensor, limit: int) -> Tensor:
    """Edges on the shortest path from each of ``sources`` [S] to every node, [S, N] int16; beyond ``limit`` hops, or
    where there is no path, ``limit`` + 1.

    Costs O(S (N + E)) at most and less where ``limit`` is small.
    Raises UserError for a ``limit`` below 1 or above 32766.
    """
    if not 1 <= limit <= FARTHEST:
        raise UserError(f"cannot count up to {limit} hops; choose a limit from 1 to {FARTHEST}")
    from scipy.sparse.csgraph import dijkstra  # slow to import

    matrix, N = adjacency(graph), graph.num_nodes
    distance = torch.empty(len(sources), N, dtype=torch.int16)
    step = max(1, CHUNK // max(N, 1))
    for first in range(0, len(sources), step):
        some = sources[first : first + step].cpu().numpy()
        found = dijkstra(matrix, indices=some, unweighted=True, limit=limit)
        distance[first : first + step] = torch.from_numpy(np.minimum(found, limit + 1))
    return distance.to(graph.device)


def hops_from(graph: Graph, starts: Tensor, limit: int) -> Tensor:
    """Edges on the shortest path from each node to the nearest of ``starts`` (True [N]), [N] int64; ``limit`` + 1 where
    there is none as short. Of several graphs each has its own starts. Runs where the Graph is; costs O(N + E) a hop.
    """
    away = torch.full_like(graph.batch, limit + 1).masked_fill(starts, 0)
    source, target = graph.edge_index
    for hop in range(1, limit + 1):
        front, near = away == hop - 1, torch.zeros_like(starts)
        near[target[front[source]]] = True
        near[source[front[target]]] = True
        fresh = near & (away > limit)
        if not fresh.any():
            break
        away[fresh] = hop
    return away


def induced(graph: Graph, node: Tensor, part: Tensor, count: int) -> tuple[Graph, Tensor]:
    """The ``count`` subgraphs that sets of nodes induce, as one Graph, and which node each of its M rows is, [M].

    ``node`` [K] is of the set ``part`` [K], from 0; sets may share nodes, and a pair given twice counts once. Runs
    where the Graph is; costs O(K) and the edges at those nodes.
    """
    key = (part * graph.num_nodes + node).unique()
    node, part = key % max(graph.num_nodes, 1), key // max(graph.num_nodes, 1)
    degree = graph.csr.degree[node]
    target = torch.arange(len(node), device=graph.device).repeat_interleave(degree)
    edge = torch.arange(len(target), device=graph.device) + (graph.csr.ptr[node] - degree.cumsum(0) + degree)[target]
    wanted = part[target] * graph.num_nodes + graph.edge_index[0, edge]
    source = torch.searchsorted(key, wanted)
    inside = key[source.clamp(max=max(len(key) - 1, 0))] == wanted
    kept = edge[inside]
    along = {k: v[kept] for k in ("edge_attr", "edge_weight") if (v := getattr(graph, k)) is not None}
    along |= {} if graph.pos is None else {"pos": graph.pos[node]}
    sizes = tuple(torch.bincount(part, minlength=count).tolist())
    edges = torch.stack([source, target])[:, inside]
    return Graph(x=graph.x[node], edge_index=edges, batch=part, sizes=sizes, **along), node


def clustering_coefficient(graph: Graph) -> Tensor:
    """The share of each node's pairs of neighbours that are joined, [N] float; 0 where there is no pair.

    Watts and Strogatz, Nature 1998. Edges are pointed from the lower to the higher degree, so that no node has more
    than sqrt(2 E) of them and counting triangles costs O(E^1.5) at a hub too.
    """
    matrix = adjacency(graph)
    count = np.diff(matrix.indptr).astype(np.int64)
    rank = np.empty(len(count), np.int64)
    rank[count.argsort(kind="stable")] = np.arange(len(count))
    pairs = matrix.tocoo()
    up = rank[pairs.row] < rank[pairs.col]
    out = sp.csr_matrix((pairs.data[up], (pairs.row[up], pairs.col[up])), shape=matrix.shape)
    by_ends = (out @ out).multiply(out).tocsr()  # entry (lowest, highest) of a triangle
    by_top = (out.T @ out).multiply(out).tocsr()  # entry (middle, highest)
    triangles = sum(np.asarray(total).ravel() for total in (by_ends.sum(1), by_top.sum(1), by_ends.sum(0)))
    share = triangles / np.maximum(count * (count - 1) / 2, 1)
    return torch.from_numpy(share).float().to(graph.device)


def content_clusters(graph: Graph, count: int, seed: int = 0) -> Tensor:
    """The k-means cluster of each node's content, [N] int64 from 0 to ``count`` - 1; sparse rows stay sparse.

    From 20,000 nodes on by mini-batches. Where fewer rows differ than ``count``, some clusters are empty.
    Raises UserError for fewer than one cluster or more clusters than nodes.
    """
    if not 1 <= count <= graph.num_nodes:
        raise UserError(f"cannot find {count} clusters in {graph.num_nodes} nodes; choose from 1 to {graph.num_nodes}")
    found = k_means(content(graph), count, seed).labels_
    return torch.from_numpy(found.astype(np.int64)).to(graph.device)


def k_means(rows: np.ndarray | sp.csr_matrix, count: int, seed: int, starts: int = 10) -> Any:
    """scikit-learn's k-means fitted to ``rows`` [N, D], the best of ``starts``; in mini-batches from 20,000 rows on."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    kind = KMeans if rows.shape[0] < MANY else MiniBatchKMeans
    # Sums over several threads come in any order, and k-means makes much of a last digit.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        return kind(count, n_init=starts, random_state=seed).fit(rows)


def similar_pairs(graph: Graph, count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of each node the ``count`` nodes of most similar content, the ``count`` least similar and ``count`` random ones
    of the same graph: pairs [2, M], each once, and the cosines of their content [M].

    Nodes without content have cosine 0 with all. Ties are broken at random. Of more than 8192 nodes each is compared
    with 4096 random ones, else with all, in chunks of rows.
    """
    from sklearn.preprocessing import normalize

    N, rng = graph.num_nodes, np.random.default_rng(seed)
    rows, part = normalize(content(graph)), graph.batch.cpu().numpy()
    found, cosines = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    every = N <= 2 * SAMPLE
    step = max(1, CHUNK // max(1, N if every else SAMPLE))
    for first in range(0, N, step):
        own = np.arange(first, min(first + step, N))
        other = np.arange(N) if every else rng.integers(N, size=SAMPLE)
        cosine = rows[own] @ rows[other].T
        cosine = np.asarray(cosine.todense() if sp.issparse(cosine) else cosine, dtype=np.float32)
        fits = (part[own][:, None] == part[other]) & (own[:, None] != other)
        score = cosine + 1e-6 * rng.random(cosine.shape, np.float32)
        k = min(count, len(other))
        most = np.argpartition(np.where(fits, -score, 3.0), k - 1)[:, :k]
        least = np.argpartition(np.where(fits, score, 3.0), k - 1)[:, :k]
        random = np.argpartition(np.where(fits, rng.random(cosine.shape, np.float32), 3.0), k - 1)[:, :k]
        chosen = np.concatenate([most, least, random], axis=1)
        at = np.arange(len(own))[:, None]
        good = fits[at, chosen]
        pair = np.stack([np.broadcast_to(own[:, None], chosen.shape)[good], other[chosen][good]], axis=1)
        found.append(np.sort(pair, axis=1))
        cosines.append(cosine[at, chosen][good])
    low, high = np.concatenate(found).T
    _, once = np.unique(low * N + high, return_index=True)
    pairs, value = torch.from_numpy(np.stack([low[once], high[once]])), torch.from_numpy(np.concatenate(cosines)[once])
    return pairs.to(graph.device), value.to(graph.device)


def label_context(graph: Graph, labels: Tensor, rounds: int) -> Tensor:
    """Shares of the classes among the nodes within two hops, [N, classes], once ``labels`` [N] have spread.

    Labels are classes from 0, and -1 where unknown; in each of ``rounds`` rounds a node without one takes the mean of
    its neighbours. Each node counts as of the class that has most of it; zeros where no label arrives.
    """
    matrix = adjacency(graph)
    known = np.flatnonzero((labels >= 0).cpu().numpy())
    given = np.eye(int(labels.max()) + 1)[labels.cpu().numpy()[known]]
    scale = 1 / np.maximum(matrix.sum(1), 1)
    spread = np.zeros((graph.num_nodes, given.shape[1]))
    for _ in range(rounds):
        spread[known] = given
        spread = np.asarray(scale) * (matrix @ spread)
    spread[known] = given
    votes = np.eye(given.shape[1])[spread.argmax(1)] * (spread.sum(1, keepdims=True) > 0)
    near = (matrix + matrix @ matrix).tocsr()
    near.setdiag(0)
    near.data = np.minimum(near.data, 1)
    count = near @ votes
    return torch.from_numpy(count / np.maximum(count.sum(1, keepdims=True), 1)).float().to(graph.device)


def content(graph: Graph) -> np.ndarray | sp.csr_matrix:
    """The nodes' content [N, F] for numpy's world: sparse where at most half of it differs from zero."""
    x = graph.x
    if isinstance(x, Rows):
        index = x.csr.col.cpu().numpy(), x.csr.ptr.cpu().numpy()
        rows = sp.csr_matrix((x.value.cpu().numpy(), *index), shape=x.shape)
        return rows if 2 * rows.nnz <= np.prod(x.shape) else rows.toarray()
    full = dense(x).detach().cpu().numpy()
    return sp.csr_matrix(full) if 2 * np.count_nonzero(full) <= full.size else full
