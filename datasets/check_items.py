"""What simple baselines reach on sets of items: the floors in the cards.

python datasets/check_items.py digits moving-digits
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from graphssl import load_dataset


def check(name: str) -> None:
    """Prints the test accuracy of logistic regression and of the nearest neighbour on raw items laid flat."""
    dataset = load_dataset(name)
    assert dataset.items is not None
    assert dataset.y is not None
    x, y = dataset.items.flat().numpy(), dataset.y.numpy()
    split = next(iter(dataset.splits.values()))[0]
    train, val, test = (part.numpy() for part in (split.train, split.val, split.test))
    counts = torch.bincount(dataset.y).tolist()
    print(f"{dataset.name}: {len(y)} items, {len(train)} / {len(val)} / {len(test)}, of each class {counts}")
    models = {f"C={c}": LogisticRegression(C=c, max_iter=1000) for c in (0.001, 0.01, 0.1, 1.0)}
    models["1-NN"] = KNeighborsClassifier(1)
    scores = {}
    for name, model in models.items():
        fitted = make_pipeline(StandardScaler(with_std=name != "1-NN"), model).fit(x[train], y[train])
        scores[name] = (fitted.score(x[val], y[val]), fitted.score(x[test], y[test]))
    best = max((name for name in scores if name != "1-NN"), key=lambda name: scores[name][0])
    print(f"logistic regression {100 * scores[best][1]:.1f} at the {best} that validation prefers")
    print(f"nearest neighbour {100 * scores['1-NN'][1]:.1f}; chance {100 * np.bincount(y[test]).max() / len(test):.1f}")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        check(name)
