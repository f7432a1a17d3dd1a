"""Draws of neighbours and of pairs that are no edges: what may come, how often, and what is refused."""

import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

from graphssl import ops
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import CSR

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the table of graphs
from conftest import KINDS, generator


def fair(counts, outcomes):
    """Whether ``counts`` of draws agree with all ``outcomes`` being equally likely."""
    assert set(counts) <= set(outcomes)
    return chisquare([counts[o] for o in outcomes]).pvalue > 1e-3


def graph_of(edges, nodes):
    return Graph.build(torch.zeros(nodes, 1), torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t())


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("fanout", [-1, 1, 3, 50])
def test_neighbours_are_edges_of_their_seeds(graph, fanout, replace):
    seeds = torch.tensor([graph.num_nodes - 1, 0, 0, graph.num_nodes // 2])
    sample = ops.sample_neighbors(graph, seeds, fanout, generator(), replace)
    assert sample.shape == (4, graph.num_nodes)
    source, target = graph.edge_index[:, sample.perm]
    assert torch.equal(source, sample.col)
    assert torch.equal(target, seeds[sample.row])
    degree = graph.csr.degree[seeds]
    for s, places in enumerate(sample.perm.split(sample.degree.tolist())):
        assert torch.equal(places, places.sort().values)
        if fanout == -1 or not replace:
            assert len(places) == len(places.unique()) == (degree[s] if fanout == -1 else min(degree[s], fanout))
        else:
            assert len(places) == (fanout if degree[s] else 0)
    torch.testing.assert_close(ops.spmm(sample, graph.edge_index.new_ones(graph.num_nodes, 2).float()),
                               sample.degree[:, None].expand(-1, 2).float())  # fmt: skip
    again = ops.sample_neighbors(graph, seeds, fanout, generator(), replace)
    assert torch.equal(sample.perm, again.perm)


@pytest.mark.parametrize("fanout", [1, 2, 4])
def test_every_subset_of_the_neighbours_is_equally_likely(fanout):
    graph = graph_of([(s, 0) for s in range(1, 6)], 6)
    sample = ops.sample_neighbors(graph, torch.zeros(4000, dtype=torch.long), fanout, generator(fanout))
    counts = Counter(map(tuple, sample.col.view(4000, fanout).tolist()))
    assert fair(counts, list(combinations(range(1, 6), fanout)))


def test_with_replacement_every_draw_is_equally_likely():
    graph = graph_of([(s, 0) for s in range(1, 6)], 6)
    sample = ops.sample_neighbors(graph, torch.zeros(400, dtype=torch.long), 10, generator(), replace=True)
    assert fair(Counter(sample.col.tolist()), range(1, 6))


def test_neighbours_of_a_bipartite_pattern_point_at_the_entries_of_the_caller():
    pattern = CSR(torch.tensor([0, 2, 2, 5]), torch.tensor([0, 3, 1, 2, 3]), None, (3, 4))
    back = pattern.transpose
    sample = ops.sample_neighbors(back, torch.tensor([3, 0]), -1)
    assert sample.shape == (2, 3)
    assert torch.equal(pattern.row[sample.perm], sample.col)
    assert torch.equal(pattern.col[sample.perm], torch.tensor([3, 3, 0]))


@pytest.mark.parametrize("fanout", [0, -2])
def test_a_fanout_of_none_is_refused(fanout):
    with pytest.raises(UserError, match="at least 1, or -1"):
        ops.sample_neighbors(KINDS["citation"](), torch.tensor([0]), fanout)


def test_seeds_that_are_no_nodes_are_refused():
    with pytest.raises(UserError, match="nodes are 0 to 5"):
        ops.sample_neighbors(graph_of([(0, 1)], 6), torch.tensor([0, 6]), 2)
    with pytest.raises(UserError, match="reach from -1"):
        ops.sample_neighbors(graph_of([(0, 1)], 6), torch.tensor([-1]), 2)
    none = ops.sample_neighbors(graph_of([(0, 1)], 6), torch.tensor([], dtype=torch.long), 2)
    assert none.shape == (0, 6)
    assert none.nnz == 0


def free_pairs(graph):
    """All pairs within a graph that are neither edges nor a node with itself."""
    edges, batch = set(map(tuple, graph.edge_index.t().tolist())), graph.batch.tolist()
    nodes = range(graph.num_nodes)
    return [(s, t) for s in nodes for t in nodes if s != t and batch[s] == batch[t] and (s, t) not in edges]


def test_pairs_that_are_no_edges_are_equally_likely(graph, kind):
    if kind == "one-node":
        with pytest.raises(UserError, match="every pair of nodes is an edge"):
            ops.sample_negatives(graph, 3)
        return
    outcomes = free_pairs(graph)
    pairs = ops.sample_negatives(graph, 20 * len(outcomes), generator())
    assert pairs.shape == (2, 20 * len(outcomes))
    assert fair(Counter(map(tuple, pairs.t().tolist())), outcomes)
    assert torch.equal(ops.sample_negatives(graph, 5, generator(1)), ops.sample_negatives(graph, 5, generator(1)))
    assert ops.sample_negatives(graph, 0).shape == (2, 0)


def test_the_only_pair_that_is_left_is_found_and_a_complete_graph_is_refused():
    edges = [(s, t) for s in range(30) for t in range(30) if s != t]
    with pytest.raises(UserError, match="every pair of nodes is an edge"):
        ops.sample_negatives(graph_of(edges, 30), 1)
    edges.remove((17, 4))
    pairs = ops.sample_negatives(graph_of(edges + edges, 30), 9)
    assert pairs.tolist() == [[17] * 9, [4] * 9]
    complete, edge = graph_of([(0, 1), (1, 0)], 2), graph_of([(0, 1)], 2)
    stacked = Graph.stack([complete, edge, complete])
    assert ops.sample_negatives(stacked, 4).tolist() == [[3] * 4, [2] * 4]


def test_free_places_of_a_bipartite_pattern_with_duplicates_out_of_order():
    pattern = CSR(torch.tensor([0, 3, 3, 5]), torch.tensor([3, 0, 3, 2, 1]), None, (3, 4))
    taken = set(zip(pattern.col.tolist(), pattern.row.tolist(), strict=True))
    outcomes = [(c, r) for c in range(4) for r in range(3) if (c, r) not in taken]
    pairs = ops.sample_negatives(pattern, 2000, generator())
    assert fair(Counter(map(tuple, pairs.t().tolist())), outcomes)
    with pytest.raises(UserError, match="every pair"):
        ops.sample_negatives(CSR(torch.tensor([0, 2]), torch.tensor([0, 1]), None, (1, 2)), 1)


def test_pairs_of_any_kind_stay_within_a_graph_and_are_equally_likely():
    graph = Graph.stack([graph_of([(0, 1)], 3), graph_of([], 1), graph_of([(0, 1), (1, 0)], 2), graph_of([], 1)])
    batch, nodes = graph.batch.tolist(), range(graph.num_nodes)
    outcomes = [(s, t) for s in nodes for t in nodes if batch[s] == batch[t]]
    assert len(outcomes) == 9 + 1 + 4 + 1
    pairs = ops.sample_pairs(graph, 300 * len(outcomes), generator(3))
    assert pairs.shape == (2, 300 * len(outcomes))
    assert torch.equal(graph.batch[pairs[0]], graph.batch[pairs[1]])
    assert fair(Counter(map(tuple, pairs.t().tolist())), outcomes)


def test_pairs_of_every_kind_of_graph_are_nodes_of_one_graph_and_follow_their_generator(graph):
    pairs = ops.sample_pairs(graph, 500, generator(1))
    assert pairs.dtype == torch.long
    assert pairs.shape == (2, 500)
    assert 0 <= int(pairs.min()) <= int(pairs.max()) < graph.num_nodes
    assert torch.equal(graph.batch[pairs[0]], graph.batch[pairs[1]])
    assert torch.equal(pairs, ops.sample_pairs(graph, 500, generator(1)))
    if graph.num_nodes > 1:
        assert not torch.equal(pairs, ops.sample_pairs(graph, 500, generator(2)))
    assert ops.sample_pairs(graph, 0).shape == (2, 0)


def test_pairs_of_a_single_node_are_with_itself():
    assert ops.sample_pairs(graph_of([], 1), 3).tolist() == [[0] * 3] * 2
    alone = Graph.stack([graph_of([], 1)] * 3)
    found = ops.sample_pairs(alone, 300, generator())
    assert torch.equal(found[0], found[1])
    assert fair(Counter(found[0].tolist()), range(3))
