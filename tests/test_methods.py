"""The contracts that every method keeps on every kind of data."""

import copy

import pytest
import torch
from conftest import KINDS, METHODS, generator

from graphssl.ops import Rows, dense
from graphssl.train import seeded, train


def losses_of(method, graph, seed=0):
    with seeded(seed):
        return method(graph, generator(seed))


def test_losses_are_finite_scalars(method, graph):
    losses = losses_of(method, graph)
    assert losses
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert loss.isfinite(), name


def test_every_parameter_gets_a_gradient(method, graph):
    method.total(losses_of(method, graph)).backward()
    assert not [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["citation", "words"])
def test_gradients_differ_from_zero_save_those_listed(name, kind):
    case = METHODS[name]
    if kind in case.skips:
        pytest.skip(case.skips[kind])
    graph = case.given(kind)
    method = case.make(graph)
    method.total(losses_of(method, graph)).backward()
    zero = {n for n, p in method.named_parameters() if p.requires_grad and not p.grad.any()}
    assert zero == set(case.no_gradient)


def test_same_seed_same_losses(method, graph):
    twin = copy.deepcopy(method)
    one = losses_of(method, graph, 1)
    torch.rand(7)
    two = losses_of(twin, graph, 1)
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_another_seed_other_losses(case, kind, graph, method):
    if kind in ("one-node", "no-edges", "odd"):
        pytest.skip("too small for two draws to differ for sure")
    one = losses_of(copy.deepcopy(method), graph, 1)
    others = (losses_of(copy.deepcopy(method), graph, seed) for seed in range(2, 8))  # two draws of a few may agree
    assert any(not torch.equal(one[k], two[k]) for two in others for k in one)


def test_input_is_untouched(method, graph):
    x, edges = dense(graph.x).clone(), graph.edge_index.clone()
    method.total(losses_of(method, graph)).backward()
    assert torch.equal(x, dense(graph.x))
    assert torch.equal(edges, graph.edge_index)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["citation", "words", "molecules"])
def test_loss_falls(name, kind):
    case = METHODS[name]
    if kind in case.skips:
        pytest.skip(case.skips[kind])
    graph = case.given(kind)
    method = case.make(graph)
    optimizer = torch.optim.Adam(method.parameters(), 5e-3)
    history = [losses["loss"].item() for _, losses in train(method, lambda step: graph, optimizer, 50)]
    assert sum(history[-10:]) < sum(history[:10])


def test_state_round_trip(method, graph, case):
    twin = case.make(graph, seed=1)
    twin.load_state_dict(copy.deepcopy(method.state_dict()))
    one, two = losses_of(method, graph), losses_of(twin, graph)
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_batch_mates_do_not_see_each_other(case):
    if "molecules" in case.skips:
        pytest.skip(case.skips["molecules"])
    graph = KINDS["molecules"]()
    encoder = case.make(graph).encoder.eval()
    together = encoder(graph)
    for b in range(graph.num_graphs):
        alone = graph.keep_nodes(graph.batch == b)
        torch.testing.assert_close(encoder(alone), together[graph.batch == b], rtol=1e-4, atol=1e-5)
    pooled = encoder.pool(graph, together)
    torch.testing.assert_close(pooled[2], together[graph.batch == 2].mean(0), rtol=1e-4, atol=1e-5)


def test_renumbering_nodes_renumbers_codes(method, graph):
    encoder = method.encoder.eval()
    order = torch.rand(graph.num_nodes, generator=generator(9)).argsort()
    order = order[graph.batch[order].argsort(stable=True)]
    place = order.argsort()
    source, target = place[graph.edge_index]
    edges = (target * graph.num_nodes + source).argsort(stable=True)
    along = {k: v[edges] for k in ("edge_attr", "edge_weight") if (v := getattr(graph, k)) is not None}
    along |= {} if graph.pos is None else {"pos": graph.pos[order]}
    moved = graph.replace(x=graph.x[order], edge_index=torch.stack([source, target])[:, edges], **along)
    torch.testing.assert_close(encoder(moved), encoder(graph)[order], rtol=1e-4, atol=1e-5)


def test_sparse_and_dense_content_give_the_same(case):
    if "words" in case.skips:
        pytest.skip(case.skips["words"])
    graph = case.given("words")
    full = graph.replace(x=dense(graph.x))
    method = case.make(graph).eval()
    assert isinstance(graph.x, Rows)
    torch.testing.assert_close(method.encoder(graph), method.encoder(full), rtol=1e-4, atol=1e-5)
    one, two = losses_of(copy.deepcopy(method), graph), losses_of(method, full)  # eval mode: no dropout to differ in
    for k in one:
        torch.testing.assert_close(one[k], two[k], rtol=1e-4, atol=1e-5)
