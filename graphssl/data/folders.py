"""Folders of images and videos as Datasets: Pillow reads the former, av (FFmpeg) the latter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from graphssl.data.arrays import item_set, items_of, pixels
from graphssl.data.dataset import Dataset
from graphssl.data.given import joined, read_labels
from graphssl.data.splits import Split, official_split
from graphssl.errors import UserError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".gif")
MODES = ("L", "RGB", "RGBA")
PLAIN = {"1": "L", "P": "RGB"}  # read as these without asking; a palette with transparency as RGBA
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read_folder(
    path: str | Path, *, size: int | tuple[int, int] | None = None, frames: int | None = None, mode: str | None = None,
    name: str | None = None,
) -> Dataset:  # fmt: skip
    """The images or the videos in a folder and the folders in it, as bytes, in the order of their paths.

    Folders in it are classes. Where they are called train and test, and val or valid, they are the split "given", and
    the folders in those the classes. ``item_names`` are the paths within the folder.

    ``size`` (a side, or rows and columns) resizes each image and frame, not keeping proportions; ``frames`` takes so
    many from each video, evenly spaced; ``mode`` ("L" grey, "RGB", "RGBA") converts. Without them all files must be of
    one size, length and mode. Images are turned as their EXIF says; of TIFFs with several pages the first counts.
    Everything is decoded at once: a thousand images of 224 x 224 take 150 MB. Needs Pillow, and for videos av
    (``pip install graphssl[images]``). UserError for what cannot be read names the file.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give one of images or videos")
    height, width = _sides(size)
    if mode is not None and mode not in MODES:
        raise UserError(f"mode is {mode!r}; choose one of {', '.join(MODES)}")
    if frames is not None and frames < 1:
        raise UserError(f"frames is {frames}; choose 1 or more")
    files = sorted(_files(folder))
    kinds = {_kind(file) for file in files}
    if len(kinds) != 1:
        found = "images and videos" if kinds else "no images and no videos"
        raise UserError(f"the folder {folder} holds {found}; give one with files of one kind")
    kind = kinds.pop()
    if kind == "images" and frames is not None:
        raise UserError(f"frames is for videos, but {folder} holds images; leave it out")
    read = _image if kind == "images" else _video(frames)
    arrays: list[np.ndarray] = []
    for file in files:
        array = read(file, height, width, mode)
        _same(array, arrays, file, files)
        arrays.append(array)
    names = tuple(str(file.relative_to(folder)) for file in files)
    labels, parts = _labels(folder, files)
    items = items_of(np.stack(arrays), kind)
    y, classes = read_labels(labels, len(files), "items")
    splits = {"given": _split(parts, y, len(files))} if parts else None
    name = name or folder.resolve().name.lower().replace("_", "-")
    return item_set(items, y, name, classes=classes, item_names=names, splits=splits)


def holds_pictures(folder: Path) -> bool:
    """Whether there is an image or a video in a folder or the folders in it."""
    return next(_files(folder), None) is not None


def _files(folder: Path) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        inner[:] = [one for one in inner if not one.startswith(".")]
        yield from (Path(place) / one for one in names if not one.startswith(".") and _kind(Path(one)))


def _kind(file: Path) -> str:
    ending = file.suffix.lower()
    return "images" if ending in IMAGES else "videos" if ending in VIDEOS else ""


def _sides(size: int | tuple[int, int] | None) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"size is {size!r}; give a side in pixels, or (rows, columns)")
    return sides


def _labels(folder: Path, files: list[Path]) -> tuple[list[str] | None, dict[str, list[np.ndarray]]]:
    """The class of each file, where folders name them, and the rows of each part of the split, where they name those.

    Below a part, or at the top, files lie either all in folders of their class or all in none.
    """
    places = [file.relative_to(folder).parts[:-1] for file in files]
    firsts = {place[0] if place else "" for place in places}
    parts: dict[str, list[np.ndarray]] = {}
    if firsts <= set(PARTS) and {"train", "test"} <= firsts:
        part_of = np.array([PARTS[place[0]] for place in places])
        parts = {part: [np.flatnonzero(part_of == part)] for part in dict.fromkeys(part_of.tolist())}
        places = [place[1:] for place in places]
    within = [len(place) > 0 for place in places]
    if not any(within):
        return None, parts
    if not all(within):
        raise UserError(
            f"{files[within.index(False)]} lies in no folder of a class, but {files[within.index(True)]} does; put all "
            "in such folders, or none"
        )
    return [place[0] for place in places], parts


def _split(parts: dict[str, list[np.ndarray]], y: Tensor | None, count: int) -> tuple[Split, ...]:
    """The split that folders name; without one to choose by, a tenth of each class of training is set aside for it."""
    if "val" in parts or y is None:
        return joined(parts, count, y, "items")
    return (official_split(y, parts["train"][0], parts["test"][0]),)


def _same(array: np.ndarray, before: list[np.ndarray], file: Path, files: list[Path]) -> None:
    """UserError where ``array`` has another shape than the first one."""
    if not before or array.shape == before[0].shape:
        return
    shape, first = array.shape, before[0].shape
    if shape[-3] != first[-3]:
        raise UserError(
            f"{file} has {shape[-3]} channels, but {files[0]} has {first[-3]}; say which with "
            "graphssl.data.read_folder(folder, mode='RGB') (or 'L', 'RGBA')"
        )
    if shape[-2:] != first[-2:]:
        raise UserError(
            f"{file} has {shape[-2]} x {shape[-1]} pixels, but {files[0]} has {first[-2]} x {first[-1]}; resize them "
            "with graphssl.data.read_folder(folder, size=32)"
        )
    raise UserError(
        f"{file} has {shape[0]} frames, but {files[0]} has {first[0]}; take as many of each with "
        f"graphssl.data.read_folder(folder, frames={min(shape[0], first[0])})"
    )


def _image(file: Path, height: int | None, width: int | None, mode: str | None) -> np.ndarray:
    """[C, H, W] bytes."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise UserError("images need Pillow, which is not installed; pip install 'graphssl[images]'") from error
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            own = "RGBA" if picture.mode == "P" and "transparency" in picture.info else picture.mode
            chosen = mode or PLAIN.get(own, own)
            if chosen not in MODES or own.startswith(("I", "F")):  # of 16 bits or more, which bytes cannot hold
                raise UserError(
                    f"{file} has the mode {own}; convert it to 8 bits a channel, or where it has them give "
                    "graphssl.data.read_folder(folder, mode='RGB')"
                )
            picture = picture.convert(chosen)
            if height is not None and width is not None:
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return np.array(pixels(picture), np.uint8)
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {file} as an image ({error}); leave it out, or mend it") from error


def _video(frames: int | None) -> Callable[[Path, int | None, int | None, str | None], np.ndarray]:
    """A reader of videos [T, C, H, W], bytes."""
    try:
        import av
    except ImportError as error:
        raise UserError("videos need av, which is not installed; pip install 'graphssl[images]'") from error

    def read(file: Path, height: int | None, width: int | None, mode: str | None) -> np.ndarray:
        form = {None: "rgb24", "RGB": "rgb24", "L": "gray", "RGBA": "rgba"}[mode]
        taken: list[Any] = []
        try:
            with av.open(str(file)) as container:
                for frame in container.decode(video=0):
                    small = frame.reformat(width=width, height=height, format=form)
                    taken.append(small.to_ndarray())
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            raise UserError(f"cannot read {file} as a video ({error}); leave it out, or mend it") from error
        if not taken:
            raise UserError(f"{file} holds no frames; leave it out")
        if frames is not None:
            if frames > len(taken):
                raise UserError(f"{file} has {len(taken)} frames, fewer than frames={frames}; choose fewer")
            taken = [taken[i] for i in np.linspace(0, len(taken) - 1, frames).round().astype(int)]
        return np.stack([frame[None] if frame.ndim == 2 else np.moveaxis(frame, -1, 0) for frame in taken])

    return read
