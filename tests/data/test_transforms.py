"""Transforms against PyG's."""

import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures
from torch_geometric.utils import add_remaining_self_loops, coalesce, remove_self_loops, to_undirected

from graphssl.data import Transform
from graphssl.graph import Graph
from graphssl.ops import Rows, dense

EDGES = torch.tensor([[0, 0, 1, 1, 2, 5, 5, 3], [1, 1, 0, 1, 1, 5, 4, 2]])


def odd(**extra):
    """Isolated nodes, self-loops, duplicate edges, edges in one direction only."""
    x = torch.rand(8, 5, generator=torch.Generator().manual_seed(0)).mul(4).floor()
    x[0] = 0
    return Graph.build(x, EDGES, **extra)


def is_sorted(graph):
    key = graph.edge_index[1] * graph.num_nodes + graph.edge_index[0]
    return bool((key[1:] >= key[:-1]).all())


def by_source(edge_index):
    return coalesce(edge_index)


def test_nothing_asked_is_nothing_done():
    graph = odd()
    assert Transform()(graph) is graph


@pytest.mark.parametrize("sparse", [False, True])
def test_row_normalize(sparse):
    graph = odd()
    expected = NormalizeFeatures()(Data(x=graph.x.clone())).x
    if sparse:
        graph = graph.replace(x=Rows.from_dense(graph.x))
    normal = Transform(row_normalize=True)(graph)
    assert isinstance(normal.x, Rows) == sparse
    assert torch.allclose(dense(normal.x), expected)
    assert normal.edge_index is graph.edge_index


def test_undirected():
    graph = Transform(undirected=True)(odd())
    assert is_sorted(graph)
    assert torch.equal(by_source(graph.edge_index), to_undirected(EDGES))
    assert graph.num_edges == by_source(graph.edge_index).size(1)
    again = Transform(undirected=True)(graph)
    assert torch.equal(again.edge_index, graph.edge_index)


def test_undirected_carries_the_first_copy():
    number = torch.arange(8.0)
    graph = Transform(undirected=True)(odd(edge_attr=number[:, None], edge_weight=number))
    carried = {pair: w for *pair_, w in zip(*graph.edge_index.tolist(), graph.edge_weight.tolist(), strict=True)
               for pair in [tuple(pair_)]}  # fmt: skip
    assert carried == {
        (0, 1): 0, (1, 0): 2, (1, 1): 3, (2, 1): 4, (1, 2): 4, (5, 5): 5, (5, 4): 6, (4, 5): 6, (3, 2): 7, (2, 3): 7,
    }  # fmt: skip
    assert torch.equal(graph.edge_attr[:, 0], graph.edge_weight)


def test_self_loops():
    graph = Transform(self_loops=True)(odd(edge_attr=torch.ones(8, 2), edge_weight=torch.full((8,), 3.0)))
    assert is_sorted(graph)
    expected, _ = add_remaining_self_loops(remove_self_loops(EDGES)[0], num_nodes=8)
    assert sorted(zip(*graph.edge_index.tolist(), strict=True)) == sorted(zip(*expected.tolist(), strict=True))
    loop = graph.edge_index[0] == graph.edge_index[1]
    assert int(loop.sum()) == 8
    assert graph.edge_weight[loop].tolist() == [1] * 8
    assert graph.edge_weight[~loop].tolist() == [3] * 6
    assert graph.edge_attr.sum(1)[loop].tolist() == [0] * 8
    assert graph.edge_attr.sum(1)[~loop].tolist() == [2] * 6


def test_several_graphs_and_no_edges():
    graphs = Graph.stack([odd(), odd()])
    transform = Transform(self_loops=True, undirected=True, row_normalize=True)
    together = transform(graphs)
    assert torch.equal(together.edge_index, Graph.stack([transform(odd()), transform(odd())]).edge_index)
    bare = Graph.build(torch.ones(3, 1), torch.empty(2, 0, dtype=torch.long), edge_weight=torch.empty(0))
    assert transform(bare).edge_index.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert transform(bare).edge_weight.tolist() == [1, 1, 1]


def test_adjacency_is_made_anew():
    graph = odd()
    assert graph.csr.nnz == 8
    looped = Transform(self_loops=True)(graph)
    assert looped.csr.nnz == looped.num_edges == 14
    assert hash(Transform(self_loops=True)) == hash(Transform(self_loops=True))


def mixed(rows=50):
    """Columns of many sizes, among them constant ones."""
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(1))
    x = x * torch.tensor([1.0, 100.0, 1e-3, 1.0, 0.0, 0.0]) + torch.tensor([0.0, 5.0, 0.0, -30.0, 0.0, 4.0])
    return Graph.build(x, EDGES)


@pytest.mark.parametrize("make", [mixed, odd])
@pytest.mark.parametrize("sparse", [False, True])
def test_standardize(make, sparse):
    graph = make()
    expected = StandardScaler().fit_transform(graph.x.double().numpy())
    if sparse:
        graph = graph.replace(x=Rows.from_dense(graph.x))
    scaled = Transform(standardize=True)(graph)
    assert isinstance(scaled.x, torch.Tensor)  # zeros become other numbers
    torch.testing.assert_close(scaled.x.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    assert scaled.edge_index is graph.edge_index


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7e-4, 12345.678])
def test_standardize_leaves_nothing_of_a_constant_column(value):
    x = torch.full((1000, 2), value)  # the mean of a thousand is not this number exactly
    x[::2, 1] = value + 1
    scaled = Transform(standardize=True)(Graph.build(x, EDGES)).x
    assert scaled[:, 0].abs().max() < 1e-6 * max(1, abs(value))  # rounding of the mean, and not divided by any
    assert scaled[:, 1].abs().min() > 0.9


def test_standardize_comes_after_the_rows_and_takes_one_row():
    both = Transform(row_normalize=True, standardize=True)(mixed())
    expected = StandardScaler().fit_transform(Transform(row_normalize=True)(mixed()).x.double().numpy())
    torch.testing.assert_close(both.x.double(), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)
    alone = Graph.build(torch.tensor([[3.0, 0.0]]), torch.empty(2, 0, dtype=torch.long))
    assert Transform(standardize=True)(alone).x.tolist() == [[0, 0]]
