"""The dot product against counting pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score

from graphssl.data.dataset import Dataset, Split
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.probes import EDGE_EXPOSURE, judge
from graphssl.probes import link as probes


def link_set(N: int = 40) -> tuple[torch.Tensor, Dataset]:
    g = torch.Generator().manual_seed(0)
    pairs = torch.triu_indices(N, N, 1)
    pairs = pairs[:, torch.randperm(pairs.size(1), generator=g)]
    train, val, val_absent, test, test_absent = pairs[:, :260].split([100, 30, 30, 50, 50], 1)
    both = torch.cat([train, train.flip(0)], 1)
    graph = Graph.build(torch.ones(N, 1), both)
    split = Split(train, val, test, val_absent, test_absent)
    codes = torch.randint(-2, 3, (N, 4), generator=g).float()  # whole numbers, so that scores tie
    return codes, Dataset(name="links", graphs=[graph], task="link", splits={"link": (split,)})


def test_auc_counts_pairs(monkeypatch):
    monkeypatch.setattr(probes, "CHUNK", 13)
    codes, dataset = link_set()
    split = dataset.splits["link"][0]
    outcome = judge(codes, dataset, "link-dot", notes=[EDGE_EXPOSURE])

    def figures(present, absent):
        up = [float(codes[a] @ codes[b]) for a, b in present.t()]
        down = [float(codes[a] @ codes[b]) for a, b in absent.t()]
        won = sum((u > d) + 0.5 * (u == d) for u in up for d in down)
        truth = [1] * len(up) + [0] * len(down)
        return 100 * won / len(up) / len(down), 100 * average_precision_score(truth, up + down)

    expected = (*figures(split.test, split.test_absent), *figures(split.val, split.val_absent))
    assert list(outcome.metrics) == ["AUC", "AP", "AUC, validation", "AP, validation"]
    assert list(outcome.metrics.values()) == pytest.approx(expected)
    assert outcome.notes == (EDGE_EXPOSURE,)
    assert outcome.std is None


def test_pairs_that_encoders_see_are_said():
    codes, dataset = link_set()
    split = dataset.splits["link"][0]
    leaky = replace(split, test=torch.cat([split.test[:, 2:], split.train[:, :2].flip(0)], 1))
    assert judge(codes, dataset.replace(splits={"link": (leaky,)}), "link-dot").notes == (
        "2 of 50 test pairs are edges of the graph that encoders see",
    )


def test_splits_without_pairs():
    codes, dataset = link_set()
    split = dataset.splits["link"][0]
    none = split.test[:, :0]

    def outcome(**parts):
        return judge(codes, dataset.replace(splits={"link": (replace(split, **parts),)}), "link-dot")

    with pytest.raises(UserError, match="no test rows"):
        outcome(test=none)
    with pytest.raises(UserError, match="no absent test pairs"):
        outcome(test_absent=none)
    with pytest.raises(UserError, match="no absent validation pairs"):
        outcome(val_absent=None)
    assert list(outcome(val=none, val_absent=none).metrics) == ["AUC", "AP"]
