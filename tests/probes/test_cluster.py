"""Clusters against scikit-learn's, their figures against slow loops, and that labels only score them."""

from __future__ import annotations

from itertools import combinations, permutations
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from graphssl import structure
from graphssl.data.dataset import Dataset
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.probes import cluster, judge
from graphssl.probes import metrics as m

FIGURES = ["NMI", "ARI", "ACC", "macro-F1"]


def one_graph(y: torch.Tensor) -> Dataset:
    graph = Graph.build(torch.ones(len(y), 1), torch.empty(2, 0, dtype=torch.long))
    return Dataset(name="nodes", graphs=[graph], task="node", y=y)


def crowd(count: int = 90, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    y = torch.arange(count) % 3
    codes = torch.randn(count, width, generator=g)
    codes[torch.arange(count), y] += 1.5
    return codes, y


def shares(rows: list[int]) -> dict[int, float]:
    return {value: rows.count(value) / len(rows) for value in rows}


def information_by_hand(clusters: list[int], truth: list[int]) -> float:
    one, two, both = shares(clusters), shares(truth), shares(list(zip(clusters, truth, strict=True)))
    entropies = [-sum(p * log(p) for p in part.values()) for part in (one, two)]
    mutual = sum(p * log(p / one[a] / two[b]) for (a, b), p in both.items())
    return mutual / (sum(entropies) / 2)


def rand_by_hand(clusters: list[int], truth: list[int]) -> float:
    pairs = list(combinations(range(len(truth)), 2))
    together = [clusters[i] == clusters[j] for i, j in pairs]
    alike = [truth[i] == truth[j] for i, j in pairs]
    both, a, b = sum(map(all, zip(together, alike, strict=True))), sum(together), sum(alike)
    by_chance = a * b / len(pairs)
    return (both - by_chance) / ((a + b) / 2 - by_chance)


def matched_by_hand(clusters: list[int], truth: list[int]) -> tuple[float, float]:
    """Accuracy and macro-F1 of the best of all ways to let clusters stand for different classes."""
    classes, groups = sorted(set(truth)), sorted(set(clusters))
    longer = classes + [-1] * (len(groups) - len(classes))
    best = (-1.0, -1.0)
    for order in permutations(longer, len(groups)):
        said = [dict(zip(groups, order, strict=True))[c] for c in clusters]
        right = sum(a == b for a, b in zip(said, truth, strict=True)) / len(truth)
        f1 = 0.0
        for c in classes:
            hits = sum(a == b == c for a, b in zip(said, truth, strict=True))
            f1 += 2 * hits / (said.count(c) + truth.count(c)) / len(classes)
        best = max(best, (right, f1))
    return best


@pytest.mark.parametrize(("groups", "classes"), [(3, 3), (2, 4), (5, 3), (4, 4)])
def test_figures_are_those_of_slow_loops(groups, classes):
    rng = np.random.default_rng(groups)
    truth = rng.integers(classes, size=40) * 2  # numbers of classes need not follow each other
    clusters = np.where(rng.random((2, 40)) < 0.6, truth % groups, rng.integers(groups, size=(2, 40))) + 1
    rows, y = torch.from_numpy(clusters), torch.from_numpy(truth)
    for number, row in enumerate(clusters.tolist()):
        figure = lambda metric: float(metric(rows, y)[number]) / 100  # noqa: B023, E731
        assert figure(m.mutual_information) == pytest.approx(information_by_hand(row, truth.tolist()))
        assert figure(m.adjusted_rand) == pytest.approx(rand_by_hand(row, truth.tolist()))
        accuracy, f1 = matched_by_hand(row, truth.tolist())
        assert figure(m.matched_accuracy) == pytest.approx(accuracy)
        if groups == classes == 3:  # elsewhere two matchings may be equally accurate
            assert figure(m.matched_f1) == pytest.approx(f1)


def test_clusters_are_sklearns_on_codes_of_length_one():
    codes, y = crowd()
    exams = cluster.set_cluster_exams(codes, one_graph(y))
    (exam,) = exams.exams
    found = cluster.fit_kmeans(exam.seen, (3, 8)).predict(exam.questions)[""]
    for row, seed in zip(found, (3, 8), strict=True):
        oracle = KMeans(3, n_init=10, random_state=seed).fit(F.normalize(codes).numpy())
        assert row.tolist() == oracle.labels_.tolist()
    longer = codes * torch.rand(90, 1, generator=torch.Generator().manual_seed(0)).add(0.5)
    assert judge(longer, one_graph(y), "node-cluster").score == pytest.approx(
        judge(codes, one_graph(y), "node-cluster").score, abs=0.5
    )


def test_the_outcome_is_over_seeds_of_k_means():
    codes, y = crowd()
    outcome = judge(codes, one_graph(y), "node-cluster")
    assert list(outcome.metrics) == FIGURES
    assert (outcome.std_over, outcome.repeats) == ("5 k-means seeds", 5)
    assert outcome.notes == ()
    assert one_graph(y).protocols == ("node-cluster",)  # it needs no split


def test_labels_only_score(monkeypatch):
    """Other labels, as many classes: the same clusters from the same codes, and another figure."""
    codes, y = crowd()
    found = []
    fit = cluster.fit_kmeans

    def watched(seen, seeds):
        assert seen.train_y.numel() == seen.val_y.numel() == 0
        fitted = fit(seen, seeds)
        found.append(fitted.predict(seen.train)[""])
        return fitted

    examiner = cluster.Examiner(cluster.set_cluster_exams, watched, 2)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    before, after = examiner(codes, one_graph(y), 0), examiner(codes, one_graph(y[order]), 0)
    assert torch.equal(*found)
    assert before.score > 20 > after.score


def test_nodes_without_a_label_are_clustered_and_not_scored():
    codes, y = crowd()
    partly = y.clone()
    partly[::4] = -1
    outcome = judge(codes, one_graph(partly), "node-cluster", seed=2)
    assert outcome.notes == ("23 nodes without a label are clustered, but not scored",)
    (exam,) = cluster.set_cluster_exams(codes, one_graph(y)).exams
    seeds = tuple(np.random.SeedSequence((2, 0)).generate_state(5).tolist())
    found = cluster.fit_kmeans(exam.seen, seeds).predict(exam.seen.train)[""]
    known = partly >= 0
    expected = m.mutual_information(found[:, known], partly[known]).mean()
    assert outcome.score == pytest.approx(float(expected))
    with pytest.raises(UserError, match="all of one class"):
        judge(codes, one_graph(partly.clamp(max=0)), "node-cluster")


def test_many_nodes_go_in_mini_batches_and_sparse_rows_stay_sparse(monkeypatch):
    codes, y = crowd()
    plain = judge(codes, one_graph(y), "node-cluster")
    monkeypatch.setattr("sklearn.cluster.KMeans", None)  # it is not asked
    monkeypatch.setattr(structure, "MANY", 90)
    assert judge(codes, one_graph(y), "node-cluster").score == pytest.approx(plain.score, abs=20)
    assert judge(F.one_hot(y).float(), one_graph(y), "node-cluster").score == pytest.approx(100)
    wide = torch.zeros(90, 100)
    wide[torch.arange(90), 30 * y] = 1
    assert not isinstance(cluster._rows(wide), np.ndarray)
    assert isinstance(cluster._rows(codes), np.ndarray)
    assert judge(wide, one_graph(y), "node-cluster").score == pytest.approx(100)


def test_codes_that_are_all_the_same_are_one_cluster():
    _, y = crowd()
    outcome = judge(torch.ones(90, 4), one_graph(y), "node-cluster")  # warnings are errors here
    assert outcome.score == 0
    assert outcome.metrics["ACC"] == pytest.approx(100 / 3)
