"""WAS: the student of frozen teachers that learns labels, and Blend, ours, that does without."""

import copy
import math
import os
import signal

import numpy as np
import pytest
import torch
from conftest import KINDS, generator
from test_api import cited, molecules
from torch import nn

import graphssl
from graphssl.backbones import backbone
from graphssl.encoder import Encoder
from graphssl.integrate import Weigher, fit_head
from graphssl.methods import Blend
from graphssl.methods.blend import blend
from graphssl.train import seeded, train

N = 150
SHORT = {"epochs": 40}


@pytest.fixture(scope="module")
def data():
    return graphssl.to_dataset(cited(N))


@pytest.fixture(scope="module")
def student(data):
    return graphssl.pretrain(data, "bgrl", width=16, inner=16, hidden=16, epochs=0, progress=False)


def teachers_of(data, useless=1):
    """Codes that show the classes, in part and noisily, and last those that tell neither graph nor labels."""
    shown = nn.functional.one_hot(data.y, 6).float()
    useful = [shown + 0.5 * torch.randn(len(shown), 6, generator=generator(seed)) for seed in (1, 2)]
    return [*useful, *(torch.randn(len(shown), 6, generator=generator(9 + i)) for i in range(useless))]


# with labels


def test_a_useless_teacher_gets_a_low_weight(data, student):
    run = graphssl.was(teachers_of(data), student=student, epochs=100)
    names = ["codes 1", "codes 2", "codes 3"]
    weights = [run.history[f"{name} weight"] for name in names]
    assert np.allclose(np.sum(weights, axis=0), 1, atol=1e-5)
    last = [np.mean(weight[-10:]) for weight in weights]
    assert last[2] < 0.15
    assert last[2] < 0.5 * min(last[:2])
    selected = [np.mean(run.history[f"{name} selected"][-10:]) for name in names]
    assert selected[2] < 0.5 * min(selected[:2])


def test_the_student_predicts_and_says_what_it_has_seen(data, student, tmp_path):
    codes = student.embed()
    run = graphssl.was(teachers_of(data), student=student, **SHORT)
    test = next(iter(data.splits.values()))[0].test
    assert (run.predict().argmax(1) == data.y)[test].float().mean() > 0.7
    assert len(run.history["loss"]) == 40
    assert run.name == "was, finetuned"
    assert run.config["finetuned"]["teachers"] == ["codes 1", "codes 2", "codes 3"]
    with pytest.raises(graphssl.UserError, match="have seen none"):
        run.evaluate()
    run.save(tmp_path / "run")
    assert torch.equal(graphssl.load(tmp_path / "run").predict(data), run.predict())
    assert torch.equal(student.embed(), codes)  # a copy was trained


def test_same_seed_same_bits_whatever_was_drawn_before(data, student):
    one = graphssl.was(teachers_of(data), student=student, epochs=3)
    torch.rand(5)
    before = torch.get_rng_state()
    two = graphssl.was(teachers_of(data), student=student, epochs=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.predict(), two.predict())
    assert one.history == two.history
    assert not torch.equal(graphssl.was(teachers_of(data), student=student, epochs=3, seed=1).predict(), one.predict())


def test_test_labels_are_not_read(data, student):
    parts = next(iter(data.splits.values()))[0]
    y = data.y.clone()
    y[parts.test] = 0
    one = graphssl.was(teachers_of(data), data, student=student, epochs=3)
    two = graphssl.was(teachers_of(data), data.replace(y=y), student=student, epochs=3)
    assert torch.equal(one.predict(), two.predict())
    y = data.y.clone()
    y[parts.val] = y[parts.val].flip(0)
    three = graphssl.was(teachers_of(data), data.replace(y=y), student=student, epochs=3)
    assert three.history["validation loss"] != one.history["validation loss"]


def test_runs_are_teachers_and_shape_the_student(data):
    small = {"width": 16, "hidden": 16, "epochs": 5, "progress": False}
    runs = [graphssl.pretrain(data, name, **small) for name in ("grace", "bgrl", "grace")]
    before = [copy.deepcopy(run.method.state_dict()) for run in runs]
    run = graphssl.was(runs, epochs=5)
    assert type(run.method).__name__ == "GRACE"
    assert {"grace 1 weight", "bgrl weight", "grace 2 selected"} <= run.history.keys()
    for teacher, state in zip(runs, before, strict=True):  # frozen
        assert all(torch.equal(state[name], tensor) for name, tensor in teacher.method.state_dict().items())
    assert run.predict().shape == (N, 3)


def test_a_new_student_is_its_own_run(data):
    """It is the student that pretrain(..., epochs=0) makes, not the first teacher under another name."""
    small = {"width": 16, "hidden": 16, "progress": False}
    runs = [graphssl.pretrain(data, "grace", epochs=3, seed=s, **small) for s in (4, 5)]
    runs[0].config["best"] = {"epoch": 2, "validation_auc": 0.9}
    new = graphssl.pretrain(data, "grace", epochs=0, seed=7, **small)
    given, made = (graphssl.was(runs, student=s, epochs=3, seed=7) for s in (new, None))
    assert torch.equal(given.predict(), made.predict())
    assert all(torch.equal(a, b) for a, b in zip(*(r.untrained().parameters() for r in (made, new)), strict=True))
    for key in ("seed", "epochs", "settings", "early_stop", "labels_seen", "seen", "fingerprint"):
        assert made.config[key] == given.config[key], key
    assert made.config["seed"] == 7
    assert made.config["finetuned"]["from"] == "untrained"
    assert not {"best", "start"} & made.config.keys()
    assert "epoch 2" not in repr(made)
    tuned = runs[0].finetune(epochs=2)
    assert graphssl.was([tuned, runs[1]], epochs=2).config["labels_seen"] == made.config["labels_seen"]


def test_finetuned_runs_teach_by_their_own_heads_unless_they_saw_other_rows(data, monkeypatch):
    runs = [graphssl.pretrain(data, "grace", width=16, hidden=16, epochs=1, seed=s, progress=False) for s in (0, 1)]
    tuned = [run.finetune(epochs=5) for run in runs]
    monkeypatch.setattr(graphssl.integrate, "fit_head", None)
    graphssl.was(tuned, epochs=2)
    monkeypatch.undo()
    parts = next(iter(data.splits.values()))[0]
    name = next(iter(data.splits))
    swapped = graphssl.data.dataset.Split(train=parts.test, val=parts.val, test=parts.train)
    other = data.replace(splits={**data.splits, "swapped": (swapped,)})
    with pytest.raises(graphssl.UserError, match="leave it out"):
        graphssl.was(tuned, other, split="swapped", epochs=2)
    assert graphssl.was(tuned, other, split=name, epochs=2).config["finetuned"]["split"] == name


def test_graph_sets_are_learned_in_batches():
    run = graphssl.pretrain(molecules(), "graphmae", width=16, epochs=0, progress=False)
    own = run.data()
    halves = graphssl.data.random_splits(own.y, repeats=1, seed=0, train=0.5, val=0.2)
    data = own.replace(splits={"halves": tuple(halves)})
    shown = nn.functional.one_hot(data.y.flatten(), 4).float()
    teachers = [shown + 0.3 * torch.randn(30, 4, generator=generator(0)), torch.randn(30, 4, generator=generator(1))]
    tuned = graphssl.was(teachers, data, student=run, epochs=30, batch_size=8)
    assert tuned.predict(data).shape == (30, 2)
    assert tuned.history["codes 2 weight"][-1] < tuned.history["codes 1 weight"][-1]


def test_wrong_use_of_was_is_one_sentence(data, student):
    good = teachers_of(data)
    for teachers, settings, words in (
        (good[:1], {}, "two or more"),
        (good, {"student": None}, "student=pretrain"),
        ([good[0], good[1][:5]], {}, "one row a label"),
        ([good[0], good[1] * float("nan")], {}, "NaN"),
        (good, {"epochs": 0}, "1 or more"),
        (good, {"lr": -1.0}, "above 0"),
        (good, {"split": "publik"}, "publi"),
        (good, {"labelled": data.replace(y=None)}, "give one that has"),
        (good, {"labelled": data.replace(y=data.y.float())}, "give one that has"),
        (good, {"labelled": data.replace(splits={})}, "with splits"),
    ):
        with pytest.raises(graphssl.UserError, match=words):
            graphssl.was(teachers, **{"student": student, "epochs": 1, **settings})


def test_weigher_in_loops_and_its_selection():
    with seeded(0):
        weigher = Weigher(4, 3)
    with torch.no_grad():
        weigher.select.module.own.weight.add_(0.5)  # the selector's vectors are its own
    scores = 3 * torch.randn(5, 4, generator=generator(0))
    shares, selected = weigher(scores, generator(1))
    assert set(selected.unique().tolist()) <= {0.0, 1.0}
    own, shared = weigher.weigh.own.weight.tolist(), weigher.weigh.shared.weight[0].tolist()
    for i, row in enumerate(scores.tolist()):
        affinity = [sum(v * t * g for v, t, g in zip(row, vector, shared, strict=True)) for vector in own]
        total = sum(math.exp(a) for a, s in zip(affinity, selected[i].tolist(), strict=True) if s)
        expected = [math.exp(a) / total * s for a, s in zip(affinity, selected[i].tolist(), strict=True)]
        torch.testing.assert_close(shares[i], torch.tensor(expected))


@pytest.mark.parametrize(("part", "column"), [("weigh", 0), ("mix", 1)])
def test_a_gradient_against_a_teacher_lowers_its_affinity_and_its_chance(part, column):
    with seeded(1):
        weigher = Weigher(4, 3)
    scores = 4 * torch.rand(200, 4, generator=generator(0))  # of one sign, so that one vector can be against all
    optimizer = torch.optim.Adam(getattr(weigher, part).parameters(), 5e-2)
    against = weigher(scores, generator(0))[1].mean(0).argmin()  # the likeliest one has no chance to lose at first
    rates = []
    for step in range(100):
        shares, selected = weigher(scores, generator(step))
        rates.append((shares[:, against].mean().item(), selected[:, against].mean().item()))
        optimizer.zero_grad()
        shares[:, against].mean().backward()
        optimizer.step()
    assert rates[-1][column] < 0.5 * rates[0][column]


def test_affinities_far_apart_stay_finite():
    weigher = Weigher(2, 3)
    with torch.no_grad():
        weigher.weigh.own.weight.copy_(torch.tensor([[500.0, 0], [0, 0], [-500.0, 0]]))
        weigher.weigh.shared.weight.fill_(1.0)
    shares, selected = weigher(torch.ones(500, 2), generator(0))
    shares[:, 0].sum().backward()
    torch.testing.assert_close(shares.sum(1), torch.ones(500))
    assert (shares[selected == 0] == 0).all()
    assert all(p.grad.isfinite().all() for p in (weigher.weigh.own.weight, weigher.mix.weight))


def test_selection_rates_are_the_chances_over_the_highest():
    with seeded(0):
        weigher = Weigher(4, 3)
    row = 3 * torch.randn(1, 4, generator=generator(0))
    _, selected = weigher(row.expand(20000, 4), generator(1))
    chance = weigher.mix(weigher.select.module(row)).softmax(1)
    torch.testing.assert_close(selected.mean(0), (chance / chance.max())[0].detach(), atol=0.015, rtol=0)
    assert selected.amax(1).all()  # never nobody


def test_no_gradient_moves_the_selectors_vectors_but_momentum_does():
    weigher = Weigher(4, 3)
    shares, _ = weigher(torch.randn(8, 4, generator=generator(0)), generator(1))
    shares[:, 0].sum().backward()
    assert all(p.grad is None for p in weigher.select.parameters())
    assert weigher.weigh.own.weight.grad.any()
    assert weigher.mix.weight.grad.any()  # straight through the draw
    with torch.no_grad():
        weigher.weigh.own.weight.add_(1.0)
    before = weigher.select.module.own.weight.clone()
    weigher.select.follow(weigher.weigh, 0.1)
    torch.testing.assert_close(weigher.select.module.own.weight, before + 0.9)


def test_a_head_on_noise_stays_undecided_and_one_on_signs_does_not(data):
    parts = next(iter(data.splits.values()))[0]
    useful, _, noise = teachers_of(data)
    for codes, decided in ((useful, True), (noise, False)):
        scores = fit_head(codes, data.y, parts.train, parts.val, 3)
        spread = scores.softmax(1).amax(1).mean()
        assert (spread > 0.7) == decided
        assert (spread < 0.5) != decided


# without labels


def codes_of(graph, useless=True):
    """Teachers' codes: two that the graph gives away, and one that nothing does."""
    mix = torch.randn(8, 10, generator=generator(3))
    smooth = graph.x.clone()
    smooth.index_add_(0, graph.edge_index[1], graph.x[graph.edge_index[0]])
    noise = torch.randn(graph.num_nodes, 10, generator=generator(4))
    return [graph.x @ mix, (smooth @ mix).relu(), *([noise] if useless else [])]


def gcn():
    with seeded(0):
        return Encoder(backbone("gcn", 8, [16, 16]))


def make(teachers, **settings):
    with seeded(1):
        return Blend(gcn(), teachers, **settings)


@pytest.mark.parametrize("keep", [None, 1, 2])
def test_blend_gives_a_useless_teacher_a_low_weight_without_labels(data, keep):
    method = make(codes_of(data.graph), keep=keep)
    run = graphssl.pretrain(data, method, epochs=150, lr=1e-2, progress=False)
    last = [run.history[f"teacher {place} weight"][-1] for place in (1, 2, 3)]
    assert sum(last) == pytest.approx(1, abs=1e-5)
    assert last[2] < 0.1
    assert run.history["codes"][-1] < 0.5 * run.history["codes"][0]
    assert run.config["labels_seen"] == []
    assert run.evaluate(protocol="node-linear").score > 60  # chance is a third


def test_blend_is_what_it_says_in_loops(data):
    graph, targets = data.graph, codes_of(data.graph)
    targets[0][:, 2] = 1.0  # a column without spread counts for nothing
    method = make(targets, tau=0.3, keep=2).eval()
    losses = method(graph)
    z = method.encoder(graph)
    found, heads = 0.0, 0.0
    standard = [(t - t.mean(0)) / t.std(0).clamp(min=1e-6) for t in targets]
    standard[0] = standard[0][:, [c for c in range(10) if c != 2]]
    predicted = [head(z) for head in method.heads]
    for i in range(N):
        error = [(p[i] - t[i]).square().mean().item() for p, t in zip(predicted, standard, strict=True)]
        kept = sorted(range(3), key=lambda s: error[s])[:2]
        total = sum(math.exp(-error[s] / 0.3) for s in kept)
        found += sum(math.exp(-error[s] / 0.3) / total * error[s] for s in kept) / N
        heads += sum(error) / 3 / N
    assert losses["codes"].item() == pytest.approx(found, rel=1e-3)
    assert losses["heads"].item() == pytest.approx(heads, rel=1e-3)


def test_blends_weights_are_the_best_under_their_entropy():
    error, tau = torch.rand(1, 4, generator=generator(0)), 0.3
    best = blend(error, tau, 4)

    def cost(weights):
        return float((weights * error).sum() + tau * (weights * weights.log()).sum())

    for seed in range(50):
        assert cost(best) <= cost(torch.rand(1, 4, generator=generator(seed)).softmax(1)) + 1e-6
    assert (blend(error, tau, 2) > 0).sum() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_blend_keeps_the_contracts_of_methods(kind):
    graph = KINDS[kind]()
    teachers = [torch.randn(graph.num_nodes, 5, generator=generator(seed)) for seed in (0, 1)]
    with seeded(0):
        encoder = Encoder(backbone("gcn", 12, [8]))
    if kind == "one-node":
        with pytest.raises(ValueError, match="do not vary"):
            Blend(encoder, teachers)
        return
    method = Blend(encoder, teachers)
    twin = copy.deepcopy(method)
    losses = method(graph)
    method.total(losses).backward()
    assert not [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(torch.equal(losses[k], v) for k, v in twin(graph).items())
    assert not any("target" in name for name in method.state_dict())  # codes are no weights
    history = [losses["loss"].item() for _, losses in train(twin, lambda step: graph, adam(twin), 30)]
    assert history[-1] < history[0]


def adam(method):
    return torch.optim.Adam(method.parameters(), 1e-2)


def test_blend_follows_the_rows_of_a_part_of_the_graph(data):
    method = make(codes_of(data.graph)).eval()
    part = data.graph.keep_nodes(torch.arange(N) % 2 == 0)
    assert torch.equal(method._targets(part)[1], method._targets(data.graph)[1][::2])
    with pytest.raises(graphssl.UserError, match="blend teachers of one graph"):
        method(part.replace(rows=None))


def test_a_blend_is_saved_and_goes_on_with_the_object_again(data, tmp_path):
    method = make(codes_of(data.graph))
    run = graphssl.pretrain(data, method, epochs=2, progress=False, out=tmp_path / "run")
    again = graphssl.load(tmp_path / "run", method=method)
    assert torch.equal(again.embed(data), run.embed())


def test_a_blend_goes_on_with_the_same_teachers_only(data, tmp_path, monkeypatch):
    good = codes_of(data.graph)
    short = {"epochs": 4, "out": tmp_path / "run", "progress": False}
    whole = graphssl.pretrain(data, make(good), **{**short, "out": None})
    after = Blend.after_step

    def interrupted(self, progress):
        after(self, progress)
        if round(4 * progress) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Blend, "after_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        graphssl.pretrain(data, make(good), **short)
    monkeypatch.setattr(Blend, "after_step", after)
    with pytest.raises(graphssl.UserError, match="other teachers"):
        graphssl.pretrain(data, make([good[1], good[0], good[2]]), resume=True, **short)
    again = graphssl.pretrain(data, make([codes.clone() for codes in good]), resume=True, **short)
    assert torch.equal(again.embed(), whole.embed())


def test_wrong_blends_are_refused(data):
    good = codes_of(data.graph)
    for teachers, settings, words in (
        (good[:1], {}, "two or more"),
        (good, {"tau": 0.0}, "above 0"),
        (good, {"keep": 4}, "from 1 to 3"),
        ([good[0], good[1][:7]], {}, "one row a node"),
        ([good[0], torch.ones(N, 3)], {}, "do not vary"),
        ([good[0], good[1] / 0], {}, "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            make(teachers, **settings)
