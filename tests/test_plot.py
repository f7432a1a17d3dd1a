"""Pictures: what is in them, the same at each call, and one sentence where there is nothing to draw."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

import graphssl
from graphssl import plot
from graphssl.data.dataset import Dataset
from graphssl.plot import HIDDEN, PANELS, Rebuilt, draw_rebuilt, film
from graphssl.tokens import Cubes, Items, Joints, Patches, PointGroups, Tubelets

NAN = float("nan")
SMALL = {"width": 16, "heads": 2, "layers": 1, "epochs": 1, "progress": False}
LINE = tuple((i, i + 1) for i in range(4))


def items(kind: str) -> Dataset:
    g = torch.Generator().manual_seed(0)
    values, tokenizer = {
        "images": lambda: (torch.rand(6, 3, 8, 8, generator=g), Patches(4)),
        "videos": lambda: (torch.rand(6, 4, 1, 8, 8, generator=g), Tubelets(2, 4)),
        "points": lambda: ([torch.randn(n, 4, generator=g) for n in (40, 50, 60)], PointGroups(8, 8)),
        "voxels": lambda: (torch.rand(4, 6, 6, 6, generator=g), Cubes(3)),
        "skeletons": lambda: ([torch.randn(n, 5, 3, generator=g) for n in (20, 30)], Joints(bones=LINE, steps=10)),
    }[kind]()
    return Dataset.of_items(Items(kind, values), tokenizer, name=kind, y=torch.arange(len(values)) % 2)


@pytest.fixture(scope="module")
def run():
    return graphssl.pretrain(items("images"), "mae", **SMALL)


def shown(ax):
    """The pixels of an axes' image."""
    return np.asarray(ax.images[0].get_array())


def test_images_hidden_pixels_and_rebuilt_ones():
    given = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    covered, rebuilt = given.clone(), given.clone()
    covered[:, :2, :3], rebuilt[:, :2, :3] = NAN, 9.0  # beyond the input's range
    figure = draw_rebuilt(Rebuilt("images", [given, given], [covered, given], [rebuilt, given]), "mine")
    axes = np.array(figure.axes).reshape(2, 3)
    assert [ax.get_title() for ax in axes[0]] == list(PANELS)
    low, high = float(given.min()), float(given.max())
    expected = ((given - low) / (high - low)).permute(1, 2, 0).numpy()
    for ax in (axes[0, 0], *axes[1]):
        assert np.allclose(shown(ax), expected, atol=1e-6)
    middle, right = shown(axes[0, 1]), shown(axes[0, 2])
    assert (middle[:2, :3] == HIDDEN).all()
    assert (right[:2, :3] == 1).all()
    for pixels in (middle, right):
        assert np.allclose(pixels[2:], expected[2:], atol=1e-6)
    assert figure.get_suptitle() == "mine"


def test_grey_images_and_those_of_other_channels_are_grey():
    for channels in (1, 2, 5):
        image = torch.rand(channels, 4, 4, generator=torch.Generator().manual_seed(channels))
        (ax, *_) = draw_rebuilt(Rebuilt("images", [image], [image], [image])).axes
        grey = (image.mean(0) - image.min()) / (image.max() - image.min())
        assert np.allclose(shown(ax), grey[..., None].expand(-1, -1, 3), atol=1e-6)
    flat = torch.full((1, 4, 4), 3.0)
    assert (shown(draw_rebuilt(Rebuilt("images", [flat], [flat], [flat])).axes[0]) == 0).all()


def test_videos_are_strips_and_films_of_their_frames():
    video = torch.rand(11, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    short = video[:3]
    three = Rebuilt("videos", [video, short], [video, short], [video, short])
    axes = np.array(draw_rebuilt(three).axes).reshape(6, 8)
    scaled = ((video - video.min()) / (video.max() - video.min()))[:, 0].numpy()
    for row, frames in ((0, np.linspace(0, 10, 8).round()), (3, np.linspace(0, 2, 8).round())):
        for ax, frame in zip(axes[row], frames, strict=True):
            assert np.allclose(shown(ax)[..., 0], scaled[int(frame)], atol=1e-6)
    shots = [np.asarray(shot) for shot in film(three)]
    assert len(shots) == 11
    upper, lower = slice(0, len(shots[0]) // 2), slice(2 * len(shots[0]) // 3, None)
    assert all((one[upper] != two[upper]).any() for one, two in pairwise(shots))
    assert (shots[1][lower] != shots[2][lower]).any()
    assert all((shots[2][lower] == later[lower]).all() for later in shots[3:])  # the short one waits


def dots(ax):
    """Places [n, 3] of an axes' dots, and whether each has the colour of what was rebuilt."""
    (drawn,) = ax.collections
    # what the public getters return is sorted by depth
    return np.stack([np.asarray(part) for part in drawn._offsets3d], 1), (drawn._facecolors == to_rgba("C1")).all(1)


def test_points_that_were_hidden_are_missing_and_then_of_another_colour():
    given = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    covered, rebuilt = given.clone(), given.clone()
    covered[:10], rebuilt[:10] = NAN, 0.5
    left, middle, right = draw_rebuilt(Rebuilt("points", [given], [covered], [rebuilt])).axes
    assert np.allclose(dots(left)[0], given[:, :3])
    assert not dots(left)[1].any()
    assert np.allclose(dots(middle)[0], given[10:, :3])
    assert np.allclose(dots(right)[0], rebuilt[:, :3])
    assert dots(right)[1].tolist() == [True] * 10 + [False] * 20


def test_voxels_are_dots_where_they_are_full():
    given = torch.zeros(4, 4, 4)
    given[1:3, 0, 2:] = 1
    covered, rebuilt = given.clone(), given.clone()
    covered[:2], rebuilt[:2] = NAN, 0.2
    rebuilt[0, 3, 3] = 0.9
    left, middle, right = draw_rebuilt(Rebuilt("voxels", [given], [covered], [rebuilt])).axes
    assert dots(left)[0].tolist() == given.nonzero().tolist()
    assert dots(middle)[0].tolist() == given[2:].nonzero().add(torch.tensor([2, 0, 0])).tolist()
    assert dots(right)[0].tolist() == [[0, 3, 3], [2, 0, 2], [2, 0, 3]]
    assert dots(right)[1].tolist() == [True, False, False]


def test_bones_are_seen_from_where_they_spread_most():
    joints = torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.1, 4.0])
    covered = joints.clone()
    covered[:, 2] = NAN
    axes = np.array(draw_rebuilt(Rebuilt("skeletons", [joints], [covered], [joints], LINE)).axes).reshape(3, 6)
    for frame, ax in enumerate(axes[0]):
        assert np.allclose(ax.collections[0].get_offsets(), joints[frame][:, [0, 2]])  # the widest axis goes up
        across = ax.lines[0].get_xdata().reshape(-1, 3)
        assert np.allclose(across[:, :2], joints[frame, :, 0][torch.tensor(LINE)])
    assert np.isfinite(axes[1, 0].lines[0].get_xdata().reshape(-1, 3)[:, :2]).all(1).tolist() == [
        True,
        False,
        False,
        True,
    ]
    colours = axes[2, 0].collections[0].get_facecolor()
    assert [tuple(colour) == to_rgba("C1") for colour in colours] == [False, False, True, False, False]


@pytest.mark.parametrize("kind", ["images", "videos", "points", "voxels", "skeletons"])
def test_a_run_on_items_draws_what_it_rebuilds(kind, tmp_path):
    data = items(kind)
    run = graphssl.pretrain(data, "mae", **SMALL)
    weights = {name: tensor.clone() for name, tensor in run.method.state_dict().items()}
    run.method.train()
    one = run.plot(tmp_path / "one.png")
    torch.rand(3)
    two = run.plot(tmp_path / "two.png", what="reconstruction")
    assert one.read_bytes() == two.read_bytes()
    assert run.method.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in run.method.state_dict().items())
    with Image.open(one) as picture:
        assert picture.width > 400
    codes = run.plot(tmp_path / "codes.png", what="codes")
    assert codes.read_bytes() != one.read_bytes()
    rebuilt = run._rebuilt(run.data())
    tokens = run.data().batch([0])
    hidden = rebuilt.covered[0].isnan()
    assert 0 < hidden.float().mean() < 1
    assert torch.equal(rebuilt.given[0], run.data().tokenizer.back(tokens, tokens.x)[0])
    assert torch.equal(rebuilt.covered[0][~hidden], rebuilt.given[0][~hidden])
    assert torch.equal(rebuilt.rebuilt[0][~hidden], rebuilt.given[0][~hidden])
    assert not torch.equal(rebuilt.rebuilt[0][hidden], rebuilt.given[0][hidden])


@pytest.mark.parametrize(("kind", "frames"), [("videos", 4), ("skeletons", 10)])
def test_what_moves_may_be_a_gif(kind, frames, tmp_path):
    run = graphssl.pretrain(items(kind), "mae", **SMALL)
    path = run.plot(tmp_path / "new" / "film.gif")
    with Image.open(path) as picture:
        assert (picture.format, picture.n_frames) == ("GIF", frames)
        assert picture.info["loop"] == 0
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(graphssl.UserError, match="exists"):
        run.plot(path)
    run.plot(path, overwrite=True)
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_what_cannot_be_drawn_is_said(run, tmp_path, monkeypatch):
    for path, what, words in (
        ("film.gif", None, "images do not move.*end its name in .png"),
        ("film.gif", "codes", "a map of codes does not move"),
        ("one.png", "code", "did you mean 'codes'"),
        ("one.jpg", None, "end its name in .png, .pdf or .svg, or in .gif"),
    ):
        with pytest.raises(graphssl.UserError, match=words):
            run.plot(tmp_path / path, what=what)
    views = graphssl.pretrain(items("images"), "simsiam", **SMALL)
    with pytest.raises(graphssl.UserError, match="simsiam does not do that; choose what='codes'"):
        views.plot(tmp_path / "one.png", what="reconstruction")
    assert views.plot(tmp_path / "one.png").read_bytes() == views.plot(tmp_path / "two.png", what="codes").read_bytes()
    nodes = graphssl.pretrain("citations-mini", epochs=0, width=8, heads=2, progress=False)
    with pytest.raises(graphssl.UserError, match="'citations-mini' holds graphs; choose what='codes'"):
        nodes.plot(tmp_path / "nodes.png", what="reconstruction")
    assert nodes.plot(tmp_path / "nodes.png").stat().st_size > 1000
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(graphssl.UserError, match="needs matplotlib"):
        run.plot(tmp_path / "three.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nodes.png", "one.png", "two.png"]
