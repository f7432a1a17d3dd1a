"""Point-MAE: its loss against loops, its embedding of sets, and the recipe from clouds to codes."""

import math

import pytest
import torch
from conftest import KINDS, generator

import graphssl
from graphssl import ops
from graphssl.backbones import PointNet, Transformer
from graphssl.data import Dataset
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import chamfer, chamfer_rows
from graphssl.recipes import Spec, get_recipe
from graphssl.tokens import Items, PointGroups
from graphssl.train import seeded, train

SMALL = {"width": 16, "inner": 8, "layers": 1, "decoder_width": 16, "heads": 2}


def clouds(count: int = 12, points: int = 40, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Ellipsoids of several shapes."""
    g = generator(seed)
    places = torch.nn.functional.normalize(torch.randn(count, points, 3, generator=g), dim=2)
    places = places * torch.rand(count, 1, 3, generator=g)
    return torch.cat([places, torch.rand(count, points, channels - 3, generator=g)], dim=2)


def plan(values: torch.Tensor, **settings):
    dataset = Dataset.of_items(Items("points", values), PointGroups(10, 6), name="data")
    recipe, spec = get_recipe("point-mae"), Spec.of(dataset)
    with seeded(0):
        return dataset, recipe.plan(spec, recipe.settings(spec, {**SMALL, **settings}))


# the loss


@pytest.mark.parametrize(("k", "m", "d"), [(5, 5, 3), (4, 7, 3), (40, 33, 2), (1, 1, 4)])
def test_chamfer_equals_loops(k, m, d):
    pred, target = torch.randn(3, k, d, generator=generator()), torch.randn(3, m, d, generator=generator(1))
    total = 0.0
    for a, b in zip(pred.tolist(), target.tolist(), strict=True):
        total += sum(min(math.dist(p, q) ** 2 for q in b) for p in a) / k
        total += sum(min(math.dist(p, q) ** 2 for p in a) for q in b) / m
    assert chamfer(pred, target) == pytest.approx(total / 3, rel=1e-5)


def test_chamfer_is_of_sets():
    points = torch.randn(4, 40, 3, generator=generator())
    other = points[:, torch.randperm(40, generator=generator(1))]
    assert chamfer(points, other) == 0
    target = torch.randn(4, 30, 3, generator=generator(2))
    assert chamfer(points, target) == pytest.approx(chamfer(target, other).item(), rel=1e-6)
    near = points + 1e-3  # far from 0 the distances are small differences of large numbers
    assert chamfer(points + 100, near + 100) == pytest.approx(6e-6, rel=0.05)


def test_chamfer_s_gradient():
    pred = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator(), requires_grad=True)
    target = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator(1))
    assert torch.autograd.gradcheck(chamfer, (pred, target))
    equal = target.clone().requires_grad_()
    chamfer(equal, target).backward()
    assert torch.equal(equal.grad, torch.zeros_like(equal))


def test_chamfer_of_nothing_is_zero():
    assert chamfer(torch.zeros(0, 4, 3), torch.zeros(0, 5, 3)) == 0


def test_chamfer_of_flat_rows():
    pred, target = torch.randn(3, 8, generator=generator()), torch.randn(3, 12, generator=generator(1))
    expected = chamfer(pred.view(3, 2, 4), target.view(3, 3, 4))
    assert chamfer_rows(pred, target, width=4) == expected
    assert chamfer_rows(pred, ops.Rows.from_dense(target), 4) == expected


def test_chamfer_is_exact_under_autocast():
    pred, target = torch.randn(3, 8, 3, generator=generator()), torch.randn(3, 8, 3, generator=generator(1))
    with torch.autocast("cpu", torch.bfloat16):
        half = chamfer(pred, target)
    assert half == chamfer(pred, target)


# the embedding


def test_a_group_s_code_is_that_of_the_set():
    x = torch.randn(7, 5, 3, generator=generator())
    embed = PointNet(3, 16, 8)
    order = torch.randperm(5, generator=generator(1))
    embed(x.flatten(1))  # statistics that are no longer those of the start
    embed.eval()
    torch.testing.assert_close(embed(x.flatten(1)), embed(x[:, order].flatten(1)), rtol=0, atol=1e-6)
    doubled = torch.cat([x, x], 1).flatten(1)  # twice the same points
    torch.testing.assert_close(embed(x.flatten(1)), embed(doubled), rtol=0, atol=1e-6)


def test_the_embedding_equals_the_paper_s_loops():
    x = torch.randn(4, 6, 3, generator=generator())
    embed = PointNet(3, 16, 8).eval()
    joined = torch.cat([embed.group.weight, embed.own.weight], 1)  # of the group's maximum beside the point's own
    for row, code in zip(x, embed(x.flatten(1)), strict=True):
        said = embed.first(row)
        both = torch.cat([said.amax(0).expand(6, -1), said], 1) @ joined.T + embed.own.bias
        torch.testing.assert_close(code, embed.second(both).amax(0), rtol=1e-5, atol=1e-6)


def test_the_embedding_takes_no_rows_and_sparse_rows():
    embed = PointNet(4, 16, 8)
    assert embed(torch.zeros(0, 12)).shape == (0, 16)
    x = torch.randn(5, 12, generator=generator()).relu()
    embed.eval()
    assert torch.equal(embed(ops.Rows.from_dense(x)), embed(x))


def test_the_embedding_in_a_transformer():
    graph = PointGroups(10, 6, "none")(clouds(3))
    body = Transformer(18, 16, 2, 2, axes=3, position="mlp", embed=PointNet(3, 16, 8))
    codes = body(graph, graph.x)
    assert codes.shape == (30, 16)
    codes.square().sum().backward()
    assert not [name for name, p in body.embed.named_parameters() if p.grad is None]


# the recipe


def test_it_learns_on_clouds():
    dataset, made = plan(clouds())
    batch = dataset.tokenize(made.tokenizer).batch(range(12))
    assert batch.num_edges == 0  # the transformer attends to all
    optimizer = torch.optim.Adam(made.method.parameters(), 3e-3)
    history = [losses["loss"].item() for _, losses in train(made.method, lambda step: batch, optimizer, 60)]
    assert sum(history[-10:]) < 0.7 * sum(history[:10])


def test_all_weights_matter():
    dataset, made = plan(clouds())
    batch = dataset.tokenize(made.tokenizer).batch(range(12))
    made.method.total(made.method(batch, generator())).backward()
    weights = {name: p.grad for name, p in made.method.named_parameters()}
    # a shift of all points before a norm is undone by it; what comes before a first norm is such a shift
    assert {name for name, grad in weights.items() if grad is None or grad.abs().max() < 1e-9} == set()


def test_the_encoder_never_sees_hidden_points():
    dataset, made = plan(clouds())
    batch = dataset.tokenize(made.tokenizer).batch(range(12))
    hidden = made.method.masker(batch, generator(3))
    assert hidden.view(12, 10).sum(1).tolist() == [6] * 12
    seen = made.method._decode(batch, hidden, hidden)
    other = batch.replace(x=torch.where(hidden[:, None], torch.randn_like(batch.x), batch.x))
    assert torch.equal(seen, made.method._decode(other, hidden, hidden))
    shown = batch.replace(x=torch.where(hidden[:, None], batch.x, torch.randn_like(batch.x)))
    assert not torch.allclose(seen, made.method._decode(shown, hidden, hidden))


def test_the_loss_is_the_same_for_points_in_another_order():
    dataset, made = plan(clouds())
    batch = dataset.tokenize(made.tokenizer).batch(range(12))
    order = torch.randperm(6, generator=generator(1))
    moved = batch.replace(x=batch.x.view(-1, 6, 3)[:, order].flatten(1))
    one, other = made.method(batch, generator(2)), made.method(moved, generator(2))
    assert one["content"].item() == pytest.approx(other["content"].item(), rel=1e-5)


def test_groups_around_one_are_hidden_side_by_side():
    dataset, made = plan(clouds(2, 200), masker="near", mask=0.4, groups=40)
    batch = dataset.tokenize(made.tokenizer).batch([0, 1])
    hidden = made.method.masker(batch, generator())
    assert hidden.view(2, 40).sum(1).tolist() == [16, 16]
    for part in range(2):
        pos, gone = batch.pos.view(2, 40, 3)[part], hidden.view(2, 40)[part]
        away = torch.cdist(pos[None], pos[None], compute_mode="donot_use_mm_for_euclid_dist")[0]
        furthest, nearest = away[gone][:, gone].amax(1), away[gone][:, ~gone].amin(1)
        assert (furthest <= nearest).any()  # around one of them


def test_reconstructions_are_clouds():
    dataset, made = plan(clouds(channels=4))
    batch = dataset.tokenize(made.tokenizer).batch(range(12))
    hidden, content = made.method.eval().reconstruct(batch, generator())
    assert torch.equal(content[~hidden], batch.x[~hidden])
    back = made.tokenizer.back(batch, content)
    assert [points.shape for points in back] == [(60, 4)] * 12


@pytest.mark.parametrize("settings", [{"encoder": "sparse-transformer"}, {"encoder": "gat"}, {"pool": "class"}])
def test_other_encoders_and_readouts(settings):
    dataset, made = plan(clouds(), **settings)
    cut = dataset.tokenize(made.tokenizer)
    assert (cut.batch([0]).num_edges > 0) == ("encoder" in settings)
    assert any(isinstance(part, PointNet) for part in made.method.modules()) == (settings.get("encoder") != "gat")
    made.method.total(made.method(cut.batch(range(12)), generator())).backward()
    assert made.method.encoder.of_graphs(cut.batch(range(3))).shape == (3, 16)


def test_settings_cut_clouds_and_are_checked():
    _, made = plan(clouds(), groups=7, neighbours=3)
    assert made.tokenizer == PointGroups(7, 3, "none")
    assert made.method.read.out_features == 9
    with pytest.raises(UserError, match="of 40 at most"):
        plan(clouds(), groups=41)
    with pytest.raises(UserError, match="uniform"):
        plan(clouds(), masker="unifrom")
    with pytest.raises(UserError, match="neighbours"):
        plan(clouds(), neighbours=0)


def test_what_is_no_cloud_is_refused():
    with pytest.raises(UserError, match="needs points"):
        graphssl.pretrain(torch.rand(4, 1, 8, 8), "point-mae", progress=False)
    with pytest.raises(UserError, match="needs points"):
        graphssl.pretrain(KINDS["citation"](), "point-mae", progress=False)


def test_graphs_of_groups_are_taken():
    graph = KINDS["points"]()
    run = graphssl.pretrain([graph, graph.replace(x=2 * graph.x)], "point-mae", epochs=2, progress=False, **SMALL)
    assert run.embed().shape == (2, 16)
    with pytest.raises(UserError, match="needs points"):
        graphssl.pretrain([Graph.build(graph.x, graph.edge_index)] * 2, "point-mae", progress=False)


def test_from_an_array_to_codes_and_back(tmp_path):
    values = clouds(20)
    settings = {**SMALL, "epochs": 3, "batch_size": 8, "progress": False, "groups": 8, "neighbours": 5}
    run = graphssl.pretrain(values, "point-mae", out=tmp_path / "run", **settings)
    codes = run.embed()
    assert codes.shape == (20, 16)
    order = torch.randperm(values.size(1), generator=generator(1))
    torch.testing.assert_close(run.embed(values[:, order]), codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(graphssl.load(tmp_path / "run").embed(values), codes)
    stretched = graphssl.pretrain(values, "point-mae", augment="weak", **settings)
    assert stretched.history["content"] != run.history["content"]
