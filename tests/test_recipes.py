"""The papers' settings: every named set of them builds, every cited figure fits its data, wrong ones are refused."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from conftest import BASELINES

import graphssl
from graphssl.backbones import backbone
from graphssl.data import list_datasets, load_dataset, to_dataset
from graphssl.data.download import NODE_SOURCES, SOURCES
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.masks import Bandwidths, Edges, Paths, Uniform
from graphssl.probes import get_protocol
from graphssl.recipes import Select, Spec, get_recipe, list_methods
from graphssl.train import seeded

NAMED = [(method, name) for method in list_methods() for name in get_recipe(method).by_name]
CITED = [
    (method, name, protocol)
    for method in list_methods()
    for name, figures in get_recipe(method).published.items()
    for protocol in figures
]
# refuse a single graph: tests/test_graph_contrast.py, tests/test_molecule_methods.py
SETS = ("context-pred", "graph-jepa", "graphcl", "infograph", "simgrace", "simsiam")
PREDICT_EDGES = ("bandana", "maskgae", "s2gae", "gae", "vgae", "paretognn")


FILES_ONLY = ("facebook-pagepage",)  # node sets that are read from a folder and not downloaded


def task_of(name):
    """What a data set by this name is about."""
    if name.endswith("/link"):
        return "link"
    return "node" if name in FILES_ONLY or SOURCES.get(name) in NODE_SOURCES else "graph"


@lru_cache
def spec_of_items(name):
    """Of a set of raw items, which is not downloaded."""
    try:
        return Spec.of(load_dataset(name))
    except UserError:
        pytest.skip(f"{name} is not on this machine")


def spec_of(name, task=None, sparse=False, dim=24, edges=500, edge_dim=0, known=True):
    task = task or task_of(name)
    return Spec(
        name, task, dim, 100, edges, 10 if task == "graph" else 1, sparse, known, edge_dim, axes=3, fields=(dim,),
        edge_fields=(edge_dim,) if edge_dim else (),
    )  # fmt: skip


def small(n=12):
    pairs = torch.triu_indices(n, n, 1)[:, ::2]
    return Graph.build(torch.randn(n, 5), torch.cat([pairs, pairs.flip(0)], 1))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("method", "name"), NAMED)
def test_the_settings_of_every_named_set_build_a_plan(method, name, sparse):
    raw = task_of(name) == "graph" and name not in SOURCES
    spec = spec_of_items(name) if raw else spec_of(name, sparse=sparse, dim=40 if sparse else 16)
    recipe = get_recipe(method)
    own = recipe.by_name[name]
    settings = recipe.settings(spec, own)  # given, so that each is checked
    assert settings == recipe.settings(spec, {})  # and taken for that name unasked
    assert {key: settings[key] for key in own} == dict(own)
    with seeded(0):
        plan = recipe.plan(spec, settings)
    assert plan.epochs == settings["epochs"] > 0
    assert plan.method.encoder.dim_in == (spec.dim if plan.tokenizer is None else plan.tokenizer.width(spec.shape))
    assert plan.published == recipe.published.get(name, {})
    assert (plan.select is not None) == settings.get("select", False)
    if task_of(name) == "link":
        assert plan.select is None or plan.select.dot == (method == "bandana")
    parameters = list(plan.method.parameters())
    groups = plan.optimizer(parameters).param_groups
    assert {group["lr"] for group in groups} == {settings["lr"]}
    assert {group["weight_decay"] for group in groups} - {0.0} == {settings["weight_decay"]} - {0.0}


@pytest.mark.parametrize("method", list_methods())
@pytest.mark.parametrize("task", ["node", "link", "graph"])
@pytest.mark.parametrize("edge_dim", [0, 3])
def test_data_without_a_name_has_settings_for_its_task(method, task, edge_dim):
    if method in ("fastrp", "line") and task == "graph":
        pytest.skip("it refuses lists of graphs: tests/test_baselines.py")
    if method in SETS and task != "graph":
        pytest.skip("it refuses a single graph: tests/test_graph_contrast.py")
    recipe, spec = get_recipe(method), spec_of("data", task, edge_dim=edge_dim, known=False)
    given = recipe.by_task.get(task, {})
    settings = recipe.settings(spec, given)
    usual = {
        **recipe.defaults,
        **({} if task == "graph" or "batch_size" not in recipe.defaults else {"batch_size": None}),
    }
    assert settings == recipe.settings(spec, {}) == {**usual, **given}
    with seeded(0):
        plan = recipe.plan(spec, settings)
    assert plan.published == {}
    checked = recipe.settings(spec, recipe.defaults)  # the signature's own values pass the checks
    assert checked == recipe.defaults


def test_a_users_data_of_a_known_name_has_no_papers_settings():
    recipe = get_recipe("bandana")
    known, own = spec_of("cora"), spec_of("cora", "node", known=False)
    assert recipe.settings(known, {})["temperature"] == 0.9
    assert recipe.settings(own, {})["temperature"] == recipe.defaults["temperature"] == 1.0
    with seeded(0):
        assert recipe.plan(own, recipe.settings(own, {"width": 8})).published == {}


@pytest.mark.parametrize("name", sorted({name for _, name, *_ in [*NAMED, *CITED]}))
def test_every_name_is_a_data_set(name):
    assert name in list_datasets() or name.removesuffix("/link") in FILES_ONLY


@pytest.mark.parametrize(("method", "name", "protocol"), CITED)
def test_every_figure_is_by_a_protocol_of_its_data(method, name, protocol):
    figure = get_recipe(method).published[name][protocol]
    assert get_protocol(protocol).task == task_of(name)
    assert 40 < figure.score < 100  # in percent
    assert figure.std is None or 0 <= figure.std < 5
    assert figure.source


def test_tables_of_tasks_and_names_hold_settings_of_their_recipe():
    for method in list_methods():
        recipe = get_recipe(method)
        assert set(recipe.by_task) <= {"node", "link", "graph"}
        for values in (*recipe.by_task.values(), *recipe.by_name.values(), recipe.of_molecules):
            assert values.keys() <= recipe.defaults.keys(), method


# what is refused


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("maskgae", {"masker": "nope"}, "masker of maskgae"),
        ("graphmae", {"masker": "nope"}, "masker of graphmae"),
        ("maskgae", {"origin": "nope"}, "origin"),
        ("bandana", {"encoder": "gat"}, "known: gcn, gin, sage"),
        ("bandana", {"encoder": "mlp"}, "known: gcn, gin, sage"),
        ("maskgae", {"mask": 0.0}, "above 0 and up to 1"),
        ("s2gae", {"mask": 0.0}, "above 0 and up to 1"),
        ("graphmae", {"mask": 0}, "above 0 and up to 1"),
        ("graphmae2", {"remask": 0.0}, "above 0 and up to 1"),
        ("graphmae2", {"views": 0}, "1 or more"),
        ("graphmae2", {"momentum": 1.5}, "from 0 to 1"),
        ("graphmae2", {"latent": -1.0}, "0 or more"),
        ("bandana", {"temperature": 0.0}, "above 0"),
        ("bandana", {"temperature": 1e-40}, "temperature"),
        ("bandana", {"discrete": 1.0}, "not including, 1"),
        ("bandana", {"read": "first"}, "readout"),
        ("maskgae", {"degree": -0.1}, "0 or more"),
        ("maskgae", {"patience": 0}, "1 or more"),
        ("maskgae", {"select": 1}, "expects bool"),
        ("s2gae", {"both_ways": "yes"}, "expects bool"),
        ("vgae", {"encoder": "nope"}, "encoder"),
        ("gae", {"layers": 2}, "setting of gae"),
    ],
)
@pytest.mark.parametrize("task", ["node", "link"])
def test_wrong_settings_are_refused_in_words(method, settings, words, task):
    recipe, spec = get_recipe(method), spec_of("data", task, known=False)
    with pytest.raises(UserError, match=words):
        recipe.plan(spec, recipe.settings(spec, {"width": 8, **settings}))


@pytest.mark.parametrize("method", [m for m in PREDICT_EDGES if m != "paretognn"])
def test_an_unknown_kind_of_negatives_is_refused(method):
    with pytest.raises(UserError, match="kind of negatives 'nope'"):
        graphssl.pretrain(small(), method, negatives="nope", width=8, epochs=1, progress=False)


@pytest.mark.parametrize("method", [m for m in PREDICT_EDGES if m != "paretognn"])
def test_an_unknown_kind_of_negatives_is_refused_before_anything_is_written(method):
    recipe, spec = get_recipe(method), spec_of("data", "node", known=False)
    with pytest.raises(UserError, match="kind of negatives 'nope'"):
        recipe.plan(spec, recipe.settings(spec, {"width": 8, "negatives": "nope"}))


@pytest.mark.parametrize("layers", [0, -3])
def test_a_decoder_without_layers_is_refused(layers):
    recipe, spec = get_recipe("maskgae"), spec_of("data", "node", known=False)
    with pytest.raises(UserError, match="1 or more"):
        recipe.settings(spec, {"decoder_layers": layers})


@pytest.mark.parametrize("task", ["node", "link", "graph"])
@pytest.mark.parametrize("method", [*PREDICT_EDGES, "skeletonmae"])
def test_data_without_edges_is_refused_by_what_predicts_them(method, task):
    recipe, spec = get_recipe(method), spec_of("data", task, edges=0, known=False)
    with pytest.raises(UserError, match=f"{method} learns by predicting edges, but the data has none"):
        recipe.plan(spec, recipe.settings(spec, {"width": 8}))


@pytest.mark.parametrize(
    "method", sorted({*list_methods()} - {*PREDICT_EDGES, *BASELINES, *SETS, "selftask", "skeletonmae"})
)
def test_data_without_edges_is_taken_by_what_does_not(method):
    recipe, spec = get_recipe(method), spec_of("data", "node", edges=0, known=False)
    with seeded(0):
        assert recipe.plan(spec, recipe.settings(spec, {"width": 8})).epochs


def plan_of(method, **settings):
    recipe, spec = get_recipe(method), spec_of("data", "node", known=False)
    with seeded(0):
        return recipe.plan(spec, recipe.settings(spec, {"width": 8, **settings}))


@pytest.mark.parametrize("method", PREDICT_EDGES)
def test_what_predicts_edges_sees_each_in_both_directions(method):
    assert plan_of(method).transform.undirected


def test_settings_reach_the_method():
    def method(name, **settings):
        return plan_of(name, **settings).method

    assert method("bandana", temperature=0.3).masker == Bandwidths(0.3)
    assert method("bandana", discrete=0.4).masker == Edges(0.4)
    assert method("bandana", shuffle=True).shuffle
    assert method("maskgae", mask=0.6, layers=3).masker == Paths(0.6, 4, both_ways=False)
    assert method("maskgae", masker="edge").masker == Edges(0.7, directed=True)
    assert method("maskgae", masker="edge", both_ways=True).masker == Edges(0.7)
    assert method("maskgae").restore
    assert not method("maskgae", both_ways=True).restore
    assert method("maskgae").degree is None
    assert method("maskgae", degree=0.1).alpha == 0.1
    assert method("s2gae", both_ways=True).masker == Edges(0.7)
    assert method("gae", negatives="fast").negatives == method("vgae", negatives="fast").negatives == "fast"
    assert method("graphmae2", random=False, views=5).views == 1
    assert method("graphmae2", remask=0.3, views=5).remasker == Uniform(0.3)
    assert plan_of("s2gae").select == Select(every=1, patience=50)
    assert plan_of("bandana", patience=4).select == Select(every=10, patience=4)
    assert plan_of("maskgae", select=False).select is None


def test_a_list_of_graphs_holds_out_no_edges():
    recipe, spec = get_recipe("maskgae"), spec_of("data", "graph", known=False)
    assert recipe.plan(spec, recipe.settings(spec, {"width": 8})).select is None
    with pytest.raises(UserError, match="one graph whose edges can be held out"):
        recipe.plan(spec, recipe.settings(spec, {"width": 8, "select": True}))


def test_a_spec_counts_no_self_loops():
    loops = torch.arange(5).expand(2, 5)
    data = to_dataset(Graph.build(torch.randn(5, 4), torch.cat([loops, torch.tensor([[0], [1]])], 1)))
    assert Spec.of(data).edges == 1


def test_s2gae_takes_a_module_and_leaves_it_as_it_is():
    body = backbone("gcn", 16, [8, 8], dropout=0.3)
    recipe, spec = get_recipe("s2gae"), spec_of("data", "node", known=False)
    recipe.plan(replace(spec, dim=16), recipe.settings(spec, {"encoder": body}))
    assert [layer.dropout for layer in body.layers] == [0.3, 0.3]
