"""Images to patches, videos to tubelets, voxel grids to cubes: arrays cut along their axes, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.tokens.edges import check_choice, check_edges, grid_edges, repeat_edges
from graphssl.tokens.items import numbers


def cut(values: Tensor, sizes: tuple[int, ...], edges: str) -> Graph:
    """``values`` [B, *S, C] to B graphs of pieces of ``sizes`` along S with their numbers as content, channels last.

    ``pos`` counts pieces along each axis; pieces are numbered with the last axis running fastest.
    """
    B, C = values.size(0), values.size(-1)
    counts = tuple(total // size for total, size in zip(values.shape[1:-1], sizes, strict=True))
    L, d = prod(counts), len(sizes)
    parted = numbers(values).reshape(B, *(n for pair in zip(counts, sizes, strict=True) for n in pair), C)
    order = [0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1]
    x = parted.permute(order).reshape(B * L, -1)
    device = values.device
    pos = torch.cartesian_prod(*(torch.arange(n, device=device) for n in counts)).reshape(L, d).float()
    batch = torch.arange(B, device=device).repeat_interleave(L)
    joined = repeat_edges(grid_edges(counts, edges).to(device), L, B)
    return Graph(x=x, edge_index=joined, batch=batch, sizes=(L,) * B, pos=pos.repeat(B, 1))


def paste(graph: Graph, content: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """The arrays [*S, C], one a graph, that ``cut`` made ``graph`` of, with ``content`` [N, F] in place of its own."""
    d, whole = len(sizes), []
    channels = content.size(1) // prod(sizes)
    assert graph.pos is not None
    for pos, x in zip(graph.pos.split(list(graph.sizes)), content.split(list(graph.sizes)), strict=True):
        counts = (pos.amax(0) + 1).long().tolist()
        parted = x.reshape(*counts, *sizes, channels)
        order = [axis for pair in zip(range(d), range(d, 2 * d), strict=True) for axis in pair]
        whole.append(parted.permute(*order, 2 * d).reshape(*(n * s for n, s in zip(counts, sizes, strict=True)), -1))
    return whole


@dataclass(frozen=True)
class Patches:
    """Images [B, C, H, W] to graphs of square patches of ``size`` x ``size`` pixels at ``pos`` (row, column)."""

    size: int
    edges: str = "diagonal"
    kind: ClassVar[str] = "images"
    costly: ClassVar[bool] = False  # whether tokens are worth keeping between epochs

    def __post_init__(self):
        check_edges(self.edges)

    def width(self, shape: Sequence[int | None]) -> int:
        """Numbers in a patch of an image of ``shape`` [C, H, W]; UserError where it cannot be cut so."""
        C, H, W = shape
        for side, what in ((H, "rows"), (W, "columns")):
            if side is not None:
                check_choice("patch", self.size, side, what)
        if C is None:
            raise UserError("the images have different numbers of channels; give all the same")
        return C * self.size**2

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        if isinstance(values, list):
            return Graph.stack([self(value[None]) for value in values])
        self.width(values.shape[1:])
        return cut(values.permute(0, 2, 3, 1), (self.size, self.size), self.edges)

    def back(self, graph: Graph, content: Tensor) -> list[Tensor]:
        """Images [C, H, W], one a graph, from the ``content`` [N, F] of their patches."""
        return [image.permute(2, 0, 1) for image in paste(graph, content, (self.size, self.size))]


@dataclass(frozen=True)
class Tubelets:
    """Videos [B, T, C, H, W] to graphs of tubelets of ``frames`` x ``size`` x ``size`` at ``pos`` (time, row, column).

    Edges "grid" join neighbours in space and the same place one step before and after.
    """

    frames: int
    size: int
    edges: str = "grid"
    kind: ClassVar[str] = "videos"
    costly: ClassVar[bool] = False

    def __post_init__(self):
        check_edges(self.edges)

    def width(self, shape: Sequence[int | None]) -> int:
        """Numbers in a tubelet of a video of ``shape`` [T, C, H, W]; UserError where it cannot be cut so."""
        T, C, H, W = shape
        if T is not None:
            check_choice("frames", self.frames, T, "frames")
        return self.frames * Patches(self.size).width((C, H, W))

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        if isinstance(values, list):
            return Graph.stack([self(value[None]) for value in values])
        self.width(values.shape[1:])
        return cut(values.permute(0, 1, 3, 4, 2), (self.frames, self.size, self.size), self.edges)

    def back(self, graph: Graph, content: Tensor) -> list[Tensor]:
        """Videos [T, C, H, W], one a graph, from the ``content`` [N, F] of their tubelets."""
        return [video.permute(0, 3, 1, 2) for video in paste(graph, content, (self.frames, self.size, self.size))]


@dataclass(frozen=True)
class Cubes:
    """Voxel grids [B, D, H, W] to graphs of cubes of ``size`` voxels a side at ``pos`` (depth, row, column)."""

    size: int
    edges: str = "grid"
    kind: ClassVar[str] = "voxels"
    costly: ClassVar[bool] = False

    def __post_init__(self):
        check_edges(self.edges)

    def width(self, shape: Sequence[int | None]) -> int:
        """Voxels in a cube; UserError where a grid of ``shape`` [D, H, W] cannot be cut so."""
        for side, what in zip(shape, ("layers", "rows", "columns"), strict=True):
            if side is not None:
                check_choice("patch", self.size, side, what)
        return self.size**3

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        if isinstance(values, list):
            return Graph.stack([self(value[None]) for value in values])
        self.width(values.shape[1:])
        return cut(values[..., None], (self.size,) * 3, self.edges)

    def back(self, graph: Graph, content: Tensor) -> list[Tensor]:
        """Voxel grids [D, H, W], one a graph, from the ``content`` [N, F] of their cubes."""
        return [grid[..., 0] for grid in paste(graph, content, (self.size,) * 3)]
