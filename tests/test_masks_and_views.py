"""Maskers hide the share they say, of each graph; views keep nodes in their rows; teachers follow."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import KINDS, F, generator, random_graph

from graphssl import masks
from graphssl.augment import Drop
from graphssl.graph import Graph
from graphssl.masks import Bandwidths, Block, Edges, Features, Guided, Paths, Ramp, Uniform
from graphssl.ops import Rows, dense
from graphssl.teacher import Teacher, cosine

NODES = {"uniform": Uniform, "guided": Guided, "block": Block}
MASKERS = {
    **{name: masker(0.5) for name, masker in NODES.items()},
    "features": Features(0.5),
    "edges": Edges(0.5),
    "edges, directed": Edges(0.5, directed=True),
    "paths": Paths(),
    "paths from edges": Paths(0.3, origin="edge", walks=2, both_ways=False),
    "bandwidths": Bandwidths(),
}
SHARES = [0.25, 0.3, 0.5, 0.7, 1.0]


def edges_of(graph):
    """The rows of the edge list, as tuples."""
    return [tuple(edge) for edge in graph.edge_index.T.tolist()]


def networkx_graph(graph):
    """The directed networkx graph without self-loops."""
    nx = pytest.importorskip("networkx")
    made = nx.DiGraph()
    made.add_nodes_from(range(graph.num_nodes))
    made.add_edges_from((u, v) for u, v in edges_of(graph) if u != v)
    return made


def from_edges(n, edges):
    return Graph.build(torch.ones(n, F), torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T)


@pytest.mark.parametrize("masker", MASKERS.values(), ids=MASKERS)
def test_a_mask_is_of_its_generator_alone(masker, kind, graph):
    before = torch.get_rng_state()
    first = masker(graph, generator(3))
    assert torch.equal(first, masker(graph, generator(3)))
    assert torch.equal(first, masker(KINDS[kind](), generator(3)))  # what the Graph remembers changes nothing
    others = [masker(graph, generator(seed)) for seed in range(4, 24)]
    assert torch.equal(before, torch.get_rng_state())
    assert first.numel() < 12 or any(not torch.equal(first, other) for other in others)


def test_masks_are_of_nodes_edges_or_columns(graph):
    for name, masker in MASKERS.items():
        size = graph.num_nodes if name in NODES else F if name == "features" else graph.num_edges
        mask = masker(graph, generator())
        assert mask.shape == (size,), name
        assert mask.dtype == (torch.float32 if name == "bandwidths" else torch.bool), name


@pytest.mark.parametrize("masker", NODES.values(), ids=NODES)
@pytest.mark.parametrize("ratio", SHARES)
def test_exact_share_of_every_graph_and_one_at_least(masker, ratio, graph):
    hidden = masker(ratio)(graph, generator())
    count = torch.zeros(graph.num_graphs, dtype=torch.long).index_add(0, graph.batch, hidden.long())
    assert count.tolist() == [max(1, int(n * ratio + 1e-9)) for n in graph.sizes]


def test_a_share_in_hundredths_of_hundred_nodes_is_that_number():
    graph = from_edges(100, [])
    assert all(Uniform(k / 100)(graph, generator()).sum() == k for k in range(1, 101))


def test_all_nodes_are_hidden_equally_often():
    graph = KINDS["molecules"]()
    draws = torch.stack([Uniform(0.5)(graph, generator(i)) for i in range(400)]).float().mean(0)
    large = torch.tensor(graph.sizes)[graph.batch] == 30
    assert (draws[large] - 0.5).abs().max() < 0.12


REFUSED = {
    **{f"{make.__name__}({ratio})": (lambda make=make, ratio=ratio: make(ratio), f"a share of {ratio} of the .* ratio")
       for make in (Uniform, Guided, Block, Edges) for ratio in (0.0, -0.1, 1.1, math.nan)},
    "columns below": (lambda: Features(-0.1), "share of -0.1 of the columns; choose a ratio from 0"),
    "columns above": (lambda: Features(1.0), "share of 1.0 of the columns; choose a ratio from 0"),
    "noise": (lambda: Guided(0.5, noise=-1.0), "noise by -1.0; choose 0"),
    "endless noise": (lambda: Guided(0.5, noise=math.inf), "noise by inf; choose 0"),
    "starts": (lambda: Paths(0.0), "share of 0.0; choose starts above 0"),
    "length": (lambda: Paths(length=0), "1 walks of 0 steps; choose at least one"),
    "walks": (lambda: Paths(walks=0), "0 walks of 3 steps; choose at least one"),
    "origin": (lambda: Paths(origin="graph"), "'graph'; choose the origin 'node' or 'edge'"),
    "temperature": (lambda: Bandwidths(0.0), "temperature of 0.0; choose a positive one"),
    "ramp of what has no ratio": (lambda: Ramp(Bandwidths(), 0.5), r"ramp Bandwidths\(.*choose a masker with a ratio"),
    "ramp of a function": (lambda: Ramp(len, 0.5), "choose a masker with a ratio or starts"),
    "ramp of a ramp": (lambda: Ramp(Ramp(Uniform(0.1), 0.2), 0.5), "choose a masker with a ratio or starts"),
    "end of a ramp": (lambda: Ramp(Uniform(0.5), 1.5), "share of 1.5 of the nodes"),
    "end of starts": (lambda: Ramp(Paths(0.5), 0.0), "share of 0.0; choose starts"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_hidden_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_score_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(60, 1\) for 60 nodes; give one number each"):
        Guided(0.5, score=lambda graph: masks.degree(graph)[:, None])(KINDS["citation"](), generator())


def test_columns_are_draws_of_their_own():
    graph = KINDS["words"]()
    draws = torch.stack([Features(0.3)(graph, generator(seed)) for seed in range(600)])
    assert (draws.float().mean(0) - 0.3).abs().max() < 0.08
    assert draws.sum(1).unique().numel() > 4  # not a fixed count
    assert not Features(0.0)(graph, generator()).any()


def loose_pairs(graph):
    """The pairs of nodes with an edge between them, of each graph."""
    return [
        {frozenset(edge) for edge in edges_of(graph) if edge[0] != edge[1] and graph.batch[edge[0]] == part}
        for part in range(graph.num_graphs)
    ]


def share(ratio, count):
    return min(count, max(1, int(count * ratio + 1e-9)))


@pytest.mark.parametrize("ratio", SHARES)
def test_edges_are_hidden_with_their_other_direction_and_duplicates(ratio, graph):
    hidden = Edges(ratio)(graph, generator())
    taken = {frozenset(edge) for edge, here in zip(edges_of(graph), hidden.tolist(), strict=True) if here}
    left = {frozenset(edge) for edge, here in zip(edges_of(graph), hidden.tolist(), strict=True) if not here}
    assert all(len(pair) == 2 for pair in taken)  # no self-loop
    assert not taken & left
    for pairs in loose_pairs(graph):
        assert len(taken & pairs) == share(ratio, len(pairs))


@pytest.mark.parametrize("ratio", SHARES)
def test_directed_edges_are_hidden_one_by_one(ratio, graph):
    hidden = Edges(ratio, directed=True)(graph, generator())
    source, target = graph.edge_index
    assert not hidden[source == target].any()
    for part in range(graph.num_graphs):
        count = int(((source != target) & (graph.batch[target] == part)).sum())
        assert int(hidden[graph.batch[target] == part].sum()) == share(ratio, count)


def test_a_directed_mask_parts_directions_and_duplicates():
    graph = KINDS["odd"]()
    rows = edges_of(graph)
    seen = set()
    for seed in range(50):
        hidden = Edges(0.5, directed=True)(graph, generator(seed)).tolist()
        taken = [edge for edge, here in zip(rows, hidden, strict=True) if here]
        left = [edge for edge, here in zip(rows, hidden, strict=True) if not here]
        seen |= {"duplicate"} if (0, 1) in taken and (0, 1) in left else set()
        seen |= {"direction"} if (1, 0) in taken and (0, 1) not in taken else set()
    assert seen == {"duplicate", "direction"}


@pytest.mark.parametrize("directed", [False, True])
def test_all_edges_are_hidden_equally_often(directed):
    graph = KINDS["molecules"]()
    draws = torch.stack([Edges(0.5, directed)(graph, generator(i)) for i in range(400)]).float().mean(0)
    large = torch.tensor(graph.sizes)[graph.batch[graph.edge_index[1]]] == 30
    assert (draws[large] - 0.5).abs().max() < 0.12


def slow_paths(masker, graph, g):
    """The edges that walks pass, each step looked up in networkx, and the walks as lists of nodes."""
    made, rows = networkx_graph(graph), edges_of(graph)
    if masker.origin == "node":
        drawn = torch.randperm(graph.num_nodes, generator=g).tolist()
        starts = drawn[: round(masker.starts * graph.num_nodes)]
    else:
        sources = sorted(u for u, v in rows if u != v)
        drawn = torch.rand(len(sources), generator=g).tolist()
        starts = [u for u, number in zip(sources, drawn, strict=True) if number < masker.starts]
    draws = torch.rand(len(starts) * masker.walks, masker.length, generator=g, dtype=torch.float64).tolist()
    walks = []
    for start, draw in zip(starts * masker.walks, draws, strict=True):
        walk = [start]
        for number in draw:
            # a duplicate edge is as many ways on as there are of it
            ways = [v for v in sorted(made.successors(walk[-1])) for _ in range(rows.count((walk[-1], v)))]
            if not ways:
                break
            walk.append(ways[int(number * len(ways))])
        walks.append(walk)
    return {edge for walk in walks for edge in pairwise(walk)}, walks


PATHS = {
    "default": Paths(),
    "few long": Paths(0.1, length=9),
    "several": Paths(0.3, length=2, walks=3),
    "from edges": Paths(0.2, origin="edge"),
    "one step": Paths(1.0, length=1),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("masker", PATHS.values(), ids=PATHS)
def test_walks_are_those_of_a_slow_walker(masker, seed, graph):
    passed, walks = slow_paths(masker, graph, generator(seed))
    made = networkx_graph(graph)
    assert all(made.has_edge(*edge) for edge in passed)
    assert all(len(walk) == masker.length + 1 or not made.out_degree(walk[-1]) for walk in walks)
    hidden = masker(graph, generator(seed)).tolist()
    taken = {edge for edge, here in zip(edges_of(graph), hidden, strict=True) if here}
    left = {edge for edge, here in zip(edges_of(graph), hidden, strict=True) if not here}
    assert taken == {edge for edge in edges_of(graph) if edge in passed or edge[::-1] in passed}
    assert not taken & left  # duplicates with them

    one_way = replace(masker, both_ways=False)(graph, generator(seed)).tolist()
    assert {edge for edge, here in zip(edges_of(graph), one_way, strict=True) if here} == passed


def test_walks_on_a_star_alternate_through_its_hub():
    graph = KINDS["star"]()
    hidden = Paths(starts=1 / 40, length=6, both_ways=False)(graph, generator(1))
    source, target = graph.edge_index[:, hidden]
    assert ((source == 0) ^ (target == 0)).all()
    assert 3 <= hidden.sum() <= 6
    assert Paths(1.0, length=1)(graph, generator(1)).all()  # every spoke starts a walk and has one way on


def test_walks_end_where_there_is_no_way_on():
    graph = from_edges(6, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 5)])  # a path with a self-loop at its end
    for seed in range(6):
        start = int(torch.randperm(6, generator=generator(seed))[0])
        hidden = Paths(1 / 6, length=3, both_ways=False)(graph, generator(seed))
        expected = [(u, u + 1) for u in range(start, min(start + 3, 5))]
        assert [edge for edge, here in zip(edges_of(graph), hidden.tolist(), strict=True) if here] == expected


@pytest.mark.parametrize("origin", ["node", "edge"])
def test_without_edges_there_are_no_paths(origin):
    for graph in (KINDS["no-edges"](), from_edges(3, [(1, 1), (2, 2)])):
        assert not Paths(1.0, origin=origin)(graph, generator()).any()
        assert not Edges(1.0)(graph, generator()).any()


def test_steps_and_starts_are_uniform():
    graph = from_edges(5, [(0, v) for v in (1, 2, 3, 4)])
    hidden = torch.stack([Paths(1.0, length=1)(graph, generator(seed)) for seed in range(800)]).float()
    assert (hidden.mean(0) - 0.25).abs().max() < 0.06
    graph = KINDS["star"]()
    hidden = torch.stack([Paths(0.25, length=1, both_ways=False)(graph, generator(seed)) for seed in range(800)])
    inward = hidden[:, graph.edge_index[1] == 0].float().mean(0)
    assert (inward - 0.25).abs().max() < 0.06
    hidden = [Paths(0.25, length=1, both_ways=False, origin="edge")(graph, generator(seed)) for seed in range(800)]
    inward = torch.stack(hidden)[:, graph.edge_index[1] == 0].float().mean(0)
    assert (inward - 0.25).abs().max() < 0.06


def test_without_noise_the_top_nodes_are_hidden(graph):
    def score(graph):
        return torch.rand(graph.num_nodes, generator=generator(9))

    hidden = Guided(0.3, score, noise=0.0)(graph, generator())
    for part in range(graph.num_graphs):
        here = graph.batch == part
        top = score(graph)[here].sort(descending=True).values[: share(0.3, graph.sizes[part])]
        assert score(graph)[here & hidden].sort(descending=True).values.tolist() == top.tolist()


def test_the_hub_is_hidden_first_and_noise_makes_all_alike():
    graph = KINDS["star"]()
    torch.testing.assert_close(masks.degree(graph)[:2], torch.tensor([math.log(40), math.log(2)]))
    assert Guided(0.01, noise=0.0)(graph, generator())[0]
    even = torch.stack([Guided(0.5, noise=1e4)(graph, generator(seed)) for seed in range(600)]).float().mean(0)
    assert (even - 0.5).abs().max() < 0.09
    # one node of 40: probability of the hub is its weight, 40 against 39 times 2
    drawn = torch.stack([Guided(0.01)(graph, generator(seed)) for seed in range(600)]).float().mean(0)
    assert float(drawn[0]) == pytest.approx(40 / (40 + 39 * 2), abs=0.06)


def test_a_block_of_a_connected_graph_is_connected():
    nx = pytest.importorskip("networkx")
    ring = from_edges(50, [(u, (u + 1) % 50) for u in range(50)])  # one way round only
    for graph in (KINDS["citation"](), KINDS["star"](), KINDS["directed"](), ring):
        whole = networkx_graph(graph).to_undirected()
        biggest = max(nx.connected_components(whole), key=len)
        graph = graph.keep_nodes(torch.tensor([node in biggest for node in range(graph.num_nodes)]))
        whole = networkx_graph(graph).to_undirected()
        for seed in range(8):
            hidden = Block(0.4)(graph, generator(seed)).nonzero().flatten().tolist()
            assert nx.is_connected(whole.subgraph(hidden))
            near = [nx.single_source_shortest_path_length(whole, start) for start in hidden]
            assert any(is_nearest(hops, hidden) for hops in near)  # some start explains them


def is_nearest(hops, hidden):
    """Whether no node left out is nearer than one that is ``hidden``."""
    return max(hops[v] for v in hidden) <= min(hop for v, hop in hops.items() if v not in hidden)


def test_blocks_of_a_batch_are_each_graph_s_own_and_components_follow():
    nx = pytest.importorskip("networkx")
    paths = [from_edges(n, [(u, u + 1) for u in range(n - 1)]) for n in (9, 1, 20, 4)]
    graph = Graph.stack(paths)
    whole = networkx_graph(graph).to_undirected()
    for seed in range(10):
        hidden = Block(0.5)(graph, generator(seed))
        for part, n in enumerate(graph.sizes):
            block = ((graph.batch == part) & hidden).nonzero().flatten().tolist()
            assert len(block) == share(0.5, n)
            assert nx.is_connected(whole.subgraph(block))

    halves = from_edges(20, [(u, u + 1) for u in range(19) if u != 9])  # two paths of ten nodes
    whole = networkx_graph(halves).to_undirected()
    for seed in range(10):
        block = Block(0.75)(halves, generator(seed)).nonzero().flatten().tolist()
        sizes = sorted(len(part) for part in nx.connected_components(whole.subgraph(block)))
        assert sizes == [5, 10]  # one whole, then a block of the other


def test_nodes_equally_far_are_hidden_equally_often():
    draws = torch.stack([Block(0.5)(KINDS["star"](), generator(seed)) for seed in range(600)]).float().mean(0)
    assert draws[0] == 1  # the hub is the start, or the one neighbour of it
    assert (draws[1:] - 19 / 39).abs().max() < 0.09


def test_isolated_nodes_take_few_rounds(monkeypatch):
    rounds, first = [], masks._first
    monkeypatch.setattr(masks, "_first", lambda *args: (rounds.append(1), first(*args))[1])
    graph = from_edges(1000, [])
    assert Block(0.5)(graph, generator()).sum() == 500
    assert len(rounds) <= 11
    even = torch.stack([Block(0.5)(KINDS["no-edges"](), generator(seed)) for seed in range(600)]).float().mean(0)
    assert (even - 0.5).abs().max() < 0.08


def test_graphs_that_lost_all_their_nodes_are_no_matter():
    graph = KINDS["molecules"]()
    graph = graph.keep_nodes(graph.batch != 2)
    assert graph.sizes == (7, 1, 0, 30)
    for make in NODES.values():
        assert make(0.5)(graph, generator()).sum() == 3 + 1 + 15
    for masker in MASKERS.values():
        masker(graph, generator())
    nothing = graph.keep_nodes(torch.zeros(38, dtype=torch.bool))
    for masker in MASKERS.values():
        masker(nothing, generator())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_bandwidths_are_the_softmax_of_noise(temperature, graph):
    width = Bandwidths(temperature)(graph, generator())
    noise = torch.randn(graph.num_edges, generator=generator()).tolist()
    target = graph.edge_index[1].tolist()
    for node in range(graph.num_nodes):
        edges = [edge for edge in range(graph.num_edges) if target[edge] == node]
        weights = [math.exp(noise[edge] / temperature) for edge in edges]
        expected = torch.tensor([weight / sum(weights) for weight in weights])
        torch.testing.assert_close(width[edges], expected)
        assert not edges or float(width[edges].sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("temperature", [1e-6, 1e-30])
def test_a_cold_band_is_one_edge_and_a_hot_one_all(temperature, graph):
    cold, noise = Bandwidths(temperature)(graph, generator()), torch.randn(graph.num_edges, generator=generator())
    assert cold.isfinite().all()
    target = graph.edge_index[1]
    for node in target.unique():
        edges = (target == node).nonzero().flatten()
        expected = torch.zeros(len(edges))
        expected[noise[edges].argmax()] = 1.0
        torch.testing.assert_close(cold[edges], expected)
    hot = Bandwidths(1e6)(graph, generator())
    torch.testing.assert_close(hot, 1 / graph.csr.degree[target].float(), rtol=1e-4, atol=0)


def test_a_ramp_goes_straight_from_its_masker_to_its_end():
    ramp = Ramp(Guided(0.3, noise=2.0), 0.9)
    assert masks.at(ramp, 0.0) == Guided(0.3, noise=2.0)
    assert masks.at(ramp, 1.0) == Guided(0.9, noise=2.0)
    assert masks.at(ramp, 0.25).ratio == pytest.approx(0.45)
    down = Ramp(Paths(0.7, length=5), 0.1)
    assert down.at(0.0) == Paths(0.7, length=5)
    assert down.at(1.0) == Paths(0.1, length=5)
    assert down.at(0.5).starts == pytest.approx(0.4)
    assert all(Ramp(Uniform(1.0), 1.0).at(k / 997).ratio == 1.0 for k in range(998))
    plain = Bandwidths(0.2)
    assert masks.at(plain, 0.5) is plain


def test_what_belongs_together_is_worked_out_once_a_graph(monkeypatch):
    graph, sorts = random_graph(40, 8), []
    first = [masker(graph, generator()) for masker in (Edges(0.5), Edges(0.5, directed=True), Paths())]
    unique = torch.Tensor.unique
    monkeypatch.setattr(torch.Tensor, "unique", lambda *a, **k: (sorts.append(1), unique(*a, **k))[1])
    again = [masker(graph, generator()) for masker in (Edges(0.5), Edges(0.5, directed=True), Paths())]
    assert not sorts
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    Edges(0.5)(random_graph(40, 8), generator())
    assert sorts


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
