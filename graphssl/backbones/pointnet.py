"""Sets of points as tokens: a small PointNet, arXiv:1612.00593, as the embedding of Point-MAE, arXiv:2203.06604.

Reference: Pang-Yatian/Point-MAE at 3208f17, models/Point_MAE.py, Encoder, whose widths are those of ``inner`` 128.
"""

from __future__ import annotations

from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import BatchNorm
from graphssl.heads import glorot


class PointNet(nn.Module):
    """Groups of points [N, k * channels], laid flat, to [N, dim], whatever the order of a group's points.

    Twice an MLP on each point; its maximum over the group joins each point's own after the first and is the code after
    the second. The MLPs are 1 and 4 times ``inner`` wide between.
    """

    def __init__(self, channels: int, dim: int, inner: int):
        super().__init__()
        self.channels = channels
        self.first = nn.Sequential(
            nn.Linear(channels, inner), BatchNorm(inner), nn.ReLU(), nn.Linear(inner, 2 * inner)
        )  # fmt: skip
        self.own, self.group = nn.Linear(2 * inner, 4 * inner), nn.Linear(2 * inner, 4 * inner, bias=False)
        self.second = nn.Sequential(BatchNorm(4 * inner), nn.ReLU(), nn.Linear(4 * inner, dim))
        glorot(self)

    def forward(self, x: ops.Content) -> Tensor:
        """Content [N, k * channels] to [N, dim]."""
        points = ops.dense(x).unflatten(1, (-1, self.channels))  # [N, k, channels]
        (N, k), flat = points.shape[:2], points.flatten(0, 1)
        if not N:  # no points whose statistics could be taken
            return self.second[-1](flat.new_zeros(0, self.second[-1].in_features))
        said = self.first(flat).view(N, k, -1)
        joined = self.own(said) + self.group(said.amax(1))[:, None]  # one linear map of both side by side
        return self.second(joined.flatten(0, 1)).view(N, k, -1).amax(1)
