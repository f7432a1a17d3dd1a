"""Sets of images, videos, points, voxels and skeletons by name: those that ship, and real ones where they are."""

import functools
import hashlib
import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from graphssl.data import list_datasets, load_dataset, named, origin
from graphssl.data.layouts import KNOWN, MODELNET10, future, surface_points
from graphssl.errors import UserError
from graphssl.tokens.skeletons import KINECT, MSR, SKELETONS

ROOT = Path(__file__).resolve().parents[2]
DATA = (ROOT / (os.environ.get("GRAPHSSL_DATA") or "../shared/data")).resolve()
FILES = ROOT / "graphssl" / "data" / "files"
FOLDER = {"images": "image", "voxels": "point", "points": "point", "skeletons": "sequence"}

SHIPPED = {  # kind, shape, items, split, its repeats, train, val and test, classes
    "digits": ("images", (1, 8, 8), 1797, "random-8:1:1", 10, (1438, 179, 180), 10),
    "moving-digits": ("videos", (8, 1, 16, 16), 1500, "official", 1, (900, 200, 400), 10),
    "solids": ("points", (256, 3), 680, "official", 1, (420, 80, 180), 10),
    "stick-figures": ("skeletons", (None, 16, 3), 600, "cross-subject", 1, (360, 60, 180), 10),
}
REAL = {
    "mnist": ("images", (1, 28, 28), 15000, "official", 1, (4500, 500, 10000), 10),
    "cifar10-mini": ("images", (3, 32, 32), 5000, "official", 1, (3600, 400, 1000), 10),
    "usps": ("images", (1, 16, 16), 5000, "random-8:1:1", 10, (4000, 500, 500), 10),
    "modelnet10": ("voxels", (30, 30, 30), 4899, "official", 1, (3592, 399, 908), 10),
    "geometric-shapes": ("points", (256, 3), 800, "official", 1, (320, 80, 400), 40),
    "msraction3d": ("skeletons", (None, 20, 3), 557, "cross-subject", 1, (227, 57, 273), 20),
    "utkinect": ("skeletons", (None, 20, 3), 199, "leave-one-subject-out", 10, (159, 20, 20), 10),
    "eth-ucy": ("skeletons", (8, 1, 2), 4419, "leave-one-scene-out", 5, (3988, 364, 67), 4),
}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An empty home and no $GRAPHSSL_DATA: only what ships is here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GRAPHSSL_DATA", raising=False)


@pytest.fixture
def real(bare, monkeypatch):
    if not (DATA / "image").is_dir():
        pytest.skip(f"no real images in {DATA}; set GRAPHSSL_DATA to a folder of the data sets")
    monkeypatch.setenv("GRAPHSSL_DATA", str(DATA))


def script(name):
    """A script of datasets/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "datasets" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loaded():
    """``load_dataset``, but each set once a module; nobody changes one."""
    return functools.cache(load_dataset)


def check(name, expected, dataset):
    kind, shape, count, split, repeats, sizes, classes = expected
    assert (dataset.name, dataset.task, dataset.known) == (name, "graph", True)
    assert (dataset.items.kind, dataset.items.shape, len(dataset.items)) == (kind, shape, count)
    assert dataset.y.unique().tolist() == list(range(classes))
    assert len(dataset.classes) in (0, classes)
    ((found, splits),) = dataset.splits.items()
    assert (found, len(splits)) == (split, repeats)
    assert tuple(len(part) for part in (splits[0].train, splits[0].val, splits[0].test)) == sizes
    for one in splits:
        rows = torch.cat([one.train, one.val, one.test])
        assert len(rows.unique()) == len(rows)
        assert set(dataset.y[one.test].tolist()) <= set(dataset.y[one.train].tolist())
    assert {"graph-linear", "graph-knn"} <= set(dataset.protocols)
    batch = dataset.batch([0, count // 2, count - 1])
    assert batch.num_graphs == 3
    assert batch.x.size(1) == dataset.dim
    assert bool(batch.x.isfinite().all())
    return dataset


def refuses_links(name, monkeypatch):
    """Before it is read."""
    with monkeypatch.context() as patch:
        for reader in ("read_known", "read_npz"):
            patch.setattr(named, reader, None)
        patch.setattr(named, "MADE", dict.fromkeys(named.MADE))
        with pytest.raises(UserError, match="only a set of one graph"):
            load_dataset(f"{name}/link")


@pytest.mark.parametrize("name", SHIPPED)
def test_sets_that_ship(name, bare, loaded, monkeypatch):
    check(name, SHIPPED[name], loaded(name))
    refuses_links(name, monkeypatch)
    assert origin(name) == "ships"
    assert name in list_datasets()
    assert f"{name}/link" not in list_datasets()


@pytest.mark.parametrize("name", REAL)
def test_real_sets(name, real, loaded, monkeypatch):
    if not (DATA / FOLDER[REAL[name][0]] / f"{KNOWN[name][0].replace('-', '_')}.npz").exists():
        pytest.skip(f"{name} is not in {DATA}")
    dataset = check(name, REAL[name], loaded(name))
    refuses_links(name, monkeypatch)
    assert named._known(KNOWN[name][0].upper()) == name  # the file's name means the set
    assert {name, f"{name}/link"} & set(list_datasets()) == {name}
    assert origin(name) == str(DATA)
    if dataset.items.kind in ("images", "voxels"):
        assert dataset.items.values.dtype == torch.uint8
    assert any("of the meshes that train" in note for note in dataset.notes) == (name == "geometric-shapes")


def test_arrays_are_the_files(real, loaded):
    with np.load(DATA / "image" / "mnist.npz") as raw:
        dataset = loaded("mnist")
        assert np.array_equal(dataset.items.values[5000:, 0], raw["test_images"])
        (split,) = dataset.splits["official"]
        assert split.test.tolist() == list(range(5000, 15000))
        assert np.array_equal(dataset.y[:5000], raw["train_labels"])
        share = torch.bincount(dataset.y[split.val]) / torch.bincount(dataset.y[:5000])
        assert 0.09 < float(share.min()) <= float(share.max()) < 0.11
    with np.load(DATA / "image" / "cifar10_mini.npz") as raw:
        assert np.array_equal(loaded("cifar10-mini").items.values[7].permute(1, 2, 0), raw["train_images"][7])
    with np.load(DATA / "sequence" / "msraction3d.npz") as raw:
        dataset, which = loaded("msraction3d"), np.flatnonzero(raw["used_cvpr12"])
        (split,) = dataset.splits["cross-subject"]
        subject = raw["subject"][which]
        assert set(subject[split.test]) == {2, 4, 6, 8, 10}
        assert set(subject[split.train]) == {1, 3, 5, 7}
        assert set(subject[split.val]) == {9}
        ptr, i = raw["frame_ptr"], 300
        frames = raw["frames"][ptr[which[i]] : ptr[which[i] + 1], :, :3]
        assert np.array_equal(dataset.items.values[i], frames)
        assert dataset.tokenizer.bones == MSR.bones
    with np.load(DATA / "sequence" / "utkinect.npz") as raw:
        dataset = loaded("utkinect")
        for k, split in enumerate(dataset.splits["leave-one-subject-out"]):
            people = [set(raw["subject"][part]) for part in (split.test, split.val, split.train)]
            assert [len(one) for one in people] == [1, 1, 8]
            assert people[0] == {k + 1}
        assert dataset.tokenizer.bones == KINECT.bones


def test_empty_frames_are_left_out(real, loaded):
    values = loaded("msraction3d").items.values
    assert min(map(len, values)) > 1
    assert all((value.abs().sum((1, 2)) > 0).all() for value in values)


def test_classes_of_modelnet10_are_the_published_counts(real, loaded):
    dataset = loaded("modelnet10")
    counts = {  # of the training set, as published
        "bathtub": 106, "bed": 515, "chair": 889, "desk": 200, "dresser": 200, "monitor": 465, "night stand": 200,
        "sofa": 680, "table": 392, "toilet": 344,
    }  # fmt: skip
    assert torch.bincount(dataset.y[:3991]).tolist() == [counts[name] for name in MODELNET10]
    assert set(np.unique(dataset.items.values[::50])) == {0, 255}


def test_cifar10_is_decoded(tmp_path, monkeypatch):
    """A file of CIFAR-10's layout with four JPEGs; the real one takes half a minute."""
    import io

    image = pytest.importorskip("PIL.Image")
    arrays, colours = {}, np.array([[250, 10, 10], [10, 250, 10]], np.uint8)
    for part in ("train", "test"):
        held = []
        for colour in colours:
            buffer = io.BytesIO()
            image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()).save(buffer, "JPEG", quality=95)
            held.append(np.frombuffer(buffer.getvalue(), np.uint8))
        arrays |= {f"{part}_jpeg": np.concatenate(held), f"{part}_labels": np.array([0, 1], np.uint8)}
        arrays[f"{part}_ptr"] = np.cumsum([0, *map(len, held)])
    np.savez(tmp_path / "cifar10_jpeg.npz", **arrays)
    dataset = load_dataset("cifar10", root=tmp_path)
    assert dataset.items.shape == (3, 32, 32)
    assert (dataset.items.values[[0, 3]].float().mean((2, 3)) - torch.from_numpy(colours)).abs().max() < 5
    np.savez(tmp_path / "cifar10_jpeg.npz", **{k: v for k, v in arrays.items() if k != "test_ptr"})
    with pytest.raises(UserError, match=r"cifar10_jpeg.npz.*no test_ptr"):
        load_dataset("cifar10", root=tmp_path)


def test_paths_and_what_follows(real, loaded):
    dataset = loaded("eth-ucy")
    path = dataset.items.values[7]
    torch.testing.assert_close(dataset.batch([7]).x[-1], (path[-1] - path[0])[0])  # in metres
    windows = dataset.raw
    assert torch.equal(dataset.items.values[:, :, 0], windows[:, :8])
    assert float(windows.diff(dim=1).norm(dim=-1).max()) < 5  # metres in 0.4 s: no window leaps between pedestrians
    with np.load(DATA / "sequence" / "eth_ucy.npz") as raw:
        scenes = json.loads(str(raw["meta"]))["scenes"]
        box = {s: (raw["xy"][raw["scene"] == s].min(0), raw["xy"][raw["scene"] == s].max(0)) for s in range(8)}
    hotel = dataset.splits["leave-one-scene-out"][1]
    low, high = box[scenes.index("biwi_hotel")]
    inside = windows[hotel.test].numpy()
    assert ((inside >= low) & (inside <= high)).all()


def test_the_future_of_a_path():
    ahead = np.stack([np.zeros(20), 0.5 * np.arange(20)], 1)
    left, right = ahead.copy(), ahead.copy()
    left[8:, 0] -= 0.5 * np.arange(1, 13)
    right[8:, 0] += 0.5 * np.arange(1, 13)
    stays = ahead.copy()
    stays[8:] = stays[7]
    y, classes = future(np.stack([stays, ahead, left, right]).astype(np.float32))
    assert [classes[i] for i in y] == ["stays", "straight", "left", "right"]


def test_points_of_a_mesh_lie_on_it_evenly():
    triangles = np.array([[[0, 0, 0], [3, 0, 0], [0, 2, 0]], [[0, 0, 1], [1, 0, 1], [0, 2, 1]]], float)  # areas 3 and 1
    points = surface_points(triangles, 4000, np.random.default_rng(0))
    high = points[:, 2] == 1
    assert 0.22 < high.mean() < 0.28
    assert (points[:, :2] >= 0).all()
    assert (points[~high, 0] / 3 + points[~high, 1] / 2 <= 1 + 1e-6).all()
    assert np.allclose(points[~high].mean(0), [1, 2 / 3, 0], atol=0.05)  # the middle of a triangle


# scripts of the shipped sets


def held(name):
    with np.load(FILES / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def test_moving_digits_are_what_the_script_makes():
    made, arrays = script("make_moving_digits"), held("moving-digits")
    digits, y, part = made.chosen()
    assert np.array_equal(arrays["y"], y)
    assert np.array_equal(arrays["test_idx"], np.flatnonzero(part == 2))
    for number in (0, 7, 1499):
        assert np.array_equal(arrays["videos"][number], made.video(digits[number], number))
    for frame in arrays["videos"][5, :, 0]:  # the whole digit is in each frame
        places = np.argwhere(frame)
        low, high = places.min(0), places.max(0)
        seen, of = frame[low[0] : high[0] + 1, low[1] : high[1] + 1], np.argwhere(digits[5])
        assert np.array_equal(seen, digits[5][of.min(0)[0] : of.max(0)[0] + 1, of.min(0)[1] : of.max(0)[1] + 1])


def test_solids_are_what_the_script_makes():
    made, arrays = script("make_solids"), held("solids")
    kinds = list(made.SOLIDS)
    for kind, number in (("sphere", 0), ("torus", 3), ("capsule", made.EACH - 1), ("cone", 1)):
        row = number * len(kinds) + kinds.index(kind)
        assert arrays["y"][row] == kinds.index(kind)
        assert np.array_equal(arrays["points"][row], made.cloud(kind, number))
    rng = np.random.default_rng(0)
    assert np.allclose(np.linalg.norm(made.SOLIDS["sphere"](rng), axis=1), 1)
    cube = np.abs(made.SOLIDS["cube"](rng) - 0.5)
    assert np.allclose(cube.max(1), 0.5)
    cylinder, cone = made.cylinder(rng, 2.0), made.cone(rng, 2.0)
    away = np.hypot(cylinder[:, 0], cylinder[:, 1])
    assert np.allclose(np.where(np.isin(cylinder[:, 2], (0, 2)), 1, away), 1)
    side = cone[cone[:, 2] > 0]
    assert np.allclose(np.hypot(side[:, 0], side[:, 1]), 1 - side[:, 2] / 2)
    torus = made.SOLIDS["torus"](rng)
    tube = np.hypot(np.hypot(torus[:, 0], torus[:, 1]) - 1, torus[:, 2])
    assert np.allclose(tube, tube[0])


def test_stick_figures_are_what_the_script_makes():
    made, arrays = script("make_stick_figures"), held("stick-figures")
    names, ptr = list(made.ACTIONS), arrays["frame_ptr"]
    for action, person, time in (("walk", 0, 0), ("throw", 9, 5), ("clap", 4, 2)):
        row = (person * len(names) + names.index(action)) * made.TIMES + time
        assert (arrays["y"][row], arrays["subject"][row]) == (names.index(action), person + 1)
        assert np.array_equal(arrays["frames"][ptr[row] : ptr[row + 1]], made.sequence(action, person, time))
    assert [tuple(bone) for bone in arrays["bones"].tolist()] == list(SKELETONS["stick-figure"].bones)
    assert len(SKELETONS["stick-figure"].joints) == len(made.PARENTS)
    assert set(arrays["subject"][arrays["test_idx"]]) == {8, 9, 10}
    assert set(arrays["subject"][arrays["train_idx"]]).isdisjoint({7, 8, 9, 10})


def test_bones_keep_their_length_and_limbs_bend_where_they_should():
    made = script("make_stick_figures")
    lengths = np.linalg.norm(made.REST, axis=1)
    for action in made.ACTIONS.values():
        for phase in np.linspace(0, 6, 7):
            places = made.pose(made.REST, action(phase, 1.0))
            bones = places[1:] - places[list(made.PARENTS[1:])]
            assert np.allclose(np.linalg.norm(bones, axis=1), lengths[1:])
    squat, wave = made.pose(made.REST, made.squat(np.pi, 1.0)), made.pose(made.REST, made.wave(0, 1.0))
    assert squat[11, 2] > squat[10, 2]  # knees before hips,
    assert squat[12, 2] < squat[11, 2]  # feet behind knees
    assert wave[9, 1] > wave[3, 1]  # the hand above the head


@pytest.mark.parametrize("name", ["moving-digits", "solids", "stick-figures"])
def test_cards_name_the_files(name):
    card = (ROOT / "datasets" / "README.md").read_text()
    digest = hashlib.sha256((FILES / f"{name}.npz").read_bytes()).hexdigest()
    assert re.search(rf"files/{name}.npz`:\s+`{digest}`", card)
    assert (FILES / f"{name}.npz").stat().st_size < {"moving-digits": 4e5, "solids": 6e5, "stick-figures": 5e5}[name]


def test_every_item_set_has_a_card():
    card = (ROOT / "datasets" / "README.md").read_text()
    for name in (*SHIPPED, *KNOWN):
        assert f"`{name}`" in card or f"### {name}" in card, name
