"""MAE, VideoMAE and what their recipes hide: visible nodes only are seen, several views are averaged."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import KINDS, generator

from graphssl import store
from graphssl.backbones import Transformer, backbone
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.losses import mean_square
from graphssl.masks import COLORS, Block, Color, Disjoint, Frames, Near, Parts, Ramp, Tube, Uniform
from graphssl.methods import MAE
from graphssl.recipes import Spec, get_recipe
from graphssl.tokens import Cubes, Joints, Patches, PointGroups, Tubelets, alter_for, to_json
from graphssl.tokens.skeletons import KINECT
from graphssl.train import seeded, train

SMALL = {"width": 16, "layers": 2, "decoder_width": 16}


def of(masker, normalize=False, dim=12, axes=2, **more):
    with seeded(0):
        body = backbone("transformer", dim, [16, 16], heads=2, axes=axes)
        return MAE(Encoder(body), Transformer(8, 8, 1, 2, axes=axes), dim, masker, normalize, **more)


def images(count=6):
    return Patches(2, "none")(torch.rand(count, 3, 8, 8, generator=generator()))


def spec_of(tokenizer, shape, dim, axes, name="data"):
    return Spec(name, "graph", dim, 100, 400, 10, False, axes=axes, kind=tokenizer.kind, shape=shape,
                tokens=to_json(tokenizer))  # fmt: skip


IMAGES = spec_of(Patches(2), (3, 8, 8), 12, 2)
VIDEOS = spec_of(Tubelets(2, 2), (8, 1, 8, 8), 8, 3)
POINTS = spec_of(PointGroups(16, 4, "none"), (60, 3), 12, 3)
VOXELS = spec_of(Cubes(2), (4, 4, 4), 8, 3)
BODIES = spec_of(Joints(KINECT.bones, 4), (16, 20, 3), 12, 2)


def plan(method, spec, **settings):
    recipe = get_recipe(method)
    small = {key: value for key, value in SMALL.items() if key in recipe.defaults}
    with seeded(0):
        return recipe.plan(spec, recipe.settings(spec, {**small, **settings}))


class Fixed:
    """Always hides the same."""

    def __init__(self, hidden):
        self.hidden = hidden

    def __call__(self, graph, generator=None):
        return self.hidden


def hide(graph, ratio=0.75):
    return Uniform(ratio)(graph, generator(1))


def test_hidden_content_is_not_seen():
    graph = images()
    hidden = hide(graph)
    method = of(Fixed(hidden))
    other = graph.replace(x=torch.where(hidden[:, None], torch.randn_like(graph.x), graph.x))
    assert torch.equal(method._decode(graph, hidden, hidden), method._decode(other, hidden, hidden))
    assert torch.equal(method.encoder(graph.keep_nodes(~hidden)), method.encoder(other.keep_nodes(~hidden)))
    seen = graph.replace(x=torch.where(hidden[:, None], graph.x, torch.randn_like(graph.x)))
    assert not torch.equal(method._decode(graph, hidden, hidden), method._decode(seen, hidden, hidden))


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_is_that_of_the_hidden_nodes_one_by_one(normalize):
    graph = images()
    hidden = hide(graph)
    method = of(Fixed(hidden), normalize)
    said = method._decode(graph, hidden, hidden).tolist()
    terms = []
    for row, true in zip(said, graph.x[hidden].tolist(), strict=True):
        if normalize:
            mean = sum(true) / 12
            deviation = (sum((value - mean) ** 2 for value in true) / 11 + 1e-6) ** 0.5
            true = [(value - mean) / deviation for value in true]
        terms += [(a - b) ** 2 for a, b in zip(row, true, strict=True)]
    assert method(graph)["content"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_views_are_averaged():
    graph = images()
    views = Disjoint(0.75, 3)(graph, generator())
    each = [of(Fixed(view))(graph)["content"].item() for view in views]
    assert len(set(each)) == 3
    assert of(Fixed(views))(graph)["content"].item() == pytest.approx(sum(each) / 3, rel=1e-5)


def test_the_loss_is_the_one_that_is_given():
    graph = images()
    hidden = hide(graph)

    def furthest(pred, true):
        return (pred - true).abs().max()

    method = of(Fixed(hidden), loss=furthest)
    expected = (method._decode(graph, hidden, hidden) - graph.x[hidden]).abs().max()
    assert torch.equal(method(graph)["content"], expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("masker", [Uniform(0.75), Disjoint(0.75)])
def test_reconstruction_leaves_what_was_seen(masker, normalize):
    graph = images()
    method = of(masker, normalize)
    hidden, content = method.reconstruct(graph, generator())
    assert torch.equal(content[~hidden], graph.x[~hidden])
    said, true = content[hidden], graph.x[hidden]
    raw = method._decode(graph, hidden, hidden)
    if normalize:  # said in units of the true content's mean and deviation
        said = (said - true.mean(-1, keepdim=True)) / (true.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(said, raw, rtol=1e-3, atol=1e-4)


def test_learning_rebuilds_what_neighbours_tell():
    flat = torch.rand(40, 3, 1, 1, generator=generator()).expand(40, 3, 8, 8).contiguous()
    graph = Patches(2, "none")(flat)  # each image of one color: a visible patch tells all
    method = of(Uniform(0.5))
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    for _ in train(method, lambda step: graph, optimizer, 120):
        pass
    _, content = method.reconstruct(graph, generator())
    assert mean_square(content, graph.x) < 0.2 * graph.x.var()


def test_a_ramp_goes_with_training():
    graph = images()
    method = of(Ramp(Uniform(0.25), 0.75))
    seen = []
    method.loss = lambda pred, true: (seen.append(len(pred)), mean_square(pred, true))[1]
    for progress in (0.0, 0.5, 1.0):
        method.after_step(progress)
        method(graph, generator())
    assert seen == [6 * 4, 6 * 8, 6 * 12]


MASKS = {
    "uniform": Uniform(0.75), "near": Near(0.75), "block": Block(0.75), "tube": Tube(0.75), "frames": Frames(0.75),
    "disjoint": Disjoint(0.75), **{f"color-{color}": Color(0.75, color) for color in COLORS},
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_maskers_by_name_take_a_step_on_videos(name):
    made = plan("mae", VIDEOS, masker=name, edges="grid")
    assert made.method.masker == MASKS[name]
    graph = made.tokenizer(torch.rand(3, 8, 1, 8, 8, generator=generator()))
    assert graph.num_edges
    assert made.method(graph, generator())["content"].isfinite()


def test_parts_are_those_of_the_bones():
    made = plan("mae", BODIES, masker="parts", mask=0.4)
    assert isinstance(made.method.masker, Parts)
    parts = dict(zip(KINECT.joints, made.method.masker.parts, strict=True))
    assert parts["left wrist"] == parts["left elbow"] != parts["right elbow"]
    graph = made.tokenizer(torch.rand(4, 16, 20, 3, generator=generator()))
    hidden = made.method.masker(graph, generator()).view(4, -1, 20)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert made.method(graph, generator())["content"].isfinite()


@pytest.mark.parametrize(("method", "spec", "settings", "message"), [
    ("mae", IMAGES, {"masker": "parts"}, "masker 'parts' needs skeletons with bones; 'data' has none"),
    ("mae", IMAGES, {"masker": "block"}, "'block' goes along edges, and 'data' has none; choose masker='near', which"),
    ("point-mae", POINTS, {"masker": "block"}, "'block' goes along edges, and 'data' has none; choose masker='near'"),
    *((method, spec, {"masker": masker}, f"masker '{masker}' goes by time, and {spec.kind} have none; choose 'near'")
      for masker in ("tube", "frames")
      for method, spec in (("mae", IMAGES), ("simmim", VOXELS), ("point-mae", POINTS))),
    *(("videomae", spec, {}, f"at all times, and {spec.kind} have no time; choose mae")
      for spec in (IMAGES, VOXELS, POINTS)),
    *((method, IMAGES, {"masker": "disjoint"}, "two masks a step, which mae and point-mae take; choose 'uniform'")
      for method in ("simmim", "crossmae", "latent-mim", "maskfeat")),
    ("mae", IMAGES, {"masker": "grey"}, "unknown masker 'grey'; "),
    ("mae", IMAGES, {"masker": "color-geen"}, "did you mean 'color-green'"),
    ("mae", IMAGES, {"masker": "disjoint", "mask": 0.3}, "2 views that hide a share of 0.3"),
    ("mae", IMAGES, {"edges": "gird"}, "unknown pattern of edges 'gird'"),
    ("mae", BODIES, {"edges": "grid"}, "edges is no setting for skeletons, which come with theirs; leave it out"),
    ("mae", Spec("g", "graph", 12, 9, 0, 2, False), {"edges": "grid"}, "edges is no setting for graphs"),
    ("mae", Spec("g", "graph", 12, 9, 0, 2, False), {"masker": "block"}, "and 'g' has none; choose 'uniform'"),
    ("videomae", IMAGES, {"mask": 1.5}, "mask is 1.5; choose a value above 0 and up to 1"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(method, spec, settings, message):
    with pytest.raises(UserError, match=message):
        plan(method, spec, **settings)


@pytest.mark.parametrize("method", ["mae", "simmim", "crossmae", "latent-mim", "maskfeat", "skeletonmae"])
@pytest.mark.parametrize("masker", ["near", "tube", "parts", "color-red"])
def test_methods_of_tokens_share_their_maskers(method, masker):
    made = plan(method, BODIES, masker=masker, mask=0.4)
    assert made.method.masker == plan("mae", BODIES, masker=masker, mask=0.4).method.masker
    graph = made.tokenizer(torch.rand(2, 16, 20, 3, generator=generator()))
    assert made.method.total(made.method(graph, generator())).isfinite()


@pytest.mark.parametrize("method", [
    "mae", "simmim", "hpm", "crossmae", "latent-mim", "maskfeat", "videomae", "skeletonmae", "simsiam",
])  # fmt: skip
def test_items_are_altered_where_it_is_asked_for(method):
    for strength in ("none", "strong"):
        view = {"view": "nodes"} if method == "simsiam" else {}  # else its views would be the same
        assert plan(method, BODIES, augment=strength, **view).alter == alter_for("skeletons", strength)


def test_tokens_have_edges_where_they_are_asked_for():
    pixels = torch.rand(1, 3, 8, 8, generator=generator())
    for encoder, edges, expected in [
        ("transformer", None, "none"), ("transformer", "grid", "grid"), ("gcn", None, "diagonal"),
        ("gcn", "knn4", "knn4"), ("sparse-transformer", None, "diagonal"),
    ]:  # fmt: skip
        made = plan("mae", IMAGES, encoder=encoder, edges=edges)
        assert made.tokenizer == Patches(2, expected)
        assert made.method(made.tokenizer(pixels), generator())["content"].isfinite()


def test_videomae_hides_tubes_and_normalizes():
    made = plan("videomae", VIDEOS)
    assert made.method.masker == Tube(0.9)
    assert made.method.normalize
    graph = made.tokenizer(torch.rand(5, 8, 1, 8, 8, generator=generator()))
    hidden = made.method.masker(graph, generator()).view(5, 4, 16)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert hidden[:, 0].sum(1).tolist() == [14] * 5
    assert made.method(graph, generator())["content"].isfinite()


def test_videomae_normalizes_each_colour_by_itself():
    colour = replace(VIDEOS, shape=(8, 3, 8, 8), dim=24)
    made = plan("videomae", colour)
    graph = made.tokenizer(torch.rand(2, 8, 3, 8, 8, generator=generator()) * torch.tensor([1.0, 9, 3]).view(3, 1, 1))
    hidden, said = hide(graph, 0.5), []
    made.method.masker = Fixed(hidden)
    made.method.loss = lambda pred, true: (said.append((pred, true)), mean_square(pred, true))[1]
    made.method(graph)
    pred, true = said[0]
    colours = graph.x[hidden].view(-1, 8, 3)  # of 2 x 2 x 2 pixels
    expected = (colours - colours.mean(1, keepdim=True)) / colours.std(1, keepdim=True)
    torch.testing.assert_close(true.view(-1, 8, 3), expected, rtol=1e-3, atol=1e-3)
    content = made.method.eval().reconstruct(graph)[1][hidden].view(-1, 8, 3)
    back = pred.view(-1, 8, 3) * colours.std(1, keepdim=True) + colours.mean(1, keepdim=True)
    torch.testing.assert_close(content, back, rtol=1e-3, atol=1e-3)


def test_videomae_says_why_it_needs_places_and_times():
    recipe = get_recipe("videomae")
    spec = Spec("star", "node", 12, 40, 78, 1, False)
    method = recipe.plan(spec, recipe.settings(spec, SMALL)).method
    with pytest.raises(UserError, match="hidden at all times, but the graph has no pos; give it one of 2 axes or more"):
        method(KINDS["star"](), generator())


def test_points_may_be_hidden_by_place():
    tokenizer = PointGroups(16, 4)
    made = plan("mae", spec_of(tokenizer, (60, 3), 12, 3), masker="near")
    graph = made.tokenizer(torch.rand(2, 60, 3, generator=generator()))
    assert not graph.num_edges
    assert made.method(graph, generator())["content"].isfinite()


def test_a_saved_method_goes_on_the_same():
    graph = images()
    method = of(Ramp(Disjoint(0.5), 0.9))
    method.after_step(0.6)
    twin = of(Ramp(Disjoint(0.5), 0.9))
    twin.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(method(graph, generator())["content"], twin(graph, generator())["content"])


def test_only_weights_of_linear_maps_decay():
    """Of a class token, a table of positions, a mask token, the weights of sums, biases and norms nothing is lost."""
    for name in ("mae", "simmim", "videomae", "hpm", "crossmae", "latent-mim", "maskfeat", "point-mae"):
        table = {} if name == "point-mae" else {"position": "learned"}
        spec = {"point-mae": POINTS, "videomae": VIDEOS}.get(name, IMAGES)
        made = plan(name, spec, pool="class", weight_decay=0.3, **table)
        linear = {id(part.weight) for part in made.method.modules() if isinstance(part, torch.nn.Linear)}
        trained = [p for p in made.method.parameters() if p.requires_grad]
        decaying, spared = made.optimizer(trained).param_groups
        assert {id(p) for p in decaying["params"]} == linear & {id(p) for p in trained}, name
        assert len(decaying["params"]) + len(spared["params"]) == len(trained), name
        assert (decaying["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
        extra = made.method.encoder.backbone.extras
        assert any(p is extra for p in spared["params"]), name


def test_a_checkpoint_holds_both_groups(tmp_path):
    graph = images()

    def begun(steps, start=0, folder=None):
        made = plan("mae", IMAGES, mask_end=0.9, pool="class")
        optimizer = made.optimizer(made.method.parameters())
        if folder is not None:
            assert store.load_checkpoint(folder, made.method, optimizer) == (start, {})
        run = train(made.method, lambda step: graph, optimizer, 6, start=start, schedule=made.schedule)
        for step, _ in run:
            if step == steps:
                break
        return made.method, optimizer

    whole, _ = begun(6)
    assert store.save_checkpoint(tmp_path, *begun(3), 3)
    again, optimizer = begun(6, 3, tmp_path)
    assert len(optimizer.param_groups) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("method", ["mae", "videomae", "hpm", "simmim", "crossmae", "maskfeat"])
def test_the_first_step_counts(method):
    """A warm-up begins at a rate of 0, which is that of no step."""
    spec = VIDEOS if method == "videomae" else IMAGES
    made = plan(method, spec)
    graph = made.tokenizer(torch.rand(4, *spec.shape, generator=generator()))
    for steps in (1, 100):
        before = copy.deepcopy(made.method.read if hasattr(made.method, "read") else made.method.predict)
        optimizer = made.optimizer([p for p in made.method.parameters() if p.requires_grad])
        next(train(made.method, lambda step: graph, optimizer, steps, schedule=made.schedule))
        after = made.method.read if hasattr(made.method, "read") else made.method.predict
        assert not torch.equal(before.weight, after.weight), steps
