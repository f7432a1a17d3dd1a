"""Blend: one student of several frozen teachers, weighed node by node without labels. Ours, after WAS.

It is not the paper's method (Fan et al., ICLR 2024, arXiv:2403.01400), which needs labels: that is ``graphssl.was``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import standardise
from graphssl.methods.base import Method, mark_of


class Blend(Method):
    """Predicts each teacher's codes of a node, and heeds the teachers that can be predicted from the graph.

    ``teachers`` are codes of all nodes of the data, [N, D] each, such as ``run.embed()``; they are standardised, so
    that predicting nothing leaves an error of 1. A linear head a teacher learns to predict them from the student's
    codes, whatever the teacher's weight. Student and heads minimise the heads' errors, a teacher weighing
    softmax(-error / ``tau``) at a node: the weights of the least error less ``tau`` times their entropy. A teacher of
    noise cannot be predicted, keeps its error and loses its weight; one that content alone gives away keeps its own,
    useful or not. Only the ``keep`` teachers of the highest weight count at a node (None: all do).

    The codes are no part of the weights: to load a run, hand in such an object again, and to go on with it one with
    the very same codes.
    """

    why_whole = "its teachers' codes are of all nodes"
    mark: Tensor  # of the teachers' codes, kept with the weights

    def __init__(self, encoder: Encoder, teachers: Sequence[Tensor], tau: float = 0.2, keep: int | None = None):
        super().__init__()
        if len(teachers) < 2:
            raise ValueError(f"got {len(teachers)} teachers to blend; give two or more")
        if not tau > 0:
            raise ValueError(f"cannot weigh teachers at a temperature of {tau}; choose one above 0")
        if keep is not None and not 1 <= keep <= len(teachers):
            raise ValueError(f"cannot keep {keep} of {len(teachers)} teachers; choose from 1 to {len(teachers)}")
        if len({len(codes) for codes in teachers}) > 1:
            raise ValueError(f"teachers have {[len(codes) for codes in teachers]} rows; give each one row a node")
        self.encoder, self.tau, self.keep = encoder, tau, keep or len(teachers)
        given = [torch.as_tensor(codes).detach().float() for codes in teachers]
        self.register_buffer("mark", mark_of(given))
        self.own_mark = int(self.mark)
        for place, codes in enumerate(given):
            target = standardise(codes)
            target = target[:, target.any(0)]  # a column without spread is predicted by nothing learned
            if target.numel() == 0 or not target.isfinite().all():
                raise ValueError(f"the codes of teacher {place + 1} do not vary or are not finite; leave it out")
            self.register_buffer(f"target_{place}", target, persistent=False)
        widths = [self._target(place).size(1) for place in range(len(teachers))]
        self.heads = nn.ModuleList(nn.Linear(encoder.dim, width) for width in widths)
        self.shares = torch.full((len(teachers),), 1 / len(teachers))  # of the last step, for the log

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        if int(self.mark) != self.own_mark:
            raise UserError("the run to go on with has other teachers; hand in the very codes that it began with")
        codes, targets = self.encoder(graph), self._targets(graph)
        learning = errors(self.heads, codes.detach(), targets)  # no weights: heads of little weight go on learning
        weights = blend(learning.detach(), self.tau, self.keep)
        self.shares = weights.mean(0)
        return {"codes": (weights * errors(self.heads, codes, targets)).sum(1).mean(), "heads": learning.mean()}

    def logged(self) -> dict[str, Tensor]:
        """The mean weight of each teacher in the last step."""
        return {f"teacher {place + 1} weight": share for place, share in enumerate(self.shares)}

    def _target(self, place: int) -> Tensor:
        return self.get_buffer(f"target_{place}")

    def _targets(self, graph: Graph) -> list[Tensor]:
        """The teachers' codes of the graph's nodes; UserError where they are of other data."""
        targets = [self._target(place) for place in range(len(self.heads))]
        if graph.rows is not None:
            return [target[graph.rows] for target in targets]
        if len(targets[0]) != graph.num_nodes:
            raise UserError(
                f"the teachers' codes are of {len(targets[0])} nodes, but the graph has {graph.num_nodes}; blend "
                "teachers of one graph, and hand in their codes of it: [run.embed() for run in runs]"
            )
        return targets


def errors(heads: nn.ModuleList, codes: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Mean squared error at each node of each of S heads, [N, S], from ``codes`` [N, D] to ``targets`` [N, D_s]."""
    pairs = zip(heads, targets, strict=True)
    return torch.stack([(head(codes).float() - target).square().mean(1) for head, target in pairs], 1)


def blend(error: Tensor, tau: float, keep: int) -> Tensor:
    """softmax(-``error`` / ``tau``) over the columns of [N, S], of each row's ``keep`` largest; the others are zero."""
    scores = -error / tau
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(keep, dim=1).indices, True)
    return scores.masked_fill(~chosen, -torch.inf).softmax(1)
