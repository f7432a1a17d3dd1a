"""Parts of a graph: neighbourhoods, induced edges, walks and near nodes, in C as in torch, against plain oracles."""

import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_sample import fair, graph_of

from graphssl import ops
from graphssl.errors import UserError
from graphssl.ops import CSR
from graphssl.ops.subgraph import scored_nodes

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the table of graphs
from conftest import KINDS, generator, random_graph

needs_c = pytest.mark.skipif(bool(ops.missing("c")), reason="there is no C compiler")
OPS = "sample_neighbors", "sample_hops", "induced_edges", "near_nodes"
FANOUTS = [(1,), (3, 2), (-1, 2), (2, -1, 50)]


def mapped(tensor, file):
    """``tensor`` as it lies in a file that cannot be written to."""
    np.save(file, tensor.numpy())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.load(file, mmap_mode="r" if len(tensor) else None))


def layouts(csr, folder):
    """The same pattern with each type of ``col``, in memory and in files."""
    for dtype in (torch.int64, torch.int32):
        col = csr.col.to(dtype)
        yield CSR(csr.ptr, col, None, csr.shape)
        yield CSR(mapped(csr.ptr, folder / "ptr.npy"), mapped(col, folder / "col.npy"), None, csr.shape)


def seeds_of(graph):
    N = graph.num_nodes
    return torch.tensor([N - 1, 0, N // 2, 0, N // 3])


def parts(result):
    return [result.nodes, result.seeds, result.edges, result.place]


def same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@needs_c
def test_c_gives_what_the_reference_gives(graph, tmp_path):
    seeds, half = seeds_of(graph), torch.arange(0, graph.num_nodes, 2)

    def results(csr):
        for fanout in (1, 2, 5, -1):
            for replace in (False, True):
                sample = ops.sample_neighbors(csr, seeds, fanout, generator(fanout), replace)
                yield [sample.ptr, sample.col.long(), sample.perm]
        for fanouts in FANOUTS:
            yield parts(ops.sample_hops(csr, seeds, fanouts, generator(1)))
        for nodes in (half, half[:1], half[:0]):
            yield list(ops.induced_edges(csr, nodes))
        yield [ops.sample_walks(csr, seeds, 4, generator(2))]
        for count, eps in ((1, 1e-3), (4, 1e-2), (1000, 1e-4)):
            nodes, scores = scored_nodes(csr, seeds, count, eps=eps)
            yield nodes + scores

    with ops.using("reference"):
        wanted = list(results(graph.csr))
    for csr in layouts(graph.csr, tmp_path):
        for got, want in zip(results(csr), wanted, strict=True):
            same(got, want)
        assert {ops.backend(op) for op in OPS} == {"c"}
        with ops.using("reference"):
            same(ops.near_nodes(csr, seeds, 4, eps=1e-2), ops.near_nodes(graph.csr, seeds, 4, eps=1e-2))
            same(
                parts(ops.sample_hops(csr, seeds, (2, 3), generator(3))),
                parts(ops.sample_hops(graph.csr, seeds, (2, 3), generator(3))),
            )


@needs_c
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_c_gives_what_the_reference_gives_in_a_larger_graph_with_a_hub(dtype):
    edges = torch.cat([random_graph(5000, 1, directed=True).edge_index,
                       torch.stack([torch.arange(1, 4000), torch.zeros(3999, dtype=torch.long)])], dim=1)  # fmt: skip
    graph = graph_of(edges.t().tolist(), 5000)
    csr = CSR(graph.csr.ptr, graph.csr.col.to(dtype), None, graph.csr.shape)
    seeds = torch.randint(5000, (300,), generator=generator())
    found = {}
    for path in ("c", "reference"):
        with ops.using(path):
            near = scored_nodes(csr, torch.tensor([0, 17, 4999]), 40, eps=1e-3)
            found[path] = [
                *parts(ops.sample_hops(csr, seeds, (7, 40, -1), generator())),
                ops.sample_neighbors(csr, torch.zeros(9, dtype=torch.long), 300, generator()).col,
                *ops.induced_edges(csr, torch.tensor([0, 5, 2000, 4500])),
                *near[0], *near[1],
            ]  # fmt: skip
    same(found["c"], found["reference"])


def test_a_pattern_of_narrow_pointers_takes_torch():
    csr = CSR(torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor([1, 0]), None, (2, 2))
    assert ops.sample_hops(csr, torch.tensor([0]), (1,)).nodes.tolist() == [0, 1]
    assert ops.backend("sample_hops") == "reference"
    assert ops.induced_edges(csr, torch.tensor([0, 1]))[0].tolist() == [[1, 0], [0, 1]]
    assert [near.tolist() for near in ops.near_nodes(csr, torch.tensor([1]), 2)] == [[1, 0]]


@pytest.mark.parametrize("fanouts", FANOUTS)
def test_each_node_that_is_new_at_a_hop_draws_for_the_next(graph, fanouts):
    csr, seeds = graph.csr, seeds_of(graph)
    part = ops.sample_hops(graph, seeds, fanouts, generator(4))
    nodes, (source, target), place = part.nodes, part.edges, part.place
    assert torch.equal(nodes, nodes.unique())
    assert torch.equal(nodes[part.seeds], seeds.unique())
    assert torch.equal(csr.col[place], nodes[source])
    assert torch.equal(csr.row[place], nodes[target])
    assert torch.equal(place, place.unique())  # each once, by target and source as the graph's are
    away = dict.fromkeys(part.seeds.tolist(), 0)
    for hop in range(len(fanouts)):
        front = {i for i, at in away.items() if at == hop}
        away |= {s: hop + 1 for s, t in part.edges.t().tolist() if t in front and s not in away}
    assert sorted(away) == list(range(len(nodes)))
    drawn = torch.bincount(target, minlength=len(nodes)).tolist()
    for i, node in enumerate(nodes.tolist()):
        fanout, degree = (*fanouts, 0)[away[i]], int(csr.degree[node])
        assert drawn[i] == (degree if fanout == -1 else min(degree, fanout))
    same(parts(ops.sample_hops(graph, seeds, fanouts, generator(4))), parts(part))


@pytest.mark.parametrize("path", ["reference", pytest.param("c", marks=needs_c)])
def test_every_subset_is_equally_likely_at_every_hop(path):
    graph, draw = graph_of([(1, 0), *((s, 1) for s in range(2, 7))], 7), generator(5)
    counts = Counter()
    with ops.using(path):
        for _ in range(2000):
            counts[tuple(ops.sample_hops(graph, torch.tensor([0]), (1, 2), draw).nodes.tolist())] += 1
    assert fair(counts, [(0, 1, *pair) for pair in combinations(range(2, 7), 2)])


def test_without_seeds_nothing_is_met(graph):
    part = ops.sample_hops(graph, torch.tensor([], dtype=torch.long), (3, -1), generator())
    assert [t.shape for t in parts(part)] == [(0,), (0,), (2, 0), (0,)]


def test_induced_edges_are_a_submatrix(graph):
    csr = graph.csr
    matrix = sp.csr_matrix((np.arange(1, csr.nnz + 1), csr.col.numpy(), csr.ptr.numpy()), shape=csr.shape)
    for seed in range(4):
        nodes = torch.randperm(graph.num_nodes, generator=generator(seed))[: (graph.num_nodes + 1) // 2].sort().values
        (source, target), place = ops.induced_edges(graph, nodes)
        sub = matrix[nodes.numpy()][:, nodes.numpy()].tocsr()
        sub.sort_indices()
        if graph.num_edges == len(set(map(tuple, graph.edge_index.t().tolist()))):
            assert torch.equal(place + 1, torch.from_numpy(sub.data))
        assert torch.equal(source, torch.from_numpy(sub.indices).long())
        assert np.array_equal(np.bincount(target, minlength=len(nodes)), np.diff(sub.indptr))
        assert torch.equal(csr.col[place], nodes[source])
        assert torch.equal(place, place.unique())


def test_edges_at_a_hub_are_found_among_few_nodes_duplicates_and_loops_included():
    spokes = [(s, 0) for s in range(1, 500)]
    graph = graph_of([*spokes, (7, 0), (7, 0), (0, 0), (0, 7), (498, 7)], 500)
    edges, place = ops.induced_edges(graph, torch.tensor([0, 7, 499]))
    assert edges.tolist() == [[0, 1, 1, 1, 2, 0], [0, 0, 0, 0, 0, 1]]
    assert torch.equal(graph.edge_index[0, place], torch.tensor([0, 7, 7, 7, 499, 0]))


def page_rank(csr, alpha):
    """Personalised PageRank of every node as a seed [N, N], by the paper's definition on a lazy walk."""
    N = csr.shape[0]
    step = torch.zeros(N, N, dtype=torch.float64)
    step.index_put_((csr.row, csr.col), torch.ones(csr.nnz, dtype=torch.float64), accumulate=True)
    step[torch.arange(N), torch.arange(N)] += (csr.degree == 0).double()
    step = step / step.sum(1, keepdim=True)
    lazy = (torch.eye(N, dtype=torch.float64) + step) / 2
    return alpha * torch.linalg.inv(torch.eye(N, dtype=torch.float64) - (1 - alpha) * lazy)


@pytest.mark.parametrize("path", ["reference", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize(("alpha", "eps"), [(0.15, 1e-3), (0.5, 1e-2), (0.15, 1e-9)])
def test_pushed_scores_are_within_epsilon_of_page_rank(graph, kind, path, alpha, eps):
    N, csr = graph.num_nodes, graph.csr
    seeds = torch.arange(0, N, max(1, N // 7))
    with ops.using(path):
        nodes, scores = scored_nodes(graph, seeds, N, alpha, eps)
    degree = csr.degree.clamp(min=1).double()
    edges = graph.edge_index
    mutual = set(map(tuple, edges.t().tolist())) == set(map(tuple, edges.flip(0).t().tolist())) and kind != "odd"
    for seed, near, score, true in zip(seeds.tolist(), nodes, scores, page_rank(csr, alpha)[seeds], strict=True):
        assert near[0] == seed
        assert len(near) == len(near.unique())
        assert bool((score[1:-1] >= score[2:]).all())
        missed = true.clone()
        missed[near] -= score
        assert missed.min() > -1e-12
        assert missed.sum() < eps * degree.sum() + 1e-12
        if mutual:
            assert bool((missed < eps * degree + 1e-12).all())


def test_fewer_near_nodes_are_the_first_of_more():
    graph = KINDS["citation"]()
    seeds = torch.arange(graph.num_nodes)
    every = ops.near_nodes(graph, seeds, graph.num_nodes, eps=1e-3)
    for count in (1, 2, 7, 30):
        for few, more in zip(ops.near_nodes(graph, seeds, count, eps=1e-3), every, strict=True):
            assert torch.equal(few, more[:count])


@pytest.mark.parametrize("path", ["reference", pytest.param("c", marks=needs_c)])
def test_near_nodes_of_stars_and_of_nodes_alone(path):
    star = KINDS["star"]()
    with ops.using(path):
        hub, leaf = ops.near_nodes(star, torch.tensor([0, 5]), 4, eps=0.1)  # the hub's one is below the threshold
        assert hub.tolist() == [0, 1, 2, 3]  # equal scores, by their ids
        assert leaf.tolist()[:2] == [5, 0]
        assert [n.tolist() for n in ops.near_nodes(KINDS["no-edges"](), torch.tensor([3, 3]), 5)] == [[3], [3]]
        assert ops.near_nodes(star, torch.tensor([], dtype=torch.long), 5) == []


def test_walks_follow_edges_and_stay_where_there_are_none(graph):
    starts = torch.arange(graph.num_nodes)
    walks = ops.sample_walks(graph, starts, 6, generator(6))
    assert walks.shape == (graph.num_nodes, 7)
    assert torch.equal(walks[:, 0], starts)
    edges = set(map(tuple, graph.edge_index.t().tolist()))
    for walk in walks.tolist():
        for at, to in pairwise(walk):
            assert (to, at) in edges if graph.csr.degree[at] else to == at
    assert torch.equal(walks, ops.sample_walks(graph, starts, 6, generator(6)))


def test_every_step_of_a_walk_is_equally_likely():
    graph = graph_of([(s, t) for s in range(4) for t in range(4) if s != t], 5)
    walks = ops.sample_walks(graph, torch.zeros(4000, dtype=torch.long), 2, generator(7))
    outcomes = [(0, a, b) for a in range(1, 4) for b in range(4) if a != b]
    assert fair(Counter(map(tuple, walks.tolist())), outcomes)


def test_threads_draw_what_one_draws():
    graphs = [random_graph(3000, 1), random_graph(800, 2), KINDS["star"]()]

    def task(i):
        graph, draw = graphs[i % 3], generator(i)
        seeds = torch.randint(graph.num_nodes, (20,), generator=draw)
        part = ops.sample_hops(graph, seeds, (5, 5, 5), draw)
        near, scores = scored_nodes(graph, seeds, 30, eps=1e-3)
        return [*parts(part), *ops.induced_edges(graph, part.nodes), ops.sample_walks(graph, seeds, 5, draw),
                *near, *scores, ops.sample_neighbors(graph, seeds, 3, draw).perm]  # fmt: skip

    one_by_one = [task(i) for i in range(60)]
    with ThreadPoolExecutor(6) as pool:
        for got, want in zip(pool.map(task, range(60)), one_by_one, strict=True):
            same(got, want)


@needs_c
def test_after_a_pattern_that_is_none_the_next_draw_is_right():
    csr, seeds = KINDS["citation"]().csr, torch.tensor([3, 30])
    want = parts(ops.sample_hops(csr, seeds, (3, 3), generator()))
    beyond = CSR(csr.ptr, csr.col + 60, None, csr.shape)
    falling = CSR(csr.ptr.flip(0), csr.col, None, csr.shape)
    for broken in (beyond, falling):
        with pytest.raises(UserError, match="no pattern of a graph"):
            ops.sample_hops(broken, seeds, (3, 3), generator())
        with pytest.raises(UserError, match="no pattern of a graph"):
            ops.induced_edges(broken, torch.arange(60))
        with pytest.raises(UserError, match="no pattern of a graph"):
            ops.near_nodes(broken, seeds, 5)
    same(parts(ops.sample_hops(csr, seeds, (3, 3), generator())), want)


MISTAKES = {
    "fanout 0": (lambda g: ops.sample_hops(g, torch.tensor([0]), (2, 0)), "at least 1, or -1"),
    "no fanouts": (lambda g: ops.sample_hops(g, torch.tensor([0]), ()), "one for each hop"),
    "seeds of hops": (lambda g: ops.sample_hops(g, torch.tensor([0, 60]), (2,)), "seeds reach from 0 to 60; nodes are"),
    "nodes outside": (lambda g: ops.induced_edges(g, torch.tensor([-1, 2])), "nodes reach from -1 to 2; nodes are"),
    "nodes out of order": (lambda g: ops.induced_edges(g, torch.tensor([2, 1])), "have to ascend"),
    "nodes twice": (lambda g: ops.induced_edges(g, torch.tensor([1, 1])), "have to ascend"),
    "no steps": (lambda g: ops.sample_walks(g, torch.tensor([0]), 0), "length of at least 1"),
    "starts outside": (lambda g: ops.sample_walks(g, torch.tensor([99]), 1), "starts reach from 99"),
    "count 0": (lambda g: ops.near_nodes(g, torch.tensor([0]), 0), "count of at least 1"),
    "alpha": (lambda g: ops.near_nodes(g, torch.tensor([0]), 3, alpha=0.0), "alpha above 0"),
    "eps": (lambda g: ops.near_nodes(g, torch.tensor([0]), 3, eps=0.0), "eps above 0"),
    "seeds of near": (lambda g: ops.near_nodes(g, torch.tensor([61]), 3), "seeds reach from 61"),
    "bipartite": (lambda g: ops.sample_hops(CSR(g.csr.ptr, g.csr.col, None, (60, 70)), torch.tensor([0]), (2,)),
                  "one set of nodes"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_in_a_sentence(mistake):
    call, told = MISTAKES[mistake]
    with pytest.raises(UserError, match=told):
        call(KINDS["citation"]())
