"""Sequences of moving joints to graphs of joints in space and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl.errors import UserError, unknown
from graphssl.graph import Graph
from graphssl.tokens.items import numbers


@dataclass(frozen=True)
class Skeleton:
    """Which joints are linked by a bone, and which part of the body each joint is of."""

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    parts: tuple[int, ...]  # the part of each joint, from 0


KINECT = Skeleton(
    "kinect-v1",
    (
        "hip centre", "spine", "shoulder centre", "head", "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand", "left hip", "left knee", "left ankle",
        "left foot", "right hip", "right knee", "right ankle", "right foot",
    ),
    (
        (0, 1), (1, 2), (2, 3), (2, 4), (4, 5), (5, 6), (6, 7), (2, 8), (8, 9), (9, 10), (10, 11), (0, 12), (12, 13),
        (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19),
    ),
    (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4),
)  # fmt: skip
SKELETONS = {"kinect-v1": KINECT}


@dataclass(frozen=True)
class Joints:
    """Skeleton sequences [B, T, J, d] to graphs of a token for each joint and step of ``frames`` frames.

    A token's content is the joint's ``frames`` places, laid flat, each less the first joint's of the sequence's first
    frame and divided by the sequence's size (the root of the mean square of places so taken); ``pos`` is (step, joint).
    Edges join bones within a step and the same joint one step before and after. ``steps`` brings sequences to that many
    steps first, by linear interpolation; None keeps their length, and frames beyond the last full step are dropped.
    """

    bones: tuple[tuple[int, int], ...] = ()
    frames: int = 1
    steps: int | None = 16
    kind: ClassVar[str] = "skeletons"
    costly: ClassVar[bool] = True

    def __post_init__(self):
        object.__setattr__(self, "bones", tuple(tuple(bone) for bone in self.bones))
        if self.frames < 1 or (self.steps is not None and self.steps < 1):
            raise UserError(f"cannot cut sequences into {self.steps} steps of {self.frames} frames; choose 1 or more")

    def width(self, shape: Sequence[int | None]) -> int:
        """Numbers in a token of sequences of ``shape`` [T, J, d]; UserError where they do not fit."""
        T, J, d = shape
        if J is None or d is None:
            raise UserError("the sequences have different numbers of joints or coordinates; give all the same")
        last = max((max(bone) for bone in self.bones), default=0)
        if last >= J:
            raise UserError(f"the skeleton has a bone to joint {last}, but the sequences have joints 0 to {J - 1}")
        if self.steps is None and T is not None and self.frames > T:
            raise UserError(f"a sequence of {T} frames has no step of {self.frames}; choose frames of {T} at most")
        return self.frames * d

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        if isinstance(values, list):
            return Graph.stack([self(value[None]) for value in values])
        self.width(values.shape[1:])
        places = numbers(values)
        B, _, J, d = places.shape
        if self.steps is not None:
            total = self.steps * self.frames
            moved = F.interpolate(places.flatten(2).transpose(1, 2), size=total, mode="linear", align_corners=True)
            places = moved.transpose(1, 2).unflatten(2, (J, d))
        places = places - places[:, :1, :1]
        size = places.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        places = places / size
        S = places.size(1) // self.frames
        steps = places[:, : S * self.frames].unflatten(1, (S, self.frames)).permute(0, 1, 3, 2, 4)  # [B, S, J, f, d]
        pos = torch.cartesian_prod(torch.arange(S, device=places.device), torch.arange(J, device=places.device))
        one = joint_edges(self.bones, J, S).to(places.device)
        offset = torch.arange(B, device=places.device) * S * J
        edges = (one[:, None] + offset[:, None]).reshape(2, -1)
        return Graph(
            x=steps.reshape(B * S * J, -1), edge_index=edges, pos=pos.float().repeat(B, 1), sizes=(S * J,) * B,
            batch=torch.arange(B, device=places.device).repeat_interleave(S * J),
        )  # fmt: skip

    def back(self, graph: Graph, content: Tensor) -> list[Tensor]:
        """Sequences [T, J, d], one a graph, from the ``content`` [N, F] of their tokens, placed and scaled as there."""
        assert graph.pos is not None
        whole = []
        for pos, x in zip(graph.pos.split(list(graph.sizes)), content.split(list(graph.sizes)), strict=True):
            S, J = (pos.amax(0) + 1).long().tolist()
            whole.append(x.reshape(S, J, self.frames, -1).transpose(1, 2).flatten(0, 1))
        return whole


@lru_cache(maxsize=64)
def joint_edges(bones: tuple[tuple[int, int], ...], joints: int, steps: int) -> Tensor:
    """Edges [2, E] of ``steps`` steps of a skeleton: bones both ways, and each joint to itself a step off; sorted."""
    pair = torch.tensor(bones, dtype=torch.long).reshape(-1, 2).T
    within = torch.cat([pair, pair.flip(0)], 1)
    space = (within[:, None] + torch.arange(steps)[:, None] * joints).reshape(2, -1)
    early = torch.arange((steps - 1) * joints)
    time = torch.stack([early, early + joints])
    edges = torch.cat([space, time, time.flip(0)], 1).unique(dim=1)
    return edges[:, (edges[1] * joints * steps + edges[0]).argsort()]


def named_skeleton(name: str) -> Skeleton:
    """The skeleton of that name; UserError with the nearest names otherwise."""
    if name not in SKELETONS:
        raise unknown("skeleton", name, SKELETONS)
    return SKELETONS[name]
