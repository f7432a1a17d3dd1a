"""Arrays of images, videos, point clouds, voxel grids and skeleton sequences as Items, and those as Datasets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphssl.data.dataset import Dataset
from graphssl.data.foreign import is_from
from graphssl.data.given import read_labels
from graphssl.data.splits import Split, default_graph_splits
from graphssl.errors import UserError, unknown
from graphssl.tokens import KINDS, Items, Tokenizer
from graphssl.tokens.skeletons import SKELETONS

AXES = {
    "images": "C, H, W", "videos": "T, C, H, W", "points": "P, 3 (+C)", "voxels": "D, H, W", "skeletons": "T, J, d",
}  # fmt: skip
CHANNELS = 4  # most of an image whose kind nobody named
CARRIED = 9  # most numbers of a point whose kind nobody named: place, normal, colour
JOINTS = 64  # most of a skeleton whose kind nobody named


def items_of(values: Any, kind: str | None = None) -> Items:
    """``Items``, an array [B, ...] or a list of arrays, one an item, as checked Items of their own memory.

    ``kind`` says what they are. Without it an array [B, C, H, W] with 1 to 4 channels is images, [B, T, C, H, W]
    videos, and [B, P, 3 to 9] of numbers that are no bytes, with more points than that, point clouds. In a list,
    [C, H, W] is an image, [T, C, H, W] a video, [P, 3 to 9] a point cloud, and [T, J, 2 to 4], with one J of 64 at
    most, a skeleton sequence. UserError for what is unclear: ``Items(kind, values)`` says it.

    Images, videos and voxel grids stay bytes (0 to 255) where they are; booleans, and other whole numbers that are all
    0 or 1, become the bytes 0 and 255. All else becomes float32.
    """
    if isinstance(values, Items):
        return _checked(values.kind, values.values, values.skeleton)
    if kind is not None:
        return _checked(kind, values)
    if is_array(values):
        return _checked(_kind_of_array(values), values)
    values = [_array(value) for value in values]
    return _checked(_kind_of_list(values), values)


def item_set(
    items: Items, y: Any = None, name: str = "data", tokenizer: Tokenizer | None = None, *,
    splits: dict[str, tuple[Split, ...]] | None = None, classes: tuple[str, ...] = (), **fields: Any,
) -> Dataset:  # fmt: skip
    """A graph set of checked ``items`` with the labels ``y`` [B] or none, split at random where no splits are given.

    Warns of skeletons without bones.
    """
    labels, names = read_labels(y, len(items), "items")
    if items.kind == "skeletons" and tokenizer is None and items.skeleton is None and items.shape[1] != 1:
        warnings.warn(
            "no bones given; joints are joined through time only; name a skeleton: graphssl.Items('skeletons', "
            f"sequences, skeleton=...), one of {', '.join(SKELETONS)} or bones as pairs of joints",
            stacklevel=2,
        )
    return Dataset.of_items(
        items, tokenizer, name=name, y=labels, classes=classes or names, splits=splits or default_graph_splits(labels),
        **fields,
    )  # fmt: skip


def is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def is_item(value: Any) -> bool:
    """Whether one entry of a list may be an image, a video, a point cloud or a sequence."""
    return is_array(value) or is_from(value, "PIL")


def with_labels(data: Any) -> bool:
    """Whether ``data`` is a pair (items, labels): Items, an array of several axes or a list of arrays, and no more."""
    if not isinstance(data, tuple) or len(data) != 2:
        return False
    items, labels = data
    several = isinstance(items, Items) or (is_array(items) and items.ndim > 2)
    listed = isinstance(items, list) and len(items) > 0 and is_item(items[0])
    return (several or listed) and not (is_array(labels) and labels.ndim > 2)


def pixels(picture: Any) -> np.ndarray:
    """A Pillow image as [C, H, W]."""
    array = np.asarray(picture)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _array(value: Any) -> Tensor | np.ndarray:
    return pixels(value) if is_from(value, "PIL") else value


def _kind_of_array(array: Tensor | np.ndarray) -> str:
    _refuse(array, "the array")
    shape = tuple(array.shape)
    if len(shape) == 3:
        if 3 <= shape[2] <= CARRIED and shape[1] > shape[2] and not _bytes(array):
            return "points"
        raise UserError(
            f"an array of shape {shape} is unclear: give array[:, None] for grey images [B, 1, H, W], 3 to {CARRIED} "
            "numbers a point for point clouds, or say what it is with graphssl.Items('points', array)"
        )
    if len(shape) in (4, 5):
        return _kind_of_grid(shape)
    raise UserError(
        f"an array of shape {shape} alone is no graph; give (features, scipy sparse adjacency), a torch_geometric "
        "Data(x=..., edge_index=...), or images [B, C, H, W]"
    )


def _kind_of_grid(shape: tuple[int, ...]) -> str:
    """Of an array of 4 or 5 axes, whose first counts items: images [B, C, H, W] or videos [B, T, C, H, W]."""
    H, W = shape[-2:]
    if len(shape) == 4:
        if W <= CHANNELS < H:
            raise UserError(
                f"an array of shape {shape} has its channels last, or holds skeletons: give array.transpose(0, 3, 1, "
                "2) (torch: permute) for images [B, C, H, W], graphssl.Items('skeletons', array) for [B, T, J, d]"
            )
        if shape[1] > CHANNELS:
            raise UserError(
                f"an array of shape {shape} is unclear: {shape[1]} channels are more than {CHANNELS}; say what it is "
                "with graphssl.Items('images', array) or Items('voxels', array), or give array[:, :, None] for grey "
                "videos [B, T, 1, H, W]"
            )
        return "images"
    if W <= CHANNELS < H:
        raise UserError(
            f"an array of shape {shape} has its channels last; give array.transpose(0, 1, 4, 2, 3) (torch: permute) "
            "for videos [B, T, C, H, W]"
        )
    if shape[2] > CHANNELS:
        raise UserError(
            f"an array of shape {shape} is unclear: videos are [B, T, C, H, W] with {CHANNELS} channels at most; give "
            "array.transpose(0, 2, 1, 3, 4) (torch: permute) where time comes after the channels, array[:, 0] as "
            "graphssl.Items('voxels', ...) for voxel grids, or graphssl.Items('videos', array)"
        )
    return "videos"


def _kind_of_list(values: Sequence[Any]) -> str:
    for i, value in enumerate(values):
        _refuse(value, f"item {i}")
        if value.ndim != values[0].ndim:
            raise UserError(
                f"item {i} has shape {tuple(value.shape)}, but item 0 {tuple(values[0].shape)}; give one kind of item"
            )
    shapes = [tuple(value.shape) for value in values]
    first, bytes_ = shapes[0], any(map(_bytes, values))
    if len(first) == 2 and not bytes_ and len({D for _, D in shapes}) == 1 and 3 <= first[1] <= CARRIED:
        return "points"
    if len(first) == 3:
        if _skeletons(shapes) and not bytes_:
            return "skeletons"
        for shape in shapes:
            try:
                _kind_of_grid((1, *shape))
            except UserError as error:
                raise UserError(
                    f"a list of arrays of shape {shape} is unclear: give images [C, H, W] with {CHANNELS} channels at "
                    f"most, skeletons [T, J, d] of one J ({JOINTS} at most) and d, or say what they are with "
                    "graphssl.Items('images', list)"
                ) from error
        return "images"
    if len(first) == 4:
        for shape in shapes:
            _kind_of_grid((1, *shape))
        return "videos"
    raise UserError(
        f"cannot make a data set of a list of arrays of shape {first}; give images [C, H, W] (array[None] where they "
        "are grey), videos [T, C, H, W], point clouds [P, 3] or skeletons [T, J, 3] ([T, 1, 2] for paths)"
    )


def _skeletons(shapes: list[tuple[int, ...]]) -> bool:
    """Whether [T, J, d] is meant: one d of 2 to 4 and one J, not square like images, nor as short as channels."""
    joints, widths = {shape[1] for shape in shapes}, {shape[2] for shape in shapes}
    alike = len(joints) == len(widths) == 1 and max(joints) <= JOINTS and 2 <= max(widths) <= 4
    return alike and any(T > CHANNELS for T, _, _ in shapes) and any(T != J for T, J, _ in shapes)


def _bytes(array: Tensor | np.ndarray) -> bool:
    return array.dtype in (torch.uint8, np.dtype(np.uint8))


def _refuse(array: Any, what: str) -> None:
    """UserError for what is no array, is empty, or holds no real numbers."""
    if isinstance(array, np.ndarray):
        if array.dtype.kind == "O":
            raise UserError(f"{what} is an array of objects; give items of different shapes as a list, one array each")
        if array.dtype.kind not in "buifc":
            raise UserError(f"{what} holds {array.dtype}, not numbers; give bytes or floats")
    elif not is_array(array):
        raise UserError(f"{what} is a {type(array).__name__}, not an array; give all items as arrays")
    elif array.layout != torch.strided:
        raise UserError(f"{what} is a sparse tensor; give {what}.to_dense()")
    if 0 in array.shape:
        raise UserError(f"{what} has shape {tuple(array.shape)}, an axis of which is empty; give something along each")
    complex_ = array.is_complex() if isinstance(array, Tensor) else array.dtype.kind == "c"
    if complex_:
        raise UserError(f"{what} holds complex numbers; split them into real and imaginary channels")


def _checked(kind: str, values: Any, skeleton: Any = None) -> Items:
    if kind not in KINDS:
        raise unknown("kind of items", str(kind), KINDS)
    if skeleton is not None and kind != "skeletons":
        raise UserError(f"a skeleton says which joints are linked, and {kind} have none; leave it out")
    if len(values) == 0:
        raise UserError(f"there are no {kind}; give at least one")
    if is_array(values):
        array = _shaped(kind, values, f"the array of {kind}", batch=True)
        return Items(kind, _numbers(kind, [array], [f"the array of {kind}"])[0], skeleton)
    names = [f"item {i} of the {kind}" for i in range(len(values))]
    parts = [_shaped(kind, _array(value), name, batch=False) for value, name in zip(values, names, strict=True)]
    tensors = _numbers(kind, parts, names)
    return Items(kind, torch.stack(tensors) if len({part.shape for part in tensors}) == 1 else tensors, skeleton)


def _shaped(kind: str, array: Any, what: str, batch: bool) -> Tensor | np.ndarray:
    """An array of items, or one item, with as many axes as its kind has."""
    _refuse(array, what)
    shape, axes = tuple(array.shape), ("B, " if batch else "") + AXES[kind]
    if len(shape) != axes.count(",") + 1 or (kind == "points" and shape[-1] < 3):
        grey = kind in ("images", "videos") and len(shape) == axes.count(",")
        hint = f"; give array[{':, ' * (len(shape) - 2)}None] where the channel axis is missing" if grey else ""
        raise UserError(f"{what} has shape {shape}, expected [{axes}]{hint}")
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return array if array.dtype == torch.bfloat16 else array.numpy()  # numpy has no such numbers


def _numbers(kind: str, arrays: list[Tensor | np.ndarray], names: list[str]) -> list[Tensor]:
    """Arrays as tensors of their own: whole numbers of grids as bytes, all else as float32, checked."""
    if kind in ("points", "skeletons"):
        return [_floats(array, name) for array, name in zip(arrays, names, strict=True)]
    whole = [isinstance(array, np.ndarray) and array.dtype.kind in "bui" for array in arrays]
    if not any(whole):
        return [_floats(array, name) for array, name in zip(arrays, names, strict=True)]
    if not all(whole):
        raise UserError(
            f"{names[whole.index(True)]} holds whole numbers and {names[whole.index(False)]} others; give all {kind} "
            "as bytes, or all as floats"
        )
    for array, name in zip(arrays, names, strict=True):
        if array.dtype not in (np.uint8, np.bool_) and not 0 <= int(array.min()) <= int(array.max()) <= 1:
            raise UserError(
                f"{name} holds {array.dtype}; give bytes, array.astype('uint8'), for values 0 to 255, or floats"
            )
    whites = [1 if array.dtype == np.uint8 else 255 for array in arrays]
    return [
        torch.from_numpy(np.multiply(array, white, order="C", dtype=np.uint8, casting="unsafe"))
        for array, white in zip(arrays, whites, strict=True)
    ]


def _floats(array: Tensor | np.ndarray, name: str) -> Tensor:
    if isinstance(array, np.ndarray):
        with np.errstate(over="ignore"):
            tensor = torch.from_numpy(array.astype(np.float32, order="C"))
    else:
        tensor = array.to(torch.float32, copy=True)
    if not tensor.isfinite().all():
        where = [int(i) for i in (~tensor.isfinite()).nonzero()[0]]
        raise UserError(
            f"{name} has values that are NaN, infinite or beyond float32, the first at {where}; replace them "
            "(torch.nan_to_num) or leave those items out"
        )
    return tensor
