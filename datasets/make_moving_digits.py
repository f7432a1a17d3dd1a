"""Makes moving-digits: videos of scikit-learn's digits that move on a dark field and bounce off its edges.

    python datasets/make_moving_digits.py

Each video shows one of scikit-learn's 1797 digits (8 x 8 pixels) from 8 frames of 16 x 16, and no digit is in two
videos. It starts anywhere and moves 1 or 2 pixels a frame along each axis.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

OUT = Path(__file__).parent.parent / "graphssl" / "data" / "files" / "moving-digits.npz"
SEED = 2025
FRAMES, SIDE = 8, 16
EACH = 150  # videos of each digit
TRAIN, VAL = 90, 20  # of them; the rest tests


def chosen() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [B, 8, 8] of the digits as bytes, their classes, and their part of the split: 0, 1 or 2."""
    found = load_digits()
    rng = np.random.default_rng(SEED)
    members = [rng.permutation(np.flatnonzero(found.target == digit))[:EACH] for digit in range(10)]
    order = rng.permutation(10 * EACH)
    part = np.tile(np.repeat([0, 1, 2], [TRAIN, VAL, EACH - TRAIN - VAL]), 10)[order]
    rows = np.concatenate(members)[order]
    return np.round(found.images[rows] * (255 / 16)).astype(np.uint8), found.target[rows], part


def video(digit: np.ndarray, number: int) -> np.ndarray:
    """Video ``number`` [8, 1, 16, 16] of ``digit`` [8, 8]."""
    rng = np.random.default_rng([SEED, number])
    place, step = rng.integers(0, SIDE - 7, 2), rng.integers(1, 3, 2) * rng.choice([-1, 1], 2)
    frames = np.zeros((FRAMES, 1, SIDE, SIDE), np.uint8)
    for frame in frames:
        frame[0, place[0] : place[0] + 8, place[1] : place[1] + 8] = digit
        for axis in range(2):
            if not 0 <= place[axis] + step[axis] <= SIDE - 8:
                step[axis] = -step[axis]
            place[axis] += step[axis]
    return frames


def make() -> dict[str, np.ndarray]:
    digits, y, part = chosen()
    meta = {"name": "moving-digits", "made_by": "datasets/make_moving_digits.py", "seed": SEED, "split": "official"}
    rows = {f"{name}_idx": np.flatnonzero(part == k) for k, name in enumerate(("train", "val", "test"))}
    return {
        "videos": np.stack([video(digit, number) for number, digit in enumerate(digits)]), "y": y.astype(np.int8),
        **{key: value.astype(np.int16) for key, value in rows.items()}, "meta": np.array(json.dumps(meta)),
    }  # fmt: skip


def main() -> None:
    np.savez_compressed(OUT, **make())
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
