"""Random changes to raw items before they are cut into tokens; each item has draws of its own from one generator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl.errors import UserError, unknown
from graphssl.tokens.items import KINDS, numbers

STRENGTHS = ("none", "weak", "strong")


class Alteration(ABC):
    """Items [B, ...], or a list of them where shapes differ, to others of the same shapes as float32; bytes to 0..1."""

    def __call__(self, values: Tensor | list[Tensor], generator: Generator | None = None) -> Tensor | list[Tensor]:
        if isinstance(values, list):
            return [self.change(numbers(value)[None], generator)[0] for value in values]
        return self.change(numbers(values), generator)

    @abstractmethod
    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        """Floats [B, ...] to others of that shape, item b by its own draws."""


def _draw(values: Tensor, count: int, generator: Generator | None) -> Tensor:
    """``count`` numbers in 0..1 an item, [B, count]."""
    return torch.rand(len(values), count, generator=generator, device=values.device)


def _places(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places [B, ..., 2 or 3], their middle, which an item has one of, and what else comes with them."""
    places, rest = values[..., :3], values[..., 3:]
    return places, places.mean(tuple(range(1, values.ndim - 1)), keepdim=True), rest


def _check_share(share: float, what: str, positive: bool = False) -> None:
    if not (0 < share <= 1 if positive else 0 <= share <= 1):
        raise UserError(f"cannot {what} {share}; choose a number {'above 0' if positive else 'from 0'} up to 1")


@dataclass(frozen=True)
class Chain(Alteration):
    """One after another of ``steps``."""

    steps: tuple[Alteration, ...]

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        for step in self.steps:
            values = step.change(values, generator)
        return values


@dataclass(frozen=True)
class Crop(Alteration):
    """A random part of each image or video [B, ..., H, W], the same of all its frames, brought back to H x W.

    The part's share of the area is uniform within ``area``; its ratio of width to height, in that of the whole, is
    log-uniform within ``ratio``. A side longer than the whole's is cut to it (torchvision's RandomResizedCrop draws
    anew, up to ten times). Bilinear.
    """

    area: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"cannot crop to a share of the area within {self.area}; choose low <= high, above 0 to 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"cannot crop to a ratio within {self.ratio}; choose low <= high, above 0")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        draw = _draw(values, 4, generator)
        area = self.area[0] + draw[:, 0] * (self.area[1] - self.area[0])
        low, high = (math.log(side) for side in self.ratio)
        ratio = (low + draw[:, 1] * (high - low)).exp()
        size = torch.stack([area * ratio, area / ratio], 1).sqrt().clamp(max=1)  # of width and height
        centre = (1 - size) * (2 * draw[:, 2:] - 1)
        maps = values.flatten(1, -3)
        grid = F.affine_grid(
            torch.cat([torch.diag_embed(size), centre[:, :, None]], 2), list(maps.shape), align_corners=False
        )
        return F.grid_sample(maps, grid, padding_mode="border", align_corners=False).view_as(values)


@dataclass(frozen=True)
class Mirror(Alteration):
    """Images or videos [B, ..., H, W] with left and right swapped, each with probability ``share``."""

    share: float = 0.5

    def __post_init__(self):
        _check_share(self.share, "mirror items with a probability of")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        swapped = _draw(values, 1, generator).view(-1, *[1] * (values.ndim - 1)) < self.share
        return torch.where(swapped, values.flip(-1), values)


@dataclass(frozen=True)
class Shift(Alteration):
    """Images or videos [B, ..., H, W] moved by whole pixels, each side by ``share`` of it at most; zeros come in."""

    share: float = 1 / 8

    def __post_init__(self):
        _check_share(self.share, "shift items by a share of")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        (H, W), maps = values.shape[-2:], values.flatten(1, -3)
        down, right = round(self.share * H), round(self.share * W)
        draw = _draw(values, 2, generator)
        first = (draw * (2 * torch.tensor([down, right], device=draw.device) + 1)).long()
        row = first[:, :1] + torch.arange(H, device=draw.device)
        column = first[:, 1:] + torch.arange(W, device=draw.device)
        item = torch.arange(len(maps), device=draw.device)[:, None, None]
        wide = F.pad(maps, (right, right, down, down)).permute(0, 2, 3, 1)
        return wide[item, row[:, :, None], column[:, None]].permute(0, 3, 1, 2).reshape(values.shape)


@dataclass(frozen=True)
class Light(Alteration):
    """Images or videos [B, ...] brighter or darker, then with more or less contrast about the item's mean.

    The factors are uniform in 1 - ``brightness`` to 1 + ``brightness`` and so for ``contrast``. No value leaves 0..1,
    or the range that the item has where that is wider.
    """

    brightness: float = 0.4
    contrast: float = 0.4

    def __post_init__(self):
        _check_share(self.brightness, "change the brightness by")
        _check_share(self.contrast, "change the contrast by")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        amount = torch.tensor([self.brightness, self.contrast], device=values.device)
        bright, contrast = (1 + (2 * _draw(values, 2, generator) - 1) * amount)[:, :, None].unbind(1)
        flat = values.flatten(1)
        low, high = (end[:, None] for end in flat.aminmax(dim=1))
        lit = flat * bright
        lit = lit + (contrast - 1) * (lit - lit.mean(1, keepdim=True))
        return torch.minimum(torch.maximum(lit, low.clamp(max=0)), high.clamp(min=1)).view_as(values)


@dataclass(frozen=True)
class Turn(Alteration):
    """Places [B, ..., 3 (+C)] or [B, ..., 2] turned about the item's middle, by up to ``degrees`` either way.

    ``axis`` is the coordinate to turn about (2 where clouds stand on their z, 1 where skeletons do on their y), None a
    random direction; places in a plane turn in it. What else a point carries stays as it is, normals too.
    """

    degrees: float = 180.0
    axis: int | None = None

    def __post_init__(self):
        if self.degrees < 0 or self.axis not in (None, 0, 1, 2):
            raise UserError(f"cannot turn by {self.degrees} degrees about {self.axis}; choose 0 or more, and 0, 1 or 2")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        places, middle, rest = _places(values)
        flat = places.size(-1) == 2
        draw = _draw(values, 4, generator)
        if flat or self.axis is not None:
            direction = torch.eye(3, device=values.device)[2 if flat else self.axis].expand(len(values), 3)
        else:
            about = torch.pi * draw[:, 1]
            height = 2 * draw[:, 2] - 1  # uniform on the sphere
            level = (1 - height.square()).sqrt()
            direction = torch.stack([level * (2 * about).cos(), level * (2 * about).sin(), height], 1)
        angle = ((2 * draw[:, :1] - 1) * math.radians(self.degrees))[:, :, None]
        unit = torch.eye(3, device=values.device).expand(len(values), 3, 3)
        cross = torch.linalg.cross(direction[:, None].expand_as(unit), unit)  # Rodrigues
        turn = unit + angle.sin() * cross + (1 - angle.cos()) * cross @ cross
        moved = F.pad(places - middle, (0, int(flat))).flatten(1, -2) @ turn
        return torch.cat([moved[..., : places.size(-1)].view_as(places) + middle, rest], -1)


@dataclass(frozen=True)
class Stretch(Alteration):
    """Places [B, ..., 3 (+C)] or [B, ..., 2] scaled along each coordinate by a factor of its own, about their middle.

    Factors are log-uniform in 1 / ``most`` to ``most``. (A factor common to all would be undone by the tokenizers,
    which bring clouds and skeletons to one size.)
    """

    most: float = 1.5

    def __post_init__(self):
        if self.most < 1:
            raise UserError(f"cannot stretch by up to {self.most}; choose 1 (not at all) or more")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        places, middle, rest = _places(values)
        factor = ((2 * _draw(values, places.size(-1), generator) - 1) * math.log(self.most)).exp()
        factor = factor.view(len(values), *[1] * (values.ndim - 2), -1)
        return torch.cat([(places - middle) * factor + middle, rest], -1)


@dataclass(frozen=True)
class Noise(Alteration):
    """Places [B, ..., 3 (+C)] or [B, ..., 2] each off by a normal draw, ``std`` of the item's own deviation."""

    std: float = 0.02

    def __post_init__(self):
        if not self.std >= 0:
            raise UserError(f"cannot add noise of deviation {self.std}; choose 0 or more")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        places, middle, rest = _places(values)
        size = (places - middle).flatten(1).square().mean(1).sqrt().view(-1, *[1] * (values.ndim - 1))
        noise = torch.randn(places.shape, generator=generator, device=values.device)
        return torch.cat([places + self.std * size * noise, rest], -1)


@dataclass(frozen=True)
class Resample(Alteration):
    """Point clouds [B, P, 3 (+C)] of which a random share, from ``least`` to all points, is kept and repeated to P."""

    least: float = 0.5

    def __post_init__(self):
        _check_share(self.least, "keep a share of the points of", positive=True)

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        B, P = values.shape[:2]
        share = self.least + (1 - self.least) * _draw(values, 1, generator)
        kept = (share * P).ceil().long().clamp(1, P)
        order = torch.rand(B, P, generator=generator, device=values.device).argsort(1)
        point = order.gather(1, torch.arange(P, device=values.device) % kept).sort(1).values
        return values[torch.arange(B, device=values.device)[:, None], point]


@dataclass(frozen=True)
class Clip(Alteration):
    """Sequences [B, T, ...] of which a random stretch of time, at least a share ``least``, is brought back to T frames.

    Frames between two are their linear interpolation.
    """

    least: float = 0.5

    def __post_init__(self):
        _check_share(self.least, "keep a share of the time of", positive=True)

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        B, T = values.shape[:2]
        draw = _draw(values, 2, generator)
        share = self.least + (1 - self.least) * draw[:, :1]
        begin = draw[:, 1:] * (1 - share)
        at = (begin + share * torch.linspace(0, 1, T, device=values.device)) * (T - 1)
        before = at.long().clamp(max=max(T - 2, 0))
        item = torch.arange(B, device=values.device)[:, None]
        one, two = values[item, before], values[item, (before + 1).clamp(max=T - 1)]
        return one + (at - before).view(B, T, *[1] * (values.ndim - 2)) * (two - one)


@dataclass(frozen=True)
class Quarters(Alteration):
    """Voxel grids [B, D, H, W] mirrored with probability ``mirror``, then turned about ``axis`` by 0 to 3 right angles.

    ``axis`` is the one that stands upright, 0 to 2; the first of the others is mirrored. Without ``turns`` none is
    turned, and where the other two sides differ only by two right angles.
    """

    axis: int = 2
    mirror: float = 0.5
    turns: bool = True

    def __post_init__(self):
        _check_share(self.mirror, "mirror grids with a probability of")
        if self.axis not in (0, 1, 2):
            raise UserError(f"cannot turn grids about axis {self.axis}; choose 0, 1 or 2")

    def change(self, values: Tensor, generator: Generator | None) -> Tensor:
        level = [axis + 1 for axis in range(3) if axis != self.axis]
        draw = _draw(values, 2, generator)
        swapped = draw[:, 0].view(-1, 1, 1, 1) < self.mirror
        values = torch.where(swapped, values.flip(level[0]), values)
        step = 1 if values.size(level[0]) == values.size(level[1]) else 2
        angle = (draw[:, 1] * (4 // step)).long() * step * self.turns
        turned = values.clone()
        for quarters in range(step, 4, step):
            turned[angle == quarters] = values[angle == quarters].rot90(quarters, level)
        return turned


UPRIGHT = (
    2  # the coordinate of clouds and the axis of grids that points up in ModelNet; of skeletons from Kinect it is 1
)

ALTERATIONS: dict[str, dict[str, Alteration]] = {
    "images": {
        "weak": Chain((Crop((0.6, 1.0)), Shift())),
        "strong": Chain((Crop((0.2, 1.0)), Mirror(), Light())),
    },
    "videos": {
        "weak": Chain((Crop((0.6, 1.0)), Shift())),
        "strong": Chain((Crop((0.2, 1.0)), Mirror(), Light())),
    },
    "points": {
        "weak": Stretch(),
        "strong": Chain((Turn(axis=UPRIGHT), Stretch(), Resample(), Noise())),
    },
    "voxels": {
        "weak": Quarters(UPRIGHT, turns=False),
        "strong": Quarters(UPRIGHT),
    },
    "skeletons": {
        "weak": Chain((Turn(15, axis=1), Clip(0.8))),
        "strong": Chain((Turn(45, axis=1), Stretch(1.2), Noise(), Clip())),
    },
}


def alter_for(kind: str, strength: str) -> Alteration | None:
    """What suits items of that kind: "none", "weak", or "strong", as methods that compare views need; None for "none".

    Weak: images and videos are cropped to 60 % or more and shifted, so that none is mirrored (digits); clouds are
    stretched, as Point-MAE's are; voxels mirrored; skeletons turned by up to 15 degrees and cut in time. Strong: images
    and videos are cropped to 20 % or more, mirrored and lit, which is SimSiam's recipe without what needs three colours
    or a blur; clouds are turned about z, stretched, thinned and jittered, voxels mirrored and turned, skeletons turned
    by up to 45 degrees about y, stretched, jittered and cut in time. UserError for graphs, which are no raw items.
    """
    if strength not in STRENGTHS:
        raise unknown("augmentation", strength, STRENGTHS)
    if strength == "none":
        return None
    if kind not in ALTERATIONS:
        raise UserError(f"the data holds {kind}, and only {', '.join(KINDS)} are altered before cutting; leave it out")
    return ALTERATIONS[kind][strength]
