"""CCA-SSG, DGI and GCA's views: the papers as slow loops on the same draws, closed forms, and what must not happen."""

import math

import pytest
import torch
from conftest import KINDS, F, generator, random_graph

from graphssl.augment import CENTRALITIES, CUT, AdaptiveDrop, Drop, shuffle
from graphssl.backbones import backbone
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import decorrelation, half_distance, standardise
from graphssl.methods import CCASSG, DGI
from graphssl.ops import Rows, dense
from graphssl.recipes import Spec, get_recipe

WIDTH = 5


def encoder(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder(backbone("gcn", F, [7, WIDTH], activation="elu"))


def ring(n=10, x=None):
    node = torch.arange(n)
    edges = torch.stack([node, (node + 1) % n])
    return Graph.build(torch.ones(n, F) if x is None else x, torch.cat([edges, edges.flip(0)], 1))


# CCA-SSG


def standardised_by_hand(rows):
    columns = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / len(column)
        spread = math.sqrt(sum((v - mean) ** 2 for v in column) / (len(column) - 1))
        columns.append([(v - mean) / spread for v in column])
    return [list(row) for row in zip(*columns, strict=True)]


def decorrelation_by_hand(rows):
    total, D = 0.0, len(rows[0])
    for i in range(D):
        for j in range(D):
            product = sum(row[i] * row[j] for row in rows) / len(rows)
            total += (product - (i == j)) ** 2
    return total


@torch.no_grad()
def test_cca_ssg_equals_the_paper_as_loops():
    graph, view, g = random_graph(12, 0), Drop(0.3, 0.4), generator(3)
    method = CCASSG(encoder(), view, weight=0.2)
    a, b = (standardised_by_hand(method.encoder(view(graph, g)).tolist()) for _ in range(2))
    distance = sum((p - q) ** 2 for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True))
    losses = method(graph, generator(3))
    assert losses["invariance"].item() == pytest.approx(distance / 2 / 12, rel=1e-4)
    both = decorrelation_by_hand(a) + decorrelation_by_hand(b)
    assert losses["decorrelation"].item() == pytest.approx(0.2 * both, rel=1e-4)


def test_cca_ssg_has_the_gradient_of_the_references_trace():
    a, b = (torch.randn(9, 4, generator=generator(s), dtype=torch.double, requires_grad=True) for s in (0, 1))
    mine = torch.autograd.grad(half_distance(standardise(a), standardise(b)), (a, b))
    theirs = torch.autograd.grad(-((standardise(a) * standardise(b)).sum() / 9), (a, b))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_uncorrelated_columns_cost_nothing_and_copies_cost_most():
    square = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert decorrelation(square) == pytest.approx(0)
    assert decorrelation(square[:, [0, 0]]) == pytest.approx(2)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
@pytest.mark.parametrize("rows", [1, 2, 999])
def test_a_column_without_spread_is_zero_and_has_no_gradient(value, rows):
    codes = torch.randn(rows, 3, generator=generator()).index_fill(1, torch.tensor(1), value).requires_grad_()
    z = standardise(codes)
    assert not z[:, 1].any()
    if rows > 1:
        torch.testing.assert_close(z[:, [0, 2]].var(0), torch.ones(2))
    (half_distance(z, torch.ones_like(z)) + decorrelation(z)).backward()
    assert codes.grad.isfinite().all()
    assert not codes.grad[:, 1].any()


def test_standardised_codes_do_not_depend_on_their_scale():
    codes = torch.randn(30, 4, generator=generator())
    for scale in (1e-12, 1e9):
        torch.testing.assert_close(standardise(codes * scale), standardise(codes), rtol=1e-4, atol=1e-5)


# DGI


@pytest.mark.parametrize("kind", KINDS)
def test_shuffling_keeps_each_graphs_rows_and_all_edges(kind):
    graph = KINDS[kind]()
    shuffled = shuffle(graph, generator(1))
    assert isinstance(shuffled.x, Rows) == isinstance(graph.x, Rows)
    assert torch.equal(shuffled.edge_index, graph.edge_index)
    assert torch.equal(shuffled.batch, graph.batch)
    for b in range(graph.num_graphs):
        before, after = (sorted(dense(g.x)[graph.batch == b].tolist()) for g in (graph, shuffled))
        assert before == after
    if kind == "citation":
        assert (dense(shuffled.x) != dense(graph.x)).any(1).float().mean() > 0.8


def test_shuffling_takes_a_node_anywhere_in_its_graph():
    graph, to = ring(5, torch.eye(F)[:5]), torch.zeros(5, 5)
    for seed in range(600):
        to += shuffle(graph, generator(seed)).x[:, :5]
    assert to.min() > 80
    assert to.max() < 160


def softplus(value):
    return math.log1p(math.exp(value))


@torch.no_grad()
def test_dgi_equals_the_paper_as_loops():
    graph = Graph.stack([random_graph(6, 1), random_graph(9, 2)])
    method = DGI(encoder())
    method.bilinear.normal_(generator=generator(5))
    method.bias.fill_(0.3)
    codes, fake = method.encoder(graph).tolist(), method.encoder(shuffle(graph, generator(4))).tolist()
    weight, loss = method.bilinear[0].tolist(), 0.0
    for first, last in ((0, 6), (6, 15)):
        n = last - first
        summary = [1 / (1 + math.exp(-sum(codes[i][d] for i in range(first, last)) / n)) for d in range(WIDTH)]
        for i in range(first, last):
            for rows, sign in ((codes, -1), (fake, 1)):
                h = rows[i]
                logit = sum(h[d] * weight[d][e] * summary[e] for d in range(WIDTH) for e in range(WIDTH)) + 0.3
                loss += softplus(sign * logit)
    assert method(graph, generator(4))["mutual"].item() == pytest.approx(loss / 30, rel=1e-4)


def test_dgi_starts_undecided_with_the_references_spread():
    method = DGI(Encoder(backbone("gcn", F, [40])))
    assert method.bilinear.abs().max() <= math.sqrt(6 / (40 * 40 + 40))
    assert method.bilinear.abs().max() > 0.98 * math.sqrt(6 / (40 * 40 + 40))
    assert method(random_graph(30, 0), generator())["mutual"].item() == pytest.approx(math.log(2), rel=0.05)


# GCA's adaptive views

CONNECTED = torch.tensor([[0, 1, 2, 3, 3, 4, 5, 0], [1, 2, 0, 0, 4, 5, 3, 4]])


def connected():
    return Graph.build(torch.randn(6, F, generator=generator()), torch.cat([CONNECTED, CONNECTED.flip(0)], 1))


def adjacency(graph):
    full = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.double)
    for source, target in graph.edge_index.T.tolist():
        full[target, source] += 1
    return full


def test_centralities_are_those_of_linear_algebra():
    graph = connected()
    A = adjacency(graph)
    vectors = torch.linalg.eigh(A).eigenvectors
    torch.testing.assert_close(CENTRALITIES["eigenvector"](graph), vectors[:, -1].abs().float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(CENTRALITIES["degree"](graph), A.sum(1).float())
    rank = torch.linalg.solve(torch.eye(6).double() - 0.85 * A / A.sum(0), torch.full((6,), 0.15).double())
    torch.testing.assert_close(CENTRALITIES["pagerank"](graph), rank.float(), rtol=1e-4, atol=1e-5)


def test_the_eigenvector_of_a_graph_with_two_sides_is_found_and_each_graphs_own():
    star = KINDS["star"]()
    both = CENTRALITIES["eigenvector"](Graph.stack([connected(), star]))
    expected = torch.full((40,), math.sqrt(1 / 78))
    expected[0] = math.sqrt(1 / 2)
    torch.testing.assert_close(both[6:], expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(both[:6], CENTRALITIES["eigenvector"](connected()))


def neighbours_by_hand(graph):
    """How many nodes each is joined with, whichever way the edge points, itself among them where it has a loop."""
    joined = [set() for _ in range(graph.num_nodes)]
    for source, target in graph.edge_index.T.tolist():
        joined[source].add(target)
        joined[target].add(source)
    return [float(len(others)) for others in joined]


def test_degrees_look_at_no_direction_and_count_twofold_edges_and_loops_once():
    edges = torch.tensor([[0, 0, 1, 2, 3, 0], [1, 1, 0, 0, 3, 3]])
    graph = Graph.build(torch.ones(5, F), edges)
    assert CENTRALITIES["degree"](graph).tolist() == neighbours_by_hand(graph) == [3, 1, 1, 2, 0]
    for kind in KINDS.values():
        assert CENTRALITIES["degree"](kind()).tolist() == neighbours_by_hand(kind())


def odds_by_hand(central):
    """GCA, sections 3.2.1 and 3.2.2: s = log of the centrality, and (max - s) / (max - mean) of that."""
    scores = [math.log(c) for c in central]
    top, mean = max(scores), sum(scores) / len(scores)
    return [(top - s) / (top - mean) for s in scores]


@pytest.mark.parametrize("by", CENTRALITIES)
@pytest.mark.parametrize("sparse", [False, True])
def test_adaptive_odds_equal_the_paper_as_loops(by, sparse):
    graph = Graph.stack([connected(), KINDS["star"]()])
    x = graph.x.index_fill(1, torch.tensor(3), 0.0)  # a column that no node has
    graph = graph.replace(x=Rows.from_dense(x.clamp(min=0)) if sparse else x)
    columns, edges = AdaptiveDrop(0.2, 0.3, by)._weights(graph)
    central = CENTRALITIES[by](graph).tolist()
    x, totals = dense(graph.x).tolist(), []
    for f in range(F):
        words = [(row[f] != 0) if sparse else abs(row[f]) for row in x]
        totals.append(sum(w * c for w, c in zip(words, central, strict=True)))
    found = [f for f in range(F) if f != 3]
    assert totals[3] == 0
    assert columns[3] == 1
    odds = odds_by_hand([totals[f] for f in found])
    torch.testing.assert_close(columns[found], torch.tensor(odds), rtol=1e-3, atol=1e-3)
    targets = graph.edge_index[1].tolist()
    expected = []
    for inside in ([t for t in targets if t < 6], [t for t in targets if t >= 6]):  # each graph is its own measure
        expected += odds_by_hand([central[t] for t in inside])
    torch.testing.assert_close(edges, torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_eigenvector_views_tell_edges_far_from_a_hub_apart():
    """Twenty leaves around a hub, and a path of ten that leads away, where centralities are all far below 1."""
    hub = torch.stack([torch.zeros(20, dtype=torch.long), torch.arange(1, 21)])
    path = torch.stack([torch.tensor([0, *range(21, 30)]), torch.arange(21, 31)])
    graph = Graph.build(torch.ones(31, F), torch.cat([hub, path, hub.flip(0), path.flip(0)], 1))
    _, odds = AdaptiveDrop(0.3, 0.3, "eigenvector")._weights(graph)
    to = dict(zip(graph.edge_index[1].tolist(), odds.tolist(), strict=True))
    assert to[0] == 0
    steps = [to[node + 1] - to[node] for node in range(21, 30)]
    assert min(steps) > 0.3  # with each hop the centrality falls by a factor
    assert (0.3 * odds).clamp(max=CUT).std() > 0.1


@pytest.mark.parametrize("by", CENTRALITIES)
def test_central_edges_and_columns_are_kept_more_often_by_the_odds(by):
    x = torch.zeros(40, F)
    x[0, 0] = 1  # a word of the hub
    x[1, 1] = 1  # a word of a leaf
    x[:, 2:] = 1
    graph = KINDS["star"]().replace(x=x)
    view, kept, shown = AdaptiveDrop(0.3, 0.4, by), torch.zeros(graph.num_edges), torch.zeros(F)
    graph = graph.replace(edge_attr=torch.arange(graph.num_edges)[:, None])
    columns, edges = view._weights(graph)
    for seed in range(2000):
        seen = view(graph, generator(seed))
        kept[seen.edge_attr[:, 0]] += 1 / 2000
        shown += seen.x.amax(0) / 2000
    torch.testing.assert_close(kept, 1 - (0.4 * edges).clamp(max=CUT), rtol=0, atol=0.05)
    torch.testing.assert_close(shown, 1 - (0.3 * columns).clamp(max=CUT), rtol=0, atol=0.05)
    to_hub = graph.edge_index[1] == 0
    assert kept[to_hub].min() > 0.99  # nothing is more central
    assert kept[~to_hub].max() < 0.4
    assert columns[2] < columns[0] < columns[1]
    assert shown[2] > 0.85
    assert shown[1] == pytest.approx(1 - CUT, abs=0.05)


@pytest.mark.parametrize("by", CENTRALITIES)
def test_where_all_are_as_central_adaptive_views_are_plain_ones(by):
    graph = ring(50)
    for seed in range(5):
        one, two = (view(graph, generator(seed)) for view in (AdaptiveDrop(0.3, 0.4, by), Drop(0.3, 0.4)))
        assert torch.equal(one.edge_index, two.edge_index)
        assert torch.equal(one.x, two.x)


@pytest.mark.parametrize("by", CENTRALITIES)
def test_adaptive_views_of_every_kind_of_data(graph, by):
    view = AdaptiveDrop(0.5, 0.5, by)
    seen = view(graph, generator(1))
    assert isinstance(seen.x, Rows) == isinstance(graph.x, Rows)
    assert seen.num_nodes == graph.num_nodes
    assert seen.num_edges <= graph.num_edges
    columns, edges = view._weights(graph)
    assert columns.isfinite().all()
    assert edges.isfinite().all()
    assert (edges >= 0).all()
    if graph.num_graphs == 1 and graph.num_edges:
        assert edges.mean() == pytest.approx(1, rel=1e-4)


def test_centralities_are_worked_out_once_a_graph(monkeypatch):
    graph, calls = connected(), []
    plain = CENTRALITIES["degree"]
    monkeypatch.setitem(CENTRALITIES, "degree", lambda g: (calls.append(1), plain(g))[1])
    for seed in range(3):
        AdaptiveDrop(0.1 * seed, 0.3, "degree")(graph, generator(seed))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adaptive": "nope"}, "centrality 'nope'; known: degree, eigenvector, pagerank"),
        (
            {"adaptive": "degree", "edges_1": 0.8},
            "cannot adaptively drop a share of 0.8 of the edges; choose one from 0 to 0.7",
        ),
    ],
)
def test_wrong_adaptive_settings_are_refused(settings, words):
    recipe, spec = get_recipe("grace"), Spec("data", "node", F, 10, 20, 1, False)
    with pytest.raises(UserError, match=words):
        recipe.plan(spec, recipe.settings(spec, settings))


def test_grace_takes_adaptive_views():
    recipe, spec = get_recipe("grace"), Spec("data", "node", F, 10, 20, 1, False)
    shares = {"edges_1": 0.1, "edges_2": 0.2, "features_1": 0.3, "features_2": 0.4}
    views = recipe.plan(spec, recipe.settings(spec, {"width": 8, "adaptive": "pagerank", **shares})).method.views
    assert views == (AdaptiveDrop(0.3, 0.1, "pagerank"), AdaptiveDrop(0.4, 0.2, "pagerank"))
    assert recipe.plan(spec, recipe.settings(spec, {"width": 8, **shares})).method.views == (
        Drop(0.3, 0.1), Drop(0.4, 0.2),
    )  # fmt: skip
