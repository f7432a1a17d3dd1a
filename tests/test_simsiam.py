"""SimSiam's loss against its formula, where gradients stop, and how two views come about."""

import pytest
import torch
from conftest import KINDS, generator, random_graph

from graphssl import pretrain
from graphssl.augment import DropNodes, MaskNodes
from graphssl.backbones import backbone
from graphssl.data.dataset import Dataset
from graphssl.data.loader import Batches
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.methods import SimSiam
from graphssl.methods.simsiam import negative_cosine
from graphssl.recipes import Spec, get_recipe
from graphssl.tokens import Items, Patches, alter_for
from graphssl.train import seeded


def encoder(dim_in=12, name="gin"):
    with seeded(0):
        return Encoder(backbone(name, dim_in, [16, 16], norm="batch"))


def pictures(count, seed=0):
    return torch.rand(count, 1, 8, 8, generator=generator(seed))


def slow_loss(method, one, two):
    """D(p1, z2) / 2 + D(p2, z1) / 2 with D(p, z) = -(p / |p|) . (z / |z|), item by item; eq. 1 and 2."""
    z1, z2 = method.project(one), method.project(two)
    p1, p2 = method.predict(z1), method.predict(z2)
    total = 0.0
    for i in range(len(one)):
        for p, z in ((p1[i].detach(), z2[i].detach()), (p2[i].detach(), z1[i].detach())):
            total -= float(sum(a * b for a, b in zip(p, z, strict=True)) / (p.norm() * z.norm())) / 2
    return total / len(one)


def test_the_loss_is_the_papers():
    graph = KINDS["molecules"]()
    view = MaskNodes(0.5)
    method = SimSiam(encoder(), view, 8, 4)
    loss = method(graph, generator(3))["cosine"]
    draws = generator(3)
    one, two = (method.encoder.of_graphs(view(graph, draws)) for _ in range(2))
    assert loss.item() == pytest.approx(slow_loss(method, one, two), abs=1e-5)


def test_a_paired_batch_is_two_views_side_by_side():
    images = pictures(10)
    graph = Patches(2)(images)
    method = SimSiam(encoder(4), None, 8, 4, paired=True)
    loss = method(graph)["cosine"]
    codes = method.encoder.of_graphs(graph)
    assert loss.item() == pytest.approx(slow_loss(method, codes[0::2], codes[1::2]), abs=1e-5)
    swapped = Patches(2)(images.view(5, 2, 1, 8, 8).flip(1).flatten(0, 1))
    assert method(swapped)["cosine"].item() == pytest.approx(loss.item(), abs=1e-5)  # symmetric


def test_no_gradient_to_what_is_predicted():
    pred, target = (torch.rand(4, 3, generator=generator(s), requires_grad=True) for s in (0, 1))
    negative_cosine(pred, target).backward()
    assert pred.grad.any()
    assert target.grad is None


def test_the_gradient_is_that_of_fixed_targets():
    """Were the stop left out, the projector would be pulled from both sides."""
    graph = Patches(2)(pictures(12))
    method = SimSiam(encoder(4), None, 8, 4, paired=True)
    weight = method.project[0].weight

    def projections():
        codes = method.encoder.of_graphs(graph)
        return method.project(codes[0::2]), method.project(codes[1::2])

    def loss_against(targets):
        one, two = projections()
        there = torch.cosine_similarity(method.predict(one), targets[1], dim=1).mean()
        back = torch.cosine_similarity(method.predict(two), targets[0], dim=1).mean()
        return -(there + back) / 2

    given = torch.autograd.grad(method(graph)["cosine"], weight)[0]
    fixed = torch.autograd.grad(loss_against([z.detach() for z in projections()]), weight)[0]
    free = torch.autograd.grad(loss_against(projections()), weight)[0]
    torch.testing.assert_close(given, fixed, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(given, free, rtol=1e-2, atol=1e-4)


def test_views_of_a_batch_normalise_by_themselves():
    """The projector's last norm leaves the projections of each view with mean 0 and variance 1."""
    method = SimSiam(encoder(4), None, 8, 4, paired=True)
    codes = method.encoder.of_graphs(Patches(2)(pictures(64)))
    for view in (codes[0::2], codes[1::2]):
        z = method.project(view)
        torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(z.std(0, correction=0), torch.ones(8), atol=1e-2, rtol=0)


def test_one_item_is_normalised_with_what_was_before():
    method = SimSiam(encoder(4), None, 8, 4, paired=True)
    graph = Patches(2)(pictures(2))
    before = [b.clone() for b in method.project.buffers()]
    loss = method(graph)["cosine"]
    assert loss.isfinite()
    assert loss != 0
    loss.backward()
    assert method.project[0].weight.grad.any()
    assert all(torch.equal(a, b) for a, b in zip(before, method.project.buffers(), strict=True))


def test_batches_that_are_no_pairs_are_refused():
    method = SimSiam(encoder(4), None, 8, 4, paired=True)
    graph = Patches(2)(pictures(4))
    for wrong in (Patches(2)(pictures(3)), graph.replace(items=torch.tensor([0, 0, 1, 2]))):
        with pytest.raises(UserError, match="not two views of each item side by side"):
            method(wrong)
    assert method(graph.replace(items=torch.tensor([5, 5, 1, 1])))
    with pytest.raises(UserError, match="nothing tells two views of a graph apart"):
        SimSiam(encoder(4))


def test_two_copies_without_alteration_differ_by_the_own_view():
    data = Dataset.of_items(Items("images", pictures(6)), Patches(2), name="data")
    graph = Batches(data, lambda graph: graph, "cpu", 6, views=2)(0)
    one, two = graph.parts()[:2]
    assert torch.equal(one.x, two.x)
    method = SimSiam(encoder(4), DropNodes(0.5), 8, 4, paired=True)
    one, two = method._views(graph, generator())
    assert (one - two).abs().max() > 1e-3
    plain = SimSiam(encoder(4), None, 8, 4, paired=True)
    one, two = plain._views(graph, generator())
    torch.testing.assert_close(one, two)


def plan(spec, **given):
    recipe = get_recipe("simsiam")
    return recipe.plan(spec, recipe.settings(spec, given))


def test_the_recipe_on_raw_items_and_on_graphs():
    images = Spec.of(Dataset.of_items(Items("images", pictures(4)), Patches(2), name="data"))
    made = plan(images)
    assert made.views == 2
    assert made.alter == alter_for("images", "weak")
    assert made.method.paired
    assert made.method.view is None
    assert made.tokenizer == Patches(2, "none")
    made = plan(images, augment="none", view="nodes")
    assert made.alter is None
    assert made.views == 2
    assert made.method.view is not None
    assert made.tokenizer == Patches(2)  # a view of a graph may walk along edges
    graphs = Spec("data", "graph", 12, 60, 120, 4, False)
    made = plan(graphs)
    assert made.views == 1
    assert made.alter is None
    assert not made.method.paired
    for spec, given, words in (
        (Spec("data", "node", 12, 60, 120, 1, False), {}, "one graph; use bgrl"),
        (graphs, {"batch_size": 1}, "batch_size of 2 or more"),
        (graphs, {"augment": "weak"}, "holds graphs"),
        (graphs, {"view": "node"}, "did you mean 'nodes'"),
        (images, {"augment": "none"}, "nothing tells two views"),
    ):
        with pytest.raises(UserError, match=words):
            plan(spec, **given)


def test_it_pretrains_images_and_graphs():
    small = {"width": 16, "layers": 1, "epochs": 3, "projection": 16, "hidden": 8, "progress": False, "seed": 1}
    data = Dataset.of_items(Items("images", (255 * pictures(33)).to(torch.uint8)), name="data")
    run = pretrain(data, "simsiam", batch_size=8, **small)  # the last batch of an epoch has one item
    again = pretrain(data, "simsiam", batch_size=8, **small)
    assert [line["cosine"] for line in run.lines] == [line["cosine"] for line in again.lines]
    assert run.embed(data).shape == (33, 16)
    assert all(-1 <= line["cosine"] <= 1 for line in run.lines)
    run = pretrain(data, "simsiam", batch_size=8, augment="none", view="content", pool="class", **small)
    assert run.embed(data).shape == (33, 16)
    graphs = Dataset(name="graphs", graphs=[random_graph(n, n) for n in range(5, 25)], task="graph")
    run = pretrain(graphs, "simsiam", batch_size=10, **{**small, "epochs": 12, "lr": 5e-3})
    assert run.lines[-1]["cosine"] < run.lines[0]["cosine"]


def test_a_single_graph_is_sent_to_bgrl():
    with pytest.raises(UserError, match="use bgrl"):
        pretrain(Graph.build(torch.rand(5, 3), torch.tensor([[0, 1], [1, 0]])), "simsiam", progress=False)
