"""Images, videos, point clouds, voxel grids and skeleton sequences as Graphs whose nodes are their parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from math import gcd
from typing import Any, ClassVar, Protocol

from torch import Tensor

from graphssl.errors import UserError, unknown
from graphssl.graph import Graph
from graphssl.tokens.alter import alter_for as alter_for
from graphssl.tokens.grids import Cubes as Cubes
from graphssl.tokens.grids import Patches as Patches
from graphssl.tokens.grids import Tubelets as Tubelets
from graphssl.tokens.hog import HOG as HOG
from graphssl.tokens.items import KINDS as KINDS
from graphssl.tokens.items import Items as Items
from graphssl.tokens.points import PointGroups as PointGroups
from graphssl.tokens.skeletons import Joints as Joints
from graphssl.tokens.skeletons import bones_of


class Tokenizer(Protocol):
    """Raw items of one kind to a Graph, one graph an item; a frozen dataclass."""

    kind: ClassVar[str]  # of items
    costly: ClassVar[bool]  # whether tokens are worth keeping between epochs

    def width(self, shape: Sequence[int | None]) -> int:
        """Width of a token's content for items of ``shape``; UserError where it cannot cut them."""

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        """Items [B, ...], or a list of them where shapes differ, to B graphs."""

    def back(self, graph: Graph, content: Tensor) -> list[Tensor]:
        """The items, one a graph, that ``content`` [N, F] of the graph's tokens stands for."""


TOKENIZERS = {
    "patches": Patches, "tubelets": Tubelets, "cubes": Cubes, "point-groups": PointGroups, "joints": Joints,
}  # fmt: skip


def to_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer's name and settings."""
    name = next(name for name, kind in TOKENIZERS.items() if type(tokenizer) is kind)
    return {"tokens": name, **asdict(tokenizer)}  # type: ignore[call-overload]


def from_json(values: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that ``to_json`` described."""
    settings = dict(values)
    name = settings.pop("tokens")
    if name not in TOKENIZERS:
        raise unknown("tokenizer", name, TOKENIZERS)
    return TOKENIZERS[name](**settings)


def default_tokenizer(items: Items) -> Tokenizer:
    """How items are cut where nobody says: with edges among neighbours, so that every method takes them.

    UserError where nothing cuts them all into a number of pieces that could be worked with.
    """
    if items.kind == "skeletons":
        return Joints(bones_of(items.skeleton, items.shape[1]))
    if items.kind == "points":
        least = min(_sides(items, 0))
        return PointGroups(min(32, least), min(16, least))
    if items.kind == "voxels":
        return Cubes(side_of(_sides(items, 0, 1, 2), 6))
    if items.kind == "images":
        return Patches(side_of(_sides(items, 1, 2)))
    return Tubelets(2 if all(frames % 2 == 0 for frames in _sides(items, 0)) else 1, side_of(_sides(items, 2, 3), 4))


def _sides(items: Items, *axes: int) -> set[int]:
    """How long the items are along these axes."""
    shapes = [items.values.shape[1:]] if isinstance(items.values, Tensor) else [v.shape for v in items.values]
    return {shape[axis] for shape in shapes for axis in axes}


def side_of(sides: Collection[int], most: int = 8) -> int:
    """The least side above 1 that divides all ``sides`` and cuts each into ``most`` pieces at most.

    Where the longest has more than 64 pixels, into twice as many. If there is none, the largest that leaves two pieces;
    if that is none either, 1, up to four times ``most`` pixels; UserError beyond.
    """
    longest = max(sides)
    most = most if longest <= 64 else 2 * most
    common = gcd(*sides)
    fits = [n for n in range(2, common + 1) if common % n == 0 and longest // n > 1]
    few = [n for n in fits if longest // n <= most]
    if not fits and longest > 4 * most:
        raise UserError(
            f"no square above one pixel divides sides of {', '.join(map(str, sorted(sides)))}; resize or crop the "
            f"items, to multiples of {longest // most} for one"
        )
    return few[0] if few else fits[-1] if fits else 1
