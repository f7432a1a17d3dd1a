"""Probes of graphs' codes against plain loops over scikit-learn's models, ridge regression against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from graphssl.data.dataset import Dataset, Graphs, Split
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.probes import PROTOCOLS, judge
from graphssl.tokens import Items

NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def graph_set(y: torch.Tensor, **fields) -> Dataset:
    graphs = Graphs(len(y), lambda i: Graph.build(torch.ones(1, 1), NO_EDGES))
    return Dataset(name="graphs", graphs=graphs, task="graph", y=y, **fields)


def codes_of(y: torch.Tensor, noise: float = 1.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(4)
    return torch.cat(
        [y[:, None].float() + noise * torch.randn(len(y), 1, generator=g), torch.randn(len(y), 3, generator=g)], 1
    )


def nested(codes: np.ndarray, y: np.ndarray, folds: int, inner_folds: int) -> list[float]:
    """GraphMAE's main_graph.py without GridSearchCV."""
    scores = []
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(codes, y):
        best, chosen = -1.0, None
        for C in (1e-3, 1e-2, 1e-1, 1, 10):
            inner = []
            for a, b in StratifiedKFold(inner_folds).split(codes[train], y[train]):
                model = SVC(C=C, gamma="scale").fit(codes[train][a], y[train][a])
                inner.append((model.predict(codes[train][b]) == y[train][b]).mean())
            if np.mean(inner) > best:
                best, chosen = np.mean(inner), C
        model = SVC(C=chosen, gamma="scale").fit(codes[train], y[train])
        scores.append(100 * (model.predict(codes[test]) == y[test]).mean())
    return scores


def test_svm_is_the_nested_loop():
    y = torch.arange(70) % 3
    codes = codes_of(y, 0.7)
    outcome = judge(codes, graph_set(y), "graph-svm")
    oracle = nested(codes.numpy(), y.numpy(), 10, 5)
    assert outcome.score == pytest.approx(np.mean(oracle))
    assert outcome.std == pytest.approx(np.std(oracle))
    assert (outcome.std_over, outcome.repeats) == ("10 folds", 10)
    assert len(outcome.notes) == 1


def test_rare_classes_take_fewer_folds_and_say_so():
    y = torch.cat([torch.zeros(40, dtype=torch.long), torch.full((5,), 2)])
    outcome = judge(codes_of(y, 0.2), graph_set(y), "graph-svm")
    assert outcome.std_over == "5 folds"
    assert outcome.notes[0] == "5 folds instead of 10: the smallest class has 5 graphs"
    assert outcome.score == pytest.approx(np.mean(nested(codes_of(y, 0.2).numpy(), y.numpy(), 5, 4)))
    assert judge(codes_of(y[:43], 0.2), graph_set(y[:43]), "graph-svm").std_over == "3 folds"
    with pytest.raises(UserError, match=r"class 2 .* has 2 graphs"):
        judge(codes_of(y[:42]), graph_set(y[:42]), "graph-svm")


def test_graphs_without_a_label_are_left_out_and_said(monkeypatch):
    monkeypatch.setattr("graphssl.probes.graph.PENALTIES", (1.0,))
    y = torch.arange(60) % 2
    codes = codes_of(y)
    with_gaps = torch.cat([y, torch.full((4,), -1)])
    outcome = judge(torch.cat([codes, torch.randn(4, 4)]), graph_set(with_gaps), "graph-svm")
    expected = judge(codes, graph_set(y), "graph-svm")
    assert outcome.score == expected.score
    assert outcome.notes[0] == "4 graphs without a label are left out"


ALPHAS = (1e-3, 1e-2, 1e-1, 1, 10, 100, 1e3)


def ridge(train: np.ndarray, y: np.ndarray, alpha: float):
    """Closed form on standardised codes: (X'X + alpha I) w = X'(y - mean)."""
    mean, scale = train.mean(0), train.std(0)
    scale[scale == 0] = 1
    x = (train - mean) / scale
    w = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    return lambda rows: (rows - mean) / scale @ w + y.mean()


def numbers(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(9)
    codes = torch.randn(count, 12, generator=g) * torch.arange(1, 13) + 2
    codes[:, 3] = 5.0  # tells nothing
    y = codes[:, :2].sum(1) + 3 * torch.randn(count, generator=g)
    return codes, y


def test_ridge_on_a_split_is_the_closed_form():
    codes, y = numbers(60)
    split = Split(torch.arange(20), torch.arange(20, 35), torch.arange(35, 60))
    outcome = judge(codes, graph_set(y, splits={"own": (split,)}), "graph-ridge")
    x, t = codes.double().numpy(), y.double().numpy()
    errors = [np.abs(ridge(x[:20], t[:20], alpha)(x[20:35]) - t[20:35]).mean() for alpha in ALPHAS]
    residual = ridge(x[:20], t[:20], ALPHAS[int(np.argmin(errors))])(x[35:]) - t[35:]
    assert outcome.score == pytest.approx(np.abs(residual).mean())
    assert outcome.metrics["RMSE"] == pytest.approx(np.sqrt((residual**2).mean()))
    assert outcome.metrics["MAE, validation"] == pytest.approx(min(errors))
    assert outcome.std is None
    unchosen = Split(split.train, split.val[:0], split.test)
    assert judge(codes, graph_set(y, splits={"own": (unchosen,)}), "graph-ridge").repeats == 1


def test_ridge_without_a_split_chooses_by_leaving_one_out():
    codes, y = numbers(50)
    outcome = judge(codes, graph_set(y[:, None]), "graph-ridge")
    x, t = codes.double().numpy(), y.double().numpy()
    errors = []
    for train, test in KFold(10, shuffle=True, random_state=0).split(x):
        mean, scale = x[train].mean(0), x[train].std(0)
        scale[scale == 0] = 1
        a, b, kept = (x[train] - mean) / scale, t[train], np.arange(len(train))
        squared = []
        for alpha in ALPHAS:
            squared.append(0.0)
            for out in kept:  # without scaling anew: the codes are standardised once a fold
                rest = kept != out
                centre = a[rest].mean(0)
                c = a[rest] - centre
                w = np.linalg.solve(c.T @ c + alpha * np.eye(12), c.T @ (b[rest] - b[rest].mean()))
                squared[-1] += ((a[out] - centre) @ w + b[rest].mean() - b[out]) ** 2
        errors.append(np.abs(ridge(x[train], b, ALPHAS[int(np.argmin(squared))])(x[test]) - t[test]).mean())
    assert outcome.score == pytest.approx(np.mean(errors))
    assert outcome.std == pytest.approx(np.std(errors))
    assert outcome.std_over == "10 folds"


def test_numbers_that_cannot_be_used():
    codes, y = numbers(30)
    y[4] = torch.nan
    outcome = judge(codes, graph_set(y), "graph-ridge")
    assert outcome.notes[0] == "1 graphs without a label are left out"
    split = Split(torch.arange(10), torch.arange(10, 20), torch.arange(20, 30))
    with pytest.raises(UserError, match="first is row 4"):
        judge(codes, graph_set(y, splits={"own": (split,)}), "graph-ridge")
    with pytest.raises(UserError, match="10 labelled graphs"):
        judge(codes[:8], graph_set(y[:8]), "graph-ridge")


def halves(count: int, repeats: int = 1) -> dict[str, tuple[Split, ...]]:
    g = torch.Generator().manual_seed(6)
    parts = [torch.randperm(count, generator=g).split([count // 2, count // 4, count - count // 2 - count // 4])]
    parts += [tuple(part.roll(1) for part in parts[0]) for _ in range(repeats - 1)]
    return {"halves": tuple(Split(*part) for part in parts)}


def test_the_linear_probe_is_sklearns_of_the_c_that_validation_likes_best():
    y = torch.arange(120) % 3
    codes, splits = codes_of(y, 0.6) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 7, halves(120)
    outcome = judge(codes, graph_set(y, splits=splits), "graph-linear")
    (split,), found = splits["halves"], []
    x, t = codes.numpy(), y.numpy()
    for C in (1e-3, 1e-2, 1e-1, 1, 10, 100, 1e3):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000)).fit(
            x[split.train], t[split.train]
        )
        found.append(
            (100 * model.score(x[split.val], t[split.val]), -C, 100 * model.score(x[split.test], t[split.test]))
        )
    val, C, test = max(found)
    assert outcome.metrics == {"accuracy": pytest.approx(test), "accuracy, validation": pytest.approx(val)}
    assert outcome.notes == (f"C = {-C:g}, chosen without test labels",)
    assert outcome.std is None
    assert judge(codes, graph_set(y, splits=halves(120, 4)), "graph-linear").std_over == "4 splits"


def test_a_linear_probe_that_is_stopped_says_so_once(monkeypatch, recwarn):
    monkeypatch.setattr("graphssl.probes.graph.STEPS", 1)
    y = torch.arange(120) % 3
    (note,) = judge(codes_of(y, 0.6), graph_set(y, splits=halves(120)), "graph-linear").notes
    assert "stopped after 1 steps, chosen" in note
    assert not recwarn.list


def test_the_neighbours_are_those_of_nodes():
    y = torch.arange(120) % 3
    codes, splits = codes_of(y, 0.6), halves(120, 2)
    graph = Graph.build(torch.ones(120, 1), NO_EDGES)
    nodes = Dataset(name="nodes", graphs=[graph], task="node", y=y, splits=splits)
    assert judge(codes, graph_set(y, splits=splits), "graph-knn") == judge(codes, nodes, "node-knn")


def test_ten_labels_a_class_are_drawn_from_training_rows_and_validation_chooses():
    y = torch.arange(120) % 3
    rows = torch.arange(120.0)[:, None] + torch.tensor([0.0, 1.0])  # a row says which it is
    splits = halves(120, 2)
    dataset, drawn = graph_set(y, splits=splits), []
    for number, exam in enumerate(PROTOCOLS["graph-few-shot"].judge.set_exams(rows, dataset).exams):
        split = splits["halves"][number % 2]
        train = exam.seen.train[:, 0].long()
        assert exam.seen.train_y.bincount().tolist() == [10, 10, 10]
        assert torch.equal(exam.seen.train_y, y[train])
        assert set(train.tolist()) <= set(split.train.tolist())
        assert torch.equal(exam.seen.val[:, 0].long(), split.val)
        assert torch.equal(exam.questions[:, 0].long(), split.test)
        drawn.append(frozenset(train.tolist()))
    assert len(set(drawn)) == 10
    codes = 5 * codes_of(y, 0.3) + 2
    outcome, scores = judge(codes, dataset, "graph-few-shot"), []
    for rows, number in zip(drawn, range(10), strict=True):
        split, train = splits["halves"][number % 2], sorted(rows)
        mean, scale = codes[train].mean(0), codes[train].var(0, correction=0).mean().sqrt()
        x, t, found = ((codes - mean) / scale).numpy(), y.numpy(), []
        for C in (1e-3, 1e-2, 1e-1, 1, 10, 100, 1e3):
            model = LogisticRegression(C=C, max_iter=1000).fit(x[train], t[train])
            found.append((model.score(x[split.val], t[split.val]), -C, model.score(x[split.test], t[split.test])))
        scores.append(100 * max(found)[2])
    assert outcome.score == pytest.approx(np.mean(scores))
    assert (outcome.std_over, outcome.repeats) == ("10 draws", 10)
    assert list(outcome.metrics) == ["accuracy", "accuracy, validation"]


def test_the_metric_is_the_sets():
    y = torch.arange(120) % 2
    dataset = graph_set(y, splits=halves(120), metric="auc")
    codes = torch.eye(2)[y] + 0.3 * torch.rand(120, 2, generator=torch.Generator().manual_seed(2))
    for name in ("graph-linear", "graph-knn", "graph-few-shot"):
        outcome = judge(codes, dataset, name)
        assert list(outcome.metrics) == ["AUC", "AUC, validation"]
        assert outcome.score > 90


def test_what_a_graph_set_offers():
    y = torch.arange(20)
    assert graph_set(y).protocols == ("graph-svm",)
    on_a_split = ("graph-linear", "graph-knn", "graph-few-shot")
    assert graph_set(y, splits=halves(20)).protocols == ("graph-svm", *on_a_split)
    (split,) = halves(20)["halves"]
    unchosen = {"mine": (Split(split.train, split.val[:0], split.test),)}
    assert graph_set(y, splits=unchosen).protocols == ("graph-svm",)
    images = Dataset.of_items(Items("images", torch.rand(20, 1, 4, 4)), name="images", y=y)
    assert images.protocols == ()
    assert images.replace(splits=halves(20)).protocols == on_a_split
    assert images.replace(splits=halves(20), y=y.float()).protocols == ("graph-ridge",)
    assert graph_set(y.float()).protocols == ("graph-ridge",)
    assert graph_set(y[:, None].float()).protocols == ("graph-ridge",)
    assert graph_set(y[:, None].expand(-1, 3).float()).protocols == ()
