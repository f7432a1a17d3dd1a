"""Histograms of oriented gradients against loops, other descriptors, and what MaskFeat makes of them."""

import math

import pytest
import torch
from conftest import KINDS, generator, random_graph
from torch import nn

from graphssl import pretrain
from graphssl.data.dataset import Dataset
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.masks import Near, Uniform
from graphssl.methods import MaskFeat
from graphssl.methods.maskfeat import surroundings
from graphssl.ops import dense
from graphssl.recipes import Spec, get_recipe
from graphssl.tokens import HOG, Cubes, Items, Joints, Patches, PointGroups, Tubelets
from graphssl.tokens.hog import hog


def slow_hog(image, cell, bins=9):
    """Cells [H / cell][W / cell][bins] of an image [H][W]: Sobel gradients, votes of pixels, each cell of length 1."""
    H, W = len(image), len(image[0])

    def at(row, column):
        row = -row if row < 0 else 2 * (H - 1) - row if row >= H else row
        column = -column if column < 0 else 2 * (W - 1) - column if column >= W else column
        return image[row][column]

    found = [[[0.0] * bins for _ in range(W // cell)] for _ in range(H // cell)]
    for r in range(H):
        for c in range(W):
            across = sum(w * (at(r + d, c + 1) - at(r + d, c - 1)) for d, w in ((-1, 1), (0, 2), (1, 1)))
            down = sum(w * (at(r + 1, c + d) - at(r - 1, c + d)) for d, w in ((-1, 1), (0, 2), (1, 1)))
            angle = math.degrees(math.atan2(down, across)) % 180
            found[r // cell][c // cell][int(angle / (180 / bins)) % bins] += math.hypot(across, down)
    for row in found:
        for votes in row:
            length = math.sqrt(sum(v * v for v in votes))
            votes[:] = [v / length if length else 0.0 for v in votes]
    return found


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=generator(seed))


@pytest.mark.parametrize("cell", [2, 4, 8])
def test_hog_is_the_slow_one(cell):
    images = pictures(2, 3, 8, 16)
    fast = hog(images, cell)
    assert fast.shape == (2, 27, 8 // cell, 16 // cell)
    for b in range(2):
        for c in range(3):
            slow = torch.tensor(slow_hog(images[b, c].double().tolist(), cell)).permute(2, 0, 1).float()
            torch.testing.assert_close(fast[b, 9 * c : 9 * c + 9], slow, rtol=1e-4, atol=1e-4)


def test_hog_does_not_see_contrast():
    images = pictures(2, 1, 8, 8)
    torch.testing.assert_close(hog(images, 4), hog(0.01 * images + 0.5, 4), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(hog(images, 4).norm(dim=1), torch.ones(2, 2, 2))
    torch.testing.assert_close(hog(images, 4), hog(1 - images, 4))  # a gradient and its opposite are one direction


def test_flat_cells_have_no_gradient():
    assert not hog(torch.full((1, 3, 8, 8), 0.3), 4).any()


def test_edges_vote_for_their_direction():
    slope = torch.arange(16.0) / 15
    across, down = slope.expand(16, 16), slope[:, None].expand(16, 16)
    for image, place in ((across, 0), (down, 4), (across + down, 2), (across - down, 6)):
        assert hog(image[None, None], 16)[0, :, 0, 0].argmax() == place


@pytest.mark.parametrize(("patch", "cells"), [(2, 1), (4, 1), (8, 1), (16, 4)])
def test_each_patch_has_its_own_cells(patch, cells):
    images = pictures(3, 2, 16, 32)
    tokenizer = Patches(patch)
    target = HOG(tokenizer)
    found = target(tokenizer(images))
    assert found.shape == (3 * (16 // patch) * (32 // patch), target.width((2, 16, 32)))
    assert target.width((2, 16, 32)) == 2 * 9 * cells
    whole = hog(images, target.cell)
    n = patch // target.cell
    for graph in range(3):
        for row in range(16 // patch):
            for column in range(32 // patch):
                place = graph * (16 // patch) * (32 // patch) + row * (32 // patch) + column
                own = whole[graph, :, row * n : row * n + n, column * n : column * n + n]
                torch.testing.assert_close(found[place].view(n, n, 18), own.permute(1, 2, 0))


def test_gradients_cross_borders_of_patches():
    """The left patch is flat in itself; that the right one is brighter is in its histogram."""
    image = torch.cat([torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)], 3)
    left, right = HOG(Patches(4))(Patches(4)(image))
    assert left[0] == pytest.approx(1)
    assert right[0] == pytest.approx(1)


def test_tubelets_have_each_frame():
    videos = pictures(2, 4, 3, 8, 8)
    tokenizer = Tubelets(2, 4)
    found = HOG(tokenizer)(tokenizer(videos))
    assert found.shape == (2 * 2 * 4, HOG(tokenizer).width((4, 3, 8, 8))) == (16, 2 * 27)
    frames = [HOG(Patches(4))(Patches(4)(videos[:, t])).view(2, 4, 27) for t in range(4)]
    for time in range(2):
        both = torch.stack(frames[2 * time : 2 * time + 2], 2).flatten(2)
        torch.testing.assert_close(found.view(2, 2, 4, 54)[:, time], both)


def test_images_of_several_sizes():
    images = [pictures(1, 8, 8), pictures(1, 8, 12), pictures(1, 12, 8)]
    tokenizer = Patches(4)
    found = HOG(tokenizer)(tokenizer(images))
    alone = [HOG(tokenizer)(tokenizer(image[None])) for image in images]
    torch.testing.assert_close(found, torch.cat(alone))


@pytest.mark.parametrize("tokenizer", [Cubes(2), PointGroups(4, 4), Joints(), None])
def test_no_gradients_without_pixels(tokenizer):
    with pytest.raises(UserError, match="gradients of an image need pixels on a grid"):
        HOG(tokenizer)


def test_an_image_of_one_row_has_no_gradients():
    with pytest.raises(UserError, match="1 rows has no gradients"):
        HOG(Patches(1)).width((1, 1, 8))


def slow_surroundings(graph):
    x, rows = dense(graph.x), []
    for node in range(graph.num_nodes):
        about = [node, *graph.edge_index[0, graph.edge_index[1] == node].tolist()]
        mean = x[about].mean(0)
        spread = (x[about] - mean).square().mean(0).sqrt()
        many = math.log(len(about))
        own = [(graph.edge_index[1] == n).sum().item() for n in (graph.batch == graph.batch[node]).nonzero()]
        most = math.log1p(max(own))
        lengths = [v / v.norm() if v.norm() > 1e-6 else 0 * v for v in (mean, spread)]
        rows.append(torch.cat([*lengths, torch.tensor([many / most if most else 0.0])]))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["citation", "words", "molecules", "odd", "no-edges", "star"])
def test_surroundings_are_the_slow_ones(kind):
    graph = KINDS[kind]()
    torch.testing.assert_close(surroundings(graph), slow_surroundings(graph), rtol=1e-3, atol=1e-3)
    assert surroundings(graph) is surroundings(graph)


def test_surroundings_of_alike_neighbours_vary_in_nothing():
    x = (torch.rand(1, 6, generator=generator()) / 3).expand(7, 6)
    ring = torch.stack([torch.arange(7), (torch.arange(7) + 1) % 7])
    found = surroundings(Graph.build(x, torch.cat([ring, ring.flip(0)], 1)))
    assert not found[:, 6:12].any()


class Spy(nn.Module):
    """Notes the content that the encoder is shown."""

    def __init__(self, dim):
        super().__init__()
        self.dim_in = self.dim = dim
        self.widths = (dim,)
        self.linear = nn.Linear(dim, dim)

    def forward(self, graph, h, rows=None):
        self.seen = dense(h).detach()
        codes = self.linear(dense(h))
        return codes if rows is None else codes[rows]


def test_the_loss_is_the_error_of_hidden_descriptors():
    graph = random_graph(20, 0)
    method = MaskFeat(Encoder(Spy(12)), surroundings, 25, Uniform(0.4))
    hidden = Uniform(0.4)(graph, generator(5))
    loss = method(graph, generator(5))["descriptor"]
    codes = method.encoder.backbone.linear(torch.where(hidden[:, None], method.mask_token, graph.x))
    torch.testing.assert_close(loss, (method.predict(codes) - surroundings(graph))[hidden].square().mean())
    assert hidden.sum() == 8


def test_hidden_content_does_not_reach_the_encoder():
    images = pictures(2, 1, 8, 8)
    tokenizer = Patches(2, "none")
    graph = tokenizer(images)
    method = MaskFeat(Encoder(Spy(4)), HOG(tokenizer), 9, Uniform(0.4))
    method(graph, generator(5))
    one = method.encoder.backbone.seen
    hidden = Uniform(0.4)(graph, generator(5))
    other = graph.replace(x=torch.where(hidden[:, None], torch.rand(graph.x.shape, generator=generator(6)), graph.x))
    method(other, generator(5))
    assert torch.equal(method.encoder.backbone.seen, one)
    assert torch.equal(one[~hidden], graph.x[~hidden])
    assert (one[hidden] == method.mask_token).all()


def spec_of(kind, shape, tokenizer):
    data = Dataset.of_items(Items(kind, pictures(2, *shape)), tokenizer, name="data")
    return Spec.of(data)


def test_the_recipe_chooses_what_fits():
    recipe = get_recipe("maskfeat")

    def plan(spec, **given):
        return recipe.plan(spec, recipe.settings(spec, given))

    images = spec_of("images", (3, 16, 16), Patches(4))
    made = plan(images, patch=8)
    assert made.method.target == HOG(Patches(8, "none"))
    assert made.method.predict.out_features == 27
    assert made.method.masker == Uniform(0.4)
    assert plan(images, masker="near").method.masker == Near(0.4)
    assert plan(images, warmup=0.0).schedule(0.5) == pytest.approx(0.5)  # the rate falls all the same
    assert plan(images, augment="weak").alter is not None
    assert plan(images, masker="block").tokenizer == Patches(4)  # which needs edges
    videos = plan(spec_of("videos", (4, 1, 8, 8), Tubelets(2, 4)))
    assert videos.method.target == HOG(Tubelets(2, 4, "none"))
    points = spec_of("points", (50, 3), PointGroups(8, 4))
    made = plan(points)
    assert made.method.target is surroundings
    assert made.tokenizer == PointGroups(8, 4)
    for given, words in (
        ({"target": "hog"}, "points have not"),
        ({"target": "hgo"}, "did you mean 'hog'"),
        ({"masker": "bloc"}, "did you mean 'block'"),
    ):
        with pytest.raises(UserError, match=words):
            plan(points, **given)


def test_it_learns_on_images_and_on_a_citation_graph():
    small = {"width": 16, "layers": 1, "epochs": 12, "lr": 3e-3, "progress": False}
    bars = torch.zeros(64, 1, 8, 8)
    for i, image in enumerate(bars):  # lines across or down, so that a hidden patch is told by the others
        place = i // 2 % 6 + 1
        image[0].select(i % 2, place).fill_(1.0)
    run = pretrain(Dataset.of_items(Items("images", bars), name="bars"), "maskfeat", batch_size=16, **small)
    losses = [line["descriptor"] for line in run.lines]
    assert losses[-1] < 0.8 * losses[0]
    run = pretrain(random_graph(60, 0), "maskfeat", **small)
    losses = [line["descriptor"] for line in run.lines]
    assert losses[-1] < 0.8 * losses[0]
