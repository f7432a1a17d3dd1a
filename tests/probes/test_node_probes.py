"""The linear layer against separate runs of torch.optim.Adam, the neighbours against slow loops and scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, mean_absolute_error, mean_squared_error, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from graphssl.data.dataset import Dataset, Split
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.probes import Seen, judge
from graphssl.probes import metrics as m
from graphssl.probes import node as probes


def seen(C: int = 3, D: int = 5, metric=m.accuracy, dtype=torch.float64) -> tuple[Seen, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    y = torch.randint(C, (110,), generator=g)
    codes = torch.randn(110, D, generator=g, dtype=dtype)
    codes[torch.arange(110), y] += 1
    return Seen(codes[:30], y[:30], codes[30:70], y[30:70], metric), codes[70:], y[70:]


def alone(seen: Seen, weight_decay: float, seed: int, rows: torch.Tensor):
    """GraphMAE's head as its authors wrote it: one layer, one optimizer, the best layer kept on the way."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = torch.nn.Linear(seen.train.size(1), seen.num_classes).to(seen.train.dtype)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, weight_decay=weight_decay)
    best, early = -1.0, None
    for _ in range(probes.EPOCHS):
        loss = F.cross_entropy(layer(seen.train), seen.train_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            score = float(seen.metric(layer(seen.val), seen.val_y))
            if score >= best:
                best, early = score, layer(rows)
    return score, layer(rows).detach(), early


@pytest.mark.parametrize(("C", "metric"), [(3, m.accuracy), (2, m.class_auc)])
def test_all_heads_at_once_are_separate_runs_of_adam(C, metric, monkeypatch):
    monkeypatch.setattr(probes, "EPOCHS", 80)
    shown, questions, _ = seen(C, metric=metric)
    seeds = (11, 12, 13)
    fitted = probes.fit_linear(shown, seeds)
    answers = fitted.predict(questions)
    assert list(answers) == ["last epoch", "best validation epoch"]
    for member, seed in enumerate(seeds):
        runs = [(alone(shown, w, seed, questions), w) for w in (0, 1e-4, 1e-3, 1e-2)]
        (_, last, early), chosen = max(runs, key=lambda run: (run[0][0], run[1]))
        assert fitted.chosen[member] == f"weight decay {chosen:g}"
        torch.testing.assert_close(answers["last epoch"][member], last, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(answers["best validation epoch"][member], early, rtol=1e-7, atol=1e-9)


def test_single_precision_stays_close_to_separate_runs():
    shown, questions, _ = seen(dtype=torch.float32)
    fitted = probes.fit_linear(shown, (4,))
    chosen = float(fitted.chosen[0].split()[-1])
    _, last, _ = alone(shown, chosen, 4, questions)
    torch.testing.assert_close(fitted.predict(questions)["last epoch"][0], last, rtol=1e-3, atol=1e-3)


def test_of_equal_weight_decays_the_largest_is_chosen():
    shown, _, _ = seen()
    far = Seen(
        100 * F.one_hot(shown.train_y).double(),
        shown.train_y,
        100 * F.one_hot(shown.val_y).double(),
        shown.val_y,
        m.accuracy,
    )
    assert probes.fit_linear(far, (0,)).chosen == ("weight decay 0.01",)


def votes_by_hand(shown: Seen, rows: torch.Tensor, k: int) -> torch.Tensor:
    out = []
    for row in rows.tolist():
        near = []
        for train, y in zip(shown.train.tolist(), shown.train_y.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(row, train, strict=True))
            near.append((dot / math.hypot(*row) / math.hypot(*train), y))
        votes = [0.0] * shown.num_classes
        for similarity, y in sorted(near, reverse=True)[:k]:
            votes[y] += math.exp(similarity / 0.07)
        out.append([vote / sum(votes) for vote in votes])
    return torch.tensor(out, dtype=torch.double)


def test_votes_are_those_of_a_slow_loop(monkeypatch):
    monkeypatch.setattr(probes, "CHUNK", 7)
    shown, questions, _ = seen()
    fitted = probes.fit_knn(shown, (0,))
    ks = (1, 5, 10, 20)
    scores = [float(m.accuracy(votes_by_hand(shown, shown.val, k), shown.val_y)) for k in ks]
    k = max(zip(scores, ks, strict=True))[1]
    assert fitted.chosen == (f"k = {k}",)
    torch.testing.assert_close(fitted.predict(questions)[""][0], votes_by_hand(shown, questions, k))


def test_one_neighbour_is_sklearns(monkeypatch):
    monkeypatch.setattr(probes, "NEIGHBOURS", (1,))
    shown, questions, _ = seen()
    oracle = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(shown.train.numpy(), shown.train_y.numpy())
    predicted = probes.fit_knn(shown, (0,)).predict(questions)[""][0].argmax(1)
    assert predicted.tolist() == oracle.predict(questions.numpy()).tolist()


def test_more_neighbours_than_rows_are_all_rows():
    shown, questions, _ = seen()
    few = Seen(shown.train[:6], shown.train_y[:6], shown.val, shown.val_y, m.accuracy)
    assert probes.fit_knn(few, (0,)).predict(questions)[""].shape == (1, 40, 3)


def one_graph(y: torch.Tensor, repeats: int, **fields) -> Dataset:
    g = torch.Generator().manual_seed(1)
    splits = tuple(Split(*torch.randperm(len(y), generator=g).split([30, 40, len(y) - 70])) for _ in range(repeats))
    graph = Graph.build(torch.ones(len(y), 1), torch.empty(2, 0, dtype=torch.long))
    return Dataset(name="nodes", graphs=[graph], task="node", y=y, splits={"random": splits}, **fields)


def test_what_the_spread_is_over():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (150,), generator=g)
    codes = torch.randn(150, 4, generator=g) + y[:, None]
    once, often = one_graph(y, 1), one_graph(y, 4)
    assert judge(codes, once, "node-linear").std_over == "3 probe initialisations"
    assert judge(codes, often, "node-linear").std_over == "4 splits"
    assert judge(codes, once, "node-knn").std is None
    outcome = judge(codes, often, "node-knn")
    single = [judge(codes, once.replace(splits={"s": (s,)}), "node-knn").score for s in often.splits["random"]]
    assert outcome.score == pytest.approx(sum(single) / 4)
    assert outcome.std == pytest.approx(float(torch.tensor(single, dtype=torch.double).std(correction=0)))
    auc = judge(codes, once.replace(metric="auc"), "node-linear")
    assert list(auc.metrics) == ["AUC, last epoch", "AUC, best validation epoch", "AUC, validation"]
    with pytest.raises(UserError, match="needs the two classes 0 and 1"):
        judge(codes, once.replace(metric="auc", y=y + 1), "node-knn")


def test_few_labels_are_of_rows_that_are_not_tested_and_nested():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (150,), generator=g)
    codes = torch.arange(150.0)[:, None] + torch.tensor([0.0, 1.0])  # a row says which it is
    dataset = one_graph(y, 2)
    exams = probes.set_few_exams(codes, dataset)
    seen = [(exam.seen, exam.questions, exam.answers()) for exam in exams.exams]
    assert (exams.count, exams.each, len(seen)) == (10, "draw", 10)
    drawn = set()
    for number, (shown, questions, answers) in enumerate(seen):
        split = dataset.splits["random"][number % 2]
        rows = shown.train[:, 0].long()
        assert questions[:, 0].long().tolist() == split.test.tolist()
        assert torch.equal(answers, y[split.test])
        assert set(rows.tolist()) <= {*split.train.tolist(), *split.val.tolist()}
        assert torch.equal(shown.train_y, y[rows])
        assert shown.train_y.bincount().tolist() == [5, 5, 5]
        assert len(rows.unique()) == 15
        assert len(shown.val) == 0
        drawn |= set(rows.tolist())
    assert len(drawn) > 40
    again = probes.set_few_exams(codes, dataset).exams
    assert all(torch.equal(exam.seen.train, shown.train) for exam, (shown, *_) in zip(again, seen, strict=True))


def test_few_labels_go_through_sklearns_logistic_regression():
    shown, questions, _ = seen(C=4)
    rows = torch.cat([(shown.train_y == c).nonzero()[:5, 0] for c in (0, 1, 3)])  # class 2 has been drawn by nobody
    few = Seen(shown.train[rows], shown.train_y[rows], shown.val[:0], shown.val_y[:0], m.accuracy)
    predicted = probes.fit_few(few, (0,)).predict(questions)
    assert list(predicted) == ["5 labels a class", "3 labels a class", "1 label a class"]
    unit = lambda x: x.numpy() / x.norm(dim=1, keepdim=True).numpy()  # noqa: E731
    for shots, scores in zip((5, 3, 1), predicted.values(), strict=True):
        used = torch.cat([(few.train_y == c).nonzero()[:shots, 0] for c in (0, 1, 3)])
        oracle = LogisticRegression(C=1.0, max_iter=1000).fit(unit(few.train[used]), few.train_y[used].numpy())
        assert scores[0].argmax(1).tolist() == oracle.predict(unit(questions)).tolist()
        assert scores[0, :, 2].max() == 0
    outcome = judge(torch.randn(150, 4), one_graph(torch.arange(150) % 3, 1), "node-few-shot")
    assert list(outcome.metrics) == [f"accuracy, {name}" for name in predicted]
    assert (outcome.std_over, outcome.repeats) == ("10 draws", 10)


def test_few_labels_where_a_class_has_fewer_or_the_metric_is_auc():
    y = torch.zeros(150, dtype=torch.long)
    dataset = one_graph(y, 1)
    (split,) = dataset.splits["random"]
    y[split.train[:3]] = 1
    y[split.test[::2]] = 1
    codes = F.one_hot(y).float() + torch.tensor([[0.1, 0.2]])
    exam = next(probes.set_few_exams(codes, dataset.replace(y=y)).exams)
    assert exam.seen.train_y.tolist() == [0] * 5 + [1] * 3
    outcome = judge(codes, dataset.replace(y=y, metric="auc"), "node-few-shot")
    assert outcome.metrics == {f"AUC, {n} label{'s' * (n > 1)} a class": 100.0 for n in (5, 3, 1)}
    unchosen = Split(torch.cat([split.train, split.val]), split.val[:0], split.test)
    dataset = dataset.replace(y=y, splits={"mine": (unchosen,)})
    assert dataset.protocols == ("node-cluster", "node-few-shot")
    assert judge(codes, dataset, "node-few-shot").score == 100


def test_figures_are_sklearns():
    g = torch.Generator().manual_seed(6)
    truth = torch.randint(2, (80,), generator=g)
    scores = torch.randn(3, 80, generator=g).mul(3).round()  # with ties
    for row, auc, ap in zip(scores, m.auc(scores, truth), m.average_precision(scores, truth), strict=True):
        assert float(auc) == pytest.approx(100 * roc_auc_score(truth, row))
        assert float(ap) == pytest.approx(100 * average_precision_score(truth, row))
    both = torch.stack([-scores, scores], -1)
    torch.testing.assert_close(m.class_auc(both, truth), m.auc(scores, truth))
    torch.testing.assert_close(m.accuracy(both, truth), 100 * ((scores > 0) == truth).double().mean(1))
    value = scores[:1] + 0.3
    assert float(m.mean_absolute_error(value, truth)) == pytest.approx(mean_absolute_error(truth, value[0]), rel=1e-6)
    squared = mean_squared_error(truth, value[0])
    assert float(m.root_mean_square_error(value, truth)) == pytest.approx(squared**0.5, rel=1e-6)
    with pytest.raises(UserError, match="single class"):
        m.auc(scores, torch.ones(80))


def test_planetoid_sets_also_get_the_figure_of_graphmaes_weight_decay():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 6, generator=g), torch.arange(60) % 3
    seen = Seen(x[:30], y[:30], x[30:45], y[30:45], m.accuracy, "cora")
    said = probes.fit_linear(seen, (0,)).predict(x[45:])
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01, weight_decay=1e-4)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x[:30]), y[:30]).backward()
        optimizer.step()
    figure = said["last epoch, GraphMAE's weight decay"][0]
    torch.testing.assert_close(figure, head(x[45:]).detach(), rtol=1e-3, atol=1e-3)
    assert len(probes.fit_linear(Seen(x[:30], y[:30], x[30:45], y[30:45], m.accuracy), (0,)).predict(x[45:])) == 2
