"""Makes stick-figures: sequences of 16 joints, moved by forward kinematics.

    python datasets/make_stick_figures.py

Ten people, each with a body and a manner of their own (how far limbs go, how fast, how they lean), do ten actions six
times each. An action is a few angles that change with its phase; each time it starts at another phase, takes another
time, is mirrored or not, and is seen from another side. Joints are noisy; places are rounded to 1/128 of about a
body's height. People 1 to 6 train, 7 chooses, 8 to 10 test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent.parent / "graphssl" / "data" / "files" / "stick-figures.npz"
SEED = 2025
PEOPLE, TIMES = 10, 6
SHORTEST, LONGEST = 12, 20  # frames
NOISE, GRID = 0.01, 128
PARENTS = (-1, 0, 1, 2, 1, 4, 5, 1, 7, 8, 0, 10, 11, 0, 13, 14)
# hips, chest, neck, head; shoulder, elbow, hand left and right; hip, knee, foot left and right
REST = np.array([  # of each joint less its parent: x to the left, y up, z forward
    (0, 0, 0), (0, 0.28, 0), (0, 0.06, 0), (0, 0.12, 0),
    (0.12, 0.02, 0), (0, -0.17, 0), (0, -0.16, 0), (-0.12, 0.02, 0), (0, -0.17, 0), (0, -0.16, 0),
    (0.07, 0, 0), (0, -0.25, 0), (0, -0.25, 0), (-0.07, 0, 0), (0, -0.25, 0), (0, -0.25, 0),
])  # fmt: skip
MIRROR = (0, 1, 2, 3, 7, 8, 9, 4, 5, 6, 13, 14, 15, 10, 11, 12)
HIPS, CHEST, NECK, HEAD, LEFT_ARM, LEFT_ELBOW, RIGHT_ARM, RIGHT_ELBOW = 0, 1, 2, 3, 4, 5, 7, 8
LEFT_LEG, LEFT_KNEE, RIGHT_LEG, RIGHT_KNEE = 10, 11, 13, 14

Angles = dict[int, tuple[float, float, float]]  # of a joint about x (forward), y (turn), z (sideways), in radians


def turn(x: float, y: float, z: float) -> np.ndarray:
    """The rotation about z, then x, then y, [3, 3]."""
    cx, cy, cz, sx, sy, sz = np.cos(x), np.cos(y), np.cos(z), np.sin(x), np.sin(y), np.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def pose(body: np.ndarray, angles: Angles) -> np.ndarray:
    """Places [16, 3] of the joints of ``body``, bones less their parent's, with the hips at the origin.

    The angle of a joint turns what hangs on it, and an arm's or a leg's the limb below it.
    """
    frames, places = [turn(*angles.get(0, (0, 0, 0)))], [np.zeros(3)]
    for joint in range(1, len(PARENTS)):
        parent = PARENTS[joint]
        places.append(places[parent] + frames[parent] @ body[joint])
        frames.append(frames[parent] @ turn(*angles.get(joint, (0, 0, 0))))
    return np.stack(places)


def walk(p: float, a: float) -> Angles:
    s = np.sin(p)
    return {
        LEFT_LEG: (-0.5 * a * s, 0, 0), RIGHT_LEG: (0.5 * a * s, 0, 0),
        LEFT_KNEE: (0.5 * a * max(0, np.cos(p)), 0, 0), RIGHT_KNEE: (0.5 * a * max(0, -np.cos(p)), 0, 0),
        LEFT_ARM: (0.45 * a * s, 0, 0), RIGHT_ARM: (-0.45 * a * s, 0, 0),
        LEFT_ELBOW: (-0.2, 0, 0), RIGHT_ELBOW: (-0.2, 0, 0),
    }  # fmt: skip


def run(p: float, a: float) -> Angles:
    found = walk(p, 1.5 * a)
    found |= {CHEST: (0.2, 0, 0), LEFT_ELBOW: (-1.4, 0, 0), RIGHT_ELBOW: (-1.4, 0, 0)}
    return found | {
        LEFT_KNEE: (0.5 + 0.8 * a * np.cos(p), 0, 0), RIGHT_KNEE: (0.5 - 0.8 * a * np.cos(p), 0, 0)
    }  # fmt: skip


def wave(p: float, a: float) -> Angles:
    return {RIGHT_ARM: (0, 0, -2.3 * a), RIGHT_ELBOW: (0, 0, -0.4 + 0.6 * a * np.sin(2 * p))}


def clap(p: float, a: float) -> Angles:
    open_ = 0.35 + 0.35 * a * np.sin(2 * p)
    return {
        LEFT_ARM: (-1.1, open_, 0), RIGHT_ARM: (-1.1, -open_, 0),
        LEFT_ELBOW: (-0.6, 0, -0.5), RIGHT_ELBOW: (-0.6, 0, 0.5),
    }  # fmt: skip


def squat(p: float, a: float) -> Angles:
    deep = 0.6 * a * (1 - np.cos(p))
    return {
        LEFT_LEG: (-deep, 0, 0), RIGHT_LEG: (-deep, 0, 0), LEFT_KNEE: (1.8 * deep, 0, 0),
        RIGHT_KNEE: (1.8 * deep, 0, 0), CHEST: (0.3 * deep, 0, 0), LEFT_ARM: (-0.9 * deep, 0, 0),
        RIGHT_ARM: (-0.9 * deep, 0, 0),
    }  # fmt: skip


def jack(p: float, a: float) -> Angles:
    out = 0.5 * (1 - np.cos(p))
    return {
        LEFT_ARM: (0, 0, 2.4 * a * out), RIGHT_ARM: (0, 0, -2.4 * a * out),
        LEFT_LEG: (0, 0, 0.4 * a * out), RIGHT_LEG: (0, 0, -0.4 * a * out),
    }  # fmt: skip


def kick(p: float, a: float) -> Angles:
    up = a * max(0, np.sin(p))
    return {
        RIGHT_LEG: (-1.2 * up + 0.3, 0, 0), RIGHT_KNEE: (0.8 - 0.8 * up, 0, 0), CHEST: (-0.2 * up, 0, 0),
        LEFT_ARM: (-0.5 * up, 0, 0.3), RIGHT_ARM: (0.5 * up, 0, -0.3),
    }  # fmt: skip


def punch(p: float, a: float) -> Angles:
    out = a * max(0, np.sin(p))
    return {
        RIGHT_ARM: (-0.4 - 1.1 * out, 0, 0), RIGHT_ELBOW: (-1.9 + 1.8 * min(1, out), 0, 0),
        LEFT_ARM: (-0.4, 0, 0), LEFT_ELBOW: (-1.9, 0, 0), CHEST: (0.1, 0.4 * out, 0),
    }  # fmt: skip


def bow(p: float, a: float) -> Angles:
    low = 0.5 * a * (1 - np.cos(p))
    return {
        HIPS: (0.5 * low, 0, 0),
        CHEST: (0.7 * low, 0, 0),
        LEFT_LEG: (-0.5 * low, 0, 0),
        RIGHT_LEG: (-0.5 * low, 0, 0),
    }


def throw(p: float, a: float) -> Angles:
    swing = a * np.sin(p)
    return {
        RIGHT_ARM: (-1.6 - 1.0 * swing, 0, -0.3), RIGHT_ELBOW: (-0.9 + 0.7 * swing, 0, 0),
        CHEST: (0.2 * swing, 0.5 * swing, 0), LEFT_LEG: (-0.25, 0, 0), RIGHT_LEG: (0.2, 0, 0),
    }  # fmt: skip


ACTIONS: dict[str, Callable[[float, float], Angles]] = {
    "walk": walk, "run": run, "wave": wave, "clap": clap, "squat": squat, "jumping jack": jack, "kick": kick,
    "punch": punch, "bow": bow, "throw": throw,
}  # fmt: skip


def sequence(action: str, person: int, time: int) -> np.ndarray:
    """The places [T, 16, 3] of ``person``, from 0, in an action that is done for the ``time``-th time."""
    of = np.random.default_rng([SEED, person])
    body = REST * of.uniform(0.85, 1.15, (len(REST), 1))
    habit = {joint: of.normal(0, 0.12, 3) for joint in (CHEST, LEFT_ARM, RIGHT_ARM, LEFT_ELBOW, RIGHT_ELBOW, HEAD)}
    reach, tempo = of.uniform(0.7, 1.2), of.uniform(0.8, 1.25)
    rng = np.random.default_rng([SEED, person, list(ACTIONS).index(action), time])
    T = int(rng.integers(SHORTEST, LONGEST + 1))
    start, cycles = rng.uniform(0, 2 * np.pi), tempo * rng.uniform(0.9, 1.7)
    amplitude, angle, mirrored = reach * rng.uniform(0.8, 1.2), rng.uniform(-np.pi, np.pi), rng.random() < 0.5
    drift = {joint: rng.normal(0, 0.1, 3) for joint in (*habit, LEFT_LEG, RIGHT_LEG)}
    frames = []
    for phase in start + 2 * np.pi * cycles * np.arange(T) / LONGEST:
        angles = ACTIONS[action](phase, amplitude)
        for more in (habit, drift):
            angles |= {k: tuple(np.add(angles.get(k, (0, 0, 0)), more[k])) for k in more}
        frames.append(pose(body, angles))
    places = np.stack(frames)
    if mirrored:
        places = places[:, MIRROR] * np.array([-1, 1, 1])
    places = places @ turn(0, angle, 0).T + rng.normal(0, NOISE, places.shape)
    return (np.round(places * GRID) / GRID).astype(np.float16)


def make() -> dict[str, np.ndarray]:
    rows = [(a, person, time) for person in range(PEOPLE) for a in range(len(ACTIONS)) for time in range(TIMES)]
    names = list(ACTIONS)
    sequences = [sequence(names[a], person, time) for a, person, time in rows]
    action, person, _ = np.array(rows).T
    parts = {"train": person < 6, "val": person == 6, "test": person > 6}
    meta = {
        "name": "stick-figures", "made_by": "datasets/make_stick_figures.py", "seed": SEED, "split": "cross-subject",
        "classes": names,
    }  # fmt: skip
    return {
        "frames": np.concatenate(sequences), "frame_ptr": np.cumsum([0, *map(len, sequences)]).astype(np.int32),
        "y": action.astype(np.int8), "subject": (person + 1).astype(np.int8),
        "bones": np.array([(parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0], np.int8),
        **{f"{name}_idx": np.flatnonzero(part).astype(np.int16) for name, part in parts.items()},
        "meta": np.array(json.dumps(meta)),
    }  # fmt: skip


def main() -> None:
    np.savez_compressed(OUT, **make())
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
