"""Point clouds to local groups around far points: Point-MAE, ECCV 2022, arXiv:2203.06604."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.tokens.edges import FREE, check_edges, distances, position_edges
from graphssl.tokens.items import numbers


@dataclass(frozen=True)
class PointGroups:
    """Point clouds [B, P, 3 (+C)] to ``groups`` far points each, with their ``neighbours`` nearest points as content.

    A group's content is [neighbours * (3 + C)], nearest first: places less the centre's, then what else a point
    carries; ``pos`` is the centre. Each cloud is first centred and scaled to a largest distance of 1 from its middle,
    and its points are put in order, so that the order in which they came makes no difference.
    """

    groups: int = 32
    neighbours: int = 16
    edges: str = "knn8"
    kind: ClassVar[str] = "points"
    costly: ClassVar[bool] = True

    def __post_init__(self):
        check_edges(self.edges, FREE)
        if self.groups < 1 or self.neighbours < 1:
            raise UserError(
                f"cannot cut a cloud into {self.groups} groups of {self.neighbours} points; choose 1 or more"
            )

    def width(self, shape: Sequence[int | None]) -> int:
        """Numbers in a group; UserError where clouds of ``shape`` [P, 3 (+C)] cannot be cut so."""
        P, C = shape
        if C is None:
            raise UserError("the points carry different numbers of values; give all the same")
        if C < 3:
            raise UserError(
                f"the points carry {C} numbers each; give three coordinates, and what else they carry after"
            )
        if P is not None and max(self.groups, self.neighbours) > P:
            raise UserError(
                f"a cloud of {P} points has no {self.groups} groups of {self.neighbours} points; choose groups and "
                f"neighbours of {P} at most"
            )
        return self.neighbours * C

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        if isinstance(values, list):
            return Graph.stack([self(value[None]) for value in values])
        self.width(values.shape[1:])
        points = normalized(in_order(numbers(values)))
        places, (B, L), device = points[..., :3], (len(points), self.groups), points.device
        cloud = torch.arange(B, device=device)[:, None]
        pos = places[cloud, farthest(places, L)]
        nearest = distances(pos, places).topk(self.neighbours, largest=False).indices
        members = shifted(points[cloud[..., None], nearest], -pos)
        return Graph(
            x=members.reshape(B * L, -1), edge_index=position_edges(pos, self.edges), pos=pos.reshape(-1, 3),
            batch=torch.arange(B, device=device).repeat_interleave(L), sizes=(L,) * B,
        )  # fmt: skip

    def back(self, graph: Graph, content: Tensor) -> list[Tensor]:
        """Point clouds [groups * neighbours, 3 (+C)], one a graph: each group's points at their centre again.

        They stand in the normalised cloud; a point that several groups have comes as often.
        """
        assert graph.pos is not None
        members = shifted(content.unflatten(1, (self.neighbours, -1)), graph.pos)
        return [part.flatten(0, 1) for part in members.split(list(graph.sizes))]


def in_order(points: Tensor) -> Tensor:
    """The points of each cloud [B, P, C], by their first number, then by the second, and so on."""
    for column in reversed(range(points.size(2))):
        order = points[..., column].argsort(dim=1, stable=True)
        points = points.gather(1, order[..., None].expand_as(points))
    return points


def normalized(points: Tensor) -> Tensor:
    """Clouds [B, P, 3 (+C)] around 0, their farthest point at a distance of 1; a cloud of one place stays there."""
    places = points[..., :3] - points[..., :3].mean(1, keepdim=True)
    size = places.norm(dim=-1).amax(1)[:, None, None]
    return torch.cat([places / size.clamp(min=1e-12), points[..., 3:]], dim=-1)


def shifted(members: Tensor, by: Tensor) -> Tensor:
    """Points [..., k, 3 (+C)] moved ``by`` [..., 3]; what else they carry stays."""
    return torch.cat([members[..., :3] + by[..., None, :], members[..., 3:]], dim=-1)


def farthest(points: Tensor, count: int) -> Tensor:
    """Indices [B, count] of points [B, P, 3], each as far as can be from those before it.

    The first is the one farthest from the cloud's middle; the reference starts at the first point instead. The lower
    number wins among equals.
    """
    cloud = torch.arange(len(points), device=points.device)
    away = (points - points.mean(1, keepdim=True)).square().sum(-1)
    chosen = [away.argmax(1)]
    away = torch.full_like(away, torch.inf)
    for _ in range(count - 1):
        latest = points[cloud, chosen[-1]]
        away = torch.minimum(away, (points - latest[:, None]).square().sum(-1))
        chosen.append(away.argmax(1))
    return torch.stack(chosen, dim=1)
