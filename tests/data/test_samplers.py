"""Parts of one large graph: what is in them, who counts, what is drawn how often, and that nothing else changes it."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import graphssl
from graphssl import loading, ops
from graphssl.backbones import backbone
from graphssl.data import samplers
from graphssl.data.loader import shard
from graphssl.data.samplers import LOADERS, Ahead, Clusters, Loading, Local, Neighbors, Sampled, Walks, cut, sampler_for
from graphssl.data.stored import Stored
from graphssl.data.transforms import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods.pairs import absent_pairs, plain
from graphssl.recipes import Spec, get_recipe, list_methods
from graphssl.recipes.base import COMMON, RECIPES, defaults_of
from graphssl.train import seeded

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tables
from conftest import KINDS, METHODS, generator, random_graph

SAMPLED = LOADERS[2:]
ONE = ("citation", "words", "directed", "weighted", "star", "odd", "no-edges", "one-node")


def single(graph):
    """The graph with one of each of its edges."""
    key = graph.edge_index[1] * graph.num_nodes + graph.edge_index[0]
    return graph.keep_edges(torch.cat([key.new_ones(1), key.diff()]) != 0)


def sampled(graph, how, batch_size=16, seed=0, slots=1, pairs=False, contrasts=False, **options):
    sampler, units = sampler_for(how, Loading(**options), graph, batch_size, pairs, contrasts, seed)
    return Sampled(graph, sampler, lambda part: part, "cpu", units, seed, slots)


@pytest.mark.parametrize("kind", ONE)
@pytest.mark.parametrize("how", SAMPLED)
def test_a_part_is_of_the_graph(how, kind):
    graph = KINDS[kind]()
    batches = sampled(graph, how, 7, ego=5)
    for step in range(batches.per_epoch):
        part = batches(step)
        assert torch.equal(ops.dense(part.x), ops.dense(graph.x)[part.rows])
        assert sum(part.sizes) == part.num_nodes == len(part.batch)
        source, target = part.rows[part.edge_index]
        edges = set(map(tuple, graph.edge_index.t().tolist()))
        assert set(zip(source.tolist(), target.tolist(), strict=True)) <= edges
        key = part.edge_index[1] * part.num_nodes + part.edge_index[0]
        assert bool((key.diff() >= 0).all()), "edges do not stand by target, then source"
        assert torch.equal(part.batch[part.edge_index[0]], part.batch[part.edge_index[1]])
        if part.seeds is not None:
            assert bool((part.seeds.diff() > 0).all())
            assert int(part.seeds.max()) < part.num_nodes


def test_what_edges_and_nodes_carry_comes_along():
    graph = single(random_graph(60, 3, attributes=True, weights=True))
    of = {(int(s), int(t)): i for i, (s, t) in enumerate(graph.edge_index.t())}
    for how in SAMPLED:
        part = sampled(graph, how, 12, ego=8)(0)
        places = torch.tensor([of[pair] for pair in map(tuple, part.rows[part.edge_index].t().tolist())])
        assert torch.equal(part.edge_attr, graph.edge_attr[places])
        assert torch.equal(part.pos, graph.pos[part.rows])
        if how == "walk":
            assert bool(
                (part.edge_weight >= graph.edge_weight[places] - 1e-6).all()
            )  # met at most as often as a target
        else:
            assert torch.equal(part.edge_weight, graph.edge_weight[places])


@pytest.mark.parametrize("how", ["neighbor", "local"])
@pytest.mark.parametrize("slots", [1, 3])
def test_an_epoch_asks_about_each_node_once(how, slots):
    graph = KINDS["citation"]()
    batches = sampled(graph, how, 7, slots=slots, contrasts=True, ego=5)
    for epoch in (0, 1):
        seen = []
        for place in range(batches.per_epoch):
            for slot in range(slots):
                part = batches(epoch * batches.per_epoch + place, slot)
                seen += part.rows[part.seeds].tolist()
        assert sorted(seen) == list(range(graph.num_nodes))
    one, two = (batches(step).rows for step in (0, batches.per_epoch))
    assert not torch.equal(one, two), "each epoch has the same order"


def test_an_epoch_of_clusters_holds_each_node_once():
    graph = random_graph(400, 2)
    batches = sampled(graph, "cluster", 60)
    assert batches.per_epoch > 2
    rows = [batches(step).rows for step in range(batches.per_epoch)]
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(400))
    assert max(map(len, rows)) < 150


def test_shards_are_the_batch():
    order = np.arange(50)[::-1]
    assert shard(order, 1, 8, 1, 0).tolist() == order[8:16].tolist()  # as ever, on one process
    parts = [shard(order, 0, 8, 3, slot) for slot in range(3)]
    assert np.concatenate(parts).tolist() == order[:24].tolist()
    assert [len(part) for part in parts] == [8, 8, 8]
    last = [shard(order, 2, 8, 3, slot) for slot in range(3)]
    assert all(len(part) for part in last)
    assert {*np.concatenate(last).tolist()} == {*order[48:].tolist()}


@pytest.mark.parametrize("name", ["gat", "sage", "gin", "gcn"])
def test_seeds_with_all_neighbours_have_the_codes_of_the_whole_graph(name):
    graph = KINDS["citation"]()
    with seeded(0):
        encoder = Encoder(backbone(name, graph.x.size(1), [8, 8], norm="none")).eval()
    hops = (-1,) * (3 if name == "gcn" else 2)  # gcn asks for the degree of a neighbour, one hop on
    batches = sampled(graph, "neighbor", 5, fanouts=hops)
    whole = encoder(graph)
    for step in range(3):
        part = batches(step)
        torch.testing.assert_close(encoder(part)[part.seeds], whole[part.rows[part.seeds]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", SAMPLED)
def test_pairs_that_are_none_are_none_in_the_whole_graph(how):
    graph = KINDS["citation"]()
    edges = set(map(tuple, graph.edge_index.t().tolist()))
    batches = sampled(graph, how, 12, pairs=True, ego=12, fanouts=(3, 2))
    for step in range(4):
        part = batches(step)
        absent = part.rows[absent_pairs(part, 50, generator=generator(step))]
        assert not edges & set(map(tuple, absent.t().tolist()))
        if part.seeds is not None and how == "neighbor":
            ends = part.edge_index[:, plain(part)]
            assert bool(part.counts[ends].all())
            counting = part.rows[part.seeds]
            inside = graph.counts.new_zeros(graph.num_nodes).index_fill(0, counting, True)
            assert int(inside[graph.edge_index].all(0).sum()) == ends.size(1)  # all edges among those that count


def test_an_epoch_of_pairs_asks_about_each_edge_once():
    graph = KINDS["citation"]()
    sampler = Neighbors((2,), pairs=True)
    assert sampler.units(graph) == graph.num_edges
    part = cut(graph, sampler(graph, torch.tensor([5]), generator()))
    assert set(part.rows[part.seeds].tolist()) == set(graph.edge_index[:, 5].tolist())


def test_walks_are_normalised_as_in_graphsaint(monkeypatch):
    """An edge weighs the inverse of how often it comes along with its target; what is frequent counts no oftener."""
    graph = single(random_graph(40, 1, edges_per_node=2))
    monkeypatch.setattr(samplers, "COVERAGE", 400)
    walks = Walks(graph, 3, 6, seed=1)
    parts, counted = Counter(), Counter()
    weighed = torch.zeros(graph.num_edges)
    of = {(int(s), int(t)): i for i, (s, t) in enumerate(graph.edge_index.t())}
    rng = generator(2)
    for _ in range(1500):
        found = walks(graph, torch.randint(40, (6,), generator=rng), rng)
        parts.update(found.nodes.tolist())
        counted.update(found.nodes[found.seeds].tolist() if found.seeds is not None else found.nodes.tolist())
        ends = found.nodes[found.edges].t().tolist()
        assert [of[tuple(pair)] for pair in ends] == found.place.tolist()
        weighed[found.place] += found.weight
    met = torch.tensor([parts[node] for node in range(40)], dtype=torch.float)
    share = weighed / met[graph.edge_index[1]]  # what an edge brings to its target on average: 1, if unbiased
    well = walks.along >= 15
    assert int(well.sum()) > 20
    assert abs(float(share[well].mean()) - 1) < 0.1
    often = torch.tensor([counted[node] for node in range(40)], dtype=torch.float)[graph.csr.degree > 0]
    spread = float(often.std() / often.mean())
    raw = float(met[graph.csr.degree > 0].std() / met[graph.csr.degree > 0].mean())
    assert spread < 0.8 * raw


def test_local_parts_are_graphs_of_their_own_around_their_nodes():
    graph = random_graph(80, 4)
    part = cut(graph, Local(10, chosen_alone=True)(graph, torch.tensor([3, 70, 3]), generator()))
    assert part.num_graphs == 3
    assert part.rows[part.seeds].tolist() == [3, 70, 3]
    assert part.batch[part.seeds].tolist() == [0, 1, 2]
    assert max(part.sizes) == 10
    assert cut(graph, Local(10)(graph, torch.tensor([3]), generator())).seeds is None


@pytest.mark.parametrize("how", SAMPLED)
def test_threads_that_draw_ahead_change_nothing(how):
    graph = random_graph(100, 5)
    plainly = sampled(graph, how, 16, slots=2)
    ahead = Ahead(sampled(graph, how, 16, slots=2), 3, mine=(0, 1))
    for step in (0, 1, 2, 7, 8, 3):  # also where a run is taken up elsewhere
        for slot in (0, 1):
            one, two = plainly(step, slot), ahead(step, slot)
            assert torch.equal(one.rows, two.rows)
            assert torch.equal(one.edge_index, two.edge_index)
    assert ahead.per_epoch == plainly.per_epoch
    ahead.close()


def test_what_a_thread_raises_reaches_the_run():
    batches = sampled(random_graph(20, 0), "neighbor", 4)
    batches.local = lambda part: (_ for _ in ()).throw(UserError("gone"))
    with pytest.raises(UserError, match="gone"):
        Ahead(batches, 1)(0)


SMALL = {"epochs": 2, "progress": False, "batch_size": 32, "width": 16}


@pytest.mark.parametrize("how", SAMPLED)
@pytest.mark.parametrize("method", ["graphmae", "bandana", "bgrl"])
def test_runs_are_the_same_with_workers_and_after_a_stop(tmp_path, method, how):
    data = graphssl.to_dataset(random_graph(120, 6))
    more = {"encoder": "gcn", "norm": "none"} if method != "bandana" else {"select": False}
    settings = {**SMALL, **more, "loader": how} | ({"ego": 16} if how == "local" else {})
    whole = graphssl.pretrain(data, method, **settings)
    again = graphssl.pretrain(data, method, **settings, workers=2)
    for one, two in zip(whole.method.parameters(), again.method.parameters(), strict=True):
        assert torch.equal(one, two)
    assert len(whole.embed()) == 120
    assert whole.lines[-1]["step"] >= 2


@pytest.mark.parametrize("how", SAMPLED)
def test_sampling_learns_what_the_whole_graph_teaches(how):
    some = {"epochs": 2, "batch_size": 50, "ego": 64} if how == "local" else {"epochs": 8, "batch_size": 200}
    settings = {"width": 64, **some}
    run = graphssl.pretrain("citations-mini", "grace", loader=how, progress=False, **settings)
    rows = {row.name: row.score for row in run.evaluate(protocol="node-linear").rows}
    assert rows["grace"] > rows["untrained encoder"] + 10
    assert run.lines[-1]["loss"] < run.lines[0]["loss"]


@pytest.mark.parametrize("name", [name for name in METHODS if "citation" not in METHODS[name].skips])
def test_all_nodes_as_seeds_are_the_whole_graph(name):
    case = METHODS[name]
    graph = case.given("citation")
    method = case.make(graph)
    if method.why_whole:
        assert len(method.why_whole.split()) > 4
        return
    named = graph.replace(seeds=torch.arange(graph.num_nodes))

    def losses(of):
        with seeded(0):
            return method(of, generator(0))

    one, two = losses(graph), losses(named)
    for key in one:
        torch.testing.assert_close(one[key], two[key])
    few = graph.replace(seeds=torch.arange(0, graph.num_nodes, 3))
    three = losses(few)
    assert all(loss.isfinite() for loss in three.values())
    assert any(not torch.allclose(one[key], three[key]) for key in one), "seeds make no difference"
    method.total(three).backward()


def test_every_recipe_has_the_settings_of_loading_and_no_two_mean_different_things():
    for name in list_methods():
        recipe = get_recipe(name)
        assert not COMMON.keys() & defaults_of(recipe.make).keys(), name
        assert recipe.defaults.keys() >= COMMON.keys()
    spec = Spec("data", "node", 6, 50, 200, 1, False)
    plan = RECIPES["bgrl"].plan(spec, RECIPES["bgrl"].settings(spec, {"fanouts": "5,-1", "accumulate": 3, "ego": 9}))
    assert plan.loading == Loading("auto", (5, -1), ego=9)
    assert plan.accumulate == 3


def test_checkpointing_gives_the_same_gradients_in_less_room():
    graph = random_graph(50, 7)
    spec = Spec("data", "node", graph.x.size(1), 50, graph.num_edges, 1, False)
    recipe, grads = get_recipe("graphmae"), []
    for checkpoint in (False, True):
        with seeded(0):
            settings = recipe.settings(spec, {"width": 16, "checkpoint": checkpoint})
            method = recipe.plan(spec, settings).method
        assert method.encoder.backbone.checkpointed == checkpoint
        with seeded(1):
            method.total(method(graph, generator())).backward()
        grads.append([p.grad for p in method.parameters()])
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)


def test_what_asks_for_the_whole_graph_comes_before_sampling():
    graph = random_graph(40, 8, directed=True)
    for loops in (False, True):
        transform = Transform(loops, row_normalize=True, undirected=True)
        whole, local = transform.split()
        assert (whole.undirected, local.self_loops, local.row_normalize) == (True, loops, True)
        one, two = transform(graph), local(whole(graph))
        assert torch.equal(one.edge_index, two.edge_index)
        assert torch.equal(one.x, two.x)
    both = Transform(row_normalize=True, standardize=True)
    whole, local = both.split()
    assert torch.equal(both(graph).x, local(whole(graph)).x)
    part = cut(graph, Neighbors((2,))(graph, torch.tensor([1, 2]), generator()))
    looped = Transform(self_loops=True)(part)
    assert torch.equal(looped.seeds, part.seeds)
    assert int((looped.edge_index[0] == looped.edge_index[1]).sum()) == part.num_nodes


def test_auto_takes_the_whole_graph_where_it_fits_and_says_where_not(monkeypatch):
    data = graphssl.to_dataset(random_graph(300, 9))
    spec = Spec.of(data)
    recipe = get_recipe("graphmae")
    with seeded(0):
        plan = recipe.plan(spec, recipe.settings(spec, {"width": 16}))
    assert loading.chosen(data, plan, torch.device("cpu")) == ("full", "")
    need = loading.step_bytes(data, plan)
    monkeypatch.setattr(loading, "free_bytes", lambda device: int(need / loading.SPARE) + 1)
    assert loading.chosen(data, plan, torch.device("cpu"))[0] == "full"
    monkeypatch.setattr(loading, "free_bytes", lambda device: int(need / loading.SPARE) - 1)
    how, why = loading.chosen(data, plan, torch.device("cpu"))
    assert how == "neighbor"
    assert "300 nodes" in why
    with pytest.warns(UserWarning, match="trained on by neighbour sampling"):
        batches, best = loading.batches_for(data, plan, torch.device("cpu"))
    assert isinstance(batches.sampler, Neighbors)
    assert best is None


def refused(words, data=None, method="graphmae", **settings):
    data = graphssl.to_dataset(random_graph(60, 0)) if data is None else data
    with pytest.raises(UserError, match=words) as error:
        graphssl.pretrain(data, method, epochs=1, progress=False, **settings)
    assert "\n" not in str(error.value)


def test_wrong_uses_are_told_in_a_sentence():
    refused("unknown loader 'neighbour'; did you mean 'neighbor'", loader="neighbour")
    refused("how many neighbours to draw at each hop", loader="neighbor", fanouts="ten")
    refused("how many neighbours to draw at each hop", loader="neighbor", fanouts="10,0")
    refused("trained on whole; batch_size is for parts of it", loader="full", batch_size=8)
    refused("its clusters and near nodes are of the whole graph", method="scgc", loader="cluster")
    refused("a row for each node", method="line", loader="neighbor")
    refused("set of graphs, which comes in batches", [random_graph(9, i) for i in range(4)], loader="neighbor")
    refused("walk_length is 0; choose a value 1 or more", loader="walk", walk_length=0)
    refused("did you mean 'fanouts'", fanout="3")
    refused("walk_length is a setting of loader='walk', and the loader is 'neighbor'", loader="neighbor", walk_length=2)
    refused("workers draw parts of a graph ahead", workers=2)
    refused("contrasts nodes, and this one also tells edges", method="paretognn", loader="local")
    refused("ranks the hidden nodes of a graph", method="hpm", batch_size=8)


def test_a_batch_size_that_is_asked_for_is_heeded():
    """Also where it is the one that the signature has for sets of graphs."""
    data = graphssl.to_dataset(random_graph(200, 1))
    steps = [
        graphssl.pretrain(data, "simmim", width=8, layers=1, epochs=1, progress=False, **size).lines[-1]["step"]
        for size in ({}, {"batch_size": 128}, {"batch_size": 100})
    ]
    assert steps == [1, 2, 2]


def test_fanouts_may_be_numbers():
    runs = [
        graphssl.pretrain("citations-mini", epochs=0, loader="neighbor", fanouts=given, progress=False)
        for given in ((4, 2), "4,2")
    ]
    assert {run.config["settings"]["fanouts"] for run in runs} == {"4,2"}


def test_a_graph_that_is_too_large_is_not_encoded_whole_to_choose_an_epoch(monkeypatch):
    data = graphssl.to_dataset(random_graph(300, 9))
    monkeypatch.setattr(loading, "free_bytes", lambda device: 1000)
    spec, recipe = Spec.of(data), get_recipe("bandana")
    with seeded(0):
        plan = recipe.plan(spec, recipe.settings(spec, {"select": True}))
    assert plan.select is not None
    with pytest.warns(UserWarning, match="neighbour sampling|no edges are held out") as told:
        batches, best = loading.batches_for(data, plan, torch.device("cpu"))
    assert best is None
    assert len(told) == 2
    assert batches.source.num_edges > 0.95 * data.graph.num_edges  # none is held out


def test_an_untrained_run_reads_no_stored_graph(tmp_path, monkeypatch):
    graphssl.convert_to_folder(random_graph(50, 3), tmp_path / "graph", progress=False)
    monkeypatch.setattr(Stored, "graph", lambda self: pytest.fail("it was read into memory"))
    for settings in ({"epochs": 0}, {"epochs": 1, "loader": "cluster", "batch_size": 16}):
        run = graphssl.pretrain(str(tmp_path / "graph"), "graphmae", width=8, progress=False, **settings)
        assert run.embed().shape == (50, 8)


def test_a_run_goes_on_with_other_workers(tmp_path):
    settings = {"width": 8, "epochs": 2, "loader": "neighbor", "batch_size": 300, "progress": False}
    run = graphssl.pretrain("citations-mini", out=tmp_path / "run", **settings)
    again = graphssl.pretrain("citations-mini", out=tmp_path / "run", resume=True, workers=2, **settings)
    assert torch.equal(run.embed(), again.embed())


def test_orders_are_made_once_an_epoch(monkeypatch):
    made = []
    plain = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed) or plain(seed))
    ahead = Ahead(sampled(random_graph(60, 0), "neighbor", 16), 4)
    for step in range(12):
        ahead(step)
    ahead.close()
    assert len(made) == len({tuple(seed) for seed in made}) <= 5


def test_clusters_need_no_more_parts_than_nodes():
    assert len(Clusters(random_graph(5, 0), 4).members) <= 5
    assert len(Clusters(random_graph(5, 0), 4096).members) == 1
