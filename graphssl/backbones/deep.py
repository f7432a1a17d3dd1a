"""What may stand around layers: an embedding with encodings before them, a virtual node among, jumps behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import Backbone, Step
from graphssl.backbones.virtual import VirtualNode
from graphssl.errors import UserError
from graphssl.graph import Graph

JUMPS = ("cat", "max", "sum")


class Jump(nn.Module):
    """Jumping knowledge, Xu et al. 2018, arXiv:1806.03536: the codes after all layers as one of the last's width.

    "max" and "sum" go by entries; "cat" is a linear map of all side by side, as in PyG's BasicGNN.
    """

    def __init__(self, how: str, widths: Sequence[int]):
        super().__init__()
        if how != "cat" and len(set(widths)) > 1:
            raise UserError(f"jk-{how} goes by entries and cannot join layers of widths {[*widths]}; choose jk-cat")
        self.how = how
        self.join = nn.Linear(sum(widths), widths[-1]) if how == "cat" else None

    def forward(self, found: list[Tensor]) -> Tensor:
        """Codes [N, width] after each layer to [N, last width]."""
        if self.join is not None:
            return self.join(torch.cat(found, dim=1))
        stacked = torch.stack(found)
        return stacked.amax(0) if self.how == "max" else stacked.sum(0)


class Deep(Backbone):
    """Content [N, dim_in] to codes [N, dim] by ``layers`` and what stands around them.

    ``embed`` maps content to what the first layer takes; None: content is taken as it is. ``encodings`` (graph) ->
    [N, width] are added to it. ``virtual`` is a state a graph between layers, ``jump`` joins the codes after all of
    them, ``norm`` comes last.
    """

    def __init__(
        self, layers: Sequence[Step], *, embed: nn.Linear | None = None, encodings: Sequence[nn.Module] = (),
        virtual: VirtualNode | None = None, jump: Jump | None = None, norm: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__(layers)
        if embed is not None:
            self.dim_in = embed.in_features
        self.embed, self.encodings, self.virtual, self.jump = embed, nn.ModuleList(encodings), virtual, jump
        self.norm = norm or nn.Identity()

    def forward(self, graph: Graph, h: ops.Content, rows: Tensor | None = None) -> Tensor:
        codes = deque(self.walk(graph, h), maxlen=1).pop()
        return codes if rows is None else codes[rows]

    def walk(self, graph: Graph, h: ops.Content) -> Iterator[Tensor]:
        """The codes after each layer; in place of the last layer's, those of the whole."""
        h = h if self.embed is None else self.embed(h)
        for encoding in self.encodings:
            h = ops.dense(h) + encoding(graph)
        state = None if self.virtual is None else self.virtual.begin(graph)
        found: list[Tensor] = []
        for place, layer in enumerate(self.layers, 1):
            if state is not None:
                h = ops.dense(h) + state[graph.batch]
            out: Tensor = layer(graph, h)
            if self.jump is not None:
                found.append(out)
            if place == len(self.layers):
                yield self.norm(out if self.jump is None else self.jump(found))
                return
            yield out
            if self.virtual is not None and state is not None:
                state = self.virtual.update(place - 1, graph, ops.dense(h), state)
            h = out
