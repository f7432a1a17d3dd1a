"""What methods that hide nodes share: a masker that goes with training, and what becomes of the hidden content."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl import ops
from graphssl.graph import Graph
from graphssl.losses import normalize_rows, row_moments, scaled_cosine
from graphssl.masks import Masker, Ramp, at
from graphssl.methods.base import Method


class Masked(Method):
    """A Method with a ``masker`` of nodes; one that is a ``Ramp`` goes with the progress of training."""

    progress: Tensor | None  # how much of training is done, kept with the weights; None: the masker does not ask

    def __init__(self, masker: Masker | Ramp):
        super().__init__()
        self.register_buffer("progress", torch.zeros(()) if isinstance(masker, Ramp) else None)
        self.masker = masker

    def hide(self, graph: Graph, generator: Generator | None = None, progress: float | None = None) -> Tensor:
        """What the masker hides, [N] or [views, N], at this point of training or at a given ``progress``."""
        if progress is None:
            progress = 0.0 if self.progress is None else float(self.progress)
        return at(self.masker, progress)(graph, generator)

    def after_step(self, progress: float) -> None:
        if self.progress is not None:
            self.progress.fill_(progress)


def fill(shown: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
    """[N, D] of what is ``shown`` [N - M, D], in order, and the ``token`` [D] where ``hidden`` [N] is true."""
    return token.to(shown.dtype).repeat(len(hidden), 1).index_put((~hidden,), shown)


def target(graph: Graph, hidden: Tensor, normalize: bool, channels: int = 1) -> Tensor:
    """Content [M, F] of the ``hidden`` nodes; ``normalize`` takes ``normalize_rows`` of it."""
    content = ops.dense(graph.x[hidden])
    return normalize_rows(content, channels) if normalize else content


def put_back(graph: Graph, hidden: Tensor, said: Tensor, normalized: bool = False, channels: int = 1) -> Tensor:
    """All content [N, F] with what is ``said`` [M, F] of the ``hidden`` nodes in place of theirs.

    Where it is ``normalized``, each gets the mean and the deviation of its true content, which were no part of the
    task.
    """
    content = ops.dense(graph.x).clone()
    if normalized:
        mean, deviation = row_moments(content[hidden], channels)
        said = said * deviation + mean
    content[hidden] = said.to(content.dtype)
    return content


def scaled_back(graph: Graph, hidden: Tensor, said: Tensor, loss: Callable) -> Tensor:
    """``said`` [M, F] of the ``hidden`` nodes; where the ``loss`` is of directions alone, as long as their content."""
    if getattr(loss, "func", loss) is not scaled_cosine:
        return said
    return F.normalize(said, dim=1) * ops.dense(graph.x[hidden]).norm(dim=1, keepdim=True)
