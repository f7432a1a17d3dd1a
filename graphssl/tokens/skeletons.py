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
from graphssl.tokens.edges import repeat_edges
from graphssl.tokens.items import numbers


@dataclass(frozen=True)
class Skeleton:
    """Which joints there are, which are linked by a bone, and which part of the body each is of: its limb."""

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    parts: tuple[int, ...] = ()  # of each joint; none: its limb, as ``limbs`` has it

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts) or limbs(self.bones, len(self.joints)))


def limbs(bones: Sequence[tuple[int, int]], joints: int) -> tuple[int, ...]:
    """The part of each joint: 0 the trunk, 1, 2, ... the limbs, by their outermost joint.

    A limb is a chain of bones from its outermost joint up to, not including, the first one with three bones or more.
    A joint without bones is a limb by itself.
    """
    near: list[list[int]] = [[] for _ in range(joints)]
    for a, b in bones:
        near[a].append(b)
        near[b].append(a)
    parts = [0] * joints
    for end in range(joints):
        at, part = end, max(parts, default=0) + 1
        while len(near[end]) < 2 and len(near[at]) < 3 and not parts[at]:
            parts[at] = part
            at = next((joint for joint in near[at] if not parts[joint]), at)
    return tuple(parts)


KINECT = Skeleton(
    "kinect-v1",  # the order of the Kinect SDK 1.x, as in UTKinect
    (
        "hip centre", "spine", "shoulder centre", "head", "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand", "left hip", "left knee", "left ankle",
        "left foot", "right hip", "right knee", "right ankle", "right foot",
    ),
    (
        (0, 1), (1, 2), (2, 3), (2, 4), (4, 5), (5, 6), (6, 7), (2, 8), (8, 9), (9, 10), (10, 11), (0, 12), (12, 13),
        (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19),
    ),
)  # fmt: skip
MSR = Skeleton(
    "msr-action3d",  # the bones of the set's drawskt.m; the right side is the one that its subjects act with
    (
        "left shoulder", "right shoulder", "shoulder centre", "spine", "left hip", "right hip", "hip centre",
        "left elbow", "right elbow", "left wrist", "right wrist", "left hand", "right hand", "left knee", "right knee",
        "left ankle", "right ankle", "left foot", "right foot", "head",
    ),
    (
        (19, 2), (0, 2), (1, 2), (0, 7), (7, 9), (9, 11), (1, 8), (8, 10), (10, 12), (2, 3), (3, 6), (6, 4), (6, 5),
        (4, 13), (5, 14), (13, 15), (14, 16), (15, 17), (16, 18),
    ),
)  # fmt: skip
STICK = Skeleton(
    "stick-figure",  # of the set stick-figures
    (
        "hips", "chest", "neck", "head", "left shoulder", "left elbow", "left hand", "right shoulder", "right elbow",
        "right hand", "left hip", "left knee", "left foot", "right hip", "right knee", "right foot",
    ),
    (
        (0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (5, 6), (1, 7), (7, 8), (8, 9), (0, 10), (10, 11), (11, 12), (0, 13),
        (13, 14), (14, 15),
    ),
)  # fmt: skip
SKELETONS = {skeleton.name: skeleton for skeleton in (KINECT, MSR, STICK)}


@dataclass(frozen=True)
class Joints:
    """Skeleton sequences [B, T, J, d] to graphs of a token for each joint and step of ``frames`` frames.

    A token's content is the joint's ``frames`` places, laid flat, each less the middle of all joints in the sequence's
    first frame and, with ``scale``, divided by the sequence's size (the root of the mean square of places so taken);
    ``pos`` is (step, joint). Edges join the ends of ``bones`` within a step, and the same joint one step before and
    after. ``steps`` brings sequences to that many steps first, by linear interpolation; None keeps their length, and
    frames beyond the last full step are dropped.
    """

    bones: tuple[tuple[int, int], ...] = ()
    frames: int = 1
    steps: int | None = 16
    scale: bool = True
    kind: ClassVar[str] = "skeletons"
    costly: ClassVar[bool] = True

    def __post_init__(self):
        bones = tuple(tuple(int(joint) for joint in bone) for bone in self.bones)
        for bone in bones:
            if len(set(bone)) != 2 or min(bone) < 0:
                raise UserError(f"a bone joins joints {list(bone)}; give each bone as two different joints from 0")
        object.__setattr__(self, "bones", bones)
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
        if T == 0:
            raise UserError("a sequence has no frames; leave it out")
        if self.steps is None and T is not None and self.frames > T:
            raise UserError(f"a sequence of {T} frames has no step of {self.frames}; choose frames of {T} at most")
        return self.frames * d

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        if isinstance(values, list):
            return Graph.stack([self(value[None]) for value in values])
        self.width(values.shape[1:])
        places = numbers(values)
        (B, _, J, d), device = places.shape, places.device
        if self.steps is not None:
            total = self.steps * self.frames
            moved = F.interpolate(places.flatten(2).transpose(1, 2), size=total, mode="linear", align_corners=True)
            places = moved.transpose(1, 2).unflatten(2, (J, d))
        places = places - places[:, :1].mean(2, keepdim=True)
        if self.scale:
            places = places / places.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        S = places.size(1) // self.frames
        steps = places[:, : S * self.frames].unflatten(1, (S, self.frames)).transpose(2, 3)  # [B, S, J, frames, d]
        pos = torch.cartesian_prod(torch.arange(S, device=device), torch.arange(J, device=device))
        return Graph(
            x=steps.reshape(B * S * J, -1), pos=pos.float().repeat(B, 1), sizes=(S * J,) * B,
            edge_index=repeat_edges(joint_edges(self.bones, J, S).to(device), S * J, B),
            batch=torch.arange(B, device=device).repeat_interleave(S * J),
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


def bones_of(skeleton: str | Sequence[tuple[int, int]] | None, joints: int | None) -> tuple[tuple[int, int], ...]:
    """The bones of a ``skeleton``, a name or pairs of joints, for sequences of ``joints`` joints; none of None.

    UserError for an unknown name, a named skeleton of another number of joints, and what is no pairs.
    """
    if skeleton is None:
        return ()
    if isinstance(skeleton, str):
        named = named_skeleton(skeleton)
        if joints not in (None, len(named.joints)):
            raise UserError(
                f"the skeleton {skeleton!r} has {len(named.joints)} joints, but the sequences have {joints}; give its "
                "bones as pairs of joints, skeleton=[(0, 1), (1, 2)]"
            )
        return named.bones
    try:
        return tuple((int(a), int(b)) for a, b in skeleton)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the skeleton is {skeleton!r}; give a name ({', '.join(SKELETONS)}) or bones as pairs of joints, "
            "skeleton=[(0, 1), (1, 2)]"
        ) from error
