"""Raw items of one kind, from which tokenizers make Graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("images", "videos", "points", "voxels", "skeletons")
FRAMES = 16  # that a sequence is brought to before it is laid flat
SIDE = 32  # of pixels and voxels, where items differ in size
CELLS = 8  # a side of the grid in which the points of a cloud are counted


@dataclass(frozen=True, eq=False, repr=False)
class Items:
    """B images [C, H, W], videos [T, C, H, W], point clouds [P, 3 (+C)], voxel grids [D, H, W] or skeletons [T, J, d].

    ``values`` is one tensor [B, ...], or one tensor an item where their shapes differ. They are kept as they came in,
    so that images of bytes take a byte a pixel; ``numbers`` turns them into floats. ``skeleton`` says which joints of
    skeletons are linked: a name ("kinect-v1", "msr-action3d", "stick-figure") or bones as pairs of joints.
    """

    kind: str
    values: Tensor | Sequence[Tensor]
    skeleton: str | Sequence[tuple[int, int]] | None = None
    _known: dict[Any, Any] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Items({len(self)} {self.kind} of shape {self.shape})"

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of one item; None where items differ."""
        if isinstance(self.values, Tensor):
            return tuple(self.values.shape[1:])
        shapes = zip(*(value.shape for value in self.values), strict=True)
        return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in shapes)

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """``make()``, computed once for these items: their graphs by one tokenizer and the like."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def take(self, indices: Sequence[int] | Tensor) -> Tensor | list[Tensor]:
        """The items at ``indices``: [b, ...], or a list where shapes differ."""
        indices = torch.as_tensor(indices)
        if isinstance(self.values, Tensor):
            return self.values[indices]
        chosen = [self.values[i] for i in indices.tolist()]
        return torch.stack(chosen) if len({value.shape for value in chosen}) == 1 else chosen

    def flat(self) -> Tensor:
        """A row of numbers an item, [B, D], as which probes see raw input.

        Images, videos and voxels are laid flat; where they differ in size they are brought to sides of 32 and 16
        frames first. A skeleton sequence is brought to 16 frames, less the middle of the joints in its first one. Of a
        point cloud, scaled to a unit cube, it is the share of its points in each cell of an 8 x 8 x 8 grid.
        """
        if isinstance(self.values, Tensor) and self.kind not in ("points", "skeletons"):
            return numbers(self.values).flatten(1)
        return torch.stack([FLAT[self.kind](numbers(value)) for value in self.values])


def numbers(values: Tensor) -> Tensor:
    """``values`` as float32; bytes 0 to 255 become 0 to 1."""
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()


def _resized(values: Tensor, *sides: int) -> Tensor:
    """[C, *S] to [C, *sides], laid flat."""
    mode = "trilinear" if len(sides) == 3 else "bilinear"
    return F.interpolate(values[None], size=sides, mode=mode)[0].flatten()


def _resampled(frames: Tensor) -> Tensor:
    """[T, J, d] to 16 frames laid flat, less the middle of the first one's joints."""
    frames = (frames - frames[0].mean(0)).flatten(1)
    return F.interpolate(frames.T[None], size=FRAMES, mode="linear", align_corners=True)[0].T.flatten()


def _occupancy(points: Tensor) -> Tensor:
    """[P, 3 (+C)] to the share of its points in each cell, [512]."""
    places = points[:, :3] - points[:, :3].amin(0)
    side = places.max().clamp(min=1e-12)
    cell = (places / side * CELLS).long().clamp(max=CELLS - 1)
    index = (cell[:, 0] * CELLS + cell[:, 1]) * CELLS + cell[:, 2]
    return torch.bincount(index, minlength=CELLS**3).float() / len(points)


FLAT = {
    "images": lambda image: _resized(image, SIDE, SIDE),
    "videos": lambda video: _resized(video.transpose(0, 1), FRAMES, SIDE, SIDE),
    "voxels": lambda grid: _resized(grid[None], SIDE, SIDE, SIDE),
    "points": _occupancy,
    "skeletons": _resampled,
}
