"""Every protocol: its door, its randomness, and that no test label reaches a probe."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from graphssl import structure
from graphssl.data.dataset import Dataset, Graphs, Split
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Rows
from graphssl.probes import (
    PROTOCOLS,
    Exam,
    Examiner,
    Exams,
    LinkCodes,
    Outcome,
    Protocol,
    judge,
    list_protocols,
    register,
    topology,
)
from graphssl.probes.base import row_exam

C = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer settings to choose from and fewer epochs; beside this file, each protocol has tests of what it computes."""
    monkeypatch.setattr("graphssl.probes.graph.PENALTIES", (0.1, 1.0))
    monkeypatch.setattr("graphssl.probes.graph.STRENGTHS", (0.1, 1.0, 10.0))
    monkeypatch.setattr("graphssl.probes.node.EPOCHS", 100)


ON_A_SPLIT = ("graph-linear", "graph-knn", "graph-few-shot")  # other protocols for graphs make folds
NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def random_parts(N: int, repeats: int) -> dict[str, tuple[Split, ...]]:
    """Three tenths train, two tenths choose, half tests."""
    g = torch.Generator().manual_seed(7)
    orders = [torch.randperm(N, generator=g) for _ in range(repeats)]
    return {"random": tuple(Split(*order.split([3 * N // 10, N // 5, N - 3 * N // 10 - N // 5])) for order in orders)}


def node_set(y: Tensor, repeats: int = 1, **fields) -> Dataset:
    """Nodes of a ring in random splits."""
    N = len(y)
    graph = Graph.build(torch.ones(N, 1), torch.stack([torch.arange(N), (torch.arange(N) + 1) % N]))
    return Dataset(name="nodes", graphs=[graph], task="node", y=y, splits=random_parts(N, repeats), **fields)


def graph_set(y: Tensor, **fields) -> Dataset:
    graphs = Graphs(len(y), lambda i: Graph.build(torch.ones(1, 1), NO_EDGES))
    return Dataset(name="graphs", graphs=graphs, task="graph", y=y, **fields)


def link_set(y: Tensor) -> Dataset:
    """Joined pairs lie within a class, absent ones across."""
    N, g = len(y), torch.Generator().manual_seed(8)
    pairs = torch.randint(N, (2, 8 * N), generator=g)
    same = y[pairs[0]] == y[pairs[1]]
    present, absent = pairs[:, same & (pairs[0] != pairs[1])].unique(dim=1), pairs[:, ~same]
    present = present[:, torch.randperm(present.size(1), generator=g)]
    n = present.size(1) // 3
    train, val, test = present.split([present.size(1) - 2 * n, n, n], dim=1)
    split = Split(train, val, test, absent[:, :n], absent[:, n : 2 * n])
    graphs = [Graph.build(torch.ones(N, 1), edges) for edges in (train, torch.cat([train, val], 1))]
    fields = {"name": "links", "task": "link", "splits": {"link": (split,)}}
    return Dataset(graphs=graphs[:1], with_val=graphs[1], **fields)


def around(count: int) -> Tensor:
    """Where each node of a ring is, [count, 2]."""
    angle = 2 * torch.pi * torch.arange(count) / count
    return torch.stack([angle.cos(), angle.sin()], 1)


def given(name: str, codes):
    """``codes`` in the form that the protocol asks for."""
    return LinkCodes(codes, codes) if PROTOCOLS[name].two_graphs else codes


def example(name: str, count: int = 120, repeats: int = 1) -> tuple[Tensor, Dataset]:
    """A small set for the protocol, and noisy codes that tell something about it."""
    g = torch.Generator().manual_seed(3)
    y = torch.arange(count) % C
    codes = torch.randn(count, 6, generator=g)
    protocol = PROTOCOLS[name]
    if protocol.task == "node" and not protocol.labels:
        codes[:, :2] += 4 * around(count)
    else:
        codes[torch.arange(count), y] += 2
    if protocol.task == "node":
        return codes, node_set(y, repeats)
    if protocol.task == "link":
        return codes, link_set(y)
    splits = random_parts(count, repeats) if name in ON_A_SPLIT else {}
    return codes, graph_set(
        y if protocol.labels == "classes" else y + 0.2 * torch.randn(count, generator=g), splits=splits
    )


def perfect(name: str, dataset: Dataset) -> Tensor:
    if dataset.task == "link":
        return torch.eye(C)[torch.arange(dataset.graph.num_nodes) % C]
    if name == "reconstruct":
        return around(dataset.graph.num_nodes)
    if name == "partition":
        return torch.eye(10)[structure.partition(dataset.graph, 10, topology.SEED)]
    assert dataset.y is not None
    return dataset.y[:, None] if dataset.y.is_floating_point() else torch.eye(C)[dataset.y]


every_protocol = pytest.mark.parametrize("name", sorted(PROTOCOLS))
every_exam = pytest.mark.parametrize("name", [n for n in sorted(PROTOCOLS) if isinstance(PROTOCOLS[n].judge, Examiner)])
labelled_protocol = pytest.mark.parametrize("name", [n for n in sorted(PROTOCOLS) if PROTOCOLS[n].labels])


class Witness:
    """A protocol's examiner that writes down what happens, in order, and what was predicted and chosen."""

    def __init__(self, examiner: Examiner):
        self.events: list[str] = []
        self.predictions: list[Tensor] = []
        self.chosen: list[str] = []
        self.examiner = replace(examiner, set_exams=self.set_exams, fit=self.fit)
        self.inner = examiner

    def set_exams(self, codes, dataset):
        exams = self.inner.set_exams(codes, dataset)
        return replace(exams, exams=(replace(exam, answers=self.answers(exam)) for exam in exams.exams))

    def answers(self, exam: Exam):
        def read():
            self.events.append("answers")
            return exam.answers()

        return read

    def fit(self, seen, seeds):
        self.events.append("fit")
        fitted = self.inner.fit(seen, seeds)
        self.chosen += fitted.chosen

        def predict(rows):
            out = fitted.predict(rows)
            on_val = rows is seen.val
            self.events.append("validate" if on_val else "predict")
            if not on_val:
                self.predictions += out.values()
            return out

        return replace(fitted, predict=predict)


EXAMS = {"node-cluster": 1, "partition": 1, "node-few-shot": 10, "graph-linear": 3, "graph-knn": 3}


@every_exam
def test_test_labels_are_read_once_a_repeat_after_the_predictions(name):
    codes, dataset = example(name, repeats=3)
    witness = Witness(PROTOCOLS[name].judge)
    outcome = witness.examiner(given(name, codes), dataset, 0)
    events = [event for event in witness.events if event != "validate"]
    exams = EXAMS.get(name, {"graph": 10, "node": 3, "link": 1}[PROTOCOLS[name].task])
    assert events == ["fit", "predict", "answers"] * exams
    assert outcome.repeats == (max(exams, PROTOCOLS[name].judge.initialisations) if exams == 1 else exams)


def spied(y: Tensor) -> tuple[Tensor, list]:
    """``y``, and a list of the rows that are read from it; anything but indexing writes its name down."""
    reads: list = []
    harmless = {"__get__", "size", "dim", "is_floating_point", "__len__", "numel"}

    class Spied(Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func.__name__ not in harmless:
                reads.append(args[1].tolist() if func.__name__ == "__getitem__" else func.__name__)
            with torch._C.DisableTorchFunctionSubclass():
                out = func(*args, **(kwargs or {}))
            return out.as_subclass(Tensor) if isinstance(out, Tensor) else out

    return y.as_subclass(Spied), reads


@labelled_protocol
def test_a_spy_on_the_labels_sees_each_part_of_each_repeat_once(name):
    codes, dataset = example(name, repeats=2)
    y, reads = spied(dataset.y)
    assert judge(codes, dataset.replace(y=y), name) == judge(codes, dataset, name)
    if name == "node-cluster":  # without parts: how many classes there are, and what answers are read from
        assert reads == ["flatten"]
    elif name.endswith("few-shot"):  # draws look at what is not tested, by turns
        one, two = dataset.splits["random"]
        for place, split in enumerate(5 * [one, two]):
            drawn, train, val, test = reads[4 * place : 4 * place + 4]
            choosing = [] if dataset.task == "node" else split.val.tolist()
            assert sorted(drawn + choosing) == sorted([*split.train.tolist(), *split.val.tolist()])
            assert (set(train) <= set(drawn), val, test) == (True, choosing, split.test.tolist())
            assert len(train) == len(set(train)) <= C * (5 if dataset.task == "node" else 10)
        assert len(reads) == 40
    elif dataset.splits:
        expected = [part for split in dataset.splits["random"] for part in (split.train, split.val, split.test)]
        assert sorted(reads) == sorted(part.tolist() for part in expected)
    else:  # dealing rows out to folds comes first, and reads classes (or which numbers are missing) once
        dealing, folds = reads[0], reads[1:]
        assert dealing == "reshape"
        folds = [read for read in folds if read and len(read) < len(y)]
        tests = [read for read in folds if len(read) <= len(y) // 10]
        assert sorted(row for read in tests for row in read) == list(range(len(y)))
        assert len(folds) == 20


@every_exam
def test_other_test_labels_change_the_score_and_nothing_else(name, monkeypatch):
    codes, dataset = example(name)
    protocol = PROTOCOLS[name]
    other = dataset
    if dataset.task != "link" and dataset.splits:
        split = dataset.splits["random"][0]
        y = dataset.y.clone()
        y[split.test] = (y[split.test] + 1) % C
        other = dataset.replace(y=y)
    elif dataset.task == "link":  # the same pairs, joined and absent changing places
        split = dataset.splits["link"][0]
        swapped = replace(split, test=split.test_absent, test_absent=split.test)
        other = dataset.replace(splits={"link": (swapped,)})
    else:  # folds are dealt by label, so hold one fold still
        rows = torch.arange(len(codes))
        train, test = rows[rows % 10 > 0], rows[rows % 10 == 0]
        metrics = protocol.judge.set_exams(codes, dataset).metrics

        def one_fold(codes, dataset):
            exam = row_exam(codes, dataset.y, train, train[:0], test, next(iter(metrics.values())))
            return Exams(iter([exam]), 1, "fold", metrics)

        protocol = replace(protocol, judge=replace(protocol.judge, set_exams=one_fold))
        y = dataset.y.clone()
        y[test] = (y[test] + 1) % C
        other = dataset.replace(y=y)
    first, second = Witness(protocol.judge), Witness(protocol.judge)
    codes = given(name, codes)
    before = first.examiner(codes, dataset, 0)
    if name == "partition":
        part = structure.partition(dataset.graph, topology.PARTS, topology.SEED)
        (split,) = topology.random_splits(len(part), 1, topology.SEED)
        part[split.test] = (part[split.test] + 1) % topology.PARTS
        monkeypatch.setattr(structure, "partition", lambda graph, parts, seed: part)
    after = second.examiner(codes, other, 0)
    for a, b in zip(first.predictions, second.predictions, strict=True):
        half = a.size(1) // 2
        if dataset.task == "link":  # a matrix product may round a row by its place
            torch.testing.assert_close(a, torch.cat([b[:, half:], b[:, :half]], 1), rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(a, b)
    assert first.chosen == second.chosen
    validation = [key for key in before.metrics if key.endswith("validation")]
    assert [before.metrics[key] for key in validation] == [after.metrics[key] for key in validation]
    assert before.score != after.score


@labelled_protocol
def test_shuffled_labels_land_at_chance(name):
    codes, dataset = example(name, count=400)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(11))
    outcome = judge(codes, dataset.replace(y=dataset.y[order]), name)
    informed = judge(codes, dataset, name)
    if PROTOCOLS[name].labels == "numbers":
        constant = float((dataset.y - dataset.y.mean()).abs().mean())
        assert outcome.score > 0.95 * constant
        assert informed.score < 0.8 * constant
        return
    if name == "node-cluster":
        assert abs(outcome.metrics["ARI"]) < 3
        assert informed.metrics["ARI"] > 30
        return
    rows = 200 if dataset.splits else 400
    bound = 4 * 100 * (1 / C * (1 - 1 / C) / rows) ** 0.5
    assert abs(outcome.score - 100 / C) < bound
    assert informed.score > 100 / C + bound


link_protocol = pytest.mark.parametrize("name", [n for n in sorted(PROTOCOLS) if PROTOCOLS[n].task == "link"])


@link_protocol
def test_codes_that_know_nothing_find_links_by_chance(name):
    codes, dataset = example(name, count=400)
    nothing = torch.randn(400, 6, generator=torch.Generator().manual_seed(5))
    outcome = judge(given(name, nothing), dataset, name)
    pairs = dataset.splits["link"][0].test.size(1)
    assert abs(outcome.score - 50) < 4 * 100 * (1 / (6 * pairs)) ** 0.5
    assert judge(given(name, codes), dataset, name).score > 60


@link_protocol
def test_shuffled_pair_labels_land_at_chance(name):
    """Which pairs are joined is drawn anew, in all parts of the split and in the graph."""
    codes, dataset = example(name, count=400)
    split = dataset.splits["link"][0]
    train, val, test = (part.size(1) for part in (split.train, split.val, split.test))
    pairs = torch.cat([split.val, split.val_absent, split.test, split.test_absent], 1)
    g = torch.Generator().manual_seed(12)
    pairs = pairs[:, torch.randperm(pairs.size(1), generator=g)]
    drawn = torch.randint(400, (2, train), generator=g)
    parts = pairs.split([val, val, test, test], 1)
    shuffled = replace(split, train=drawn, val=parts[0], val_absent=parts[1], test=parts[2], test_absent=parts[3])
    graphs = [Graph.build(torch.ones(400, 1), e) for e in (drawn, torch.cat([drawn, parts[0]], 1))]
    other = dataset.replace(graphs=graphs[:1], with_val=graphs[1], splits={"link": (shuffled,)})
    assert abs(judge(given(name, codes), other, name).score - 50) < 4 * 100 * (1 / (6 * test)) ** 0.5


@link_protocol
def test_a_spy_on_a_link_split_sees_test_answers_read_once_at_the_end(name):
    codes, dataset = example(name)
    witness = Witness(PROTOCOLS[name].judge)
    own = LinkCodes(codes, codes, lambda codes, pairs: (codes[pairs[0]] - codes[pairs[1]]).abs().sum(1))
    witness.examiner(own, dataset, 0)
    assert [event for event in witness.events if event != "validate"] == ["fit", "predict", "answers"]
    assert Counter(witness.events)["answers"] == 1


@every_protocol
def test_perfect_codes_are_perfect(name):
    _, dataset = example(name, count=1000 if name == "partition" else 120)  # a tenth of them has some of each part
    outcome = judge(given(name, perfect(name, dataset)), dataset, name)
    if PROTOCOLS[name].higher_is_better:
        assert set(outcome.metrics.values()) == {100.0}
        assert outcome.score == 100.0
    else:
        assert outcome.score < 1e-3


@every_protocol
def test_the_same_seed_gives_the_same_outcome_and_leaves_the_global_state_alone(name):
    codes, dataset = example(name)
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    codes = given(name, codes)
    first = judge(codes, dataset, name, seed=5)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))
    assert python_state == random.getstate()
    torch.rand(3)
    np.random.rand(3)
    assert judge(codes, dataset, name, seed=5) == first
    assert first.score == first.metrics[next(iter(first.metrics))]
    assert (first.std is None) == (first.std_over == "") == (first.repeats == 1)


@every_protocol
def test_arrays_and_sparse_rows_are_codes_too(name):
    codes, dataset = example(name)
    codes = codes.relu()
    expected = judge(given(name, codes), dataset, name)
    assert judge(given(name, codes.numpy()), dataset, name) == expected
    assert judge(given(name, Rows.from_dense(codes)), dataset, name) == expected
    assert judge(given(name, codes.double().requires_grad_()), dataset, name) == expected
    with torch.inference_mode():  # as codes often are made
        made = codes.clone()
        assert judge(given(name, made), dataset, name) == expected


@every_protocol
def test_codes_that_do_not_fit_are_named(name):
    codes, dataset = example(name)
    with pytest.raises(UserError, match=r"shape \(119, 6\).*has 120"):
        judge(given(name, codes[:-1]), dataset, name)
    with pytest.raises(UserError, match="shape"):
        judge(given(name, codes[:, :0]), dataset, name)
    codes[7, 2] = torch.nan
    with pytest.raises(UserError, match=r"1 values.*row 7, column 2"):
        judge(given(name, codes), dataset, name)


@every_protocol
def test_a_set_of_another_task_is_refused_with_what_it_offers(name):
    codes, dataset = example(name)
    assert name in dataset.protocols
    other = "node-linear" if dataset.task == "graph" else "graph-svm"
    with pytest.raises(UserError, match=f"{other} judges codes on .* it offers {dataset.protocols[0]}"):
        judge(codes, dataset, other)
    assert "." not in PROTOCOLS[name].about.replace("0.", "").rstrip(".")  # one sentence


@labelled_protocol
def test_labels_that_are_missing_or_of_another_kind_are_refused(name):
    codes, dataset = example(name)
    with pytest.raises(UserError, match="has none"):
        judge(codes, dataset.replace(y=None), name)
    y = dataset.y.long() if dataset.y.is_floating_point() else dataset.y.float()
    with pytest.raises(UserError, match="needs labels that are"):
        judge(codes, dataset.replace(y=y), name)
    with pytest.raises(UserError, match="one label a"):
        judge(codes, dataset.replace(y=dataset.y[:, None].expand(-1, 2)), name)
    assert judge(codes, dataset.replace(y=dataset.y[:, None]), name) == judge(codes, dataset, name)


@pytest.mark.parametrize("name", ["node-linear", "node-knn", "node-cluster", "node-few-shot", "graph-svm", *ON_A_SPLIT])
def test_one_class_is_refused(name):
    codes, dataset = example(name)
    with pytest.raises(UserError, match="all of one class"):
        judge(codes, dataset.replace(y=torch.zeros_like(dataset.y)), name)


@pytest.mark.parametrize("name", ["node-linear", "node-knn", "node-few-shot", *ON_A_SPLIT])
def test_splits_that_cannot_be_used_are_refused(name):
    codes, dataset = example(name)
    split, none = dataset.splits["random"][0], torch.empty(0, dtype=torch.long)
    for part, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        if name == "node-few-shot" and part == "val":
            continue
        with pytest.raises(UserError, match=f"has no {word} rows"):
            judge(codes, dataset.replace(splits={"mine": (replace(split, **{part: none}),)}), name)
    with pytest.raises(UserError, match="has no split"):
        judge(codes, dataset.replace(splits={}), name)
    shared = replace(split, train=torch.cat([split.train, split.test[:3]]))
    with pytest.raises(UserError, match="3 rows in more than one part"):
        judge(codes, dataset.replace(splits={"mine": (shared,)}), name)
    y = dataset.y.clone()
    y[split.test[0]] = -1
    with pytest.raises(UserError, match=f"first is row {int(split.test[0])}"):
        judge(codes, dataset.replace(y=y), name)


def test_a_protocol_of_ones_own_takes_one_call(monkeypatch):
    monkeypatch.setattr("graphssl.probes.base.PROTOCOLS", PROTOCOLS.copy())
    own = Protocol(
        "always", 1, "node", "accuracy", True, "Says 12.", lambda codes, dataset, seed: Outcome(12.0, notes=("a",))
    )
    codes, dataset = example("node-linear")
    assert register(own) is own
    assert register(own) is own
    assert "always" in list_protocols("al*")
    assert judge(codes, dataset, "always", notes=["b"]).notes == ("a", "b")
    with pytest.raises(UserError, match="already"):
        register(replace(own, version=2))
    with pytest.raises(UserError, match="did you mean 'node-linear'"):
        judge(codes, dataset, "node-liner")


def test_the_list():
    links = ["link-dot", "link-mlp", "link-mlp-valmsg"]
    nodes = ["node-cluster", "node-few-shot", "node-knn", "node-linear"]
    graphs = ["graph-few-shot", "graph-knn", "graph-linear", "graph-ridge", "graph-svm"]
    assert list_protocols() == [*graphs, *links, *nodes, "partition", "reconstruct"]
    assert list_protocols("node-*") == nodes
    for name in list_protocols():
        assert PROTOCOLS[name].name == name
        assert len(PROTOCOLS[name].about) > 100
