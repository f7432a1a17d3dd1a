"""Images, videos, point clouds, voxel grids and skeleton sequences as Graphs whose nodes are their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from torch import Tensor

from graphssl.errors import unknown
from graphssl.graph import Graph
from graphssl.tokens.grids import Cubes as Cubes
from graphssl.tokens.grids import Patches as Patches
from graphssl.tokens.grids import Tubelets as Tubelets
from graphssl.tokens.items import KINDS as KINDS
from graphssl.tokens.items import Items as Items
from graphssl.tokens.points import PointGroups as PointGroups
from graphssl.tokens.skeletons import Joints as Joints

MOST = 64  # tokens of an image by default


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
    """How items are cut where nobody says: with edges among neighbours, so that every method takes them."""
    shape = items.shape
    if items.kind == "images":
        return Patches(side_of(shape[1], shape[2]))
    if items.kind == "videos":
        return Tubelets(2 if (shape[0] or 2) % 2 == 0 else 1, side_of(shape[2], shape[3]))
    if items.kind == "voxels":
        return Cubes(side_of(shape[1], shape[2], most=6))
    if items.kind == "points":
        least = min(len(value) for value in items.values) if shape[0] is None else shape[0]
        return PointGroups(min(32, least), min(16, least))
    return Joints()


def side_of(height: int | None, width: int | None, most: int = 8) -> int:
    """The least side above 1 that cuts both into ``most`` pieces each at most; of images above 64 pixels twice that."""
    if height is None or width is None:
        return 4
    most = most if max(height, width) <= 64 else 2 * most
    fits = [n for n in range(2, min(height, width) + 1) if height % n == 0 and width % n == 0]
    few = [n for n in fits if max(height, width) // n <= most]
    return few[0] if few else (fits[-1] if fits else 1)
