"""Facts of a graph's structure against networkx, slow loops and what their names promise."""

import sys

import networkx as nx
import pytest
import torch
from conftest import KINDS, F, generator, random_graph

from graphssl import structure
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Rows, dense


def simple(graph: Graph) -> nx.Graph:
    """The undirected graph without loops, by networkx."""
    other = nx.Graph()
    other.add_nodes_from(range(graph.num_nodes))
    other.add_edges_from((s, t) for s, t in graph.edge_index.T.tolist() if s != t)
    return other


def cliques(count: int, size: int) -> Graph:
    """``count`` complete graphs of ``size`` nodes in a ring, their nodes shuffled; node i is of clique ``order[i]``."""
    order = torch.randperm(count * size, generator=generator(3))
    pairs = torch.combinations(torch.arange(size))
    inside = torch.cat([pairs + i * size for i in range(count)])
    ring = torch.tensor([[i * size, (i + 1) % count * size + 1] for i in range(count)])
    return Graph.build(torch.randn(count * size, F, generator=generator()), order[torch.cat([inside, ring])].T)


def test_degree_and_clustering_coefficient_are_networkx_s(graph):
    theirs = simple(graph)
    nodes = range(graph.num_nodes)
    assert structure.degree(graph).tolist() == [theirs.degree[i] for i in nodes]
    coefficient = nx.clustering(theirs)
    torch.testing.assert_close(
        structure.clustering_coefficient(graph), torch.tensor([float(coefficient[i]) for i in nodes])
    )


def test_clustering_coefficient_of_a_dense_graph_with_hubs():
    graph = KINDS["star"]()
    more = torch.randint(40, (2, 200), generator=generator(5))
    graph = Graph.build(graph.x, torch.cat([graph.edge_index, more], 1))
    coefficient = nx.clustering(simple(graph))
    assert len(set(coefficient.values())) > 5
    expected = torch.tensor([coefficient[i] for i in range(40)])
    torch.testing.assert_close(structure.clustering_coefficient(graph), expected)


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_hops_are_networkx_s(graph, limit):
    sources = torch.arange(graph.num_nodes)[::2]
    lengths = dict(nx.all_pairs_shortest_path_length(simple(graph), cutoff=limit))
    expected = [[lengths[s].get(t, limit + 1) for t in range(graph.num_nodes)] for s in sources.tolist()]
    found = structure.hops(graph, sources, limit)
    assert found.dtype == torch.int16
    assert found.tolist() == expected


def test_hops_in_chunks_and_of_no_sources(monkeypatch):
    graph = random_graph(30, 2)
    whole = structure.hops(graph, torch.arange(30), 4)
    monkeypatch.setattr(structure, "CHUNK", 70)
    assert torch.equal(structure.hops(graph, torch.arange(30), 4), whole)
    assert structure.hops(graph, torch.empty(0, dtype=torch.long), 4).shape == (0, 30)


@pytest.mark.parametrize("limit", [0, -1, 2**15])
def test_hops_refuse_a_limit_that_they_cannot_count_to(limit):
    with pytest.raises(UserError, match="choose a limit from 1"):
        structure.hops(random_graph(5, 0), torch.arange(5), limit)


def cut(graph: Graph, part: torch.Tensor) -> int:
    source, target = graph.edge_index
    return int((part[source] != part[target]).sum())


@pytest.mark.parametrize("parts", [2, 5, 10])
def test_parts_are_balanced_and_cut_fewer_edges_than_random_ones(parts):
    graph = random_graph(400, 1)
    part = structure.partition(graph, parts)
    sizes = torch.bincount(part)
    assert part.dtype == torch.long
    assert len(sizes) == parts
    assert sizes.max() <= 1.05 * 400 / parts
    assert sizes.min() >= 0.95 * 400 / parts
    shuffled = part[torch.randperm(400, generator=generator())]
    assert cut(graph, part) < 0.8 * cut(graph, shuffled)


def test_parts_of_a_ring_of_cliques_are_the_cliques():
    graph = cliques(6, 10)
    part = structure.partition(graph, 6)
    assert cut(graph, part) == 6  # one edge of each joint; built one way only


def test_same_seed_same_parts_and_another_seed_others():
    graph = random_graph(200, 4)
    one = structure.partition(graph, 8, seed=1)
    assert torch.equal(one, structure.partition(graph, 8, seed=1))
    assert any(not torch.equal(one, structure.partition(graph, 8, seed=seed)) for seed in (2, 3, 4))


def test_loops_and_directions_do_not_move_parts():
    graph = random_graph(100, 6, directed=True)
    loops = torch.arange(100).expand(2, 100)
    other = Graph.build(graph.x, torch.cat([graph.edge_index.flip(0), graph.edge_index, loops], 1))
    assert torch.equal(structure.partition(graph, 5), structure.partition(other, 5))


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_every_part_has_a_node_where_there_are_no_edges(parts):
    part = structure.partition(KINDS["no-edges"](), parts)
    assert part.unique().tolist() == list(range(parts))


@pytest.mark.parametrize("parts", [0, 9, -2])
def test_impossible_numbers_of_parts_and_clusters_are_refused(parts):
    graph = KINDS["no-edges"]()
    with pytest.raises(UserError, match=f"cannot cut 8 nodes into {parts} parts; choose from 1 to 8"):
        structure.partition(graph, parts)
    with pytest.raises(UserError, match=f"cannot find {parts} clusters in 8 nodes; choose from 1 to 8"):
        structure.content_clusters(graph, parts)


def test_a_missing_metis_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(UserError, match="pip install pymetis"):
        structure.partition(random_graph(9, 0), 3)


@pytest.mark.parametrize("many", [10**6, 1])
def test_clusters_find_blobs_in_dense_and_sparse_content(many, monkeypatch):
    monkeypatch.setattr(structure, "MANY", many)  # 1: mini-batches
    blob = torch.arange(90) % 3
    x = 0.1 * torch.randn(90, F, generator=generator()).relu()
    x[torch.arange(90), blob] += 5
    graph = Graph.build(x, torch.empty(2, 0, dtype=torch.long))
    for content in (x, Rows.from_dense(x)):
        found = structure.content_clusters(graph.replace(x=content), 3, seed=1)
        assert len({(a, b) for a, b in zip(blob.tolist(), found.tolist(), strict=True)}) == 3
        assert torch.equal(found, structure.content_clusters(graph.replace(x=content), 3, seed=1))


def test_equal_rows_are_one_cluster():
    graph = Graph.build(torch.ones(6, F), torch.empty(2, 0, dtype=torch.long))
    assert structure.content_clusters(graph, 3).unique().numel() == 1


def test_structure_is_the_same_of_sparse_content():
    graph = KINDS["words"]()
    full = graph.replace(x=dense(graph.x))
    assert torch.equal(structure.content_clusters(graph, 4), structure.content_clusters(full, 4))


def spread_in_loops(joined, labels, classes, rounds):
    share = {i: [0.0] * classes for i in joined}
    for _ in range(rounds):
        for i in joined:
            if labels[i] >= 0:
                share[i] = [float(c == labels[i]) for c in range(classes)]
        share = {
            i: [sum(share[j][c] for j in joined[i]) / max(1, joined.degree[i]) for c in range(classes)] for i in joined
        }
    for i in joined:
        if labels[i] >= 0:
            share[i] = [float(c == labels[i]) for c in range(classes)]
    return share


def test_context_labels_are_counted_within_two_hops():
    graph = random_graph(29, 3, edges_per_node=1.2)
    graph = Graph.build(torch.ones(30, F), torch.cat([graph.edge_index, torch.tensor([[0, 1, 5], [1, 0, 5]])], 1))
    labels = torch.where(torch.rand(30, generator=generator(5)) < 0.3, torch.arange(30) % 3, -1)
    joined = simple(graph)
    share = spread_in_loops(joined, labels.tolist(), 3, 7)
    expected = [[0.0] * 3 for _ in range(30)]
    for i in joined:
        for j, hops in nx.single_source_shortest_path_length(joined, i, cutoff=2).items():
            if hops and sum(share[j]):
                expected[i][share[j].index(max(share[j]))] += 1
    expected = [[v / max(1, sum(row)) for v in row] for row in expected]
    assert [0.0] * 3 in expected  # the node alone
    torch.testing.assert_close(structure.label_context(graph, labels, 7), torch.tensor(expected))
