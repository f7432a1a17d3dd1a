"""Maskers by place, time, part and color hide the share they say, of each graph; disjoint views do not overlap."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import BODY, KINDS, generator, random_graph

from graphssl import masks
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.masks import COLORS, Block, Color, Disjoint, Frames, Near, Parts, Ramp, Together, Tube, Uniform, lowest
from graphssl.tokens import Joints, Patches, Tubelets

LIMBS = (0, 0, 1, 2, 2)
PLACED = ("citation", "words", "directed", "weighted", "molecules", "patches", "tubelets", "points", "skeleton")
EACH = {"near": Near, **{color: lambda ratio, color=color: Color(ratio, color) for color in COLORS}}


def videos(count=3, edges="grid"):
    return Tubelets(1, 2, edges)(torch.rand(count, 5, 1, 6, 8, generator=generator()))  # 5 times of 3 x 4 places


def images(count=20, edges="none", side=8):
    return Patches(2, edges)(torch.rand(count, 1, 2 * side, 2 * side, generator=generator()))


def ragged():
    """Graphs of 7, 0, 1 and 24 nodes with a pos and no edges."""
    graph = Graph.stack([random_graph(n, n) for n in (7, 5, 1, 24)])
    return graph.keep_edges(torch.zeros(graph.num_edges, dtype=torch.bool)).keep_nodes(graph.batch != 1)


def repeated(graph, count):
    """So many copies of a graph, each of which has draws of its own."""
    return Graph.stack([graph] * count)


def shares(hidden, graph):
    return torch.zeros(graph.num_graphs, dtype=torch.long).index_add(0, graph.batch, hidden.long()).tolist()


def share(ratio, count):
    return min(count, max(1, int(count * ratio + 1e-9)))


def runs_on(name, kind):
    """Whether the kind of data has what that masker needs."""
    return kind in PLACED or (name in COLORS and kind in ("star", "odd", "classes"))


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("ratio", [0.25, 0.3, 0.75, 1.0])
def test_exact_share_of_every_graph_or_a_word_why_not(name, ratio, kind, graph):
    masker = EACH[name](ratio)
    if not runs_on(name, kind):
        with pytest.raises(UserError, match=r"but the graph has no pos; give it one, or choose a uniform masker"):
            masker(graph, generator())
        return
    before = torch.get_rng_state()
    hidden = masker(graph, generator(2))
    assert hidden.shape == (graph.num_nodes,)
    assert hidden.dtype == torch.bool
    assert shares(hidden, graph) == [share(ratio, n) for n in graph.sizes]
    assert torch.equal(hidden, masker(graph, generator(2)))
    assert torch.equal(hidden, masker(KINDS[kind](), generator(2)))  # what the Graph remembers changes nothing
    assert torch.equal(before, torch.get_rng_state())
    if ratio < 1 and graph.num_nodes > 12:
        assert any(not torch.equal(hidden, masker(graph, generator(seed))) for seed in range(3, 12))


@pytest.mark.parametrize("name", EACH)
def test_graphs_of_several_sizes_and_none(name):
    graph = ragged()
    assert graph.sizes == (7, 0, 1, 24)
    assert shares(EACH[name](0.5)(graph, generator()), graph) == [3, 0, 1, 12]
    nothing = graph.keep_nodes(torch.zeros(graph.num_nodes, dtype=torch.bool))
    for masker in (EACH[name](0.5), Tube(0.5), Frames(0.5), Parts(0.5, (0,)), Disjoint(0.5)):
        assert not masker(nothing, generator()).numel()


@pytest.mark.parametrize("make", [Tube, Frames])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9, 1.0])
def test_tubes_repeat_over_time_and_frames_are_whole(make, ratio):
    graph = videos()
    hidden = make(ratio)(graph, generator(1)).view(3, 5, 12)
    first, count = (hidden[:, :1], 12) if make is Tube else (hidden[..., :1], 5)
    assert torch.equal(hidden, first.expand_as(hidden))
    assert first.flatten(1).sum(1).tolist() == [share(ratio, count)] * 3
    if ratio == 0.5:
        assert len(hidden.unique(dim=0)) > 1  # each graph has its own draw


@pytest.mark.parametrize("make", [Tube, Frames])
def test_tubes_and_frames_of_any_graph_with_two_axes(make, kind, graph):
    if kind not in PLACED:
        with pytest.raises(UserError, match=r"the graph has no pos; give it one of 2 axes or more, time first, or"):
            make(0.5)(graph, generator())
        return
    hidden = make(0.5)(graph, generator())
    column = graph.pos[:, 1:] if make is Tube else graph.pos[:, :1]
    groups = [(part, *place) for part, place in zip(graph.batch.tolist(), column.tolist(), strict=True)]
    taken = {group for group, here in zip(groups, hidden.tolist(), strict=True) if here}
    assert not taken & {group for group, here in zip(groups, hidden.tolist(), strict=True) if not here}
    for part in range(graph.num_graphs):
        known = {group for group in groups if group[0] == part}
        assert len(known & taken) == share(0.5, len(known))


def test_one_axis_makes_no_tube():
    graph = KINDS["citation"]()
    line = graph.replace(pos=graph.pos[:, 0])
    for make in (Tube, Frames):
        with pytest.raises(UserError, match="the graph has a pos of 1 axes; give it one of 2 axes"):
            make(0.5)(line, generator())
    assert Near(0.5)(line, generator()).sum() == 30


def test_parts_are_whole_at_all_times():
    graph = Joints(BODY, frames=4, steps=None)(torch.rand(6, 16, 5, 3, generator=generator()))
    hidden = Parts(0.67, LIMBS)(graph, generator()).view(6, 4, 5)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert torch.equal(hidden[..., 0], hidden[..., 1])
    assert torch.equal(hidden[..., 3], hidden[..., 4])
    assert hidden[:, 0][:, [0, 2, 3]].sum(1).tolist() == [2] * 6  # of three parts
    assert hidden[:, 0].unique(dim=0).size(0) > 1


def test_joints_without_a_part_are_refused():
    graph = Joints(BODY, frames=4, steps=None)(torch.rand(1, 16, 5, 3, generator=generator()))
    with pytest.raises(UserError, match="parts are known of joints 0 to 2, but nodes stand at 0 to 4 along the last"):
        Parts(0.5, (0, 1, 1))(graph, generator())
    with pytest.raises(UserError, match="give the part of each joint"):
        Parts(0.5, LIMBS)(KINDS["citation"](), generator())  # places that are no joints
    with pytest.raises(UserError, match=r"parts are groups of joints .* but the graph has no pos"):
        Parts(0.5, LIMBS)(KINDS["star"](), generator())


def test_what_has_the_same_key_is_hidden_together(graph):
    def key(graph):
        return (torch.arange(graph.num_nodes) % 4) * 1000 - 5

    hidden = Together(0.5, key)(graph, generator())
    for part in range(graph.num_graphs):
        here = graph.batch == part
        taken, left = set(key(graph)[here & hidden].tolist()), set(key(graph)[here & ~hidden].tolist())
        assert not taken & left
        assert len(taken) == share(0.5, len(taken | left))


def test_groups_are_hidden_equally_often():
    graph = videos(40)
    often = torch.stack([Tube(0.5)(graph, generator(seed)) for seed in range(15)]).float().mean(0)
    assert (often.view(40, 5, 12).mean((0, 1)) - 0.5).abs().max() < 0.08  # 600 draws of each place


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"key has shape \(3,\) for 60 nodes; give one row a node"):
        Together(0.5, lambda graph: torch.arange(3))(KINDS["citation"](), generator())


@pytest.mark.parametrize("kind", ["molecules", "points", "patches"])
def test_near_nodes_are_the_nearest_to_one_of_them(kind):
    graph = KINDS[kind]()
    for seed in range(6):
        hidden = Near(0.4)(graph, generator(seed))
        for part in range(graph.num_graphs):
            here = (graph.batch == part).nonzero().flatten()
            pos, inside = graph.pos[here].double(), hidden[here]
            away = torch.cdist(pos, pos)
            fits = [inside[i] and away[i][inside].max() <= away[i][~inside].min() + 1e-6 for i in range(len(here))
                    if not inside.all()]  # fmt: skip
            assert inside.all() or any(fits)


def test_nodes_equally_near_are_hidden_equally_often():
    places = torch.tensor([[0.0, 0.0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    graph = Graph.build(torch.ones(5, 2), torch.empty(2, 0, dtype=torch.long), pos=places)
    often = Near(0.6)(repeated(graph, 900), generator()).view(900, 5).float().mean(0)
    assert often[1:].max() - often[1:].min() < 0.09
    assert often[0] > 0.9  # nearest to each of the others


def touching(hidden, graph):
    """The share of neighbours of which both are hidden."""
    source, target = images(graph.num_graphs, "grid").edge_index
    return float((hidden[source] & hidden[target]).float().mean())


@pytest.mark.parametrize("edges", ["none", "grid", "diagonal"])
def test_colors_differ_in_how_many_hidden_nodes_touch(edges):
    graph = images(60, edges)
    even = touching(Uniform(0.5)(graph, generator()), graph)
    pairs = {color: touching(Color(0.5, color)(graph, generator()), graph) for color in COLORS}
    assert pairs["blue"] < even - 0.02
    assert pairs["red"] > even + 0.1
    assert pairs["blue"] < pairs["green"] < pairs["red"]
    assert pairs["blue"] < pairs["purple"] < pairs["red"]


def test_colors_are_bands_of_the_grid_s_spectrum():
    graph = images(200)
    eye = torch.eye(8)
    step = torch.diag(torch.ones(7), 1) + torch.diag(torch.ones(7), -1)
    laplacian = torch.kron(torch.diag(step.sum(0)) - step, eye) + torch.kron(eye, torch.diag(step.sum(0)) - step)
    waves = torch.linalg.eigh(laplacian)[1]  # of the 64 places, the lowest frequency first

    def power(color):
        hidden = Color(0.5, color)(graph, generator()).float().view(200, 64) - 0.5
        strength = (hidden @ waves).square().mean(0)
        return [float(part.mean()) for part in strength.split([8, 24, 32])]  # low, middle, high

    low, middle, high = zip(*(power(color) for color in COLORS), strict=True)
    red, blue, green, purple = range(4)
    assert (low[red], high[red]) == (max(low), min(high))
    assert (low[blue], high[blue]) == (min(low), max(high))
    assert middle[green] > 1.3 * max(low[green], high[green])
    assert middle[purple] < 0.95 * min(low[purple], high[purple])


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("make", [lambda: images(1, "none"), lambda: images(1, "grid"), lambda: KINDS["citation"]()])
def test_with_any_color_all_nodes_are_hidden_about_equally_often(color, make):
    graph = make()
    often = Color(0.75, color)(repeated(graph, 300), generator()).view(300, -1).float().mean(0)
    assert (often - often.mean()).abs().max() < 0.12  # 300 draws: 0.09, the rest from estimated deviations


def slow_walk(graph, noise, steps):
    """The lazy walk, node by node."""
    near = [[] for _ in range(graph.num_nodes)]
    for u, v in graph.edge_index.T.tolist():
        near[u].append(v)
        near[v].append(u)
    for _ in range(steps):
        means = [sum(noise[v] for v in near[u]) / max(1, len(near[u])) for u in range(graph.num_nodes)]
        noise = [(own + mean) / 2 for own, mean in zip(noise, means, strict=True)]
    return noise


@pytest.mark.parametrize("kind", ["citation", "directed", "odd"])
def test_noise_walks_along_edges(kind):
    graph = KINDS[kind]()
    white = torch.randn(graph.num_nodes, 1, generator=generator())
    for steps in (0, 1, 8):
        expected = torch.tensor(slow_walk(graph, white[:, 0].tolist(), steps))
        torch.testing.assert_close(masks._walked(graph, white, steps)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_noise_spreads_by_distance():
    graph = images(1, side=4)
    weight = masks._gaussian(graph.pos[None], 8)[0]
    for i in range(16):
        raw = [math.exp(-(math.dist(graph.pos[i], place) ** 2) / 8) for place in graph.pos]  # a spacing of 1
        torch.testing.assert_close(weight[i], torch.tensor([w / sum(raw) for w in raw]), rtol=1e-4, atol=1e-6)
    wide = masks._gaussian(3 * graph.pos[None], 8)[0]  # measured in spacings
    torch.testing.assert_close(wide, weight)


def test_noise_by_distance_is_divided_by_its_deviation():
    many = repeated(images(1, side=6), 1500)
    for color in COLORS:
        draws = torch.randn(1500 * 36, 1, generator=generator())
        colored, spread = (part.view(1500, 36) for part in Color(0.5, color)._by_place(many, draws))
        assert (spread == spread[0]).all()
        torch.testing.assert_close(colored.std(0), spread[0], rtol=0.1, atol=0)
    joined = images(1, "grid", side=6)
    for color in COLORS:
        masker = Color(0.5, color)
        true = masker._filter(lambda steps: masks._walked(joined, torch.eye(36), steps)).norm(dim=1)
        assert ((masker._spread(joined)[:, 0] / true).log().abs() < 0.7).all()  # of sixteen draws


def test_where_nothing_is_left_of_a_color_the_noise_is_white():
    graph = images(4).replace(pos=torch.zeros(256, 2))  # all nodes stand at one place
    for color in COLORS:
        hidden = Color(0.5, color)(graph, generator())
        assert shares(hidden, graph) == [32] * 4
    white = torch.randn(256, 1, generator=generator())[:, 0]
    assert torch.equal(Color(0.5, "green")(graph, generator()), lowest(white, 0.5, graph))


@pytest.mark.parametrize(("ratio", "views"), [(0.5, 2), (0.75, 2), (0.75, 4), (0.9, 3), (1.0, 2), (0.3, 1)])
def test_what_views_show_does_not_overlap(ratio, views, graph):
    hidden = Disjoint(ratio, views)(graph, generator())
    assert hidden.shape == (views, graph.num_nodes)
    assert ((~hidden).sum(0) <= 1).all()
    for view in hidden:
        shown = [min(n - share(ratio, n), n // views) for n in graph.sizes]
        assert shares(view, graph) == [n - s for n, s in zip(graph.sizes, shown, strict=True)]
    if ratio * views == views - 1:  # between them they show all, but what is left over
        left = hidden.all(0)
        assert shares(left, graph) == [n - views * min(n - share(ratio, n), n // views) for n in graph.sizes]


def test_views_are_each_uniform():
    graph = images(50)
    hidden = Disjoint(0.75, 3)(graph, generator()).float().view(3, 50, 64)
    assert hidden.mean((1, 2)).tolist() == [0.75] * 3
    assert (hidden.mean((0, 1)) - 0.75).abs().max() < 0.11


RAMPS = [
    Near(0.3), Color(0.3, "red", (2, 5)), Tube(0.3), Frames(0.3), Parts(0.3, LIMBS), Together(0.3, len),
    Disjoint(0.6, 2),
]  # fmt: skip


@pytest.mark.parametrize("masker", RAMPS, ids=lambda masker: type(masker).__name__)
def test_a_ramp_takes_each(masker):
    ramp = Ramp(masker, 0.9)
    assert masks.at(ramp, 0.0) == masker
    assert masks.at(ramp, 1.0) == replace(masker, ratio=0.9)
    assert masks.at(ramp, 0.5).ratio == pytest.approx((masker.ratio + 0.9) / 2)


REFUSED = {
    **{f"{make.__name__}({ratio})": (lambda make=make, ratio=ratio: make(ratio), f"a share of {ratio} of the .* ratio")
       for make in (Near, Color, Tube, Frames, Disjoint) for ratio in (0.0, 1.1, math.nan)},
    "parts": (lambda: Parts(0.0, LIMBS), "share of 0.0 of the parts"),
    "together": (lambda: Together(2.0, len), "share of 2.0 of the groups"),
    "a color that is none": (lambda: Color(0.5, "grene"), "unknown color of noise 'grene'; did you mean 'green'"),
    "a strong blur that is the weaker": (lambda: Color(0.5, steps=(3, 3)), r"blur by \(3, 3\) steps; choose two"),
    "no blur": (lambda: Color(0.5, steps=(0, 3)), r"blur by \(0, 3\) steps; choose two"),
    "views that overlap": (lambda: Disjoint(0.4), "2 views that hide a share of 0.4 cannot .* 1 - 1 / views or more"),
    "no views": (lambda: Disjoint(0.4, 0), "0 views that hide"),
    "a ramp to views that overlap": (lambda: Ramp(Disjoint(0.9), 0.2), "2 views that hide a share of 0.2"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_hidden_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_block_by_place_and_one_along_edges_are_two_things():
    ring = [(u, (u + 1) % 40) for u in range(40)]
    places = torch.rand(40, 2, generator=generator())
    graph = Graph.build(torch.ones(40, 2), torch.tensor(ring + [(v, u) for u, v in ring]).T, pos=places)
    along, near = Block(0.4)(graph, generator()), Near(0.4)(graph, generator())
    spread = [float(torch.cdist(places[mask], places[mask]).max()) for mask in (along, near)]
    assert spread[1] < spread[0]
    source, target = graph.edge_index
    assert int((along[source] & along[target]).sum()) == 2 * 15  # connected
    assert int((near[source] & near[target]).sum()) < 2 * 15
