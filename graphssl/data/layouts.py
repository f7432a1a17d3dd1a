"""Known image, shape and motion sets in the layouts their files come in, with the splits that the field uses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphssl.data.arrays import item_set, items_of
from graphssl.data.dataset import Dataset
from graphssl.data.files import read_arrays
from graphssl.data.splits import Split, official_split
from graphssl.errors import UserError
from graphssl.tokens import Joints
from graphssl.tokens.skeletons import KINECT, MSR

Arrays = dict[str, np.ndarray]
OBSERVED, FUTURE = 8, 12  # steps of a path, 0.4 s each
STANDING, TURN = 0.5, 15.0  # metres in the observed steps, degrees
POINTS, CLOUDS, CHOOSING = 256, 10, 2  # of a mesh: points a cloud, clouds, and those of a training mesh to choose by
MSR_ACTIONS = (
    "high arm wave", "horizontal arm wave", "hammer", "hand catch", "forward punch", "high throw", "draw x",
    "draw tick", "draw circle", "hand clap", "two hand wave", "side boxing", "bend", "forward kick", "side kick",
    "jogging", "tennis swing", "tennis serve", "golf swing", "pick up and throw",
)  # fmt: skip
MODELNET10 = (
    "bathtub", "bed", "chair", "desk", "dresser", "monitor", "night stand", "sofa", "table", "toilet",
)  # fmt: skip
SCENES = {
    "eth": ("biwi_eth",), "hotel": ("biwi_hotel",), "univ": ("students001", "students003"),
    "zara1": ("crowds_zara01",), "zara2": ("crowds_zara02",),
}  # fmt: skip


def read_known(name: str, path: Path) -> Dataset:
    """The set ``name`` of ``KNOWN`` from a file of the layout that ``datasets/README.md`` describes."""
    return read_arrays(path, lambda arrays: KNOWN[name][1](name, arrays))


def shipped_digits() -> Dataset:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels, their 17 greys as bytes."""
    from sklearn.datasets import load_digits  # its files come with scikit-learn

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]
    return item_set(items_of(images, "images"), found.target.astype(np.int64), "digits")


def _train_test(
    name: str, kind: str, arrays: Arrays, train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]
) -> Dataset:
    """Training items before those to test, 10 % of the former set aside to choose, class by class."""
    _need(arrays, "train_labels", "test_labels")
    y = torch.from_numpy(np.concatenate([arrays["train_labels"], arrays["test_labels"]]).astype(np.int64))
    cut = official_split(y, np.arange(len(train)), np.arange(len(train), len(y)))
    items = items_of(np.concatenate([train, test]), kind)
    return item_set(items, y, name, splits={"official": (cut,)}, classes=classes)


def _need(arrays: Arrays, *keys: str) -> None:
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise UserError(f"there is no {' and no '.join(missing)}; the layout of this set is in datasets/README.md")


def _classes(arrays: Arrays) -> tuple[str, ...]:
    meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    return tuple(map(str, meta.get("classes", ())))


def _images(name: str, arrays: Arrays) -> Dataset:
    """``train_images`` and ``test_images`` [B, H, W] or [B, H, W, 3]."""
    _need(arrays, "train_images", "test_images")
    train, test = (_channels_first(arrays[f"{part}_images"]) for part in ("train", "test"))
    return _train_test(name, "images", arrays, train, test, _classes(arrays))


def _channels_first(images: np.ndarray) -> np.ndarray:
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _jpegs(name: str, arrays: Arrays) -> Dataset:
    """``train_jpeg`` and ``test_jpeg``, the bytes of all images end to end, cut at ``train_ptr`` and ``test_ptr``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError("its images are JPEGs, which need Pillow; pip install 'graphssl[images]'") from error
    _need(arrays, "train_jpeg", "train_ptr", "test_jpeg", "test_ptr")
    parts: list[np.ndarray] = []
    for part in ("train", "test"):
        held, ptr = arrays[f"{part}_jpeg"].tobytes(), arrays[f"{part}_ptr"].tolist()
        images = np.empty((len(ptr) - 1, 3, 32, 32), np.uint8)
        for i in range(len(images)):
            with Image.open(io.BytesIO(held[ptr[i] : ptr[i + 1]]), formats=("JPEG",)) as picture:
                images[i] = np.asarray(picture).transpose(2, 0, 1)
        parts.append(images)
    return _train_test(name, "images", arrays, parts[0], parts[1], _classes(arrays))


def _usps(name: str, arrays: Arrays) -> Dataset:
    _need(arrays, "images", "labels")
    return item_set(items_of(arrays["images"][:, None], "images"), arrays["labels"].astype(int), name)


def _modelnet(name: str, arrays: Arrays) -> Dataset:
    _need(arrays, "train_voxels_packed", "test_voxels_packed")
    train, test = (
        np.unpackbits(arrays[f"{part}_voxels_packed"], axis=1)[:, : 30**3].reshape(-1, 30, 30, 30).astype(bool)
        for part in ("train", "test")
    )
    return _train_test(name, "voxels", arrays, train, test, MODELNET10)


def _meshes(name: str, arrays: Arrays) -> Dataset:
    """Ten clouds of 256 points from the surface of each mesh, drawn with seed 0; two of each training mesh choose."""
    _need(arrays, "verts", "faces", "vert_ptr", "face_ptr", "y", "is_train")
    rng = np.random.default_rng(0)
    clouds = []
    for i in range(len(arrays["y"])):
        corners = arrays["verts"][arrays["vert_ptr"][i] : arrays["vert_ptr"][i + 1]]
        triangles = corners[arrays["faces"][arrays["face_ptr"][i] : arrays["face_ptr"][i + 1]]]
        clouds += [surface_points(triangles, POINTS, rng) for _ in range(CLOUDS)]
    y = arrays["y"].astype(int).repeat(CLOUDS)
    train, chosen = arrays["is_train"].repeat(CLOUDS), np.tile(np.arange(CLOUDS) < CHOOSING, len(arrays["y"]))
    cut = Split(*(torch.from_numpy(np.flatnonzero(part)) for part in (train & ~chosen, train & chosen, ~train)))
    items = items_of(np.stack(clouds), "points")
    note = "validation clouds are of the meshes that train: choices made on them tell little of other meshes"
    return item_set(items, y, name, splits={"official": (cut,)}, classes=_classes(arrays), notes=(note,))


def surface_points(triangles: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` points [count, 3] drawn evenly from a surface of ``triangles`` [n, 3 corners, 3]."""
    a, b, c = triangles.astype(np.float64).transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(area), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    return (a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]).astype(np.float32)


def _skeletons(arrays: Arrays, which: np.ndarray) -> list[np.ndarray]:
    """The sequences [T, J, 3] numbered ``which``, without frames where no skeleton was found (all zeros)."""
    ptr = arrays["frame_ptr"]
    found = []
    for i in which:
        frames = arrays["frames"][ptr[i] : ptr[i + 1], :, :3]
        found.append(frames[np.abs(frames).sum((1, 2)) > 0])
    return found


def _msr(name: str, arrays: Arrays) -> Dataset:
    """The 557 sequences of Wang et al. 2012; subjects 1, 3, 5, 7 train, 9 chooses, 2, 4, 6, 8, 10 test."""
    _need(arrays, "frames", "frame_ptr", "y", "subject", "used_cvpr12")
    which = np.flatnonzero(arrays["used_cvpr12"])
    subject = arrays["subject"][which]
    cut = _by_subject(subject % 2 == 1, subject == 9)
    items = items_of(_skeletons(arrays, which), "skeletons")
    tokenizer = Joints(bones=MSR.bones)
    y = arrays["y"][which].astype(int)
    return item_set(items, y, name, tokenizer, splits={"cross-subject": (cut,)}, classes=MSR_ACTIONS)


def _by_subject(train: np.ndarray, chosen: np.ndarray) -> Split:
    """Test is who does not train; of those who train, who is ``chosen`` chooses."""
    return Split(*(torch.from_numpy(np.flatnonzero(part)) for part in (train & ~chosen, train & chosen, ~train)))


def _utkinect(name: str, arrays: Arrays) -> Dataset:
    """Ten splits: a subject tests, the next one chooses, the others train."""
    _need(arrays, "frames", "frame_ptr", "y", "subject")
    subject, people = arrays["subject"], np.unique(arrays["subject"])
    splits = tuple(
        _by_subject(subject != one, subject == other) for one, other in zip(people, np.roll(people, -1), strict=True)
    )
    items = items_of(_skeletons(arrays, np.arange(len(subject))), "skeletons")
    tokenizer = Joints(bones=KINECT.bones)
    y = arrays["y"].astype(int)
    return item_set(
        items, y, name, tokenizer, splits={"leave-one-subject-out": splits}, classes=_classes(arrays)
    )  # fmt: skip


def _paths(name: str, arrays: Arrays) -> Dataset:
    """What a pedestrian does in 8 steps, [8, 1, 2], to tell what he does in the 12 after: ``future`` says the classes.

    Windows of 20 steps in a row, 10 steps apart. Five splits, one scene each to test; a tenth of the other pedestrians
    chooses. All 20 steps, [B, 20, 2], are in ``raw``.
    """
    _need(arrays, "scene", "frame", "ped", "xy")
    scene, frame, ped = (arrays[key].astype(np.int64) for key in ("scene", "frame", "ped"))
    order = np.lexsort((frame, ped, scene))
    scene, frame, ped, xy = scene[order], frame[order], ped[order], arrays["xy"][order]
    length = OBSERVED + FUTURE
    goes_on = (np.diff(frame) == 10) & (np.diff(ped) == 0) & (np.diff(scene) == 0)
    run = 0
    starts: list[int] = []
    for i, on in enumerate([*goes_on.tolist(), False]):
        if not on:
            starts += range(run, i + 2 - length, length // 2)
            run = i + 1
    windows = np.stack([xy[start : start + length] for start in starts])
    of, person = scene[starts], (scene * (ped.max() + 1) + ped)[starts]
    rng = np.random.default_rng(0)
    people = np.unique(person)
    chosen = np.isin(person, rng.choice(people, len(people) // 10, replace=False))
    names = json.loads(str(arrays["meta"]))["scenes"] if "meta" in arrays else []
    splits = []
    for members in SCENES.values():
        test = np.isin(of, [names.index(one) for one in members if one in names])
        splits.append(_by_subject(~test, chosen & ~test))
    y, classes = future(windows)
    items = items_of(windows[:, :OBSERVED, None], "skeletons")
    tokenizer = Joints(steps=None, scale=False)  # in metres, as the classes are
    return item_set(
        items, y, name, tokenizer, splits={"leave-one-scene-out": tuple(splits)}, classes=classes,
        raw=torch.from_numpy(windows),
    )  # fmt: skip


def future(windows: np.ndarray) -> tuple[Tensor, tuple[str, ...]]:
    """What paths [B, 20, 2] do after 8 steps: "stays", else goes "straight", "left" or "right" of where they went.

    One stays who comes less than half a metre far in the last 12 steps, or did in the first 8; one goes straight whose
    way from step 8 to 20 points less than 15 degrees off the way from step 1 to 8.
    """
    before = windows[:, OBSERVED - 1] - windows[:, 0]
    after = windows[:, -1] - windows[:, OBSERVED - 1]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    angle = np.degrees(np.arctan2(cross, (before * after).sum(1)))
    still = (np.linalg.norm(before, axis=1) < STANDING) | (np.linalg.norm(after, axis=1) < STANDING)
    y = np.select([still, np.abs(angle) < TURN, angle > 0], [0, 1, 2], 3)
    return torch.from_numpy(y), ("stays", "straight", "left", "right")


Reader = Callable[[str, Arrays], Dataset]
KNOWN: dict[str, tuple[str, Reader]] = {  # by name: the stem of the file, and what reads it
    "mnist": ("mnist", _images),
    "cifar10": ("cifar10-jpeg", _jpegs),
    "cifar10-mini": ("cifar10-mini", _images),
    "usps": ("usps-5k", _usps),
    "modelnet10": ("modelnet10-vox30", _modelnet),
    "geometric-shapes": ("geometric-shapes", _meshes),
    "msraction3d": ("msraction3d", _msr),
    "utkinect": ("utkinect", _utkinect),
    "eth-ucy": ("eth-ucy", _paths),
}
NAMES = {stem: name for name, (stem, _) in KNOWN.items()} | {
    "msr-action3d": "msraction3d",
    "utkinect-action3d": "utkinect",
}
