"""Maskers hide the share they say, of each graph; views keep nodes in their rows; teachers follow."""

import pytest
import torch
from conftest import KINDS, generator

from graphssl.augment import Drop
from graphssl.graph import Graph
from graphssl.masks import Uniform
from graphssl.ops import Rows, dense
from graphssl.teacher import Teacher, cosine


@pytest.mark.parametrize("ratio", [0.25, 0.3, 0.5, 0.7, 1.0])
def test_exact_share_of_every_graph_and_one_at_least(ratio, graph):
    hidden = Uniform(ratio)(graph, generator())
    count = torch.zeros(graph.num_graphs, dtype=torch.long).index_add(0, graph.batch, hidden.long())
    assert count.tolist() == [max(1, int(n * ratio + 1e-9)) for n in graph.sizes]


def test_all_nodes_are_hidden_equally_often():
    graph = KINDS["molecules"]()
    draws = torch.stack([Uniform(0.5)(graph, generator(i)) for i in range(400)]).float().mean(0)
    large = torch.tensor(graph.sizes)[graph.batch] == 30
    assert (draws[large] - 0.5).abs().max() < 0.12


def test_same_generator_same_mask(graph):
    assert torch.equal(Uniform(0.5)(graph, generator(3)), Uniform(0.5)(graph, generator(3)))


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1])
def test_impossible_ratio_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio"):
        Uniform(ratio)


def test_views_drop_columns_and_edges_and_keep_nodes():
    for kind in ("citation", "words"):
        graph = KINDS[kind]()
        view = Drop(0.5, 0.4)(graph, generator())
        assert view.num_nodes == graph.num_nodes
        before, after = dense(graph.x), dense(view.x)
        dropped = (after == 0).all(0)
        assert torch.equal(after[:, ~dropped], before[:, ~dropped])
        assert isinstance(view.x, Rows) == isinstance(graph.x, Rows)
        old = {tuple(e) for e in graph.edge_index.T.tolist()}
        assert all(tuple(e) in old for e in view.edge_index.T.tolist())
        assert 0.4 < view.num_edges / graph.num_edges < 0.8


def test_nothing_dropped_is_the_same_graph():
    graph = KINDS["citation"]()
    view = Drop(0.0, 0.0)(graph, generator())
    assert torch.equal(view.x, graph.x)
    assert torch.equal(view.edge_index, graph.edge_index)


def test_edge_attributes_travel_along():
    graph = KINDS["molecules"]()
    view = Drop(0.0, 0.5)(graph, generator())
    assert view.edge_attr.size(0) == view.num_edges
    rows = {(*e, *a) for e, a in zip(graph.edge_index.T.tolist(), map(tuple, graph.edge_attr.tolist()), strict=True)}
    left = zip(view.edge_index.T.tolist(), map(tuple, view.edge_attr.tolist()), strict=True)
    assert all((*e, *a) in rows for e, a in left)


def same_pattern(one, two):
    for name in ("ptr", "col", "perm"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None and b is None) or (torch.equal(a, b) and a.dtype == b.dtype), name
    assert one.shape == two.shape


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("sorted_before", [True, False])
def test_the_adjacency_of_a_view_is_the_one_built_from_its_edges(graph, share, sorted_before):
    if sorted_before:
        assert graph.csr.transpose.nnz == graph.num_edges
    keep = torch.rand(graph.num_edges, generator=generator()) < share
    view = graph.keep_edges(keep)
    assert torch.equal(view.edge_index, graph.edge_index[:, keep])
    twice = view.keep_edges(torch.rand(view.num_edges, generator=generator(1)) < 0.5)
    for made in (twice, view):
        built = Graph(x=made.x, edge_index=made.edge_index, batch=made.batch, sizes=made.sizes).csr
        same_pattern(made.csr, built)
        same_pattern(made.csr.transpose, built.transpose)
        same_pattern(made.csr.transpose.transpose, built.transpose.transpose)


def test_views_of_one_graph_sort_once(monkeypatch):
    graph, sorts = KINDS["citation"](), []
    argsort = torch.Tensor.argsort
    monkeypatch.setattr(torch.Tensor, "argsort", lambda *a, **k: (sorts.append(1), argsort(*a, **k))[1])
    keeps = [torch.rand(graph.num_edges, generator=generator(seed)) < 0.7 for seed in range(4)]
    patterns = [graph.keep_edges(keep).csr for keep in keeps]
    assert not sorts  # none before a backward asks for it
    assert all(p.transpose.nnz == p.nnz for p in patterns)
    assert len(sorts) == 1


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_an_induced_subgraph_has_the_adjacency_of_its_edges(graph, share):
    keep = torch.rand(graph.num_nodes, generator=generator()) < share
    part = graph.keep_nodes(keep)
    built = Graph(x=part.x, edge_index=part.edge_index, batch=part.batch, sizes=part.sizes).csr
    same_pattern(part.csr, built)
    old = keep.nonzero().squeeze(1)
    inside = {tuple(e) for e in graph.edge_index.T.tolist() if keep[e].all()}
    assert {tuple(e) for e in old[part.edge_index].T.tolist()} == inside


def test_teacher_follows_by_the_formula_and_takes_no_gradient():
    student = torch.nn.Linear(3, 2)
    teacher = Teacher(student)
    before = teacher.module.weight.clone()
    with torch.no_grad():
        student.weight.add_(1.0)
    teacher.follow(student, 0.9)
    torch.testing.assert_close(teacher.module.weight, 0.9 * before + 0.1 * student.weight)
    assert not teacher(torch.ones(1, 3)).requires_grad
    assert cosine(0.9, 1.0, 0.0) == pytest.approx(0.9)
    assert cosine(0.9, 1.0, 1.0) == pytest.approx(1.0)
    assert cosine(0.9, 1.0, 0.5) == pytest.approx(0.95)
