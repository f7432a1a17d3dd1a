"""What training does to raw items before they are cut."""

import math

import pytest
import torch
from conftest import generator

from graphssl.data.dataset import Dataset
from graphssl.data.loader import Batches
from graphssl.errors import UserError
from graphssl.tokens import Items, Patches, alter_for
from graphssl.tokens.alter import (
    ALTERATIONS,
    Chain,
    Clip,
    Crop,
    Light,
    Mirror,
    Noise,
    Quarters,
    Resample,
    Shift,
    Stretch,
    Turn,
)
from graphssl.train import generator_for

SHAPES = {
    "images": (3, 8, 12), "videos": (4, 3, 8, 8), "points": (40, 5), "voxels": (6, 6, 6), "skeletons": (10, 5, 3),
}  # fmt: skip
NOTHING = {
    "images": (Crop((1, 1), (1, 1)), Mirror(0), Shift(0), Light(0, 0)),
    "videos": (Crop((1, 1), (1, 1)), Mirror(0), Shift(0), Light(0, 0)),
    "points": (Turn(0), Turn(0, axis=2), Stretch(1), Noise(0), Resample(1)),
    "voxels": (Quarters(mirror=0, turns=False),),
    "skeletons": (Turn(0, axis=1), Stretch(1), Noise(0), Clip(1)),
}
EACH = [(kind, step) for kind, steps in NOTHING.items() for step in steps]
BOTH = [(kind, strength) for kind in ALTERATIONS for strength in ("weak", "strong")]


def items(kind, count=6, seed=3):
    return torch.rand(count, *SHAPES[kind], generator=generator(seed))


@pytest.mark.parametrize(("kind", "strength"), BOTH)
def test_shapes_stay_and_images_stay_in_range(kind, strength):
    values = items(kind)
    changed = alter_for(kind, strength)(values, generator())
    assert changed.shape == values.shape
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    if kind in ("images", "videos", "voxels"):
        assert changed.min() >= 0
        assert changed.max() <= 1
    assert torch.equal(values, items(kind))  # what came in is as it was


@pytest.mark.parametrize(("kind", "strength"), BOTH)
def test_same_generator_same_items_another_other(kind, strength):
    alter, values = alter_for(kind, strength), items(kind)
    one = alter(values, generator(1))
    torch.rand(5)
    assert torch.equal(one, alter(values, generator(1)))
    assert not torch.equal(one, alter(values, generator(2)))


@pytest.mark.parametrize(("kind", "strength"), BOTH)
def test_each_item_has_its_own_draw(kind, strength):
    values = items(kind, 1).repeat(20, *[1] * len(SHAPES[kind]))
    changed = alter_for(kind, strength)(values, generator())
    assert len({tuple(item.flatten().tolist()) for item in changed}) > 1


@pytest.mark.parametrize(("kind", "step"), EACH)
def test_strength_zero_changes_nothing(kind, step):
    values = items(kind)
    torch.testing.assert_close(step(values, generator()), values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_lists_of_several_sizes(kind):
    alter = alter_for(kind, "strong")
    one, *rest = items(kind, 3)
    short = one[:-1] if kind in ("points", "skeletons") else one[..., :-1]
    changed = alter([one, short, *rest], generator())
    assert [tuple(item.shape) for item in changed] == [tuple(v.shape) for v in (one, short, *rest)]
    assert torch.equal(changed[0], alter(one[None], generator())[0])


def test_bytes_become_shares():
    bytes_ = torch.randint(256, (4, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    for strength in ("weak", "strong"):
        alter = alter_for("images", strength)
        assert torch.equal(alter(bytes_, generator(1)), alter(bytes_.float() / 255, generator(1)))
        assert torch.equal(alter([*bytes_], generator(1))[0], alter(bytes_[:1], generator(1))[0])


@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_frames_of_a_video_move_together(strength):
    still = items("images").unsqueeze(1).repeat(1, 4, 1, 1, 1)
    changed = alter_for("videos", strength)(still, generator())
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed))
    assert not torch.equal(changed, still)


def test_crop_reads_between_pixels():
    """A ramp stays one: its steps shrink by the crop's side and its ends lie within the old ones."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16) / 15
    image = Crop((0.25, 0.25), (1, 1))(ramp, generator())[0, 0]
    step = image[0, 4:12].diff()  # away from the borders, beyond which there is nothing to read
    torch.testing.assert_close(step, torch.full_like(step, 0.5 / 15))
    assert image.min() >= 0
    assert image.max() <= 1


def test_crop_area_and_place():
    """Seen through a map of coordinates, a crop covers the share asked for and lies anywhere within."""
    side = (torch.arange(64) + 0.5) / 64
    maps = torch.stack(torch.meshgrid(side, side, indexing="ij")).expand(200, 2, 64, 64)
    seen = Crop((0.3, 0.6))(maps, generator())
    spans = (seen[:, 0, -1, 0] - seen[:, 0, 0, 0], seen[:, 1, 0, -1] - seen[:, 1, 0, 0])
    area = spans[0] * spans[1] * (64 / 63) ** 2
    assert area.min() > 0.28
    assert area.max() < 0.62
    assert seen[:, 0, 0, 0].min() < 0.05
    assert seen[:, 0, -1, 0].max() > 0.95


def test_shift_moves_whole_pixels():
    images = 1 + items("images", 50)
    moved, seen = Shift(0.25)(images, generator()), set()
    for before, after in zip(images, moved, strict=True):
        fits = [
            (down, right) for down in range(-2, 3) for right in range(-3, 4)
            if torch.equal(after, _moved(before, down, right))
        ]  # fmt: skip
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) > 15


def _moved(image, down, right):
    """The image so many pixels further down and right, by adding zeros and cutting, or the other way round."""
    H, W = image.shape[-2:]
    wide = torch.nn.functional.pad(image, (3 + right, 3 - right, 2 + down, 2 - down))
    return wide[:, 2 : 2 + H, 3 : 3 + W]


def test_mirror_swaps_about_half():
    images = items("images", 200)
    changed = Mirror()(images, generator())
    swapped = (changed == images.flip(-1)).flatten(1).all(1)
    assert (swapped | (changed == images).flatten(1).all(1)).all()
    assert 70 < swapped.sum() < 130


def test_light_is_one_line_an_item():
    images = 0.4 + 0.2 * items("images")  # far from both ends, so that nothing is cut off
    lit = Light(0.2, 0.5)(images, generator())
    for before, after in zip(images, lit, strict=True):
        slope = (after - after.mean()).norm() / (before - before.mean()).norm()
        bright = after.mean() / before.mean()
        torch.testing.assert_close(after, (before - before.mean()) * slope + after.mean())
        assert 0.8 <= bright <= 1.2
        assert 0.5 - 1e-4 <= slope / bright <= 1.5 + 1e-4


def test_light_keeps_a_wider_range():
    images = 4 * items("images") - 2
    lit = Light()(images, generator())
    assert (lit.flatten(1).amax(1) <= images.flatten(1).amax(1)).all()
    assert lit.min() < -1


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_turns_keep_distances(axis):
    clouds = items("points")
    turned = Turn(axis=axis)(clouds, generator())
    places = turned[..., :3]
    torch.testing.assert_close(
        torch.cdist(places, places), torch.cdist(clouds[..., :3], clouds[..., :3]), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(places.mean(1), clouds[..., :3].mean(1))
    assert torch.equal(turned[..., 3:], clouds[..., 3:])
    kept = [i for i in range(3) if torch.allclose(places[..., i], clouds[..., i], atol=1e-5)]
    assert kept == ([] if axis is None else [axis])
    wide = clouds[..., :3] - clouds[..., :3].mean(1, keepdim=True)
    turn = torch.linalg.lstsq(wide, places - places.mean(1, keepdim=True)).solution
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(6))  # none is mirrored


def test_turn_angles_stay_within():
    line = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).expand(300, 2, 2)
    turned = Turn(30)(line, generator())
    angle = torch.atan2(turned[:, 1, 1], turned[:, 1, 0]) * 180 / math.pi
    assert angle.abs().max() <= 30
    assert angle.min() < -25
    assert angle.max() > 25


def test_stretch_scales_each_coordinate():
    clouds = items("points")
    changed = Stretch(2)(clouds, generator())
    wide, before = (v[..., :3] - v[..., :3].mean(1, keepdim=True) for v in (changed, clouds))
    factor = wide / before
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-2, atol=1e-2)
    assert ((factor[:, 0] >= 0.49) & (factor[:, 0] <= 2.01)).all()
    assert (factor[:, 0].std(1) > 0.01).all()


def test_noise_is_of_the_items_size():
    clouds = items("points", 2).repeat(1, 50, 1)
    clouds[1, :, :3] *= 100
    off = Noise(0.1)(clouds, generator())[..., :3] - clouds[..., :3]
    size = (clouds[..., :3] - clouds[..., :3].mean(1, keepdim=True)).square().mean((1, 2)).sqrt()
    torch.testing.assert_close(off.std((1, 2)) / size, torch.full((2,), 0.1), rtol=0.05, atol=0)


def test_resample_keeps_a_share_of_the_points():
    clouds = torch.arange(100.0).view(1, 100, 1).expand(50, 100, 3)
    kept = [len(cloud[:, 0].unique()) for cloud in Resample(0.4)(clouds, generator())]
    assert min(kept) >= 40
    assert max(kept) <= 100
    assert max(kept) - min(kept) > 40
    assert len(Resample(0.001)(clouds[:1, :2], generator())) == 1  # one point at least


def test_clip_is_a_stretch_of_time():
    times = torch.arange(20.0).view(1, 20, 1, 1).expand(50, 20, 2, 3)
    clipped = Clip(0.5)(times, generator())[:, :, 0, 0]
    step = clipped.diff(dim=1)
    torch.testing.assert_close(step, step[:, :1].expand_as(step), atol=1e-4, rtol=0)
    assert (step > 0.499).all()
    assert (step <= 1 + 1e-4).all()
    assert clipped.min() < 1
    assert clipped.max() > 18
    one = torch.rand(2, 1, 5, 3)
    assert torch.equal(Clip()(one, generator()), one)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quarters_are_turns_and_mirrors(axis):
    level = [i for i in range(3) if i != axis]
    grids = items("voxels", 60)
    changed, seen = Quarters(axis)(grids, generator()), set()
    for before, after in zip(grids, changed, strict=True):
        forms = {
            (turn, mirrored): (before.flip(level[0]) if mirrored else before).rot90(turn, level)
            for turn in range(4) for mirrored in (False, True)
        }  # fmt: skip
        fits = [name for name, form in forms.items() if torch.equal(form, after)]
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) == 8


def test_quarters_of_a_grid_that_is_no_cube():
    grids = torch.rand(40, 4, 6, 6, generator=generator())
    assert Quarters(2)(grids, generator()).shape == grids.shape
    half = Quarters(2, mirror=0)(grids, generator())
    same, turned = ((half == v).flatten(1).all(1) for v in (grids, grids.rot90(2, (1, 2))))
    assert (same | turned).all()
    assert 8 < turned.sum() < 32


def test_names():
    assert alter_for("images", "none") is None
    assert alter_for("graphs", "none") is None
    with pytest.raises(UserError, match="graphs"):
        alter_for("graphs", "weak")
    with pytest.raises(UserError, match="unknown augmentation 'string'; did you mean 'strong'"):
        alter_for("images", "string")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crop((0.0, 1.0)), lambda: Crop((0.9, 0.5)), lambda: Crop(ratio=(0, 1)), lambda: Mirror(1.5),
        lambda: Shift(-1), lambda: Light(2), lambda: Turn(axis=3), lambda: Stretch(0.5), lambda: Noise(-1),
        lambda: Resample(0), lambda: Clip(0), lambda: Quarters(3),
    ],
)  # fmt: skip
def test_impossible_settings_say_what_fits(make):
    with pytest.raises(UserError, match="choose"):
        make()


def test_a_chain_goes_through_its_steps():
    images = items("images")
    draws = generator(4)
    by_hand = Light()(Mirror()(images, draws), draws)
    assert torch.equal(Chain((Mirror(), Light()))(images, generator(4)), by_hand)


def test_batches_hold_two_views_of_each_item():
    data = Dataset.of_items(Items("images", items("images", 5)), name="data")
    batches = Batches(data, lambda graph: graph, "cpu", 3, seed=0, alter=alter_for("images", "strong"), views=2)
    graph = batches(0)
    assert graph.num_graphs == 6
    assert torch.equal(graph.items[0::2], graph.items[1::2])
    one, two = (torch.stack([part.x for part in graph.parts()[i::2]]) for i in (0, 1))
    assert (one != two).flatten(1).any(1).all()
    assert torch.equal(graph.x, batches(0).x)
    assert not torch.equal(graph.x, batches(2).x)


def test_alterations_and_masks_draw_from_generators_of_their_own():
    seen = []

    def alter(values, drawn):
        seen.append(drawn.initial_seed())
        return values

    batches = Batches(
        Dataset.of_items(Items("images", items("images", 5)), name="data"), same, "cpu", 5, 3, alter=alter
    )
    for step in range(4):
        batches(step)
    taken = {generator_for(3, step, rank).initial_seed() for step in range(4) for rank in range(3)}
    assert len(set(seen)) == 4
    assert not taken & set(seen)


def same(graph):
    return graph


@pytest.mark.parametrize(("size", "views"), [(3, 1), (3, 2), (50, 2)])
def test_the_largest_batch_is_bounded_by_the_items_there_are(size, views):
    even = Dataset.of_items(Items("images", items("images", 5)), name="data")
    one = even.batch([0])
    count = min(size, 5) * views
    found = Batches(even, same, "cpu", size, alter=alter_for("images", "weak"), views=views).largest()
    assert found == (one.num_nodes * count, one.num_edges * count)
    clouds = Dataset.of_items(Items("points", items("points", 5)), name="data")
    one = clouds.batch([0])
    assert Batches(clouds, same, "cpu", size, views=views).largest() == (one.num_nodes * count, one.num_edges * count)


def test_the_largest_batch_of_several_sizes_is_found_wherever_its_items_stand():
    sizes = [4] * 70 + [8, 12]
    data = Dataset.of_items(Items("images", [torch.rand(1, n, n) for n in sizes]), Patches(2), name="data")
    batches = Batches(data, same, "cpu", 2, views=2)
    two = data.batch([70, 71])
    assert batches.largest() == (2 * two.num_nodes, 2 * two.num_edges) == (2 * (16 + 36), 2 * two.num_edges)
