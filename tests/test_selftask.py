"""The SelfTask pool: each loss in slow loops over networkx's facts, what each task refuses, and what it flags."""

import copy
import math

import networkx as nx
import pytest
import torch
from conftest import KINDS, F, generator, random_graph

import graphssl
from graphssl import structure
from graphssl.backbones import backbone
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.masks import Edges, Uniform
from graphssl.methods import (
    AttributeMask,
    AttributeSimilarity,
    Cluster,
    ClusterDistance,
    ClusteringCoefficient,
    ContextLabel,
    Degree,
    EdgeMask,
    MultiTask,
    PairwiseDistance,
    Partition,
)
from graphssl.ops import Rows, dense
from graphssl.probes.topology import PARTS
from graphssl.recipes import Spec, get_recipe
from graphssl.recipes.selftask import TASKS, task_named
from graphssl.store import load_tensors, tensors_of
from graphssl.train import seeded

WIDTH = 6


def encoder(name="gcn", seed=0):
    with seeded(seed):
        return Encoder(backbone(name, F, [WIDTH, WIDTH], activation="elu"))


def small(seed=0, n=24):
    """An undirected graph with a self-loop, a node alone and a triangle at least."""
    graph = random_graph(n - 1, seed, edges_per_node=1.2)
    more = torch.tensor([[0, 0, 1, 1, 2, 2, 5], [1, 2, 0, 2, 0, 1, 5]])
    return Graph.build(torch.randn(n, F, generator=generator(seed)).relu(), torch.cat([graph.edge_index, more], 1))


def simple(graph):
    """The undirected graph without loops, by networkx."""
    other = nx.Graph()
    other.add_nodes_from(range(graph.num_nodes))
    other.add_edges_from((s, t) for s, t in graph.edge_index.T.tolist() if s != t)
    return other


def linear(layer, row):
    """A linear layer's answer to a list of numbers."""
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(weights, row, strict=True)) + bias for weights, bias in rows]


def gap(codes, i, j):
    return [abs(a - b) for a, b in zip(codes[i].tolist(), codes[j].tolist(), strict=True)]


def minus_log_softmax(logits, label):
    return math.log(sum(math.exp(v) for v in logits)) - logits[label]


def squares(rows, targets):
    """Mean squared difference of two lists of lists."""
    pairs = [(a, b) for row, target in zip(rows, targets, strict=True) for a, b in zip(row, target, strict=True)]
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def loss_of(method, graph, seed=1):
    (loss,) = method(graph, generator(seed)).values()
    return loss.item()


# each loss in loops


def test_edge_mask_tells_hidden_edges_from_absent_pairs():
    graph, method = small(), EdgeMask(encoder(), Edges(0.4))
    seen = []
    method.predict.register_forward_hook(lambda layer, given, out: seen.append(given[0]))
    value = loss_of(method, graph)
    hidden = Edges(0.4)(graph, generator(1))
    edges = graph.edge_index[:, hidden].T.tolist()
    assert {(s, t) for s, t in edges} == {(t, s) for s, t in edges}  # both directions together
    codes = method.encoder(graph.keep_edges(~hidden))
    torch.testing.assert_close(seen[0], torch.tensor([gap(codes, s, t) for s, t in edges]))
    assert len(seen[1]) == len(edges)
    joined = simple(graph)
    absent = {(i, j) for i in range(24) for j in range(24) if i != j and not joined.has_edge(i, j)}
    gaps = torch.tensor([gap(codes, i, j) for i, j in sorted(absent)])
    assert all((gaps - row).abs().amax(1).min() < 1e-5 for row in seen[1].detach())
    right = [1 / (1 + math.exp(-linear(method.predict, row)[0])) for row in seen[0].tolist()]
    wrong = [1 / (1 + math.exp(-linear(method.predict, row)[0])) for row in seen[1].tolist()]
    expected = -sum(map(math.log, right)) / len(right) - sum(math.log(1 - p) for p in wrong) / len(wrong)
    assert value == pytest.approx(expected, rel=1e-4)


def test_edge_mask_scores_pairs_as_it_was_trained_to():
    graph, method = small(), EdgeMask(encoder())
    codes, pairs = method.encoder(graph), torch.tensor([[0, 3, 7], [1, 3, 2]])
    expected = [linear(method.predict, gap(codes, i, j))[0] for i, j in pairs.T.tolist()]
    torch.testing.assert_close(method.score(codes, pairs), torch.tensor(expected))


@pytest.mark.parametrize("sparse", [False, True])
def test_attribute_mask_predicts_the_content_of_nodes_that_show_none(sparse):
    graph, method = small(), AttributeMask(encoder(), Uniform(0.3))
    given = graph.replace(x=Rows.from_dense(graph.x)) if sparse else graph
    seen = []
    method.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].x))
    value = loss_of(method, given)
    hidden = Uniform(0.3)(graph, generator(1))
    assert isinstance(seen[0], Rows) == sparse
    shown = torch.where(hidden[:, None], 0.0, graph.x)
    assert torch.equal(dense(seen[0]), shown)
    codes = method.encoder(graph.replace(x=shown))
    rows = hidden.nonzero().flatten().tolist()
    assert len(rows) == 7
    predicted = [linear(method.predict, codes[i].tolist()) for i in rows]
    assert value == pytest.approx(squares(predicted, graph.x[hidden].tolist()), rel=1e-4)


def test_pairwise_distance_is_the_class_of_the_shortest_path():
    graph, method = small(), PairwiseDistance(encoder(), pairs=40, sources=9)
    pairs, distance = method.draw(graph, generator(1))
    lengths = dict(nx.all_pairs_shortest_path_length(simple(graph)))
    assert pairs.shape == (2, 160)
    assert torch.bincount(distance).tolist() == [0, 40, 40, 40, 40]
    assert distance.tolist() == [min(4, lengths[i].get(j, 99)) for i, j in pairs.T.tolist()]
    assert pairs[0].unique().numel() <= 9
    assert len({(i, j) for i, j in pairs.T.tolist()}) > 60
    codes = method.encoder(graph)
    each = [
        minus_log_softmax(linear(method.predict, gap(codes, i, j)), d - 1)
        for (i, j), d in zip(pairs.T.tolist(), distance.tolist(), strict=True)
    ]
    assert loss_of(method, graph) == pytest.approx(sum(each) / len(each), rel=1e-4)


def test_pairwise_distance_stays_within_graphs_and_does_without_a_class():
    graph = KINDS["molecules"]()
    pairs, _ = PairwiseDistance(encoder()).draw(graph, generator())
    assert torch.equal(graph.batch[pairs[0]], graph.batch[pairs[1]])
    assert (pairs[0] != pairs[1]).all()
    clique = torch.combinations(torch.arange(5)).T
    pairs, distance = PairwiseDistance(encoder(), pairs=8).draw(Graph.build(torch.ones(5, F), clique), generator())
    assert distance.tolist() == [1] * 8


def test_cluster_distance_is_one_over_the_hops_to_the_centres():
    graph, method = random_graph(40, 2, edges_per_node=1.1), ClusterDistance(encoder(), parts=4)
    joined, part = simple(graph), structure.partition(graph, 4).tolist()
    expected = [[0.0] * 4 for _ in range(40)]
    for p in range(4):
        members = [i for i in range(40) if part[i] == p]
        centre = max(members, key=lambda i: (joined.degree[i], -i))
        for node, hops in nx.single_source_shortest_path_length(joined, centre).items():
            expected[node][p] = 1 / max(hops, 1)
    assert any(0.0 in row for row in expected)  # not all have a path to each centre
    torch.testing.assert_close(method.nearness(graph), torch.tensor(expected))
    codes = method.encoder(graph).tolist()
    predicted = [linear(method.predict, row) for row in codes]
    assert loss_of(method, graph) == pytest.approx(squares(predicted, expected), rel=1e-4)


def cosines(x):
    norm = [math.sqrt(sum(v * v for v in row)) for row in x]
    return [
        [sum(a * b for a, b in zip(x[i], x[j], strict=True)) / ((norm[i] * norm[j]) or 1.0) for j in range(len(x))]
        for i in range(len(x))
    ]


@pytest.mark.parametrize("kind", ["citation", "words", "molecules", "one-node"])
def test_similar_pairs_are_the_most_and_the_least_alike(kind, monkeypatch):
    graph = KINDS[kind]()
    every, batch = cosines(dense(graph.x).tolist()), graph.batch.tolist()
    for chunk in (structure.CHUNK, 3 * graph.num_nodes):
        monkeypatch.setattr(structure, "CHUNK", chunk)
        pairs, value = structure.similar_pairs(graph, 2)
        listed = [(i, j) for i, j in pairs.T.tolist()]
        assert len(set(listed)) == len(listed)
        assert all(i < j and batch[i] == batch[j] for i, j in listed)
        assert value.tolist() == pytest.approx([every[i][j] for i, j in listed], abs=1e-5)
        met = [
            sorted(every[i][j] for j in range(len(batch)) if (min(i, j), max(i, j)) in listed)
            for i in range(len(batch))
        ]
        for i in range(len(batch)):
            others = sorted(every[i][j] for j in range(len(batch)) if j != i and batch[j] == batch[i])
            assert met[i][:2] == pytest.approx(others[:2], abs=1e-5)  # the two least alike, and below the two most
            assert met[i][-2:] == pytest.approx(others[-2:], abs=1e-5)
        if kind == "citation":
            between = sum(len(row) for row in met) - 4 * len(batch)
            assert between > 20  # and random ones


def test_similar_pairs_of_a_sample(monkeypatch):
    monkeypatch.setattr(structure, "SAMPLE", 16)
    graph = random_graph(60, 0)
    pairs, value = structure.similar_pairs(graph, 3)
    exact = torch.nn.functional.cosine_similarity(graph.x[pairs[0]], graph.x[pairs[1]])
    torch.testing.assert_close(value, exact, rtol=1e-4, atol=1e-5)
    assert value.abs().mean() > 1.2 * torch.nn.functional.cosine_similarity(graph.x[:30], graph.x[30:]).abs().mean()


def test_attribute_similarity_predicts_cosines_of_content():
    graph, method = small(), AttributeSimilarity(encoder(), pairs=30)
    pairs, _ = structure.similar_pairs(graph, 3)
    drawn = torch.randperm(pairs.size(1), generator=generator(1))[:30]
    every, codes = cosines(graph.x.tolist()), method.encoder(graph)
    each = [(linear(method.predict, gap(codes, i, j))[0] - every[i][j]) ** 2 for i, j in pairs[:, drawn].T.tolist()]
    assert len(each) == 30
    assert loss_of(method, graph) == pytest.approx(sum(each) / 30, rel=1e-3)


@pytest.mark.parametrize("kind", [Degree, ClusteringCoefficient])
def test_degree_and_clustering_coefficient_are_regressed(kind):
    graph, method = small(), kind(encoder())
    joined = simple(graph)
    share = nx.clustering(joined)
    expected = [[math.log(1 + joined.degree[i])] if kind is Degree else [share[i]] for i in range(24)]
    predicted = [linear(method.predict, row) for row in method.encoder(graph).tolist()]
    assert len({row[0] for row in expected}) > 2
    assert loss_of(method, graph) == pytest.approx(squares(predicted, expected), rel=1e-4)


@pytest.mark.parametrize("kind", [Partition, Cluster])
def test_parts_and_clusters_are_classes(kind):
    graph, method = small(), kind(encoder(), 4)
    group = structure.partition(graph, 4) if kind is Partition else structure.content_clusters(graph, 4)
    assert len(group.unique()) == 4
    codes = method.encoder(graph).tolist()
    each = [minus_log_softmax(linear(method.predict, codes[i]), g) for i, g in enumerate(group.tolist())]
    assert loss_of(method, graph) == pytest.approx(sum(each) / len(each), rel=1e-4)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_facts_are_worked_out_once_a_graph(task, monkeypatch):
    graph, calls = random_graph(60, 0), []
    for name in ("partition", "content_clusters", "clustering_coefficient", "similar_pairs", "degree"):
        make = getattr(structure, name)
        monkeypatch.setattr(structure, name, lambda *a, make=make, name=name: calls.append(name) or make(*a))
    method = task_named(task, spec_of(graph), encoder())
    for step in range(3):
        method(graph, generator(step))
    assert len(set(calls)) == len(calls)


# labels


def test_context_labels_are_predicted_where_they_are_not_given():
    graph = small(3, 30)
    labels = torch.where(torch.rand(30, generator=generator(5)) < 0.3, torch.arange(30) % 3, -1)
    expected = structure.label_context(graph, labels, 7).tolist()
    method = ContextLabel(encoder(), labels, rounds=7)
    asked = [i for i in range(30) if labels[i] < 0 and sum(expected[i])]
    assert 5 < len(asked) < 30 - int((labels >= 0).sum())  # the node alone is not asked
    codes, predicted = method.encoder(graph).tolist(), []
    for i in asked:
        logits = [math.exp(v) for v in linear(method.predict, codes[i])]
        predicted.append([v / sum(logits) for v in logits])
    assert loss_of(method, graph) == pytest.approx(squares(predicted, [expected[i] for i in asked]), rel=1e-4)


def test_two_context_labels_on_one_graph_do_not_share_their_labels():
    graph = random_graph(40, 1)
    one, two = torch.arange(40) % 3, torch.arange(40) % 2
    one[20:] = two[20:] = -1
    first = loss_of(ContextLabel(encoder(), one), graph)
    again = [loss_of(ContextLabel(encoder(), labels), graph) for labels in (two, one)]
    with seeded(0):
        method = ContextLabel(encoder(), one)
    assert loss_of(method, graph) == loss_of(copy.deepcopy(method), graph)
    assert again[0] != first


def test_a_run_goes_on_with_the_same_labels_only():
    graph = random_graph(40, 1)
    one, two = torch.arange(40) % 3, torch.arange(40) % 2
    one[20:] = two[20:] = -1
    two[0] = 2  # so that the heads are of one shape
    run = graphssl.pretrain(graph, ContextLabel(encoder(), one), epochs=1, progress=False)
    for labels, fits in ((one, True), (two, False)):
        method = ContextLabel(encoder(), labels)
        load_tensors(method, tensors_of(run.method), "the run")
        if fits:
            method(graph)
        else:
            with pytest.raises(UserError, match="learned from other labels"):
                method(graph)


def test_labels_are_flagged_and_stay_out_of_the_weights():
    method = ContextLabel(encoder(), torch.tensor([0, 1, -1]))
    assert method.sees_labels
    assert not EdgeMask(encoder()).sees_labels
    assert not any("labels" in name for name in method.state_dict())


@pytest.mark.parametrize("labels", [torch.tensor([-1, -1]), torch.rand(3), torch.zeros(3, 2, dtype=torch.long)])
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(UserError, match="expected integers \\[nodes\\] of which some are known"):
        ContextLabel(encoder(), labels)


def test_labels_of_another_graph_are_refused():
    with pytest.raises(UserError, match="labels of 3 nodes, but 60 nodes in 1 graphs"):
        ContextLabel(encoder(), torch.tensor([0, 1, -1]))(random_graph(60, 0), generator())


def test_context_labels_pretrain_as_an_object():
    graph = random_graph(60, 0)
    labels = torch.arange(60) % 3
    labels[30:] = -1
    run = graphssl.pretrain(graph, ContextLabel(encoder(), labels), epochs=3, progress=False, device="cpu")
    assert len(run.history["loss"]) == 3
    assert run.embed().shape == (60, WIDTH)


# what tasks flag and refuse


def spec_of(graph, **changes):
    sizes = {"nodes": graph.num_nodes, "edges": graph.num_edges, "graphs": graph.num_graphs}
    return Spec("data", "node", F, sparse=False, **{**sizes, **changes})


def test_tasks_that_predict_parts_say_so():
    spec = spec_of(random_graph(60, 0))
    flagged = {name for name in TASKS if "partition" in task_named(name, spec, encoder()).pretexts}
    assert flagged == {"partition", "cluster-distance"}
    shared = encoder()
    both = MultiTask({name: task_named(name, spec, shared) for name in ("degree", "partition", "cluster-distance")})
    assert both.pretexts == ("partition",)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_is_one_setting(task):
    run = graphssl.pretrain(
        random_graph(60, 0), "selftask", tasks=task, groups=4, width=8, epochs=2, progress=False, device="cpu"
    )
    assert run.embed().shape == (60, 8)


def test_an_unknown_task_gets_the_nearest():
    with pytest.raises(UserError, match="unknown task of selftask 'degrees'; did you mean 'degree'"):
        graphssl.pretrain(random_graph(9, 0), "selftask", tasks="degrees", epochs=0, progress=False)


@pytest.mark.parametrize("task", ["cluster", "cluster-distance", "partition"])
def test_groups_of_several_graphs_are_refused(task):
    with pytest.raises(UserError, match=f"task '{task}' cuts one graph into groups, but the data has 4 graphs.*degree"):
        task_named(task, spec_of(KINDS["molecules"]()), encoder())
    with pytest.raises(UserError, match=f"task '{task}' cannot make 12 groups of 5 nodes; choose 2 to 5"):
        task_named(task, spec_of(random_graph(5, 0)), encoder())


@pytest.mark.parametrize("task", sorted(name for name, task in TASKS.items() if task.edges))
def test_data_without_edges_is_refused_with_tasks_that_need_none(task):
    with pytest.raises(UserError, match=f"task '{task}' learns from edges.*'attribute-mask'"):
        task_named(task, spec_of(KINDS["no-edges"]()), encoder(), groups=3)


def test_all_tasks_are_those_that_fit_the_data():
    sets = {
        "one graph": (random_graph(60, 0), {}, set(TASKS)),
        "no edges": (KINDS["no-edges"](), {"groups": 3}, {"attribute-mask", "attribute-similarity", "cluster"}),
        "several graphs": (
            [random_graph(20, seed) for seed in (0, 1)], {}, set(TASKS) - {"cluster", "cluster-distance", "partition"}
        ),
    }  # fmt: skip
    for data, settings, tasks in sets.values():
        run = graphssl.pretrain(data, "selftask", tasks="all", width=8, epochs=1, progress=False, **settings)
        assert set(run.method.tasks) == tasks
        assert tasks <= run.history.keys()


def test_groups_are_not_as_many_as_the_protocol_asks_for():
    spec = spec_of(random_graph(60, 0))
    for task in ("partition", "cluster", "cluster-distance"):
        assert task_named(task, spec, encoder()).predict.out_features != PARTS
    assert Partition(encoder()).predict.out_features != PARTS


def test_several_tasks_may_share_one_encoder():
    graph, shared = random_graph(60, 0), encoder()
    tasks = {name: task_named(name, spec_of(graph), shared) for name in TASKS}
    losses = MultiTask(tasks)(graph, generator())
    assert set(losses) == set(TASKS)
    assert all(task.encoder is shared for task in tasks.values())


def test_settings_of_the_recipe_reach_the_task():
    made = get_recipe("selftask")
    spec = spec_of(random_graph(60, 0))
    settings = made.settings(spec, {"tasks": "edge-mask", "mask": 0.3})
    assert made.plan(spec, settings).method.masker == Edges(0.3)
    settings = made.settings(spec, {"tasks": "partition", "groups": 7})
    assert made.plan(spec, settings).method.predict.out_features == 7
