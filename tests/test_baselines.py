"""Baselines: what they compute, by slow formulas, and that runs without training are runs like any other.

They are not rows of the table of methods: all but line have no loss, and line holds a row for each node of one graph,
so it can neither be renumbered nor embed a batch.
"""

import copy
import json
import math

import numpy as np
import pytest
import torch
from conftest import KINDS, generator, random_graph
from sklearn.preprocessing import normalize, scale
from test_api import cited, molecules

import graphssl
from graphssl import store
from graphssl.backbones import Backbone, FastRP, Layer, Propagate, Table
from graphssl.backbones.fastrp import projection
from graphssl.cli import main
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.methods import LINE, Baseline
from graphssl.methods.line import draw, laws
from graphssl.ops import dense
from graphssl.recipes import Spec, get_recipe
from graphssl.train import seeded, train

FIXED = ("fastrp", "raw", "sgc", "untrained")  # nothing is trained
SETTINGS = {"fastrp": {"width": 24}, "untrained": {"width": 24}}


def pretrain(data, method, **more):
    return graphssl.pretrain(data, method, progress=False, **{**SETTINGS.get(method, {}), **more})


def codes_of(conv, graph):
    return Encoder(Backbone([Layer(conv, graph.x.size(1), 1)])).eval()(graph)


def adjacency(graph):
    """A [N, N] with A[i, j] the weight of all edges from j to i."""
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    weight = torch.ones(graph.num_edges) if graph.edge_weight is None else graph.edge_weight
    for (j, i), w in zip(graph.edge_index.t().tolist(), weight.tolist(), strict=True):
        matrix[i, j] += w
    return matrix


# what they compute


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["citation", "words", "weighted", "star", "molecules", "one-node", "no-edges"])
def test_sgc_is_the_explicit_product(kind, hops):
    graph = KINDS[kind]()
    hat = adjacency(graph) + torch.eye(graph.num_nodes)  # these kinds have no self-loops of their own
    root = hat.sum(1).rsqrt().diag()
    expected = dense(graph.x).double()
    for _ in range(hops):
        expected = root @ hat @ root @ expected
    torch.testing.assert_close(codes_of(Propagate(hops), graph).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("kind", ["citation", "words", "weighted", "star"])
def test_fastrp_is_the_dense_formula(kind, unit):
    graph, weights, beta = KINDS[kind](), (0.5, 0.0, 1.0, 6.0), -0.7
    torch.manual_seed(3)
    ours = FastRP(100, weights, beta, unit)  # wider than what is worked on at once
    A = adjacency(graph).numpy()
    degree = A.sum(1)
    R = np.zeros((graph.num_nodes, 100))
    node, column, sign = projection(graph.sizes, 100, int(ours.seed))
    for n, c, s in zip(node.tolist(), column.tolist(), sign.tolist(), strict=True):
        R[n, c] = s * math.sqrt(math.sqrt(graph.num_nodes))
    power = np.diag(degree**beta) @ R
    total = np.zeros_like(R)
    for weight in weights:
        power = np.diag(1 / degree) @ A @ power
        total += weight * (normalize(power) if unit else power)
    torch.testing.assert_close(codes_of(ours, graph).double(), torch.from_numpy(scale(total)), rtol=5e-3, atol=2e-3)


def test_the_projection_is_very_sparse_and_even():
    n, dim = 400, 1000
    node, column, sign = projection([n], dim, 5)
    assert len(torch.unique(node * dim + column)) == len(node)
    assert node.max() < n
    assert column.max() < dim
    share = len(node) / (n * dim)
    assert abs(share - 1 / math.sqrt(n)) < 5 * math.sqrt(share / (n * dim))  # s = sqrt(n)
    assert abs(sign.mean()) < 5 / math.sqrt(len(sign))
    assert set(sign.tolist()) == {-1.0, 1.0}
    counts = torch.bincount(node, minlength=n).double()
    assert abs(counts.var() / (dim * share * (1 - share)) - 1) < 0.4  # as of draws one by one
    again = projection([7, n], dim, 5)
    assert torch.equal(again[0][again[0] >= 7] - 7, node)  # a graph has its projection whatever stands beside it


def test_fastrp_takes_another_seed_and_leaves_nodes_without_edges_at_zero_before_scaling():
    one, other = pretrain(cited(), "fastrp"), pretrain(cited(), "fastrp", seed=1)
    assert not torch.equal(one.embed(), other.embed())
    assert torch.equal(one.embed(), pretrain(cited(), "fastrp").embed())
    for kind in ("odd", "no-edges", "one-node"):
        codes = codes_of(FastRP(16, (1.0, 2.0), -0.9), KINDS[kind]())
        assert codes.isfinite().all()
        if kind != "odd":
            assert not codes.any()


def test_content_is_not_looked_at():
    graph = KINDS["citation"]()
    run = pretrain(graph, "fastrp")
    wider = graph.replace(x=torch.randn(graph.num_nodes, 77, generator=generator(1)))
    assert torch.equal(run.embed(wider), run.embed())
    report = graphssl.evaluate(run.encoder, cited(), "node-linear")
    assert report.rows[0].score == run.evaluate(cited(), "node-linear").rows[0].score
    with pytest.raises(UserError, match="77 features"):
        pretrain(graph, "sgc").embed(wider)


def test_raw_codes_are_the_content():
    assert torch.equal(pretrain(cited(), "raw").embed(), cited().x)
    items = molecules()
    assert torch.allclose(pretrain(items, "raw").embed()[3], items[3].x.mean(0))
    rows = pretrain(cited(), "raw").evaluate(protocol="node-linear").rows
    assert rows[0].score == rows[1].score


def test_untrained_is_the_encoder_before_training():
    run = pretrain(cited(), "untrained", layers=1, activation="relu", seed=5)
    with seeded(5):
        body = graphssl.backbones.backbone("gcn", 8, [24], activation="relu")
    graph = run.data().graph
    with torch.no_grad():
        assert torch.equal(run.embed(), body(graph, graph.x))
    assert not torch.equal(run.embed(), pretrain(cited(), "untrained", layers=1, activation="relu").embed())


# contracts of the table of methods, as far as they apply


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hops", [0, 2])
def test_renumbering_nodes_renumbers_codes(kind, hops):
    graph = KINDS[kind]()
    order = torch.rand(graph.num_nodes, generator=generator(9)).argsort()
    order = order[graph.batch[order].argsort(stable=True)]
    source, target = order.argsort()[graph.edge_index]
    edges = (target * graph.num_nodes + source).argsort(stable=True)
    along = {k: v[edges] for k in ("edge_attr", "edge_weight") if (v := getattr(graph, k)) is not None}
    moved = graph.replace(x=graph.x[order], edge_index=torch.stack([source, target])[:, edges], **along)
    conv = Propagate(hops)
    torch.testing.assert_close(codes_of(conv, moved), codes_of(conv, graph)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: Propagate(2), lambda: FastRP(70, (0.0, 1.0, 2.0), -0.9)])
def test_batch_mates_do_not_see_each_other_and_rows_are_rows(make):
    graph, conv = KINDS["molecules"](), make()
    together = codes_of(conv, graph)
    for b in range(graph.num_graphs):
        alone = Graph.build(
            graph.x[graph.batch == b], graph.keep_nodes(graph.batch == b).edge_index
        )  # fmt: skip
        torch.testing.assert_close(codes_of(conv, alone), together[graph.batch == b], rtol=1e-4, atol=1e-5)
    rows = torch.arange(graph.num_nodes) % 3 == 0
    assert torch.equal(conv(graph, graph.x, rows), conv(graph, graph.x)[rows])


@pytest.mark.parametrize("make", [lambda: Propagate(2), lambda: FastRP(12, (1.0, 2.0), -0.9)])
def test_sparse_and_dense_content_give_the_same(make):
    graph, conv = KINDS["words"](), make()
    assert torch.equal(codes_of(conv, graph), codes_of(conv, graph.replace(x=dense(graph.x))))


# runs without training


@pytest.mark.parametrize("method", FIXED)
def test_a_run_without_training_is_a_run_like_any_other(method, tmp_path):
    out = tmp_path / "run"
    run = pretrain("citations-mini", method, out=out)
    assert run.config["epochs"] == 0
    assert run.history == {}
    assert {p.name for p in out.iterdir()} == {store.CONFIG, store.METRICS, store.WEIGHTS}
    again = graphssl.load(out)
    assert torch.equal(again.embed(), run.embed())
    before = (out / store.WEIGHTS).stat().st_mtime_ns
    assert torch.equal(pretrain("citations-mini", method, out=out, resume=True).embed(), run.embed())
    assert (out / store.WEIGHTS).stat().st_mtime_ns == before
    assert torch.equal(pretrain("citations-mini", method, out=out, overwrite=True).embed(), run.embed())
    rows = again.evaluate(protocol="node-knn").rows
    assert [row.name for row in rows] == [method, "raw features"]
    again.save(tmp_path / "copy")
    assert torch.equal(graphssl.load(tmp_path / "copy").embed(), run.embed())
    assert torch.equal(graphssl.pretrain("citations-mini", run, progress=False).embed(), run.embed())
    assert again.plot(tmp_path / "codes.png").stat().st_size > 1000
    with pytest.raises(UserError, match=f"{method} has nothing to train; leave out epochs"):
        pretrain("citations-mini", method, epochs=3)
    tuned = run.finetune(epochs=2)
    assert tuned.predict().size(0) == run.embed().size(0)


@pytest.mark.parametrize("method", FIXED)
def test_a_run_without_training_on_a_link_set(method):
    report = pretrain(graphssl.to_dataset(cited(120)).link(), method).evaluate(protocol="link-mlp-valmsg")
    assert [row.name for row in report.rows] == [method, "raw features"]


@pytest.mark.parametrize("method", ["raw", "sgc", "untrained"])
def test_lists_of_graphs(method):
    run = pretrain(molecules(), method)
    assert run.embed().shape == (30, run.encoder.dim)
    assert run.embed(level="node").size(0) == sum(d.num_nodes for d in molecules())
    assert [row.name for row in run.evaluate(protocol="graph-svm").rows] == [method, "raw features"]


def test_the_command_line(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["pretrain", "citations-mini", "--method", "sgc", "--set", "hops=3", "--out", out, "--quiet"]) == 0
    assert main(["evaluate", out, "--protocol", "node-knn"]) == 0
    assert "sgc" in capsys.readouterr().out
    assert main(["embed", out, "--to", str(tmp_path / "codes.npy")]) == 0
    assert main(["pretrain", "citations-mini", "--method", "sgc", "--epochs", "2", "--out", out + "2"]) == 2
    assert "has nothing to train" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / store.CONFIG).read_text())["parameters"] == 0


def test_a_baseline_object_is_not_trained():
    method = Baseline(Encoder(graphssl.backbones.backbone("gcn", 8, [16])))
    assert graphssl.pretrain(cited(), method, epochs=0, progress=False).embed().shape == (60, 16)
    with pytest.raises(UserError, match="no loss to train by"):
        graphssl.pretrain(cited(), method, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("sgc", {"hops": 0}, "1 or more"),
        ("sgc", {"hop": 2}, "did you mean 'hops'"),
        ("fastrp", {"weights": "0,0,x"}, "a number for each power"),
        ("fastrp", {"weights": "0,inf"}, "a number for each power"),
        ("fastrp", {"weights": "0,0"}, "differ from 0"),
        ("line", {"negatives": 0}, "1 or more"),
        ("line", {"samples": 0}, "1 or more"),
    ],
)
def test_wrong_settings_are_refused_in_words(method, settings, words):
    with pytest.raises(UserError, match=words):
        pretrain(cited(), method, **settings)


@pytest.mark.parametrize("method", ["fastrp", "line"])
def test_lists_of_graphs_are_refused_by_what_knows_nodes_of_one(method):
    with pytest.raises(UserError, match=f"{method} .*list of graphs"):
        pretrain(molecules(), method)


# line


def line_of(graph, width=6, seed=0, **settings):
    spec = Spec("data", "node", graph.x.size(1), graph.num_nodes, graph.num_edges, 1, False)
    recipe = get_recipe("line")
    with seeded(seed):
        return recipe.plan(spec, recipe.settings(spec, {"width": width, **settings})).method


def losses_of(method, graph, seed=0):
    return method(graph, generator(seed))


NODES = [kind for kind in KINDS if kind not in ("molecules", "one-node", "no-edges")]


@pytest.mark.parametrize("kind", ["citation", "weighted"])
def test_line_is_the_papers_loss(kind):
    graph = KINDS[kind]()
    method = line_of(graph)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(generator=generator(4))
    losses = losses_of(method, graph, 7)
    g = generator(7)
    pairs, edges, nodes = laws(graph)
    picked, absent = draw(edges, (method.samples, 1), g), draw(nodes, (method.samples, 5), g)

    def log_sigmoid(a, b):
        return -math.log1p(math.exp(-sum(x * y for x, y in zip(a, b, strict=True))))

    for order, (table, context) in {
        "first": (method.table.first, method.table.first), "second": (method.table.second, method.context),
    }.items():  # fmt: skip
        total = 0.0
        for s in range(method.samples):
            i, j = pairs[:, picked[s, 0]].tolist()
            total -= log_sigmoid(table[i].tolist(), context[j].tolist())
            for n in absent[s].tolist():
                total -= log_sigmoid([-x for x in table[i].tolist()], context[n].tolist())
        assert losses[order].item() == pytest.approx(total / method.samples, rel=1e-4)
    assert method.total(losses).item() == pytest.approx(method.samples * sum(v.item() for v in losses.values()))


def test_edges_are_drawn_by_weight_and_negatives_by_degree_to_three_quarters():
    edges = torch.tensor([[0, 1, 0, 2, 0, 3, 4], [1, 0, 2, 0, 3, 0, 4]])
    graph = Graph.build(torch.zeros(5, 1), edges, edge_weight=torch.tensor([1.0, 1.0, 3.0, 3.0, 0.0, 0.0, 9.0]))
    pairs, edges, nodes = laws(graph)
    drawn = draw(edges, (100_000,), generator())
    pair = pairs[:, drawn].amax(0)  # the end that is not node 0
    counts = torch.bincount(pair, minlength=5) / len(drawn)
    torch.testing.assert_close(counts, torch.tensor([0.0, 0.25, 0.75, 0.0, 0.0]), atol=0.01, rtol=0)
    expected = torch.tensor([4.0, 1.0, 3.0, 0.0, 0.0]).pow(0.75)
    counts = torch.bincount(draw(nodes, (100_000,), generator()), minlength=5) / 100_000
    torch.testing.assert_close(counts, expected / expected.sum(), atol=0.01, rtol=0)
    with pytest.raises(UserError, match="0 or more"):
        laws(graph.replace(edge_weight=-graph.edge_weight))


@pytest.mark.parametrize("kind", NODES)
def test_line_keeps_the_contracts_of_a_method(kind):
    graph = KINDS[kind]()
    method = line_of(graph)
    one, two = losses_of(method, graph, 1), losses_of(copy.deepcopy(method), graph, 1)
    assert all(loss.isfinite() and loss.shape == () for loss in one.values())
    assert all(torch.equal(one[k], two[k]) for k in one)
    if kind != "odd":
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.normal_(generator=generator(4))  # contexts are zeros at first, and all draws alike
        other = losses_of(method, graph, 2)
        assert any(not torch.equal(other[k], losses_of(method, graph, 1)[k]) for k in other)
    method.total(losses_of(method, graph, 3)).backward()
    assert all(p.grad is not None for p in method.parameters())
    twin = line_of(graph, seed=1)
    twin.load_state_dict(method.state_dict())
    one, two = losses_of(twin, graph), losses_of(method, graph)
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("kind", ["citation", "star", "weighted"])
def test_line_learns_with_its_own_steps(kind):
    graph = KINDS[kind]()
    data = graphssl.to_dataset(graph)
    run = pretrain(data, "line", width=8, samples=100)
    first = sum(run.history["loss"][:20])
    assert sum(run.history["loss"][-20:]) < 0.95 * first
    codes = run.embed()
    halves = codes[:, :8].norm(dim=1), codes[:, 8:].norm(dim=1)
    for half in halves:
        torch.testing.assert_close(half, torch.ones(graph.num_nodes))


def test_neighbours_end_up_closer_than_strangers():
    pairs = torch.triu_indices(10, 10, 1)
    edges = torch.cat([pairs, pairs + 10], dim=1)
    run = pretrain(Graph.build(torch.zeros(20, 1), torch.cat([edges, edges.flip(0)], 1)), "line", width=16, samples=100)
    same = torch.arange(20)[:, None] // 10 == torch.arange(20) // 10
    codes = run.embed()
    for half in (codes[:, :16], codes[:, 16:]):
        near = half @ half.T
        assert near[same].mean() > near[~same].mean() + 0.2


def test_the_number_of_steps_follows_the_edges():
    graph = random_graph(40, 1)
    spec = Spec("data", "node", 4, 40, 300, 1, False)
    recipe = get_recipe("line")
    assert recipe.plan(spec, recipe.settings(spec, {"samples": 7})).epochs == 66  # 7 * 300 edges, 32 a step
    assert recipe.plan(spec, recipe.settings(spec, {"epochs": 3})).epochs == 3
    with pytest.raises(UserError, match="line learns by sampling edges"):
        pretrain(KINDS["no-edges"](), "line")
    steps = train(line_of(graph), lambda step: graph, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0), 2)
    assert len(list(steps)) == 2


def test_line_says_that_it_cannot_embed_another_graph(tmp_path):
    out = tmp_path / "run"
    run = pretrain(cited(), "line", width=8, epochs=5, out=out)
    assert run.embed(cited()).shape == (60, 16)
    assert torch.equal(graphssl.load(out).embed(cited()), run.embed())
    assert [row.name for row in run.evaluate(protocol="node-knn").rows] == ["line", "untrained encoder", "raw features"]
    other = cited(seed=3)
    for use in (run.embed, run.evaluate, run.finetune, lambda d: run.export(tmp_path / "c.npy", d)):
        with pytest.raises(UserError, match=r"line has learned a row for each node .* cannot embed another"):
            use(other)
    with pytest.raises(UserError, match="a row for each of 60 nodes"):
        graphssl.evaluate(run.encoder, cited(70), "node-knn")
    with pytest.raises(UserError, match="do not fit"):
        graphssl.pretrain(cited(70), run, progress=False)
    assert run.encoder.transductive
    assert not pretrain(cited(), "fastrp").encoder.transductive


def test_on_a_link_set_line_is_judged_by_what_asks_for_one_graph():
    run = pretrain(graphssl.to_dataset(cited(120)).link(), "line", width=8, epochs=5)
    protocols = {row.protocol for row in run.evaluate().rows}
    assert {"link-dot", "link-mlp"} <= protocols
    assert "link-mlp-valmsg" not in protocols
    with pytest.raises(UserError, match=r"link-mlp-valmsg embeds a second graph.*judge by link-dot"):
        run.evaluate(protocol="link-mlp-valmsg")


def test_a_table_starts_as_the_reference_does_and_line_is_built_of_it():
    table = Table(500, 32)
    assert table.first.abs().max() <= 1 / 64
    assert table.first.std().item() == pytest.approx(1 / 32 / math.sqrt(12), rel=0.05)
    method = LINE(Encoder(Backbone([Layer(table, 3, 64)])), samples=4)
    assert not method.context.any()
    assert method.table is table
