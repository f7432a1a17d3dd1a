"""Methods that tell graphs from one another: losses as the papers have them, in slow loops, and views of graphs."""

import math

import pytest
import torch
from conftest import KINDS, F, generator, molecules, random_graph
from torch import nn

import graphssl
from graphssl.augment import DropEdges, DropNodes, DropSubgraph, MaskNodes, MoveEdges, OneOf, Subgraph
from graphssl.backbones import backbone
from graphssl.backbones.base import BatchNorm
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import info_nce, nt_xent
from graphssl.methods import GraphCL, InfoGraph, SimGRACE
from graphssl.ops import Rows, dense
from graphssl.recipes import Spec, get_recipe
from graphssl.train import seeded, train

WIDTH = 5
VIEWS = {
    "nodes": DropNodes(0.3),
    "content": MaskNodes(0.3),
    "edges": MoveEdges(0.3),
    "subgraph": Subgraph(0.4),
    "bonds": DropEdges(0.3),
    "removed": DropSubgraph(0.3),
    "one of": OneOf((DropNodes(0.3), MaskNodes(0.3), MoveEdges(0.3), Subgraph(0.4))),
}


def batch(*sizes, weights=True):
    """Graphs whose every node and edge can be told apart: node i holds i, and so does edge i."""
    graph = Graph.stack([random_graph(n, n, attributes=True, weights=weights) for n in sizes])
    x = torch.arange(graph.num_nodes * F).reshape(-1, F).float() + 1
    edge = torch.arange(graph.num_edges).float()
    return graph.replace(x=x, edge_attr=edge[:, None].expand(-1, 3), edge_weight=edge)


def reader(read="all", pool="sum", norm="batch", dropout=0.0, name="gin"):
    with seeded(1):
        return Encoder(backbone(name, F, [WIDTH, WIDTH], norm=norm, dropout=dropout), read=read, pool=pool)


def drawn(method, scale=0.3):
    """``method`` in evaluation mode with weights that are not those of a new one."""
    g = generator(99)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=g))
        for part in method.modules():
            if isinstance(part, BatchNorm):
                part.running_mean.normal_(generator=g)
                part.running_var.uniform_(0.5, 2.0, generator=g)
    return method.eval()


def summed(graph, codes):
    """Sums of the codes of each graph's nodes, node by node."""
    sums = [[0.0] * codes.size(1) for _ in range(graph.num_graphs)]
    for part, row in zip(graph.batch.tolist(), codes.tolist(), strict=True):
        sums[part] = [a + b for a, b in zip(sums[part], row, strict=True)]
    return torch.tensor(sums)


def contrast_by_hand(a, b, tau):
    """GraphCL's eq. 3: -log of exp(cos(a_i, b_i) / tau) over the sum of exp(cos(a_i, b_j) / tau), j other than i."""

    def similar(x, y):
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        return math.exp(dot / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y)) / tau)

    a, b = a.tolist(), b.tolist()
    losses = []
    for i in range(len(a)):
        others = sum(similar(a[i], b[j]) for j in range(len(b)) if j != i)
        losses.append(-math.log(similar(a[i], b[i]) / others))
    return sum(losses) / len(losses)


# losses


@pytest.mark.parametrize("tau", [0.1, 0.2, 1.0])
def test_nt_xent_equals_the_paper_as_loops(tau):
    a, b = torch.randn(7, 4, generator=generator(1)), torch.randn(7, 4, generator=generator(2))
    assert nt_xent(a, b, tau).item() == pytest.approx(contrast_by_hand(a, b, tau), rel=1e-4)
    assert nt_xent(a, b, tau).item() != pytest.approx(nt_xent(b, a, tau).item(), rel=1e-4)  # a's rows are the anchors
    losses = info_nce(a[:1].repeat(2, 1), b[:2], tau, intra=False)  # whose sum has the pair itself in it
    assert nt_xent(a[:1].repeat(2, 1), b[:2], tau) < losses


def test_nt_xent_of_one_graph_is_zero_and_so_is_its_gradient():
    a, b = torch.randn(1, 4, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    loss = nt_xent(a, b, 0.2)
    loss.backward()
    assert loss == 0
    assert not a.grad.any()
    assert not b.grad.any()


@torch.no_grad()
def test_infograph_equals_the_reference_as_loops():
    graph = molecules()
    method = drawn(InfoGraph(reader()))
    codes = method.encoder(graph)
    local, whole = method.local(codes).double(), method.whole(summed(graph, codes)).double()
    present, absent = [], []
    for node in range(graph.num_nodes):
        for part in range(graph.num_graphs):
            score = sum(p * q for p, q in zip(local[node].tolist(), whole[part].tolist(), strict=True))
            if graph.batch[node] == part:  # E_pos = log 2 - softplus(-score)
                present.append(math.log(2) - max(-score, 0) - math.log1p(math.exp(-abs(score))))
            else:  # E_neg = softplus(score) - log 2
                absent.append(max(score, 0) + math.log1p(math.exp(-abs(score))) - math.log(2))
    assert len(present) == 50
    assert len(absent) == 150
    expected = sum(absent) / len(absent) - sum(present) / len(present)
    assert method(graph)["information"].item() - 2 * math.log(2) == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_infographs_heads_have_a_shortcut():
    head = drawn(InfoGraph(reader())).local
    x = torch.randn(3, 2 * WIDTH, generator=generator())
    h = x
    for place in (0, 2, 4):
        h = (h @ head.block[place].weight.T + head.block[place].bias).clamp(min=0)
    torch.testing.assert_close(head(x), h + x @ head.shortcut.weight.T + head.shortcut.bias)


def test_infograph_of_one_graph_has_no_others_to_tell_apart():
    graph, method = KINDS["citation"](), InfoGraph(reader())
    loss = method(graph)["information"]
    codes = method.encoder(graph)
    scores = method.local(codes) @ method.whole(codes.sum(0))
    assert loss.item() == pytest.approx(nn.functional.softplus(-scores).mean().item(), rel=1e-4)


@torch.no_grad()
def test_graphcl_contrasts_each_graph_with_its_view_as_loops():
    graph, view = molecules(), OneOf((DropNodes(0.3), Subgraph(0.5)))
    method = drawn(GraphCL(reader(), view, 0.2))
    seen = view(graph, generator(4))
    a, b = (method.project(summed(g, method.encoder(g))) for g in (graph, seen))
    assert method(graph, generator(4))["contrast"].item() == pytest.approx(contrast_by_hand(a, b, 0.2), rel=1e-3)


# SimGRACE


@torch.no_grad()
def test_simgrace_contrasts_the_perturbed_encoder_with_the_encoder_as_loops():
    graph, method = molecules(), drawn(SimGRACE(reader(), 0.2, 0.5))
    g = generator(6)
    other = reader()
    other.load_state_dict(method.encoder.state_dict())
    other.eval()
    for parameter in other.parameters():  # eq. 2: noise as wide as the parameter's deviation, times eta
        values = parameter.flatten().tolist()
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
        parameter.add_(0.5 * spread * torch.randn(parameter.shape, generator=g))
    a, b = (method.project(summed(graph, encoder(graph))) for encoder in (other, method.encoder))
    assert method(graph, generator(6))["contrast"].item() == pytest.approx(contrast_by_hand(a, b, 0.2), rel=1e-3)


def test_simgraces_noise_is_as_wide_as_each_parameter_times_eta():
    with seeded(0):
        encoder = Encoder(backbone("gcn", F, [300, 300], norm="batch"), read="all")  # with a PReLU, a single number
    with torch.no_grad():
        encoder.backbone.layers[1].conv.linear.weight.mul_(20)
        for layer in encoder.backbone.layers:
            layer.conv.bias.fill_(3.0)
    method = SimGRACE(encoder, 0.2, 0.7)
    weights, seen = method.perturbed(generator(1)), 0
    for name, parameter in encoder.named_parameters():
        off = weights[name] - parameter
        if parameter.numel() > 1000:
            seen += 1
            assert off.std().item() == pytest.approx(0.7 * parameter.std().item(), rel=0.05)
            assert abs(off.mean().item()) < 0.05 * off.std().item()
        elif parameter.numel() == 1 or "bias" in name:
            assert not off.any()  # nothing varies
    assert seen == 2
    again, other = method.perturbed(generator(1)), method.perturbed(generator(2))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not torch.equal(
        weights["backbone.layers.0.conv.linear.weight"], other["backbone.layers.0.conv.linear.weight"]
    )
    still = SimGRACE(encoder, 0.2, 0.0).perturbed(generator(1))
    assert all(torch.equal(still[name], parameter) for name, parameter in encoder.named_parameters())


def test_simgrace_leaves_the_encoder_as_it_was():
    graph, method = molecules(), SimGRACE(reader(), 0.2, 1.0).train()
    before = {name: p.clone() for name, p in method.encoder.named_parameters()}
    alone = reader().train()
    alone.load_state_dict(method.encoder.state_dict())
    alone(graph)
    method(graph, generator(1))
    assert all(torch.equal(p, before[name]) for name, p in method.encoder.named_parameters())
    for name, buffer in method.encoder.named_buffers():  # statistics of the encoder's own pass and of no other
        assert torch.equal(buffer, dict(alone.named_buffers())[name]), name


def test_simgraces_gradient_flows_through_the_encoder_alone():
    graph, method = molecules(), SimGRACE(reader(), 0.2, 1.0).eval()
    method(graph, generator(1))["contrast"].backward()
    found = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    with torch.no_grad():
        codes = torch.func.functional_call(method.encoder, method.perturbed(generator(1)), (graph,))
        target = method.project(method.encoder.pool(graph, codes))
    codes = method.project(method.encoder.pool(graph, method.encoder(graph)))
    nt_xent(target, codes, 0.2).backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.grad, found[name])
    assert any(grad.any() for grad in found.values())


def test_simgrace_learns():
    graph, method = molecules(), SimGRACE(reader(), 0.2, 0.1)
    optimizer = torch.optim.Adam(method.parameters(), 5e-3)
    history = [losses["loss"].item() for _, losses in train(method, lambda step: graph, optimizer, 60)]
    assert sum(history[-10:]) < sum(history[:10])


# views


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_view_keeps_all_graphs_and_leaves_none_empty(name, kind):
    graph = KINDS[kind]()
    for seed in range(5):
        view = VIEWS[name](graph, generator(seed))
        assert view.num_graphs == graph.num_graphs
        assert min(view.sizes) >= 1
        assert list(view.sizes) == torch.bincount(view.batch, minlength=view.num_graphs).tolist()
        assert (view.batch.diff() >= 0).all()
        source, target = view.edge_index
        assert torch.equal(view.batch[source], view.batch[target])
        key = target * view.num_nodes + source
        assert (key.diff() >= 0).all()  # sorted by target, then by source
        assert type(view.x) is type(graph.x)  # sparse rows stay sparse
        assert view.num_nodes == view.x.size(0)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_of_its_generator_alone(name):
    graph, view = batch(8, 1, 12, 30), VIEWS[name]
    x, edges, state = graph.x.clone(), graph.edge_index.clone(), torch.get_rng_state()
    one, two, other = (view(graph, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.edge_index, two.edge_index)
    assert one.x.shape != other.x.shape or not torch.equal(one.x, other.x) or not torch.equal(
        one.edge_index, other.edge_index
    )  # fmt: skip
    assert torch.equal(graph.x, x)
    assert torch.equal(graph.edge_index, edges)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_some_graphs_leaves_the_others_as_they_are(name):
    graph = batch(8, 10, 12, 30)
    only = torch.tensor([True, False, True, False])
    for seed in range(3):
        view = VIEWS[name](graph, generator(seed), only)
        for part in (1, 3):
            mine, theirs = (g.keep_nodes(g.batch == part) for g in (view, graph))
            for field in ("x", "edge_index", "edge_attr", "edge_weight"):
                assert torch.equal(getattr(mine, field), getattr(theirs, field))
        nobody = VIEWS[name](graph, generator(seed), torch.zeros(4, dtype=torch.bool))
        assert torch.equal(nobody.x, graph.x)
        assert torch.equal(nobody.edge_index, graph.edge_index)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.5, 0.99])
def test_dropped_nodes_are_a_share_of_each_graph_and_take_their_edges_along(ratio):
    graph = batch(8, 1, 10, 30)
    view = DropNodes(ratio)(graph, generator(1))
    assert list(view.sizes) == [n - math.floor(ratio * n + 1e-9) for n in graph.sizes]
    old = ((view.x[:, 0] - 1) / F).long()  # which node of the graph each is
    assert torch.equal(view.x, graph.x[old])
    left = set(old.tolist())
    expected = [edge for edge, (s, t) in enumerate(graph.edge_index.T.tolist()) if s in left and t in left]
    assert view.edge_weight.long().tolist() == expected
    assert torch.equal(old[view.edge_index], graph.edge_index[:, expected])
    assert torch.equal(view.edge_attr[:, 0], view.edge_weight)


def test_every_node_is_dropped_as_often():
    graph, times = batch(10, 5), torch.zeros(15)
    for seed in range(400):
        view = DropNodes(0.4)(graph, generator(seed))
        times[((view.x[:, 0] - 1) / F).long()] += 1
    assert (times / 400 - 0.6).abs().max() < 0.1


@pytest.mark.parametrize("sparse", [False, True])
def test_masked_nodes_are_a_share_of_each_graph_and_keep_their_edges(sparse):
    graph = batch(8, 1, 10, 30)
    given = graph.replace(x=Rows.from_dense(graph.x)) if sparse else graph
    view = MaskNodes(0.3)(given, generator(1))
    x = dense(view.x)
    gone = (x == 0).all(1)
    assert torch.bincount(graph.batch[gone], minlength=4).tolist() == [2, 0, 3, 9]
    assert torch.equal(x[~gone], graph.x[~gone])
    assert view.edge_index is graph.edge_index


def test_moved_edges_are_a_share_of_each_graph_and_carry_what_they_did():
    graph = batch(8, 1, 10, 30)
    part = graph.batch[graph.edge_index[1]]
    wanted = [math.floor(0.3 * count + 1e-9) for count in torch.bincount(part, minlength=4).tolist()]
    assert sum(wanted) > 40
    moved = torch.zeros(4)
    for seed in range(20):
        view = MoveEdges(0.3)(graph, generator(seed))
        assert torch.equal(view.x, graph.x)
        assert sorted(view.edge_weight.tolist()) == sorted(graph.edge_weight.tolist())
        assert torch.equal(view.edge_attr[:, 0], view.edge_weight)
        old = view.edge_weight.long()  # which edge of the graph each was
        assert torch.equal(view.batch[view.edge_index[0]], part[old])
        assert (view.edge_index[0] != view.edge_index[1]).all()
        other = (view.edge_index != graph.edge_index[:, old]).any(0)
        count = torch.bincount(part[old][other], minlength=4)
        assert (count <= torch.tensor(wanted)).all()
        moved += count
    assert (moved / 20 / torch.tensor(wanted).clamp(min=1) > torch.tensor([0.8, -1.0, 0.8, 0.9])).all()  # few fall back


def test_a_new_edge_joins_any_two_nodes_as_often():
    edges = torch.tensor([[0] * 10, [1] * 10])
    graph, count = Graph.build(torch.ones(4, F), edges), torch.zeros(4, 4)
    for seed in range(400):
        view = MoveEdges(0.9)(graph, generator(seed))
        for s, t in view.edge_index.T.tolist():
            count[s, t] += 1
    count[0, 1] -= 400  # the one that stays
    assert not count.diagonal().any()
    off = count[~torch.eye(4, dtype=torch.bool)] / (400 * 9)
    assert (off - 1 / 12).abs().max() < 0.02


@pytest.mark.parametrize("directed", [False, True])
def test_a_subgraph_is_connected_and_no_more_than_its_share(directed):
    nx = pytest.importorskip("networkx")
    sizes = (9, 1, 14, 40)
    graph = Graph.stack([random_graph(n, n, directed=directed) for n in sizes])
    graph = graph.replace(x=torch.arange(graph.num_nodes).float()[:, None].expand(-1, F))
    full = 0
    for seed in range(30):
        view = Subgraph(0.4)(graph, generator(seed))
        old = view.x[:, 0].long()
        assert all(1 <= n <= max(1, math.floor(0.4 * m + 1e-9)) for n, m in zip(view.sizes, sizes, strict=True))
        full += view.sizes[3] == 16
        whole = nx.Graph(graph.edge_index.T.tolist())
        whole.add_nodes_from(range(graph.num_nodes))
        for part in range(4):
            nodes = old[view.batch == part].tolist()
            assert nx.is_connected(whole.subgraph(nodes))
        left = set(old.tolist())
        expected = [[s, t] for s, t in graph.edge_index.T.tolist() if s in left and t in left]
        assert old[view.edge_index].T.tolist() == expected
    assert full > 15  # where there is a way on, the whole share is found


def test_a_walk_stays_in_its_component_and_stops():
    graph = Graph.build(torch.ones(40, F), torch.tensor([[0, 1], [1, 0]]))
    assert {Subgraph(0.5)(graph, generator(seed)).num_nodes for seed in range(60)} == {1, 2}
    path = torch.stack([torch.arange(99), torch.arange(1, 100)])  # every edge points one way
    sizes = [Subgraph(0.1)(Graph.build(torch.ones(100, F), path), generator(seed)).num_nodes for seed in range(20)]
    assert sum(sizes) / 20 > 7
    assert max(sizes) == 10


def test_each_graph_goes_through_one_view_alone():
    graph = batch(*[20] * 60)
    view = OneOf((DropNodes(0.5), MaskNodes(0.5)))(graph, generator(3))
    dropped = torch.tensor(view.sizes) == 10
    masked = torch.bincount(view.batch[(view.x == 0).all(1)], minlength=60) == 10
    assert (dropped ^ masked).all()
    assert 15 <= int(dropped.sum()) <= 45


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DropNodes(1.0), "drop a share of 1.0 of the nodes"),
        (lambda: MaskNodes(-0.1), "mask a share of -0.1"),
        (lambda: MoveEdges(1.5), "move a share of 1.5 of the edges"),
        (lambda: Subgraph(0.0), "keep a share of 0.0"),
        (lambda: DropEdges(-0.1), "drop a share of -0.1 of the edges"),
        (lambda: DropSubgraph(1.0), "drop a share of 1.0 of the nodes"),
        (lambda: OneOf(()), "no view to choose from"),
    ],
)
def test_impossible_views_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# recipes


@pytest.mark.parametrize(("method", "instead"), [("infograph", "dgi"), ("graphcl", "grace"), ("simgrace", "grace")])
def test_one_graph_is_refused_with_advice(method, instead):
    with pytest.raises(UserError, match=f"one graph; use {instead}"):
        graphssl.pretrain(random_graph(12, 0), method, epochs=1, progress=False)
    spec = Spec("data", "graph", F, 100, 500, 10, False)
    with pytest.raises(UserError, match="batch_size of 2 or more"):
        get_recipe(method).plan(spec, get_recipe(method).settings(spec, {"batch_size": 1}))


def test_graphcl_refuses_unknown_views():
    spec = Spec("data", "graph", F, 100, 500, 10, False)
    with pytest.raises(UserError, match="random2"):
        get_recipe("graphcl").plan(spec, get_recipe("graphcl").settings(spec, {"view": "random"}))


def test_an_encoder_by_name_is_laid_out_as_infographs():
    spec = Spec("data", "graph", F, 100, 500, 10, False)
    recipe = get_recipe("infograph")
    with seeded(0):
        encoder = recipe.plan(spec, recipe.settings(spec, {"width": WIDTH, "layers": 2})).method.encoder
    graph, h, layers = molecules(), molecules().x, []
    encoder.train()
    with torch.no_grad():
        for layer in encoder.backbone.layers:
            conv = layer.conv
            assert not conv.first.bias.any()
            summed = h.clone()
            for s, t in graph.edge_index.T.tolist():
                summed[t] += h[s]
            h = conv.rest[2](conv.first(summed).clamp(min=0)).clamp(min=0)
            h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()
            layers.append(h)
        torch.testing.assert_close(encoder(graph), torch.cat(layers, 1), rtol=1e-3, atol=1e-4)
        rows = torch.arange(graph.num_nodes) % 3 == 0
        torch.testing.assert_close(encoder.backbone(graph, graph.x, rows), h[rows], rtol=1e-3, atol=1e-4)


def test_a_users_encoder_keeps_its_weights():
    spec = Spec("data", "graph", F, 100, 500, 10, False)
    mine = backbone("gin", F, [WIDTH], norm="batch")
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    recipe = get_recipe("graphcl")
    plan = recipe.plan(spec, recipe.settings(spec, {"encoder": mine}))
    assert plan.method.encoder.backbone is mine
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())
