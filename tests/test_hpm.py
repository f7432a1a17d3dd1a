"""HPM ranks nodes by how hard they are to rebuild and hides more and more of the hardest."""

import copy
import math

import pytest
import torch
from conftest import KINDS, generator

from graphssl.backbones import Side, Transformer, backbone
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.methods import HPM
from graphssl.methods.hpm import ranking
from graphssl.recipes import Spec, get_recipe
from graphssl.tokens import Patches
from graphssl.train import seeded, train


def of(ratio=0.75, hardest=0.5, momentum=0.999, dim=12, normalize=False):
    with seeded(0):
        body = backbone("transformer", dim, [16, 16], heads=2, axes=2)
        decoders = [Transformer(8, 8, 1, 2, axes=2) for _ in range(2)]
        return HPM(Encoder(body), *decoders, dim, ratio, hardest, momentum, normalize)


def images(count=6):
    return Patches(2, "none")(torch.rand(count, 3, 8, 8, generator=generator()))


def slow_ranking(rated, error, part):
    terms = []
    for i in range(len(rated)):
        for j in range(len(rated)):
            if part[i] == part[j] and error[i] != error[j]:
                chance = 1 / (1 + math.exp(rated[j] - rated[i]))  # that i is the harder one
                terms.append(-math.log(chance if error[i] > error[j] else 1 - chance))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("sizes", [(5, 5, 5), (1, 7, 0, 4), (1,), (2, 2)])
def test_the_ranking_loss_is_that_of_loops(sizes):
    part = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    g = generator()
    rated = (3 * torch.randn(len(part), generator=g)).requires_grad_()
    error = torch.rand(len(part), generator=g).mul(4).round().requires_grad_()  # some are equal
    loss = ranking(rated, error, Side.of(part, len(sizes)))
    assert loss.item() == pytest.approx(slow_ranking(rated.tolist(), error.tolist(), part.tolist()), rel=1e-4)
    loss.backward()
    assert error.grad is None
    assert rated.grad.isfinite().all()


def test_the_right_order_costs_nothing_and_numbers_far_apart_stay_finite():
    error = torch.rand(8, generator=generator())
    side = Side((8,), torch.zeros(8, dtype=torch.long))
    assert ranking(1e4 * error, error, side) < 1e-6
    assert 1e3 < ranking(-1e4 * error, error, side) < 1e4
    assert ranking(torch.zeros(8), error, side).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_the_share_of_the_hardest_grows_with_training(progress):
    for graph in (images(), KINDS["molecules"]()):
        method = of(hardest=0.6)
        method.progress.fill_(progress)
        score = torch.rand(graph.num_nodes, generator=generator(5))
        method.hardness = lambda graph, score=score: score
        draws = [method.propose(graph, generator(seed)) for seed in range(60)]
        for part, n in enumerate(graph.sizes):
            here = graph.batch == part
            wanted = max(1, int(0.75 * n))
            hard = int(0.6 * progress * wanted + 1e-9)
            assert all(int(draw[here].sum()) == wanted for draw in draws)
            top = score[here].argsort(descending=True)
            assert all(draw[here][top[:hard]].all() for draw in draws)
            often = torch.stack([draw[here] for draw in draws]).float().mean(0)
            if n > 10:  # the rest is uniform
                assert (often[top[hard:]] - (wanted - hard) / (n - hard)).abs().max() < 0.3
                assert often[top[hard:]].max() < 1 or progress < 0.3


def test_hidden_content_is_not_seen():
    graph = images()
    method = of()
    hidden = method.propose(graph, generator())
    method.propose = lambda graph, generator=None: hidden
    other = graph.replace(x=torch.where(hidden[:, None], torch.randn_like(graph.x), graph.x))
    shown = [method.encoder(g.keep_nodes(~hidden)) for g in (graph, other)]
    assert torch.equal(*shown)
    for name, part in (("decoder", method.decoder), ("predictor", method.predictor)):
        told = []
        part.register_forward_pre_hook(lambda module, args, told=told: told.append(args[1]))
        method(graph), method(other)
        assert torch.equal(*told), name


def test_errors_are_told_from_the_reconstruction_without_moving_it():
    graph = images()
    method = of()
    method(graph, generator())["order"].backward()
    silent = {name.split(".")[0] for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == {"decoder", "read"}  # the ranking moves encoder, bridge, mask token and predictor


def test_the_teacher_sees_all_and_follows():
    graph = images()
    method = of(momentum=0.9)
    before = method.hardness(graph)
    assert not before.requires_grad
    assert not torch.equal(before, method.hardness(graph.replace(x=graph.x.flip(0))))
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    teacher = copy.deepcopy(list(method.teacher.parameters()))
    for progress, momentum in ((0.0, 0.9), (0.5, 0.945), (1.0, 0.99)):
        students = list(method._predicting().parameters())
        expected = [momentum * old + (1 - momentum) * new for old, new in zip(teacher, students, strict=True)]
        method.after_step(progress)
        teacher = copy.deepcopy(list(method.teacher.parameters()))
        for one, other in zip(teacher, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert method.progress == 1.0
    assert not torch.equal(before, method.hardness(graph))


def test_it_learns_which_patches_are_hard():
    noise = torch.rand(12, 3, 8, 8, generator=generator())
    noise[:, :, :, :4] = 0.5  # the left half is gray, the right half noise that nothing tells
    graph = Patches(2, "none")(noise)
    method = of(momentum=0.9)
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    first = last = None
    for step, losses in train(method, lambda step: graph, optimizer, 100):
        first = losses["order"] if step == 1 else first
        last = losses["order"]
    right = graph.pos[:, 1] >= 2
    score = method.hardness(graph).view(12, 16)
    side = right.view(12, 16)[0]
    assert (score[:, side].amin(1) > score[:, ~side].amax(1)).float().mean() > 0.9
    assert last < 0.8 * first
    hidden = method.propose(graph, generator()).view(12, 16)
    assert hidden[:, side].float().mean() > hidden[:, ~side].float().mean() + 0.1


def test_reconstruction_leaves_what_was_seen():
    graph = images()
    for normalize in (False, True):
        hidden, content = of(normalize=normalize).reconstruct(graph, generator())
        assert hidden.view(6, 16).sum(1).tolist() == [12] * 6
        assert torch.equal(content[~hidden], graph.x[~hidden])
        assert not torch.equal(content[hidden], graph.x[hidden])


def test_the_recipe_s_settings_reach_the_method():
    recipe = get_recipe("hpm")
    spec = Spec("data", "graph", 12, 100, 100, 5, False, axes=2)
    given = {"width": 16, "mask": 0.6, "hardest": 0.4, "momentum": 0.5, "normalize": True, "decoder_width": 16}
    method = recipe.plan(spec, recipe.settings(spec, given)).method
    assert (method.ratio, method.hardest, method.momentum, method.normalize) == (0.6, 0.4, 0.5, True)
    with pytest.raises(ValueError, match=r"hardest is 1.5; choose a value from 0 to 1"):
        recipe.settings(spec, {"hardest": 1.5})


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"hide a share of 1.5"):
        of(ratio=1.5)
    body = Encoder(backbone("transformer", 12, [16], heads=2))
    with pytest.raises(ValueError, match="decoder and predictor read widths 8 and 16; choose one"):
        HPM(body, Transformer(8, 8, 1, 2), Transformer(16, 16, 1, 2), 12)


def test_graphs_of_one_node_have_no_order():
    graph = Graph.stack([KINDS["one-node"]()] * 3)
    spec = Spec("data", "graph", 12, 3, 0, 3, False)
    recipe = get_recipe("hpm")
    losses = recipe.plan(spec, recipe.settings(spec, {"width": 16})).method(graph, generator())
    assert losses["order"] == 0
