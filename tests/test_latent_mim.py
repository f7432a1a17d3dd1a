"""Latent MIM: what is predicted of hidden nodes comes from visible ones and places, the contrast stays in a graph."""

import math

import pytest
import torch
from conftest import generator

from graphssl.backbones import backbone
from graphssl.backbones.positions import position_named
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.masks import Ramp, Uniform
from graphssl.methods import LatentMIM
from graphssl.methods.latent_mim import Reader, infonce_within
from graphssl.recipes import Spec, get_recipe
from graphssl.tokens import Patches
from graphssl.train import seeded, train

MOST = Uniform(0.75)


def of(masker=MOST, **more):
    with seeded(0):
        body = backbone("transformer", 12, [16, 16], heads=2, axes=2)
        blocks = [Reader(16, 2) for _ in range(2)]
        return LatentMIM(Encoder(body), blocks, position_named("sincos", 16, 2), masker, 16, **more)


def images(count=6, edges="none"):
    return Patches(2, edges)(torch.rand(count, 3, 8, 8, generator=generator()))


def bare(sizes):
    """Graphs of so many nodes, with nothing but their sizes."""
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    empty = torch.empty(2, 0, dtype=torch.long)
    return Graph(x=torch.zeros(len(batch), 1), edge_index=empty, batch=batch, sizes=sizes)


def slow_infonce(pred, target, part, tau):
    def unit(row):
        length = math.sqrt(sum(v * v for v in row))
        return [v / length if length else 0.0 for v in row]

    terms = []
    for graph in sorted(set(part)):
        here = [i for i, p in enumerate(part) if p == graph]
        columns = list(zip(*(pred[i] for i in here), strict=True))
        means = [sum(c) / len(c) for c in columns]
        spread = [
            math.sqrt(sum((v - m) ** 2 for v in c) / max(1, len(c) - 1) + 1e-8)
            for c, m in zip(columns, means, strict=True)
        ]
        rows = {i: unit([(v - m) / s for v, m, s in zip(pred[i], means, spread, strict=True)]) for i in here}
        wants = {i: unit(target[i]) for i in here}
        for i in here:
            alike = {j: sum(a * b for a, b in zip(rows[i], wants[j], strict=True)) / tau for j in here}
            terms.append(math.log(sum(math.exp(v) for v in alike.values())) - alike[i])
    return 2 * tau * sum(terms) / len(terms)


@pytest.mark.parametrize("sizes", [(4, 4), (1, 6, 3), (1, 0, 2)])
def test_the_contrast_is_that_of_loops(sizes):
    graph, g = bare(sizes), generator()
    pred = torch.randn(sum(sizes), 5, generator=g).requires_grad_()
    true = torch.randn(sum(sizes), 5, generator=g).requires_grad_()
    loss = infonce_within(pred, true, graph, 0.2)
    assert loss.item() == pytest.approx(slow_infonce(pred.tolist(), true.tolist(), graph.batch.tolist(), 0.2), rel=1e-4)
    loss.backward()
    assert true.grad is None
    assert pred.grad.isfinite().all()


def test_what_all_predictions_of_a_graph_share_does_not_count():
    graph, g = bare((5, 7)), generator()
    pred, true = torch.randn(12, 6, generator=g), torch.randn(12, 6, generator=g)
    shift = torch.randn(2, 6, generator=g)[graph.batch]
    expected = infonce_within(pred, true, graph, 0.2)
    torch.testing.assert_close(infonce_within(3 * pred + shift, true, graph, 0.2), expected)
    alike = torch.ones(12, 6, requires_grad=True)
    infonce_within(alike, true, graph, 0.2).backward()
    assert alike.grad.isfinite().all()


def test_hidden_content_is_not_seen():
    graph = images()
    hidden = Uniform(0.75)(graph, generator())
    method = of()
    other = graph.replace(x=torch.where(hidden[:, None], torch.randn_like(graph.x), graph.x))
    said = [method.predicted(g.keep_nodes(~hidden), g.keep_nodes(hidden)) for g in (graph, other)]
    assert torch.equal(*said)
    seen = graph.replace(x=torch.where(hidden[:, None], graph.x, torch.randn_like(graph.x)))
    assert not torch.equal(said[0], method.predicted(seen.keep_nodes(~hidden), seen.keep_nodes(hidden)))


def test_predictions_stay_in_their_graph():
    graph = images(3)
    hidden = Uniform(0.5)(graph, generator())
    method = of()
    said = method.predicted(graph.keep_nodes(~hidden), graph.keep_nodes(hidden)).view(3, 8, 16)
    for part, (alone, covered) in enumerate(zip(graph.parts(), hidden.view(3, 16), strict=True)):
        one = method.predicted(alone.keep_nodes(~covered), alone.keep_nodes(covered))
        torch.testing.assert_close(one, said[part], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_the_teacher_sees_the_hidden_nodes_or_all(whole):
    graph = images(2)
    method, seen = of(whole=whole), []
    method.teacher.register_forward_pre_hook(lambda module, args: seen.append(args[0].num_nodes))
    method(graph, generator())
    assert seen == [32 if whole else 24]


def test_the_teacher_follows_ever_more_slowly():
    method = of(momentum=0.9)
    with torch.no_grad():
        for part in (method.encoder, method.project):
            for parameter in part.parameters():
                parameter.add_(1.0)
    mine, theirs = next(method.teacher.parameters()), next(method.encoder.parameters())
    for progress, momentum in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        expected = momentum * mine + (1 - momentum) * theirs
        method.after_step(progress)
        torch.testing.assert_close(mine, expected.detach())
    gap = next(method.project.parameters()) - next(method.teacher_project.parameters())
    torch.testing.assert_close(gap.detach(), torch.full_like(gap, 0.9 * 0.95))


def test_a_ramp_goes_with_training():
    graph = images()
    method, seen = of(Ramp(Uniform(0.25), 0.75)), []
    method.teacher.register_forward_pre_hook(lambda module, args: seen.append(args[0].num_nodes))
    for progress in (0.0, 1.0):
        method.after_step(progress)
        method(graph, generator())
    assert seen == [6 * 4, 6 * 12]


def test_learning_tells_patches_of_an_image_apart():
    corner = torch.linspace(0, 1, 8)
    ramps = torch.stack([corner[:, None] + a * corner for a in torch.linspace(-1, 1, 24)])
    graph = Patches(2, "none")(ramps[:, None].expand(24, 3, 8, 8).contiguous())
    method = of(Uniform(0.5))
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)

    def found():
        """The share of hidden nodes whose prediction is nearest to their own code, of the eight of their image."""
        hidden = Uniform(0.5)(graph, generator(3))
        covered = graph.keep_nodes(hidden)
        said = method.predicted(graph.keep_nodes(~hidden), covered).detach().view(24, 8, 16)
        true = method.teacher_project(method.teacher(covered)).view(24, 8, 16)
        said = torch.nn.functional.normalize(said - said.mean(1, keepdim=True), dim=2)
        nearest = (said @ torch.nn.functional.normalize(true, dim=2).transpose(1, 2)).argmax(2)
        return float((nearest == torch.arange(8)).float().mean())

    before = found()
    for _ in train(method, lambda step: graph, optimizer, 120):
        pass
    assert before < 0.3
    assert found() > 0.5  # chance is an eighth


def test_graphs_without_places_are_refused():
    recipe = get_recipe("latent-mim")
    spec = Spec("cora", "node", 12, 100, 100, 1, True)
    with pytest.raises(UserError, match="hidden nodes apart by where they stand, but 'cora' has no pos; choose"):
        recipe.plan(spec, recipe.settings(spec, {"width": 16}))
    spec = Spec("data", "graph", 12, 100, 100, 5, False, axes=2)
    with pytest.raises(UserError, match="but position='none' hides that; choose"):
        recipe.plan(spec, recipe.settings(spec, {"width": 16, "position": "none"}))


def test_the_recipe_s_settings_reach_the_method():
    recipe = get_recipe("latent-mim")
    spec = Spec("data", "graph", 12, 100, 100, 5, False, axes=2)
    given = {"width": 16, "tau": 0.4, "momentum": 0.5, "whole": True, "mask": 0.6, "decoder_layers": 2, "inner": 8}
    method = recipe.plan(spec, recipe.settings(spec, given)).method
    assert (method.tau, method.momentum, method.whole, method.masker) == (0.4, 0.5, True, Uniform(0.6))
    assert len(method.blocks) == 2
    assert method.project[0].out_features == 8
