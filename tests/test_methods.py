"""The contracts that every method keeps on every kind of data: a recipe's first row on all, others on a few."""

import copy
from itertools import islice

import pytest
import torch
from conftest import EVERY, KINDS, METHODS, ONE_GRAPH, generator, raw

from graphssl.graph import Graph
from graphssl.ops import Rows, dense
from graphssl.tokens import HOG
from graphssl.train import seeded, train

FIRST = {case.recipe: name for name, case in reversed(METHODS.items())}.values()
PAIRS = [
    (name, kind)
    for name, case in METHODS.items()
    for kind in (EVERY if name in FIRST else case.kinds)
    if kind not in case.skips
]
SMALL = ("one-node", "no-edges", "odd")  # two draws need not differ
COMPARING = (
    "cca-ssg",
    "context-pred",
    "grace",
    "graphcl",
    "infograph",
    "paretognn",
    "scgc",
    "simgrace",
)  # all nodes, or graphs, of a batch
REBUILDING = ("crossmae", "graphmae", "hpm", "mae", "point-mae", "simmim", "skeletonmae", "videomae")
COVERING = ("graphmae", "graphmae2", "crossmae", "maskfeat", "paretognn", "s2gae", "selftask-attribute-mask", "simmim")

every_pair = pytest.mark.parametrize(("name", "kind"), PAIRS, ids=["-".join(pair) for pair in PAIRS])


def usual(case):
    """The kind that a method is tried on where one is enough."""
    if case.several:
        return "molecules"
    return next(kind for kind in ("citation", "points", "classes") if kind not in case.skips)


def losses_of(method, graph, seed=0):
    with seeded(seed):
        return method(graph, generator(seed))


def test_recipes_are_told_what_raw_items_are():
    def made(name, kind):
        return METHODS[name].make(METHODS[name].given(kind), kind=kind)

    assert isinstance(made("maskfeat", "patches").target, HOG)
    assert made("simsiam", "tubelets").paired
    assert METHODS["mae"].given("cubes").x.size(1) == 8


@every_pair
def test_a_step(name, kind):
    """Finite losses with a gradient for all, the same for the same weights and seed, and no trace on the input."""
    case = METHODS[name]
    graph = case.given(kind)
    method, twin = (case.make(graph, seed, kind) for seed in (0, 1))
    twin.load_state_dict(copy.deepcopy(method.state_dict()))
    before = [part.clone() for part in (dense(graph.x), graph.edge_index)]
    one = losses_of(method, graph)
    assert one, "there are no losses"
    for key, loss in one.items():
        assert loss.shape == (), f"loss {key} is no scalar"
        assert loss.isfinite(), f"loss {key} is not finite"
    method.total(one).backward()
    without = {n for n, p in method.named_parameters() if p.requires_grad and p.grad is None}
    assert not without, f"{without} have no gradient"
    if kind in ("citation", "words"):
        zero = {n for n, p in method.named_parameters() if p.requires_grad and not p.grad.any()}
        assert zero - case.cancelling == set(case.no_gradient), "other gradients are zero than the table says"
    torch.rand(7)
    two = losses_of(twin, graph)
    assert all(torch.equal(one[k], two[k]) for k in one), "the same weights, state and seed give other losses"
    if kind not in SMALL:
        others = (losses_of(twin, graph, seed) for seed in range(2, 8))  # two draws of a few may agree
        assert any(not torch.equal(one[k], other[k]) for other in others for k in one), "all seeds give the same losses"
    after = dense(graph.x), graph.edge_index
    assert all(map(torch.equal, before, after)), "the input was changed"


@pytest.mark.parametrize("name", METHODS)
def test_loss_falls(name):
    case = METHODS[name]
    for kind in (usual(case), "words") if name in COVERING else (usual(case),):
        graph = case.given(kind)
        method = case.make(graph, kind=kind)

        def loss(method=method, graph=graph):
            return sum(method.total(losses_of(method, graph, seed)).item() for seed in range(3))

        before = loss()
        optimizer = torch.optim.Adam(method.parameters(), 1e-2)
        for _ in islice(train(method, lambda step, graph=graph: graph, optimizer, 100), 15):
            pass
        assert loss() < before, kind


@pytest.mark.parametrize("name", [name for name, case in METHODS.items() if "molecules" not in case.skips])
def test_batch_mates_do_not_see_each_other_in_the_encoder(name):
    case, graph = METHODS[name], KINDS["molecules"]()
    encoder = case.make(graph).encoder.eval()
    together = encoder(graph)
    for b in range(graph.num_graphs):
        alone = graph.keep_nodes(graph.batch == b)
        torch.testing.assert_close(encoder(alone), together[graph.batch == b], rtol=1e-4, atol=1e-5)
    pooled = encoder.pool(graph, together)
    torch.testing.assert_close(pooled[2], together[graph.batch == 2].mean(0), rtol=1e-4, atol=1e-5)


def several(case):
    """Several graphs that fit, and the method for them."""
    kind = next(kind for kind in ("molecules", "points", "classes") if kind not in case.skips)
    graph = Graph.stack(raw(kind, 3).graphs[:]) if kind == "points" else KINDS[kind]()
    graph = graph.replace(x=dense(graph.x))
    return graph, case.make(graph, kind=kind).eval()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, case in METHODS.items()
        if case.recipe not in COMPARING and case.skips.get("molecules") != ONE_GRAPH["molecules"]
    ],
)
def test_batch_mates_do_not_see_each_other_in_the_loss(name):
    """What a graph's content does to the loss does not hang on what its mates are; without normalisation over them."""
    graph, method = several(METHODS[name])
    first = graph.batch == 0

    def gradient(content):
        content = content.clone().requires_grad_()
        loss = method.total(losses_of(copy.deepcopy(method), graph.replace(x=content)))
        return torch.autograd.grad(loss, content)[0][first]

    one = gradient(graph.x)
    assert one.any()
    torch.testing.assert_close(gradient(graph.x.flip(1).where(~first[:, None], graph.x)), one, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, case in METHODS.items() if case.recipe in REBUILDING])
def test_hidden_content_is_not_seen(name):
    """Turned about, it keeps the mean, deviation and length that go back into what was rebuilt."""
    graph, method = several(METHODS[name])
    hidden, rebuilt = method.reconstruct(graph, generator())
    for part, same in ((hidden, True), (~hidden, False)):
        other = graph.replace(x=graph.x.flip(1).where(part[:, None], graph.x))
        again, said = method.reconstruct(other, generator())
        assert torch.equal(again, hidden)
        assert torch.allclose(said[hidden], rebuilt[hidden], rtol=1e-4, atol=1e-5) == same


@every_pair
def test_renumbering_nodes_renumbers_codes(name, kind):
    case = METHODS[name]
    graph = case.given(kind)
    encoder = case.make(graph, kind=kind).encoder.eval()
    order = torch.rand(graph.num_nodes, generator=generator(9)).argsort()
    order = order[graph.batch[order].argsort(stable=True)]
    place = order.argsort()
    source, target = place[graph.edge_index]
    edges = (target * graph.num_nodes + source).argsort(stable=True)
    along = {k: v[edges] for k in ("edge_attr", "edge_weight") if (v := getattr(graph, k)) is not None}
    along |= {} if graph.pos is None else {"pos": graph.pos[order]}
    moved = graph.replace(x=graph.x[order], edge_index=torch.stack([source, target])[:, edges], **along)
    torch.testing.assert_close(encoder(moved), encoder(graph)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, case in METHODS.items() if "words" not in case.skips])
def test_sparse_and_dense_content_give_the_same(name):
    case = METHODS[name]
    graph = case.given("words")
    full = graph.replace(x=dense(graph.x))
    method = case.make(graph).eval()
    assert isinstance(graph.x, Rows)
    torch.testing.assert_close(method.encoder(graph), method.encoder(full), rtol=1e-4, atol=1e-5)
    one, two = losses_of(copy.deepcopy(method), graph), losses_of(method, full)  # eval mode: no dropout to differ in
    for k in one:
        torch.testing.assert_close(one[k], two[k], rtol=1e-4, atol=1e-5)
