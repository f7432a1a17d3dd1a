"""Metrics of scored pairs against slow loops, scikit-learn and ogb's Evaluator."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from graphssl.errors import UserError
from graphssl.probes.metrics import auc, average_precision, hits, mean_reciprocal_rank


def scored(kind: str, present: int, absent: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [3, M] and which rows are of class 1, mixed up."""
    g = torch.Generator().manual_seed(present)
    truth = (torch.arange(present + absent) < present).long()[torch.randperm(present + absent, generator=g)]
    scores = torch.randn(3, present + absent, generator=g) + truth
    if kind == "ties":
        scores = scores.round()
    if kind == "constant":
        scores = torch.zeros_like(scores)
    return scores, truth


CASES = [
    pytest.param(*scored(kind, *counts), id=f"{kind}-{counts[0]}-{counts[1]}")
    for kind in ("plain", "ties", "constant")
    for counts in ((60, 60), (1, 300), (90, 21), (30, 20), (30, 19), (5, 1))
]


@pytest.mark.parametrize(("scores", "truth"), CASES)
def test_against_loops_and_sklearn(scores, truth):
    for i, row in enumerate(scores):
        up, down = row[truth == 1].tolist(), row[truth == 0].tolist()
        ranks = [(sum(d > u for d in down) + sum(d >= u for d in down)) / 2 + 1 for u in up]
        expected = 100 * sum(1 / rank for rank in ranks) / len(up)
        assert float(mean_reciprocal_rank(scores, truth)[i]) == pytest.approx(expected)
        for k in (1, 20, 50, 100):
            bar = sorted(down)[-k] if len(down) >= k else -float("inf")
            assert float(hits(scores, truth, k)[i]) == pytest.approx(100 * sum(u > bar for u in up) / len(up))
        assert float(auc(scores, truth)[i]) == pytest.approx(100 * roc_auc_score(truth, row))
        assert float(average_precision(scores, truth)[i]) == pytest.approx(100 * average_precision_score(truth, row))


@pytest.fixture(scope="module")
def evaluator():
    """ogb's Evaluator, imported without the thread that asks the network for a newer version."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what ogb imports
        patch.setitem(sys.modules, "outdated", None)
        return pytest.importorskip("ogb.linkproppred").Evaluator


@pytest.mark.parametrize(("scores", "truth"), CASES)
def test_against_ogb(scores, truth, evaluator):
    ours = {f"hits@{k}": hits(scores, truth, k) for k in (20, 50, 100)}
    for i, row in enumerate(scores):
        up, down = row[truth == 1], row[truth == 0]
        collab = evaluator("ogbl-collab")
        for k in (20, 50, 100):
            collab.K = k
            theirs = collab.eval({"y_pred_pos": up, "y_pred_neg": down})[f"hits@{k}"]
            assert float(ours[f"hits@{k}"][i]) == pytest.approx(100 * theirs)
        ranked = evaluator("ogbl-citation2").eval({"y_pred_pos": up, "y_pred_neg": down.expand(len(up), -1)})
        expected = 100 * float(ranked["mrr_list"].mean())
        assert float(mean_reciprocal_rank(scores, truth)[i]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("of", [0, 1])
def test_rows_of_one_class_are_refused(of):
    scores, truth = torch.zeros(1, 4), torch.full((4,), of)
    for metric, name in ((auc, "AUC"), (mean_reciprocal_rank, "MRR"), (lambda s, t: hits(s, t, 20), "Hits@20")):
        with pytest.raises(UserError, match=f"{name} is undefined"):
            metric(scores, truth)
