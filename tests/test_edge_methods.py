"""Methods that predict edges, and GraphMAE2: their losses as the papers have them, in slow loops on the same draws."""

import math

import pytest
import torch
from conftest import F, generator
from torch import nn

from graphssl import ops
from graphssl.backbones import backbone
from graphssl.backbones.base import BatchNorm
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.heads import EdgeMLP
from graphssl.masks import Bandwidths, Edges, Paths, Uniform
from graphssl.methods import GAE, S2GAE, VGAE, Bandana, GraphMAE2, MaskGAE
from graphssl.methods.pairs import NEGATIVES, absent_pairs

WIDTH = 6


def small(seed=0, n=10):
    """An undirected graph, every edge once in each direction."""
    g = generator(seed)
    u, v = torch.triu_indices(n, n, 1)
    pairs = torch.stack([u, v])[:, torch.rand(len(u), generator=g) < 0.35]
    return Graph.build(torch.randn(n, F, generator=g), torch.cat([pairs, pairs.flip(0)], 1))


def body(widths=(WIDTH, WIDTH), name="gcn", **options):
    return backbone(name, F, widths, **{"norm": "batch", "activation": "elu", "dropout": 0.5, **options})


def settled(method):
    """``method`` in evaluation mode with weights and running statistics that are not those of a new one."""
    g = generator(99)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
        for part in method.modules():
            if isinstance(part, BatchNorm):
                part.running_mean.normal_(generator=g)
                part.running_var.uniform_(0.5, 2.0, generator=g)
    return method.eval()


def listed(pairs):
    return list(zip(*pairs.tolist(), strict=True))


# what the papers say, in loops


def propagated(edges, weights, N):
    """D^-1/2 (A_w + I) D^-1/2 as a dense matrix: row t holds what node t receives."""
    A = torch.eye(N)
    for (source, target), weight in zip(edges, weights, strict=True):
        A[target, source] += weight
    D = [sum(A[t].tolist()) for t in range(N)]
    return torch.tensor([[A[t, s].item() / math.sqrt(D[t] * D[s]) for s in range(N)] for t in range(N)])


def gcn_layer(layer, h, edges, weights):
    """A graph convolution, batch normalisation by running statistics, and an activation."""
    out = propagated(edges, weights, len(h)) @ h @ layer.conv.linear.weight.T + layer.conv.bias
    if isinstance(layer.norm, BatchNorm):
        norm = layer.norm
        out = (out - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    return layer.activation(out)


def logits(decoder, h, pair):
    """The MLP's answer to one pair, a list of numbers."""
    x = [a * b for a, b in zip(h[pair[0]].tolist(), h[pair[1]].tolist(), strict=True)]
    for place, layer in enumerate(decoder.layers):
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        x = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]
        if place < len(decoder.layers) - 1:
            x = [max(v, 0.0) for v in x]
    return x


def log_sigmoid(x):
    return math.log(1 / (1 + math.exp(-x)))


def binary(present, absent):
    """Mean of -log p over edges and of -log(1 - p) over the other pairs."""
    assert present
    assert absent
    return -sum(map(log_sigmoid, present)) / len(present) - sum(log_sigmoid(-x) for x in absent) / len(absent)


def bandwidths(noise, edges, temperature):
    """Softmax of noise over the edges into each node."""
    e = [math.exp(z / temperature) for z in noise.tolist()]
    total = {t: sum(v for v, (_, other) in zip(e, edges, strict=True) if other == t) for _, t in edges}
    return [v / total[t] for v, (_, t) in zip(e, edges, strict=True)]


def seen_by_layers(method):
    """A list that fills with the graph that each layer of the encoder is given."""
    seen = []
    for layer in method.encoder.backbone.layers:
        layer.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    return seen


# Bandana


def bandana(masker=None, dim=WIDTH, **settings):
    encoder = Encoder(body((dim, dim, dim)), read="all", unit=True)
    return settled(Bandana(encoder, EdgeMLP(dim, 5, 2, dropout=0.5), masker or Bandwidths(0.7), **settings))


def layer_loss(decoder, h, edges, others, weights):
    """-w log p(joined) over the edges, -log p(apart) over the others, a mean of each: eq. 10."""
    one = two = 0.0
    for pair, weight in zip(edges, weights, strict=True):
        joined, apart = logits(decoder, h, pair)
        one -= weight * log_sigmoid(joined - apart) / len(edges)
    for pair in others:
        joined, apart = logits(decoder, h, pair)
        two -= log_sigmoid(apart - joined) / len(others)
    return one + two


@torch.no_grad()
@pytest.mark.parametrize("weighted", [False, True])
def test_bandana_equals_the_paper_as_loops(weighted):
    graph, method, g = small(), bandana(), generator(5)
    if weighted:
        graph = graph.replace(edge_weight=torch.rand(graph.num_edges, generator=generator(6)))
    own = [1.0] * graph.num_edges if graph.edge_weight is None else graph.edge_weight.tolist()
    edges, others = listed(graph.edge_index), listed(ops.sample_negatives(graph, graph.num_edges, g))
    h, losses = graph.x, []
    for layer in method.encoder.backbone.layers:
        widths = bandwidths(torch.randn(len(edges), generator=g), edges, 0.7)  # drawn anew
        h = gcn_layer(layer, h, edges, [w * e for w, e in zip(widths, own, strict=True)])
        losses.append(layer_loss(method.decoder, h, edges, others, widths))
    found = method(graph, generator(5))
    assert list(found) == ["bandwidth"]
    assert found["bandwidth"].item() == pytest.approx(sum(losses) / 3, rel=1e-4)


@torch.no_grad()
def test_bandana_with_a_masker_that_hides_says_all_or_nothing_and_predicts_the_hidden():
    graph, g = small(1), generator(5)
    masker = Edges(0.4, directed=True)
    method = bandana(masker)
    edges, others = listed(graph.edge_index), listed(ops.sample_negatives(graph, graph.num_edges, g))
    h, losses = graph.x, []
    for layer in method.encoder.backbone.layers:
        hidden = masker(graph, g).tolist()
        h = gcn_layer(layer, h, edges, [0.0 if hid else 1.0 for hid in hidden])
        losses.append(layer_loss(method.decoder, h, edges, others, [float(hid) for hid in hidden]))
    assert method(graph, generator(5))["bandwidth"].item() == pytest.approx(sum(losses) / 3, rel=1e-4)


@torch.no_grad()
def test_bandana_shuffled_weighs_with_the_same_bandwidths_in_another_order(monkeypatch):
    graph, method, g = small(), bandana(shuffle=True), generator(5)
    edges, others = listed(graph.edge_index), listed(ops.sample_negatives(graph, graph.num_edges, g))
    targets = []
    plain = Bandana.forward.__globals__["soft_edge_ce"]

    def spy(present, absent, weight):
        targets.append(weight)
        return plain(present, absent, weight)

    monkeypatch.setitem(Bandana.forward.__globals__, "soft_edge_ce", spy)
    seen = seen_by_layers(method)
    found = method(graph, generator(5))["bandwidth"]
    h, losses = graph.x, []
    for layer, target, given in zip(method.encoder.backbone.layers, targets, seen, strict=True):
        widths = bandwidths(torch.randn(len(edges), generator=g), edges, 0.7)
        torch.randperm(len(edges), generator=g)
        assert given.edge_weight.tolist() == pytest.approx(widths, rel=1e-5)  # what lets through is as it was
        assert sorted(target.tolist()) == pytest.approx(sorted(widths), rel=1e-5)
        assert target.tolist() != pytest.approx(widths, rel=1e-5)
        h = gcn_layer(layer, h, edges, widths)
        losses.append(layer_loss(method.decoder, h, edges, others, target.tolist()))
    assert found.item() == pytest.approx(sum(losses) / 3, rel=1e-4)


@torch.no_grad()
def test_bandana_scores_codes_of_the_last_layer_by_the_odds_of_being_joined():
    graph, method = small(), bandana()
    codes, pairs = method.pair_codes(graph), torch.tensor([[0, 3, 4], [1, 3, 2]])
    joined, apart = zip(*(logits(method.decoder, codes, pair) for pair in listed(pairs)), strict=True)
    expected = [a - b for a, b in zip(joined, apart, strict=True)]
    assert method.score(codes, pairs).tolist() == pytest.approx(expected, rel=1e-4)
    assert method.score(method.encoder(graph), pairs) is None  # codes of all layers side by side


# MaskGAE


def maskgae(masker, alpha=0.5, **settings):
    encoder = Encoder(body((7, WIDTH)), read="all", unit=True)
    return settled(MaskGAE(encoder, EdgeMLP(WIDTH, 5, layers=3, dropout=0.5), masker, alpha, inner=4, **settings))


@torch.no_grad()
@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("masker", [Edges(0.5), Edges(0.5, directed=True), Paths(0.3), Paths(0.3, both_ways=False)])
def test_maskgae_equals_the_paper_as_loops(masker, restore):
    graph, method, g = small(2), maskgae(masker, restore=restore), generator(7)
    hidden = masker(graph, g)
    edges = listed(graph.edge_index)
    gone = {edge for edge, hid in zip(edges, hidden.tolist(), strict=True) if hid}
    assert gone
    shown = [(s, t) for s, t in edges if (s, t) not in gone or (restore and (t, s) not in gone)]
    others = listed(ops.sample_negatives(graph, len(gone), g))
    h = graph.x
    for layer in method.encoder.backbone.layers:
        h = gcn_layer(layer, h, shown, [1.0] * len(shown))
    pairs = [edge for edge in edges if edge in gone]
    expected = binary(
        [logits(method.decoder, h, p)[0] for p in pairs], [logits(method.decoder, h, p)[0] for p in others]
    )
    losses = method(graph, generator(7))
    assert losses["edges"].item() == pytest.approx(expected, rel=1e-4)
    first, act, last = method.degree
    predicted = [max(0.0, (last(act(first(row)))).item()) for row in h]
    lost = [sum(target == node for _, target in gone) for node in range(len(h))]
    assert sum(lost) == len(gone)
    square = sum((p - n) ** 2 for p, n in zip(predicted, lost, strict=True)) / len(h)
    assert losses["degree"].item() == pytest.approx(0.5 * square, rel=1e-4)
    assert method.total(losses).item() == pytest.approx(expected + 0.5 * square, rel=1e-4)


@pytest.mark.parametrize("masker", [Edges(0.5), Paths(0.3)])
def test_maskgae_sends_no_message_along_a_hidden_pair(masker):
    graph, method = small(3), maskgae(masker, 0.0)
    seen = seen_by_layers(method)
    method(graph, generator(1))
    gone = {frozenset(e) for e in listed(graph.edge_index[:, masker(graph, generator(1))])}
    assert gone
    assert len(seen) == 2
    for given in seen:
        kept = {frozenset(e) for e in listed(given.edge_index)}
        assert not kept & gone
        assert kept | gone == {frozenset(e) for e in listed(graph.edge_index)}


def test_maskgae_codes_depend_on_nothing_beyond_the_edges_shown():
    graph = small(3)
    encoder = Encoder(body((WIDTH,)))
    method = settled(MaskGAE(encoder, EdgeMLP(WIDTH, 5), Edges(0.5)))
    codes = []
    method.decoder.register_forward_pre_hook(lambda module, given: codes.append(given[0]))
    x = graph.x.clone().requires_grad_()
    method(graph.replace(x=x), generator(1))
    assert codes[0] is codes[1]  # edges and other pairs are read from the same codes
    hidden = Edges(0.5)(graph, generator(1))
    shown = set(listed(graph.edge_index[:, ~hidden])) | {(n, n) for n in range(graph.num_nodes)}
    for target in range(graph.num_nodes):
        reached = torch.autograd.grad(codes[0][target].sum(), x, retain_graph=True)[0].abs().sum(1)
        assert {(s, target) for s in range(graph.num_nodes) if reached[s]} == {e for e in shown if e[1] == target}


@pytest.mark.parametrize("restore", [False, True])
def test_maskgae_restores_an_edge_that_is_hidden_in_one_direction_only(restore):
    graph = Graph.build(torch.randn(4, F), torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]))
    gone = {(0, 1), (1, 2), (2, 1)}  # the first in one direction, the second in both
    hidden = torch.tensor([edge in gone for edge in listed(graph.edge_index)])
    method = maskgae(lambda graph, generator: hidden, restore=restore)
    seen = seen_by_layers(method)
    method(graph, generator(0))
    shown = {(1, 0), (2, 3), (3, 2)} | ({(0, 1)} if restore else set())
    assert all(set(listed(given.edge_index)) == shown for given in seen)


@torch.no_grad()
def test_maskgae_without_a_weight_counts_no_degrees_and_scores_by_its_decoder():
    graph, method = small(), maskgae(Edges(0.5), 0.0)
    assert list(method(graph, generator(0))) == ["edges"]
    assert method.degree is None
    codes, pairs = method.pair_codes(graph), torch.tensor([[0, 3], [1, 2]])
    expected = [logits(method.decoder, codes, pair)[0] for pair in listed(pairs)]
    assert method.score(codes, pairs).tolist() == pytest.approx(expected, rel=1e-4)
    assert method.score(method.encoder(graph), pairs) is None


# S2GAE


@torch.no_grad()
def test_s2gae_equals_the_reference_as_loops():
    graph, g = small(4), generator(3)
    masker = Edges(0.5, directed=True)
    method = settled(S2GAE(Encoder(body((WIDTH,) * 3), read="all"), masker, inner=8))
    hidden = masker(graph, g)
    shown, pairs = listed(graph.edge_index[:, ~hidden]), listed(graph.edge_index[:, hidden])
    others = listed(ops.sample_negatives(graph, len(pairs), g))
    layers, h = [], graph.x
    for layer in method.encoder.backbone.layers:
        h = gcn_layer(layer, h, shown, [1.0] * len(shown))
        layers.append(h)

    def logit(u, v):
        products = []
        for i in range(3):  # the layer of u outside, that of v inside, as the reference's CrossPred
            for j in range(3):
                products.append(layers[i][u] * layers[j][v])
        return method.last(method.first(torch.cat(products)).relu()).item()

    expected = binary([logit(*pair) for pair in pairs], [logit(*pair) for pair in others])
    assert method(graph, generator(3))["edges"].item() == pytest.approx(expected, rel=1e-4)


def test_s2gae_hides_each_direction_by_itself_and_sends_nothing_along_it():
    graph, masker = small(4, 14), Edges(0.5, directed=True)
    method = settled(S2GAE(Encoder(body(), read="all"), masker, inner=8))
    seen = seen_by_layers(method)
    method(graph, generator(3))
    gone = set(listed(graph.edge_index[:, masker(graph, generator(3))]))
    assert any((t, s) not in gone for s, t in gone)
    assert len(seen) == 2
    for given in seen:
        assert set(listed(given.edge_index)) == set(listed(graph.edge_index)) - gone


@pytest.mark.parametrize("encoder", [Encoder(body(), read="last"), Encoder(body((WIDTH, 4)), read="all")])
def test_s2gae_needs_all_layers_of_one_width(encoder):
    with pytest.raises(ValueError, match="reads all, its layers of one width"):
        S2GAE(encoder)


# GAE and VGAE


def dots(h, pairs):
    return [sum(a * b for a, b in zip(h[u].tolist(), h[v].tolist(), strict=True)) for u, v in pairs]


def plain_body(**options):
    return body((7, WIDTH), norm="none", activation="relu", dropout=0.5, bare_end=True, **options)


def forward_by_hand(layers, graph):
    h, edges = graph.x, listed(graph.edge_index)
    for layer in layers:
        h = gcn_layer(layer, h, edges, [1.0] * len(edges))
    return h


@torch.no_grad()
def test_gae_equals_the_paper_as_loops():
    graph = small(5)
    method = settled(GAE(Encoder(plain_body())))
    h, pairs = forward_by_hand(method.encoder.backbone.layers, graph), listed(graph.edge_index)
    others = listed(ops.sample_negatives(graph, len(pairs), generator(2)))
    losses = method(graph, generator(2))
    assert list(losses) == ["edges"]
    assert losses["edges"].item() == pytest.approx(binary(dots(h, pairs), dots(h, others)), rel=1e-4)
    some = torch.tensor([[0, 1], [2, 1]])
    assert method.score(method.pair_codes(graph), some).tolist() == pytest.approx(dots(h, listed(some)), rel=1e-4)


@torch.no_grad()
def test_gae_does_not_predict_self_loops():
    graph = small(5)
    looped = Graph.build(graph.x, torch.cat([graph.edge_index, torch.arange(10).expand(2, 10)], 1))
    method = settled(GAE(Encoder(plain_body())))  # a GCN gives every node a self-loop anyway
    torch.testing.assert_close(method(looped, generator(2)), method(graph, generator(2)))


@torch.no_grad()
def test_vgae_equals_the_paper_as_loops():
    graph, g = small(6), generator(4)
    spread = backbone("gcn", 7, [WIDTH], dropout=0.5, bare_end=True)
    method = settled(VGAE(Encoder(plain_body()), spread))
    first, last = method.encoder.backbone.layers
    hidden = forward_by_hand([first], graph)
    edges = listed(graph.edge_index)
    mean = gcn_layer(last, hidden, edges, [1.0] * len(edges))
    log_std = gcn_layer(method.spread.layers[0], hidden, edges, [1.0] * len(edges))
    noise = torch.randn(mean.shape, generator=g)
    drawn = mean + noise * log_std.exp()
    others = listed(ops.sample_negatives(graph, len(edges), g))
    divergence = 0.0
    for m, s in zip(mean.flatten().tolist(), log_std.flatten().tolist(), strict=True):
        divergence += (m * m + math.exp(s) ** 2 - 1) / 2 - s
    losses = method(graph, generator(4))
    assert losses["edges"].item() == pytest.approx(binary(dots(drawn, edges), dots(drawn, others)), rel=1e-3)
    assert losses["divergence"].item() == pytest.approx(divergence / 10 / 10, rel=1e-4)  # of a node, over N as well
    torch.testing.assert_close(method.pair_codes(graph), mean, rtol=1e-4, atol=1e-5)


def test_vgae_stays_finite_where_the_spread_explodes():
    method = VGAE(Encoder(plain_body()), backbone("gcn", 7, [WIDTH], bare_end=True))
    with torch.no_grad():
        method.spread.layers[0].conv.bias.fill_(1e4)
    total = method.total(method(small(), generator(0)))
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())


# pairs that are no edges

PREDICTORS = {
    "bandana": lambda how: bandana(negatives=how),
    "bandana-discrete": lambda how: bandana(Edges(0.5), negatives=how),
    "maskgae": lambda how: maskgae(Paths(0.3), negatives=how),
    "maskgae-restoring": lambda how: maskgae(Edges(0.5, directed=True), negatives=how, restore=True),
    "s2gae": lambda how: settled(S2GAE(Encoder(body(), read="all"), inner=8, negatives=how)),
    "gae": lambda how: settled(GAE(Encoder(plain_body()), how)),
    "vgae": lambda how: settled(VGAE(Encoder(plain_body()), backbone("gcn", 7, [WIDTH], bare_end=True), how)),
}


@pytest.mark.parametrize("name", PREDICTORS)
def test_no_pair_that_a_method_takes_for_absent_is_an_edge_or_a_node_with_itself(name, monkeypatch):
    graph, drawn = Graph.stack([small(7, 9), small(8, 4), small(9, 1)]), []
    taken = set(listed(graph.edge_index))
    plain = ops.sample_negatives

    def spy(given, count, generator=None):
        drawn.append(plain(given, count, generator))
        return drawn[-1]

    monkeypatch.setattr(ops, "sample_negatives", spy)
    monkeypatch.setattr(ops, "sample_pairs", lambda *given: pytest.fail("any pairs were drawn"))
    method = PREDICTORS[name]("absent")
    for seed in range(20):
        method(graph, generator(seed))
    pairs = [pair for pairs in drawn for pair in listed(pairs)]
    assert len(drawn) == 20
    assert len(pairs) > 100
    assert all(u != v and (u, v) not in taken and (v, u) not in taken for u, v in pairs)
    assert all(graph.batch[u] == graph.batch[v] for u, v in pairs)


@pytest.mark.parametrize("name", PREDICTORS)
def test_fast_negatives_are_any_pairs(name, monkeypatch):
    monkeypatch.setattr(ops, "sample_negatives", lambda *given: pytest.fail("absent pairs were drawn"))
    losses = PREDICTORS[name]("fast")(small(), generator(0))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_graph_whose_pairs_are_all_edges_is_learned_from_its_edges_alone(name):
    pairs = torch.triu_indices(5, 5, 1)
    graph = Graph.build(torch.randn(5, F), torch.cat([pairs, pairs.flip(0)], 1))
    method = PREDICTORS[name]("absent")
    total = method.total(method(graph, generator(0)))
    total.backward()
    assert total.isfinite()
    assert total > 0


def test_negatives_are_of_two_kinds():
    with pytest.raises(UserError, match="nope"):
        absent_pairs(small(), 3, "nope")
    for how in NEGATIVES:
        assert absent_pairs(small(), 0, how).shape == (2, 0)
        assert absent_pairs(small(), 12, how).shape == (2, 12)
        assert torch.equal(absent_pairs(small(), 12, how, generator(1)), absent_pairs(small(), 12, how, generator(1)))
    graph = small(7, 5)
    loops = [pair for pair in listed(absent_pairs(graph, 2000, "fast", generator())) if pair[0] == pair[1]]
    assert len(loops) == pytest.approx(2000 / 5, rel=0.2)


def test_copies_of_an_edge_take_one_pair():
    graph = Graph.build(torch.randn(3, F), torch.tensor([[0, 1] * 3, [1, 0] * 3]))
    assert set(listed(absent_pairs(graph, 200, "absent", generator()))) == {(0, 2), (2, 0), (1, 2), (2, 1)}


# GraphMAE2


def graphmae2(norm="none", **settings):
    encoder = Encoder(backbone("gcn", F, [WIDTH, WIDTH], norm=norm, dropout=0.5))
    decoder = backbone("gcn", WIDTH, [F], bare_end=True, dropout=0.5)
    method = GraphMAE2(encoder, decoder, Uniform(0.5), inner=5, **settings)
    before = {name: p.clone() for name, p in method.teacher.named_parameters()}
    settled(method)  # moves the teacher too, so that it differs from the student
    assert all(not torch.equal(p, before[name]) for name, p in method.teacher.named_parameters())
    return method


def lowest(draw, ratio):
    """The floor(ratio * n) nodes with the lowest draw."""
    values = draw.tolist()
    chosen = sorted(range(len(values)), key=values.__getitem__)[: math.floor(ratio * len(values))]
    return [node in chosen for node in range(len(values))]


def cosine_error(a, b, alpha):
    total = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        total += (1 - dot / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))) ** alpha
    return total / len(a)


@torch.no_grad()
@pytest.mark.parametrize("remasker", [Uniform(0.3), None])
def test_graphmae2_equals_the_paper_as_loops(remasker):
    graph, g = small(10), generator(8)
    method = graphmae2(remasker=remasker, views=3, weight=0.7)
    hidden = lowest(torch.rand(10, generator=g), 0.5)
    covered = torch.stack([method.mask_token[0] if hid else row for row, hid in zip(graph.x, hidden, strict=True)])
    codes = forward_by_hand(method.encoder.backbone.layers, graph.replace(x=covered))
    shown, content = codes @ method.bridge.weight.T, 0.0
    for _ in range(1 if remasker is None else 3):
        again = hidden if remasker is None else lowest(torch.rand(10, generator=g), 0.3)
        token = torch.zeros(WIDTH) if remasker is None else method.code_token[0]
        rows = torch.stack([token if hid else row for row, hid in zip(shown, again, strict=True)])
        decoded = forward_by_hand(method.decoder.layers, graph.replace(x=rows))
        content += cosine_error(decoded[hidden], graph.x[hidden], 3)
    target = method.teacher_project.module(forward_by_hand(method.teacher.module.backbone.layers, graph))
    latent = cosine_error(method.predict(method.project(codes)), target, 1)
    losses = method(graph, generator(8))
    assert losses["content"].item() == pytest.approx(content, rel=1e-4)
    assert losses["latent"].item() == pytest.approx(0.7 * latent, rel=1e-4)


def test_graphmae2_covers_other_codes_in_each_view_whatever_was_hidden():
    graph, method = small(11, 40), graphmae2(remasker=Uniform(0.5), views=4)
    given, read = [], []
    method.decoder.register_forward_pre_hook(lambda module, words: given.append(words[1].detach()))
    method.encoder.register_forward_pre_hook(lambda module, words: read.append(ops.dense(words[0].x).detach()))
    method(graph, generator(1))
    hidden = (read[0] == method.mask_token).all(1)
    again = [(rows == method.code_token).all(1) for rows in given]
    assert len(again) == 4
    assert all(int(covered.sum()) == int(hidden.sum()) == 20 for covered in again)
    assert len({tuple(covered.tolist()) for covered in [*again, hidden]}) == 5


def test_graphmae2_without_random_covering_zeroes_the_hidden_codes_once():
    graph, method = small(11, 40), graphmae2(remasker=None, views=4)
    given, read = [], []
    method.decoder.register_forward_pre_hook(lambda module, words: given.append(words[1].detach()))
    method.encoder.register_forward_pre_hook(lambda module, words: read.append(ops.dense(words[0].x).detach()))
    method(graph, generator(1))
    assert len(given) == 1
    assert torch.equal((given[0] == 0).all(1), (read[0] == method.mask_token).all(1))
    assert method.code_token is None


def test_graphmae2_teachers_are_targets_and_take_no_gradient():
    graph, method = small(10), graphmae2()
    method.total(method(graph, generator(8))).backward()
    for teacher in (method.teacher, method.teacher_project):
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    found = {n: p.grad for n, p in method.encoder.named_parameters()}
    method.zero_grad()
    target = method.teacher_project(method.teacher(graph)).clone()  # a constant
    hidden = Uniform(0.5)(graph, generator(8))
    losses = method(graph, generator(8))
    x = torch.where(hidden[:, None], method.mask_token, graph.x)
    predicted = method.predict(method.project(method.encoder(graph.replace(x=x))))
    (losses["content"] + (1 - nn.functional.cosine_similarity(predicted, target)).mean()).backward()
    for name, parameter in method.encoder.named_parameters():
        torch.testing.assert_close(parameter.grad, found[name], rtol=1e-4, atol=1e-6)


def test_graphmae2_teachers_follow_with_their_momentum():
    for momentum in (0.0, 0.9, 1.0):
        method = graphmae2(norm="batch", momentum=momentum)
        both = ((method.teacher, method.encoder), (method.teacher_project, method.project))
        before = [[p.clone() for p in teacher.parameters()] for teacher, _ in both]
        method.after_step(0.5)
        for (teacher, student), old in zip(both, before, strict=True):
            for mine, theirs, was in zip(teacher.parameters(), student.parameters(), old, strict=True):
                torch.testing.assert_close(mine, momentum * was + (1 - momentum) * theirs)
                if momentum == 0:
                    assert torch.equal(mine, theirs)


def test_graphmae2_without_a_weight_learns_content_alone():
    graph, method = small(10), graphmae2(weight=0.0)
    losses = method(graph, generator(8))
    assert losses["latent"].item() == 0
    assert torch.equal(method.total(losses), losses["content"])
    method.total(losses).backward()
    assert not any(p.grad.any() for part in (method.project, method.predict) for p in part.parameters())
    assert any(p.grad.any() for p in method.encoder.parameters())


def test_bandana_predicts_no_self_loop():
    graph = small(3, 12)
    loops = torch.arange(graph.num_nodes).expand(2, graph.num_nodes)
    more = Graph.build(graph.x, torch.cat([graph.edge_index, loops], 1))
    asked = []
    method = bandana()
    method.decoder.register_forward_hook(lambda module, args, out: asked.append(args[1]))
    method(more, generator())
    assert asked
    assert all((pairs[0] != pairs[1]).all() for pairs in asked)
