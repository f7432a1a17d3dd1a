"""Raw items to tokens and back: round trips, edges against slow loops, and what tokenizers refuse."""

import json
import math
import os
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BODY, generator
from scipy.sparse.csgraph import minimum_spanning_tree

from graphssl.backbones import PointNet
from graphssl.data import Dataset
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.tokens import (
    Cubes,
    Items,
    Joints,
    Patches,
    PointGroups,
    Tubelets,
    default_tokenizer,
    from_json,
    side_of,
    to_json,
)
from graphssl.tokens.edges import distances, grid_edges, position_edges
from graphssl.tokens.points import farthest, in_order, normalized
from graphssl.tokens.skeletons import KINECT, MSR, Skeleton, limbs, named_skeleton

DATA = Path(os.environ.get("GRAPHSSL_DATA", "../shared/data"))


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(seed))


GRIDS = {
    "patches": (Patches(2), (3, 2, 8, 6)),
    "whole image": (Patches(4), (1, 3, 4, 4)),
    "tubelets": (Tubelets(2, 3), (2, 4, 1, 6, 9)),
    "cubes": (Cubes(2), (2, 4, 2, 6)),
}
TOKENIZERS = {
    "patches": (Patches(2), (2, 8, 6)), "tubelets": (Tubelets(2, 3), (4, 1, 6, 9)), "cubes": (Cubes(2), (4, 2, 6)),
    "point-groups": (PointGroups(6, 5, "knn3"), (40, 3)), "joints": (Joints(BODY, 2, 3), (9, 5, 3)),
    "joints at their length": (Joints(BODY, 2, None), (9, 5, 3)),
}  # fmt: skip


def same(one: Graph, other: Graph) -> None:
    assert one.sizes == other.sizes
    for key in ("edge_index", "batch", "pos"):
        torch.testing.assert_close(getattr(one, key), getattr(other, key), rtol=0, atol=1e-6)
    torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.bool])
def test_what_is_cut_can_be_put_together_again(name, dtype):
    tokenizer, shape = GRIDS[name]
    values = draws(*shape)
    values = (
        (values * 255).to(torch.uint8) if dtype == torch.uint8 else (values > 0.5 if dtype == torch.bool else values)
    )
    values = values.to(dtype)
    graph = tokenizer(values)
    assert graph.x.dtype == torch.float32
    assert graph.x.size(1) == tokenizer.width(shape[1:])
    floats = values.float() / 255 if dtype == torch.uint8 else values.float()
    for item, back in zip(floats, tokenizer.back(graph, graph.x), strict=True):
        assert torch.equal(item, back)


def test_a_patch_holds_the_pixels_at_its_place():
    image = draws(1, 3, 6, 4)
    graph = Patches(2)(image)
    for pos, x in zip(graph.pos.long().tolist(), graph.x, strict=True):
        row, column = 2 * pos[0], 2 * pos[1]
        expected = image[0, :, row : row + 2, column : column + 2].permute(1, 2, 0).flatten()
        assert torch.equal(x, expected)


def test_a_tubelet_and_a_cube_hold_what_is_at_their_place():
    video, grid = draws(1, 4, 2, 4, 6), draws(1, 4, 6, 2)
    graph = Tubelets(2, 2)(video)
    for (t, r, c), x in zip((2 * graph.pos).long().tolist(), graph.x, strict=True):
        assert torch.equal(x, video[0, t : t + 2, :, r : r + 2, c : c + 2].permute(0, 2, 3, 1).flatten())
    graph = Cubes(2)(grid)
    for (d, r, c), x in zip((2 * graph.pos).long().tolist(), graph.x, strict=True):
        assert torch.equal(x, grid[0, d : d + 2, r : r + 2, c : c + 2].flatten())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_batch_is_its_items_one_by_one(name):
    tokenizer, shape = TOKENIZERS[name]
    values = draws(5, *shape)
    together, alone = tokenizer(values), Graph.stack([tokenizer(value[None]) for value in values])
    same(together, alone)
    same(together, tokenizer(list(values)))
    for one, other in zip(tokenizer.back(together, together.x), tokenizer.back(alone, alone.x), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_edges_stand_in_order_and_stay_within_an_item(name):
    tokenizer, shape = TOKENIZERS[name]
    graph = tokenizer(draws(3, *shape))
    source, target = graph.edge_index
    key = target * graph.num_nodes + source
    assert (key[1:] > key[:-1]).all()
    assert torch.equal(graph.batch[source], graph.batch[target])
    assert (source != target).all()
    assert graph.csr.col.tolist() == source.tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_survives_json(name):
    tokenizer, _ = TOKENIZERS[name]
    assert from_json(json.loads(json.dumps(to_json(tokenizer)))) == tokenizer


def test_json_of_an_unknown_tokenizer():
    with pytest.raises(UserError, match="patches"):
        from_json({"tokens": "patchs", "size": 2})


RAGGED = {
    "images": (Patches(2), [(1, 4, 6), (1, 8, 2)]),
    "videos": (Tubelets(2, 2), [(4, 1, 4, 4), (2, 1, 6, 4)]),
    "voxels": (Cubes(2), [(2, 4, 2), (4, 4, 4)]),
    "points": (PointGroups(3, 4), [(9, 3), (20, 3)]),
    "skeletons": (Joints(BODY, 2, None), [(4, 5, 3), (8, 5, 3)]),
}


@pytest.mark.parametrize("kind", RAGGED)
def test_ragged_items_are_cut_each_by_itself(kind):
    tokenizer, shapes = RAGGED[kind]
    values = [draws(*shape, seed=i) for i, shape in enumerate(shapes)]
    dataset = Dataset.of_items(Items(kind, values), tokenizer, name="data")
    batch = dataset.batch([0, 1])
    same(batch.replace(items=None), Graph.stack([tokenizer(value[None]) for value in values]))
    assert dataset.items.shape == tuple(a if a == b else None for a, b in zip(*shapes, strict=True))
    if kind in ("images", "videos", "voxels"):
        for value, back in zip(values, tokenizer.back(batch, batch.x), strict=True):
            assert torch.equal(value, back)


# edges


def loop_edges(pos: torch.Tensor, edges: str) -> set[tuple[int, int]]:
    """(source, target) by slow loops."""
    places = pos.tolist()
    joined = set()
    for target, here in enumerate(places):
        others = [i for i in range(len(places)) if i != target]
        if edges.startswith("knn"):
            nearest = sorted(others, key=lambda i: (math.dist(here, places[i]), i))[: int(edges[3:])]
            joined |= {(i, target) for i in nearest}
            continue
        for i in others:
            steps = [abs(a - b) for a, b in zip(here, places[i], strict=True)]
            fits = {"none": False, "full": True, "grid": sum(steps) == 1, "diagonal": max(steps) == 1}
            if fits[edges]:
                joined.add((i, target))
    return joined


@pytest.mark.parametrize("counts", [(4, 5), (7,), (3, 1, 4), (1, 1), (2, 2, 2)])
@pytest.mark.parametrize("edges", ["none", "full", "grid", "diagonal", "knn1", "knn4", "knn100"])
def test_edges_of_a_grid_equal_loops(counts, edges):
    pos = torch.tensor(list(product(*(range(n) for n in counts)))).float()
    found = grid_edges(counts, edges)
    expected = loop_edges(pos, edges)
    assert set(map(tuple, found.T.tolist())) == expected
    assert found.size(1) == len(expected)
    key = found[1] * len(pos) + found[0]
    assert (key[1:] > key[:-1]).all()


@pytest.mark.parametrize("edges", ["none", "full", "knn3"])
def test_edges_among_points_equal_loops(edges):
    pos = torch.randn(3, 11, 3, generator=generator())
    found = position_edges(pos, edges)
    expected = {(s + 11 * b, t + 11 * b) for b in range(3) for s, t in loop_edges(pos[b].double(), edges)}
    assert set(map(tuple, found.T.tolist())) == expected


@pytest.mark.parametrize("edges", ["knn", "knn0", "knn-1", "grid4", "grid0", "circle", ""])
def test_patterns_of_edges_that_are_none(edges):
    with pytest.raises(UserError, match="pattern of edges"):
        Patches(2, edges)


@pytest.mark.parametrize("edges", ["grid", "diagonal"])
def test_points_stand_on_no_grid(edges):
    with pytest.raises(UserError, match="none"):
        PointGroups(edges=edges)


# points


def test_farthest_points_equal_a_loop():
    points = torch.randn(4, 30, 3, generator=generator())
    chosen = farthest(points, 7)
    for cloud, found in zip(points.double(), chosen.tolist(), strict=True):
        taken = [int((cloud - cloud.mean(0)).norm(dim=1).argmax())]
        while len(taken) < 7:
            gaps = [min(math.dist(p, cloud[i]) for i in taken) for p in cloud.tolist()]
            taken.append(max(range(30), key=gaps.__getitem__))
        assert found == taken


def test_groups_are_the_nearest_points_relative_to_their_centre():
    cloud = torch.randn(1, 50, 5, generator=generator())
    graph = PointGroups(6, 8)(cloud)
    points = normalized(cloud)[0]
    assert points[:, :3].norm(dim=1).max() == pytest.approx(1, abs=1e-6)
    for centre, x in zip(graph.pos, graph.x, strict=True):
        nearest = points[distances(centre[None, None], points[None, :, :3])[0, 0].argsort()[:8]].clone()
        nearest[:, :3] -= centre
        torch.testing.assert_close(x.view(8, 5), nearest, rtol=0, atol=1e-6)
        torch.testing.assert_close(x.view(8, 5)[0, :3], torch.zeros(3), rtol=0, atol=1e-6)  # the centre itself


def test_points_put_back_are_points_of_the_normalised_cloud():
    cloud = torch.randn(3, 60, 4, generator=generator())
    tokenizer = PointGroups(8, 6)
    graph = tokenizer(cloud)
    for points, back in zip(normalized(cloud), tokenizer.back(graph, graph.x), strict=True):
        assert back.shape == (48, 4)
        assert distances(back[None], points[None]).amin(2).max() < 1e-5


LATTICE = torch.tensor(list(product(range(4), repeat=3))).float()  # many points as far from one another


@pytest.mark.parametrize("cloud", [torch.randn(64, 3, generator=generator()), LATTICE, LATTICE[:3].repeat(22, 1)])
def test_the_order_of_a_cloud_s_points_changes_nothing(cloud):
    tokenizer, embed = PointGroups(9, 7), PointNet(3, 16, 8).eval()
    order = torch.randperm(len(cloud), generator=generator(1))
    one, other = tokenizer(cloud[None]), tokenizer(cloud[order][None])
    same(one, other)
    assert torch.equal(embed(one.x), embed(other.x))


def test_clouds_are_the_same_wherever_they_stand_and_however_large():
    cloud = torch.randn(2, 64, 3, generator=generator())
    one, other = PointGroups(9, 7)(cloud), PointGroups(9, 7)(5 * cloud + 3)
    torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.pos, other.pos, rtol=0, atol=1e-5)


def test_a_cloud_of_one_place():
    graph = PointGroups(3, 2)(torch.ones(1, 5, 3))
    assert torch.equal(graph.x, torch.zeros(3, 6))
    assert graph.num_edges == 6


def test_in_order_sorts_by_one_column_after_the_other():
    points = torch.randint(3, (2, 20, 3), generator=generator())
    assert in_order(points).tolist() == [sorted(cloud) for cloud in points.tolist()]


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: Patches(3), (1, 8, 8), "choose one of 1, 2, 4, 8"),
        (lambda: Patches(0), (1, 8, 8), "choose one of 1, 2, 4, 8"),
        (lambda: Patches(4), (1, 8, 6), "choose one of 1, 2, 3, 6"),
        (lambda: Patches(2), (None, 8, 8), "channels"),
        (lambda: Tubelets(2, 4), (5, 1, 8, 8), "frames=2.*choose one of 1, 5"),
        (lambda: Tubelets(1, 3), (5, 1, 9, 8), "8 columns"),
        (lambda: Cubes(4), (8, 8, 30), "30 columns"),
        (lambda: PointGroups(32, 16), (20, 3), "of 20 at most"),
        (lambda: PointGroups(4, 32), (20, 3), "of 20 at most"),
        (lambda: PointGroups(), (100, 2), "three coordinates"),
        (lambda: PointGroups(), (100, None), "different numbers"),
        (lambda: PointGroups(0), (100, 3), "1 or more"),
        (lambda: Joints(BODY), (16, 4, 3), "joints 0 to 3"),
        (lambda: Joints(BODY, 5, None), (4, 5, 3), "of 4 at most"),
        (lambda: Joints(BODY), (16, None, 3), "different numbers"),
        (lambda: Joints(BODY), (0, 5, 3), "no frames"),
        (lambda: Joints(((1, 1),)), (16, 5, 3), "two different joints"),
        (lambda: Joints(((0, -1),)), (16, 5, 3), "two different joints"),
        (lambda: Joints(BODY, 0), (16, 5, 3), "1 or more"),
        (lambda: Joints(BODY, 1, 0), (16, 5, 3), "1 or more"),
    ],
)
def test_what_cannot_be_cut_is_refused(make, shape, words):
    with pytest.raises(UserError, match=words):
        make().width(shape)


def test_items_that_a_ragged_set_cannot_cut_are_refused_when_read():
    with pytest.raises(UserError, match="choose one of 1, 5"):
        Patches(2)([draws(1, 4, 4), draws(1, 5, 4)])
    with pytest.raises(UserError, match="of 6 at most"):
        PointGroups(8, 2)([draws(9, 3), draws(6, 3)])


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (Items("images", draws(2, 1, 8, 8)), Patches(2)),
        (Items("images", draws(2, 1, 28, 28)), Patches(4)),
        (Items("images", draws(1, 3, 96, 96)), Patches(6)),
        (Items("images", draws(2, 1, 7, 7)), Patches(1)),
        (Items("images", [draws(1, 8, 12), draws(1, 16, 8)]), Patches(2)),
        (Items("videos", draws(2, 6, 1, 16, 16)), Tubelets(2, 4)),
        (Items("videos", [draws(6, 1, 16, 16), draws(5, 1, 16, 16)]), Tubelets(1, 4)),
        (Items("voxels", draws(1, 30, 30, 30)), Cubes(5)),
        (Items("voxels", draws(1, 9, 30, 30)), Cubes(3)),
        (Items("points", draws(2, 100, 3)), PointGroups(32, 16)),
        (Items("points", [draws(100, 3), draws(10, 3)]), PointGroups(10, 10)),
        (Items("skeletons", draws(2, 9, 5, 3)), Joints()),
    ],
)
def test_default_tokenizers_cut_what_they_are_for(items, expected):
    found = default_tokenizer(items)
    assert found == expected
    assert found(items.take(range(len(items)))).num_graphs == len(items)


def test_images_that_no_square_cuts_are_refused():
    with pytest.raises(UserError, match="resize"):
        side_of({97, 101})
    assert side_of({97 * 6}) == 97


# skeletons


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_sequences_round_trip_up_to_place_and_size(frames):
    values = torch.randn(2, 8, 5, 3, generator=generator()) + 7
    tokenizer = Joints(BODY, frames, steps=None)
    graph = tokenizer(values)
    for value, back in zip(values, tokenizer.back(graph, graph.x), strict=True):
        moved = value - value[0].mean(0)
        torch.testing.assert_close(back, moved / moved.square().mean().sqrt(), rtol=1e-4, atol=1e-5)


def test_sequences_may_keep_their_size():
    values = torch.randn(2, 8, 5, 3, generator=generator()) + 7
    tokenizer = Joints(BODY, steps=None, scale=False)
    for value, back in zip(values, tokenizer.back(graph := tokenizer(values), graph.x), strict=True):
        torch.testing.assert_close(back, value - value[0].mean(0))
    assert from_json(json.loads(json.dumps(to_json(tokenizer)))) == tokenizer


def test_frames_beyond_the_last_step_are_dropped():
    values = torch.randn(1, 7, 5, 3, generator=generator())
    back = Joints(BODY, 3, None).back(graph := Joints(BODY, 3, None)(values), graph.x)[0]
    assert back.shape == (6, 5, 3)


def test_steps_are_interpolated():
    start, end = torch.randn(2, 5, 3, generator=generator())
    line = torch.stack([start + (end - start) * t / 4 for t in range(5)])
    coarse, fine = (Joints(BODY, 1, 9)(values[None]) for values in (line[[0, 4]], line))
    torch.testing.assert_close(coarse.x, fine.x, rtol=1e-4, atol=1e-5)
    still = Joints(BODY, 2, 3)(start[None, None])  # a single frame stands still
    assert (still.x.view(3, 5, 2, 3) == still.x.view(3, 5, 2, 3)[:1, :, :1]).all()


def test_joints_are_linked_by_bones_and_over_time():
    steps, joints = 3, 5
    graph = Joints(BODY, 1, None)(draws(2, steps, joints, 3))
    expected = set()
    for b, t in product(range(2), range(steps)):
        at = b * steps * joints + t * joints
        for i, j in BODY:
            expected |= {(at + i, at + j), (at + j, at + i)}
        if t + 1 < steps:
            for i in range(joints):
                expected |= {(at + i, at + joints + i), (at + joints + i, at + i)}
    assert set(map(tuple, graph.edge_index.T.tolist())) == expected
    assert graph.num_edges == len(expected)
    assert graph.pos.tolist() == [[t, j] for _ in range(2) for t in range(steps) for j in range(joints)]


@pytest.mark.parametrize("skeleton", [KINECT, MSR], ids=lambda skeleton: skeleton.name)
def test_named_skeletons_are_trees_of_trunk_and_limbs(skeleton):
    J = len(skeleton.joints)
    assert len(set(skeleton.joints)) == J == 20
    assert len({tuple(sorted(bone)) for bone in skeleton.bones}) == J - 1
    reached, before = {0}, 0
    while len(reached) > before:
        before = len(reached)
        reached |= {j for bone in skeleton.bones if reached & set(bone) for j in bone}
    assert len(reached) == J
    parts: dict[int, set[str]] = {}
    for joint, part in zip(skeleton.joints, skeleton.parts, strict=True):
        parts.setdefault(part, set()).add(joint)
    assert parts.pop(0) == {"hip centre", "spine", "shoulder centre"}
    limb = {"arm": ("shoulder", "elbow", "wrist", "hand"), "leg": ("hip", "knee", "ankle", "foot")}
    expected = [{f"{side} {joint}" for joint in limb[what]} for side in ("left", "right") for what in limb]
    assert sorted(map(sorted, parts.values())) == sorted(map(sorted, [*expected, {"head"}]))


def test_both_named_skeletons_are_the_same_body():
    def named(skeleton: Skeleton) -> set[frozenset[str]]:
        return {frozenset(skeleton.joints[joint] for joint in bone) for bone in skeleton.bones}

    assert named(KINECT) == named(MSR)


def test_skeletons_by_name():
    assert (named_skeleton("kinect-v1"), named_skeleton("msr-action3d")) == (KINECT, MSR)
    with pytest.raises(UserError, match="kinect-v1"):
        named_skeleton("kinect")


def test_items_name_their_skeleton():
    twenty, five = draws(2, 9, 20, 3), draws(2, 9, 5, 3)
    assert default_tokenizer(Items("skeletons", twenty, skeleton="kinect-v1")) == Joints(KINECT.bones)
    assert default_tokenizer(Items("skeletons", five, skeleton=[list(bone) for bone in BODY])) == Joints(BODY)
    for wrong, words in (
        ("kinect", "did you mean 'kinect-v1'"),
        ("kinect-v1", "has 20 joints, but the sequences have 5; give its bones"),
        ([(0, 1, 2)], "bones as pairs of joints"),
        (7, "bones as pairs of joints"),
        ([(0, 5)], "bone to joint 5, but the sequences have joints 0 to 4"),
    ):
        with pytest.raises(UserError, match=words):
            Dataset.of_items(Items("skeletons", five, skeleton=wrong), name="data")


def test_limbs_are_chains_up_to_the_first_fork():
    star = ((0, 1), (1, 2), (0, 3), (0, 4), (4, 5))
    assert limbs(star, 7) == (0, 1, 1, 2, 3, 3, 4)  # joint 6 has no bones
    assert limbs(((0, 1), (1, 2)), 3) == (1, 1, 1)
    assert limbs(((0, 1), (1, 2), (2, 0)), 3) == (0, 0, 0)
    assert Skeleton("own", ("a", "b"), ((0, 1),), (3, 4)).parts == (3, 4)


@pytest.mark.parametrize(("name", "skeleton"), [("utkinect", KINECT), ("msraction3d", MSR)])
def test_bones_of_real_sets_keep_their_length(name, skeleton):
    """A bone's length varies little over a sequence; the joints at the top, the sides and the ends are as named."""
    path = DATA / "sequence" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here; set GRAPHSSL_DATA")
    with np.load(path) as data:
        frames, first = data["frames"][..., :3].astype(float), data["frame_ptr"]
    change = []
    for a, b in list(pairwise(first))[::5]:
        places = frames[a:b][np.abs(frames[a:b]).sum((1, 2)) > 0]
        if len(places) > 4:
            length = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1)
            change.append(np.median(np.abs(length - np.median(length, 0)), 0))
    varies = np.median(change, 0)
    bones = np.array(skeleton.bones)
    tree = minimum_spanning_tree(varies + 1e-6 * (1 - np.eye(20))).sum()
    ours = varies[bones[:, 0], bones[:, 1]].sum() + 19e-6
    others = varies[np.triu_indices(20, 1)]
    assert ours <= 1.6 * tree  # no tree is stiffer by much; joints within the trunk are as stiff to one another
    assert np.median(varies[bones[:, 0], bones[:, 1]]) < 0.5 * np.median(others)

    middle = np.median(frames[np.abs(frames).sum((1, 2)) > 0], 0)
    across, up = middle[:, 0], middle[:, 1]
    joint = {name: i for i, name in enumerate(skeleton.joints)}
    assert up.argmax() == joint["head"]
    assert set(up.argsort()[:4]) == {joint[f"{side} {end}"] for side in ("left", "right") for end in ("ankle", "foot")}
    for what in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "foot"):
        assert across[joint[f"left {what}"]] < across[joint[f"right {what}"]]
    steps = [np.abs(np.diff(frames[a:b], axis=0)).mean((0, 2)) for a, b in pairwise(first) if b > a + 4]
    motion = np.median(steps, 0)
    assert motion[joint["right hand"]] > motion[joint["left hand"]]  # most act with the right


# raw items as rows of numbers


def test_flat_images_videos_and_voxels_are_laid_flat():
    for kind, shape in (("images", (2, 3, 4, 4)), ("videos", (2, 3, 1, 4, 4)), ("voxels", (2, 3, 4, 5))):
        values = draws(*shape)
        assert torch.equal(Items(kind, values).flat(), values.flatten(1))
    bytes_ = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    torch.testing.assert_close(Items("images", bytes_).flat(), torch.tensor([[0, 1, 0.2, 0.4]]))
    assert Items("voxels", torch.ones(1, 1, 1, 2, dtype=torch.bool)).flat().tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("kind", "shapes", "length"),
    [
        ("images", [(3, 8, 8), (3, 16, 4)], 3 * 32 * 32),
        ("videos", [(4, 1, 8, 8), (7, 1, 6, 8)], 16 * 32 * 32),
        ("voxels", [(4, 4, 4), (2, 6, 8)], 32**3),
    ],
)
def test_flat_items_of_several_sizes_are_brought_to_one(kind, shapes, length):
    values = [torch.full(shape, 0.5 * i) for i, shape in enumerate(shapes)]
    flat = Items(kind, values).flat()
    assert flat.shape == (2, length)
    torch.testing.assert_close(flat, torch.tensor([0.0, 0.5])[:, None].expand(2, length))


def test_flat_points_are_counted_in_cells():
    corners = torch.tensor(list(product((0.0, 1.0), repeat=3)))
    row = Items("points", corners[None]).flat()[0].view(8, 8, 8)
    assert row.sum() == 1
    assert all(row[7 * x, 7 * y, 7 * z] == 1 / 8 for x, y, z in product((0, 1), repeat=3))
    clouds = [draws(30, 4), draws(50, 4)]
    flat = Items("points", clouds).flat()
    torch.testing.assert_close(flat.sum(1), torch.ones(2))
    moved = Items("points", [torch.cat([3 * c[:, :3] + 1, c[:, 3:]], 1)[torch.randperm(len(c))] for c in clouds]).flat()
    assert (flat - moved).abs().sum(1).max() < 0.1  # but for points on a border


def test_flat_sequences_have_sixteen_frames_about_their_middle():
    values = [draws(31, 5, 3), draws(4, 5, 3)]
    flat = Items("skeletons", values).flat()
    assert flat.shape == (2, 16 * 15)
    frames = flat.view(2, 16, 5, 3)
    torch.testing.assert_close(frames[:, 0].mean(1), torch.zeros(2, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(frames[0], (values[0] - values[0][0].mean(0))[::2])  # every second frame


def test_flat_paths_are_not_constant():
    paths = draws(3, 8, 1, 2)
    flat = Items("skeletons", paths).flat().view(3, 16, 2)
    assert torch.equal(flat[:, 0], torch.zeros(3, 2))
    torch.testing.assert_close(flat[:, -1], (paths[:, -1] - paths[:, 0])[:, 0])
    assert (flat.flatten(1).std(0)[2:] > 0).all()
