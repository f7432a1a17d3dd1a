"""Makes solids: point clouds from the surfaces of ten kinds of solids.

    python datasets/make_solids.py

Each cloud has 256 points drawn evenly from the surface of a solid of random proportions, turned at random, noisy, and
scaled to a farthest point at distance 1 from the middle. Places are rounded to 1/64.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent.parent / "graphssl" / "data" / "files" / "solids.npz"
SEED = 2025
POINTS, NOISE, GRID = 256, 0.02, 64
EACH = 68  # clouds of each kind
TRAIN, VAL = 42, 8  # of them; the rest tests
MANY = 4096  # points, of which as many are kept as their share of the surface says

Draw = np.random.Generator


def directions(rng: Draw, count: int) -> np.ndarray:
    """Evenly spread over the sphere, [count, 3]."""
    u = rng.standard_normal((count, 3))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def by_share(rng: Draw, points: np.ndarray, share: np.ndarray) -> np.ndarray:
    """POINTS of ``points`` [n, 3], each chosen with a chance in proportion to ``share`` [n], none twice."""
    return points[rng.choice(len(points), POINTS, replace=False, p=share / share.sum())]


def ellipsoid(rng: Draw, axes: np.ndarray) -> np.ndarray:
    u = directions(rng, MANY)
    return by_share(rng, u * axes, np.linalg.norm(u / axes, axis=1))  # how much the map stretches the surface there


def disc(rng: Draw, count: int, height: float) -> np.ndarray:
    """Of radius 1."""
    r, angle = np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    return np.stack([r * np.cos(angle), r * np.sin(angle), np.full(count, height)], 1)


def cylinder(rng: Draw, height: float) -> np.ndarray:
    """Of radius 1, with both ends closed."""
    low, high, side = rng.multinomial(POINTS, np.array([1, 1, 2 * height]) / (2 + 2 * height))
    angle = rng.uniform(0, 2 * np.pi, side)
    mantle = np.stack([np.cos(angle), np.sin(angle), height * rng.random(side)], 1)
    return np.concatenate([disc(rng, low, 0), disc(rng, high, height), mantle])


def cone(rng: Draw, height: float) -> np.ndarray:
    """With a closed base of radius 1."""
    slant = np.hypot(1, height)
    low, side = rng.multinomial(POINTS, np.array([1, slant]) / (1 + slant))
    mantle = disc(rng, side, 0)  # seen from above, its points are spread as a disc's
    mantle[:, 2] = height * (1 - np.linalg.norm(mantle[:, :2], axis=1))
    return np.concatenate([disc(rng, low, 0), mantle])


def polyhedron(rng: Draw, corners: np.ndarray, faces: list[tuple[int, int, int]]) -> np.ndarray:
    a, b, c = (corners[[face[k] for face in faces]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    of = rng.choice(len(faces), POINTS, p=area / area.sum())
    u, v = np.sort(rng.random((2, POINTS, 1)), axis=0)
    return a[of] * u + b[of] * (v - u) + c[of] * (1 - v)


def fan(*rings: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Faces with corners in order, as triangles."""
    return [(ring[0], ring[i], ring[i + 1]) for ring in rings for i in range(1, len(ring) - 1)]


def box(rng: Draw, sides: np.ndarray) -> np.ndarray:
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * sides
    rings = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
    return polyhedron(rng, corners, fan(*rings))


def pyramid(rng: Draw, sides: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(sides) / sides
    ground = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], 1)
    top = np.array([[0, 0, rng.uniform(0.9, 2.0)]])
    rings = [tuple(range(sides)), *((i, (i + 1) % sides, sides) for i in range(sides))]
    return polyhedron(rng, np.concatenate([ground, top]), fan(*rings))


def prism(rng: Draw, sides: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(sides) / sides
    ground = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], 1)
    corners = np.concatenate([ground, ground + np.array([0, 0, rng.uniform(0.8, 2.2)])])
    rings = [tuple(range(sides)), tuple(range(sides, 2 * sides))]
    rings += [(i, (i + 1) % sides, sides + (i + 1) % sides, sides + i) for i in range(sides)]
    return polyhedron(rng, corners, fan(*rings))


def torus(rng: Draw) -> np.ndarray:
    thick = rng.uniform(0.2, 0.45)
    around, across = rng.uniform(0, 2 * np.pi, (2, MANY))
    ring = 1 + thick * np.cos(across)
    points = np.stack([ring * np.cos(around), ring * np.sin(around), thick * np.sin(across)], 1)
    return by_share(rng, points, ring)


def capsule(rng: Draw) -> np.ndarray:
    long = rng.uniform(0.6, 2.0)  # of the tube, whose radius is 1
    count = rng.binomial(POINTS, long / (long + 2))
    angle = rng.uniform(0, 2 * np.pi, count)
    tube = np.stack([np.cos(angle), np.sin(angle), long * (rng.random(count) - 0.5)], 1)
    ends = directions(rng, POINTS - count)
    return np.concatenate([tube, ends + np.sign(ends[:, 2:]) * [0, 0, long / 2]])


SOLIDS: dict[str, Callable[[Draw], np.ndarray]] = {
    "sphere": lambda rng: ellipsoid(rng, np.ones(3)),
    "ellipsoid": lambda rng: ellipsoid(rng, np.array([1, rng.uniform(0.55, 0.8), rng.uniform(0.35, 0.8)])),
    "cube": lambda rng: box(rng, np.ones(3)),
    "slab": lambda rng: box(rng, np.array([1, rng.uniform(0.5, 1), rng.uniform(0.2, 0.6)])),
    "cylinder": lambda rng: cylinder(rng, rng.uniform(0.8, 3)),
    "cone": lambda rng: cone(rng, rng.uniform(1.2, 2.8)),
    "pyramid": lambda rng: pyramid(rng, int(rng.integers(3, 5))),
    "prism": lambda rng: prism(rng, 3),
    "torus": torus,
    "capsule": capsule,
}


def cloud(kind: str, number: int) -> np.ndarray:
    """Cloud ``number`` of a kind, [256, 3]."""
    rng = np.random.default_rng([SEED, list(SOLIDS).index(kind), number])
    points = SOLIDS[kind](rng)
    points = points - points.mean(0)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    points = points / np.linalg.norm(points, axis=1).max() @ turn + NOISE * rng.standard_normal((POINTS, 3))
    points = rng.permutation(points) / np.linalg.norm(points, axis=1).max()
    return (np.round(points * GRID) / GRID).astype(np.float16)


def make() -> dict[str, np.ndarray]:
    clouds = np.stack([cloud(kind, number) for number in range(EACH) for kind in SOLIDS])
    number = np.repeat(np.arange(EACH), len(SOLIDS))
    parts = {"train": number < TRAIN, "val": (number >= TRAIN) & (number < TRAIN + VAL), "test": number >= TRAIN + VAL}
    meta = {
        "name": "solids", "made_by": "datasets/make_solids.py", "seed": SEED, "split": "official",
        "classes": list(SOLIDS),
    }  # fmt: skip
    return {
        "points": clouds, "y": np.tile(np.arange(len(SOLIDS)), EACH).astype(np.int8),
        **{f"{name}_idx": np.flatnonzero(part).astype(np.int16) for name, part in parts.items()},
        "meta": np.array(json.dumps(meta)),
    }  # fmt: skip


def main() -> None:
    np.savez_compressed(OUT, **make())
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
