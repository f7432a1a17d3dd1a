"""Random numbers that are a function of (seed, counter): the backward draws again what the forward drew.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the output mix of a Weyl sequence; every path computes the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 24  # of each half of a mix, the upper; exact in float32


def seed() -> Tensor:
    """A new seed, int64 on the CPU, from the default generator of the CPU: no device waits for it."""
    return torch.randint(2**62, ())


def draws(seed: Tensor, count: int, device: torch.device | str) -> Tensor:
    """The draws of counters 0 to ``count`` - 1, [count] integers below 2**24; a mix serves two of them."""
    z = torch.arange(1, count // 2 + 2, device=device) * _signed(0x9E3779B97F4A7C15) + int(seed)
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shift(z, 31)
    return torch.stack([_shift(z, 64 - BITS), _shift(z, 32 - BITS) & (2**BITS - 1)], dim=1).view(-1)[:count]


def threshold(p: float) -> int:
    """Draws below this are dropped."""
    return round(p * 2**BITS)


def kept(seed: Tensor, count: int, p: float, like: Tensor) -> Tensor:
    """Zero with probability ``p``, else 1 / (1 - p), for counters 0 to ``count`` - 1, in the type of ``like``."""
    stay = draws(seed, count, like.device) >= threshold(p)
    return stay.to(like.dtype) * (1 / (1 - p) if p < 1 else 0.0)


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical shift to the right: torch's keeps the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
