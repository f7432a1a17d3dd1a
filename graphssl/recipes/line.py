"""LINE's settings: Tang et al. 2015, arXiv:1503.03578; tangjianpku/LINE at 2abea47, train_youtube.sh."""

from __future__ import annotations

from functools import partial

from torch.optim import SGD

from graphssl.backbones import Backbone, Layer, Table
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods import LINE
from graphssl.recipes.base import Plan, Spec, recipe

FEWEST = 32  # edges a step, so that a small graph does not take thousands of steps


def to_zero(progress: float) -> float:
    """A linear fall from 1, not below 1e-4, as in the reference."""
    return max(1 - progress, 1e-4)


@recipe("line")
def line(
    spec: Spec, *, width: int = 128, negatives: int = 5, samples: int = 200, lr: float = 0.025,
    epochs: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Two tables of codes learned by edge sampling: who is tied to whom, and who shares neighbours; edges only.

    Width, negatives and rate are the reference's; codes are both tables of ``width`` side by side. Each edge is drawn
    about ``samples`` times in all; a step, which ``epochs`` counts, draws a quarter as many edges as there are nodes
    (32 at least), so that a node meets one or two of them and steps stay close to the reference's one edge at a time.
    Edges count in both directions. It embeds the graph that it was trained on and no other.
    """
    if spec.task == "graph":
        raise UserError(
            "line learns a row for each node of one graph and cannot embed another; for a list of graphs take a method "
            "that trains an encoder, such as graphmae"
        )
    if spec.edges == 0:
        raise UserError("line learns by sampling edges, but the data has none; use graphmae, or give edges")
    step = max(FEWEST, spec.nodes // 4)
    encoder = Encoder(Backbone([Layer(Table(spec.nodes, width), spec.dim, 2 * width)]))
    return Plan(
        method=LINE(encoder, step, negatives), optimizer=partial(SGD, lr=lr), schedule=to_zero, clip=clip,
        epochs=-(-samples * spec.edges // step) if epochs is None else epochs, transform=Transform(undirected=True),
    )  # fmt: skip
