"""Point clouds to local groups around far points: Point-MAE, ECCV 2022, arXiv:2203.06604."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.tokens.edges import check_edges, position_edges
from graphssl.tokens.items import numbers


@dataclass(frozen=True)
class PointGroups:
    """Point clouds [B, P, 3 (+C)] to ``groups`` far points each, with their ``neighbours`` nearest points as content.

    A group's content is [neighbours * (3 + C)]: places less the centre's, then what else a point carries; ``pos`` is
    the centre. Each cloud is first centred and scaled to a largest distance of 1 from its middle.
    """

    groups: int = 32
    neighbours: int = 16
    edges: str = "knn8"
    kind: ClassVar[str] = "points"
    costly: ClassVar[bool] = True

    def __post_init__(self):
        check_edges(self.edges)

    def width(self, shape: Sequence[int | None]) -> int:
        """Numbers in a group; UserError where clouds of ``shape`` [P, 3 (+C)] have too few points."""
        P, C = shape
        need = max(self.groups, self.neighbours)
        if P is not None and need > P:
            raise UserError(
                f"a cloud of {P} points has no {self.groups} groups of {self.neighbours} points; choose groups and "
                f"neighbours of {P} at most"
            )
        if C is None:
            raise UserError("the points carry different numbers of values; give all the same")
        return self.neighbours * C

    def __call__(self, values: Tensor | list[Tensor]) -> Graph:
        if isinstance(values, list):
            return Graph.stack([self(value[None]) for value in values])
        self.width(values.shape[1:])
        points = numbers(values)
        places = points[..., :3] - points[..., :3].mean(1, keepdim=True)
        places = places / places.norm(dim=-1).amax(1)[:, None, None].clamp(min=1e-12)
        points = torch.cat([places, points[..., 3:]], dim=-1)
        B, L, device = len(points), self.groups, points.device
        centres = farthest(places, L)
        pos = places.gather(1, centres[..., None].expand(-1, -1, 3))
        near = torch.cdist(pos, places).topk(self.neighbours, largest=False).indices
        members = points[torch.arange(B, device=device)[:, None, None], near]
        members = torch.cat([members[..., :3] - pos[:, :, None], members[..., 3:]], dim=-1)
        edges = [position_edges(p, self.edges) + b * L for b, p in enumerate(pos)]
        batch = torch.arange(B, device=device).repeat_interleave(L)
        x = members.reshape(B * L, -1)
        return Graph(x=x, edge_index=torch.cat(edges, 1), batch=batch, sizes=(L,) * B, pos=pos.reshape(-1, 3))

    def back(self, graph: Graph, content: Tensor) -> list[Tensor]:
        """Point clouds [groups * neighbours, 3 (+C)], one a graph: each group's points at their centre again."""
        assert graph.pos is not None
        members = content.unflatten(1, (self.neighbours, -1))
        members = torch.cat([members[..., :3] + graph.pos[:, None], members[..., 3:]], dim=-1)
        return [part.flatten(0, 1) for part in members.split(list(graph.sizes))]


def farthest(points: Tensor, count: int) -> Tensor:
    """Indices [B, count] of points [B, P, 3] each as far as can be from those before it.

    The first is the one farthest from the cloud's middle, and the lower number wins among equals, so that clouds whose
    points stand in another order give the same points.
    """
    B = len(points)
    rows = torch.arange(B, device=points.device)
    away = (points - points.mean(1, keepdim=True)).square().sum(-1)
    chosen = torch.empty(B, count, dtype=torch.long, device=points.device)
    chosen[:, 0] = away.argmax(1)
    away = torch.full_like(away, torch.inf)
    for i in range(1, count):
        latest = points[rows, chosen[:, i - 1]]
        away = torch.minimum(away, (points - latest[:, None]).square().sum(-1))
        chosen[:, i] = away.argmax(1)
    return chosen
