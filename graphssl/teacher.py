"""A frozen copy of a module that follows it."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


class Teacher(nn.Module):
    """A copy of ``student`` whose weights follow: w_t <- m w_t + (1 - m) w_s; never trained by gradient.

    Buffers (batch-norm statistics) are the teacher's own, as in BGRL.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Moves the weights a share 1 - ``momentum`` of the way to the student's."""
        for mine, theirs in zip(self.module.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)


def cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` at progress 0 to ``end`` at progress 1 along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
