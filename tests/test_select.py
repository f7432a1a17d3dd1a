"""Which epoch's weights a run ends with: held out honestly, chosen by the best look, and kept through a kill."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from conftest import generator
from safetensors.torch import load_file

import graphssl
from graphssl import runner, store
from graphssl.data import Dataset, Split, to_dataset
from graphssl.graph import Graph
from graphssl.methods import S2GAE
from graphssl.recipes import Select
from graphssl.select import Best, hold_out

SMALL = {"width": 8, "inner": 8, "progress": False}


def pairs_of(n, count, seed=0):
    u, v = torch.triu_indices(n, n, 1)
    chosen = torch.randperm(len(u), generator=generator(seed))[:count]
    return torch.stack([u[chosen], v[chosen]])


def linked(n=40, count=160, directed=False, y=True):
    """A node set of ``count`` joined pairs."""
    pairs = pairs_of(n, count)
    edges = pairs if directed else torch.cat([pairs, pairs.flip(0)], 1)
    graph = Graph.build(torch.randn(n, 6, generator=generator(1)), edges)
    return Dataset(name="data", graphs=[graph], task="node", y=torch.arange(n) % 3 if y else None)


def either(pairs):
    return {frozenset(pair) for pair in zip(*pairs.tolist(), strict=True)}


# what is held out


@pytest.mark.parametrize("directed", [False, True])
def test_a_node_set_holds_out_a_share_of_its_pairs_in_both_directions(directed):
    data = linked(directed=directed)
    kept, split = hold_out(data, Select(hold_out=0.1), 3)
    held, absent, before = either(split.val), either(split.val_absent), either(data.graph.edge_index)
    assert len(held) == split.val.size(1) == 16
    assert not held & either(kept.graph.edge_index)
    assert held | either(kept.graph.edge_index) == before
    assert len(absent) == 16
    assert not absent & before
    assert all(len(pair) == 2 for pair in absent)
    assert split.test.numel() == split.test_absent.numel() == 0
    assert torch.equal(kept.graph.x, data.graph.x)
    same, other = hold_out(data, Select(), 3)[1], hold_out(data, Select(), 4)[1]
    assert torch.equal(same.val, split.val)
    assert torch.equal(same.val_absent, split.val_absent)
    assert not torch.equal(other.val, split.val)


def test_nothing_is_held_out_where_nothing_chooses():
    data = linked()
    assert hold_out(data, None, 0) == (data, None)
    few = linked(count=99)
    assert hold_out(few, Select(), 0) == (few, None)
    assert hold_out(linked(count=100), Select(), 0)[1].val.size(1) == 10
    graphs = data.replace(task="graph", graphs=[data.graph] * 3)
    assert hold_out(graphs, Select(), 0) == (graphs, None)


def test_self_loops_are_no_pairs_to_choose_by():
    loops = torch.arange(150).expand(2, 150)
    graph = Graph.build(torch.randn(150, 6), torch.cat([loops, torch.tensor([[0, 1], [1, 2]])], 1))
    data = to_dataset(graph)
    assert hold_out(data, Select(), 0) == (data, None)


@dataclass(frozen=True, eq=False)
class Unread(Split):
    """A split that fails when its test pairs are looked at."""

    def __getattribute__(self, name):
        assert not name.startswith("test"), f"{name} was read"
        return super().__getattribute__(name)


def test_a_link_set_brings_its_own_pairs_and_its_test_pairs_are_never_read():
    data = linked().link()
    (split,) = data.splits["link"]
    unread = Unread(split.train, split.val, split.test, split.val_absent, split.test_absent)
    with pytest.raises(AssertionError, match="test_absent was read"):
        print(unread.test_absent)
    data = data.replace(splits={"link": (unread,)})
    kept, chosen = hold_out(data, Select(), 0)
    assert kept is data
    assert chosen is unread
    run = graphssl.pretrain(data, "s2gae", epochs=3, **SMALL)
    assert run.config["best"]["epoch"] in (1, 2, 3)
    for split in (Split(chosen.train, chosen.val[:, :0], chosen.val), Split(chosen.train, chosen.val, chosen.val)):
        without = data.replace(splits={"link": (split,)})  # no validation pairs, or none to tell them from
        assert hold_out(without, Select(), 0) == (without, None)
    bare = data.replace(splits={})
    assert hold_out(bare, Select(), 0) == (bare, None)


def test_training_sees_no_pair_that_chooses(monkeypatch):
    seen, plain = [], S2GAE.forward

    def forward(self, graph, generator=None):
        seen.append(graph)
        return plain(self, graph, generator)

    monkeypatch.setattr(S2GAE, "forward", forward)
    data = linked()
    graphssl.pretrain(data, "s2gae", epochs=2, seed=5, **SMALL)
    held = either(hold_out(data, Select(), 5)[1].val)
    assert len(held) == 16
    assert len(seen) == 2
    for graph in seen:
        assert not held & either(graph.edge_index)
        assert held | either(graph.edge_index) == either(data.graph.edge_index)


# which epoch is the best


@pytest.fixture
def script(monkeypatch):
    """Makes the looks find what a list says, by epoch, and keeps the weights that each epoch had."""
    weights = {}

    def follow(aucs):
        at = []
        plain = Best.look

        def look(self, epoch):
            at.append(epoch)
            weights[epoch] = {k: v.clone() for k, v in self.method.state_dict().items()}
            return plain(self, epoch)

        monkeypatch.setattr(Best, "look", look)
        monkeypatch.setattr(Best, "_judge", lambda self: aucs[at[-1] - 1])
        return weights

    return follow


def equal(state, other):
    return all(torch.equal(state[k], other[k]) for k in other)


@pytest.mark.parametrize(
    ("aucs", "patience", "best", "epochs"),
    [
        ([50.0, 60.0, 70.0, 65.0, 66.0, 69.0], 50, 3, 6),  # the best one lies before the end
        ([50.0, 60.0, 70.0, 80.0, 85.0, 90.0], 50, 6, 6),  # ever better
        ([90.0, 80.0, 70.0, 95.0, 60.0, 50.0], 2, 1, 3),  # stopped before the better one
        ([90.0, 80.0, 70.0, 95.0, 60.0, 50.0], 3, 4, 6),
        ([70.0, 70.0, 70.0, 70.0, 70.0, 70.0], 50, 1, 6),  # of equal ones the first
        ([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 1, 1, 2),
    ],
)
def test_a_run_ends_with_the_weights_of_its_best_epoch(script, tmp_path, aucs, patience, best, epochs):
    weights = script(aucs)
    run = graphssl.pretrain(linked(), "s2gae", epochs=6, patience=patience, out=tmp_path / "run", **SMALL)
    assert run.config["best"] == {"epoch": best, "validation_auc": aucs[best - 1]}
    assert json.loads((tmp_path / "run" / store.CONFIG).read_text())["best"] == run.config["best"]
    assert run.history["epoch"] == list(range(1, epochs + 1))
    assert run.history["validation_auc"] == aucs[:epochs]
    assert equal(run.method.state_dict(), weights[best])
    assert epochs == best or not equal(run.method.state_dict(), weights[epochs])
    assert equal(graphssl.load(tmp_path / "run").method.state_dict(), weights[best])
    assert not (tmp_path / "run" / store.CHECKPOINT).exists()


def test_without_looks_a_line_says_nan_and_the_last_epoch_is_looked_at(script):
    weights = script([0.0] * 9 + [60.0] + [0.0] * 9 + [55.0, 0.0, 0.0, 57.0])
    run = graphssl.pretrain(linked(), "bandana", epochs=23, **SMALL)  # which looks every ten epochs
    found = run.history["validation_auc"]
    assert {epoch: auc for epoch, auc in enumerate(found, 1) if not math.isnan(auc)} == {10: 60.0, 20: 55.0, 23: 57.0}
    assert run.config["best"] == {"epoch": 10, "validation_auc": 60.0}
    assert equal(run.method.state_dict(), weights[10])


def test_without_select_a_run_ends_with_its_last_weights(script):
    script([90.0] + [10.0] * 5)
    data, last = linked(), {}
    chosen = graphssl.pretrain(data, "s2gae", epochs=6, **SMALL)
    plain = graphssl.pretrain(data, "s2gae", epochs=6, select=False, **SMALL)
    assert "best" not in plain.config
    assert "validation_auc" not in plain.history
    assert chosen.config["best"]["epoch"] == 1
    kept = data.replace(graphs=[hold_out(data, Select(), 0)[0].graph])
    for epochs in (1, 6):
        last[epochs] = graphssl.pretrain(kept, "s2gae", epochs=epochs, select=False, **SMALL).method.state_dict()
    assert equal(chosen.method.state_dict(), last[1])  # the same steps on what is left of the graph
    assert not equal(chosen.method.state_dict(), last[6])
    with_all = graphssl.pretrain(data, "s2gae", epochs=1, select=False, **SMALL).method.state_dict()
    assert not equal(with_all, last[1])  # nothing was held out


def test_no_labels_choose():
    one, two = (graphssl.pretrain(linked(y=y), "s2gae", epochs=4, **SMALL) for y in (True, False))
    assert equal(one.method.state_dict(), two.method.state_dict())
    assert one.config["best"] == two.config["best"]
    assert one.history["validation_auc"] == two.history["validation_auc"]


def test_looks_judge_by_the_share_of_pairs_in_order():
    data = linked()
    run = graphssl.pretrain(data, "s2gae", epochs=1, **SMALL)
    kept, split = hold_out(data, Select(), 0)
    graph = run.plan.transform(kept.graph)
    method = run.method.train()
    found = {}
    for dot in (False, True):
        best = Best(method, graph, split, Select(dot=dot), 1)
        found[dot] = best._judge()
        assert method.training  # as it was
        method.eval()
        with torch.no_grad():
            codes = method.pair_codes(graph)
            both = (split.val, split.val_absent)
            scores = [(codes[p[0]] * codes[p[1]]).sum(1) if dot else method.score(codes, p) for p in both]
            joined, apart = (part.tolist() for part in scores)
        method.train()
        wins = sum((j > a) + 0.5 * (j == a) for j in joined for a in apart)
        assert found[dot] == pytest.approx(100 * wins / len(joined) / len(apart), rel=1e-5)
    assert found[True] != found[False]
    assert run.config["best"]["validation_auc"] == pytest.approx(found[False])


def test_codes_that_are_not_finite_are_never_the_best(monkeypatch):
    data = linked()
    run = graphssl.pretrain(data, "s2gae", epochs=1, **SMALL)
    kept, split = hold_out(data, Select(), 0)
    best = Best(run.method, run.plan.transform(kept.graph), split, Select(), 1)
    monkeypatch.setattr(S2GAE, "score", lambda self, codes, pairs: torch.full((pairs.size(1),), float("nan")))
    assert best.look(1) == {"validation_auc": 0.0}


# a run that is cut


class Killed(BaseException):
    """As SIGKILL: no handler runs."""


@pytest.mark.parametrize(
    ("aucs", "cut", "best"),
    [
        ([50.0, 90.0, 60.0, 70.0, 65.0, 80.0, 75.0, 85.0], 5, 2),  # before the cut
        ([50.0, 60.0, 55.0, 70.0, 65.0, 80.0, 95.0, 85.0], 5, 7),  # after it
        ([50.0, 90.0, 60.0, 70.0, 91.0, 80.0, 75.0, 85.0], 5, 5),  # in the epoch that is lost and done again
        ([50.0, 90.0, 60.0, 70.0, 65.0, 99.0, 99.0, 99.0], 4, 2),  # patience counts on: it ends at epoch 5
    ],
)
def test_a_cut_run_goes_on_to_the_same_best_epoch(script, tmp_path, monkeypatch, aucs, cut, best):
    script(aucs)
    patience = 3 if cut == 4 else 50
    settings = {**SMALL, "epochs": 8, "patience": patience}
    straight = graphssl.pretrain(linked(), "s2gae", out=tmp_path / "straight", **settings)
    steps, plain = [], S2GAE.after_step

    def after_step(self, progress):
        steps.append(progress)
        if len(steps) == cut:
            raise Killed
        plain(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(S2GAE, "after_step", after_step)
        patch.setattr(runner.Saver, "due", lambda self: True)
        with pytest.raises(Killed):
            graphssl.pretrain(linked(), "s2gae", out=tmp_path / "cut", **settings)
    known = store.load_best(tmp_path / "cut")[1]
    assert int(store.read_tensors(tmp_path / "cut" / store.CHECKPOINT)[1]["step"]) == cut - 1
    assert known["auc"] == max(aucs[: cut - 1])
    run = graphssl.pretrain(linked(), "s2gae", out=tmp_path / "cut", resume=True, **settings)
    assert run.config["best"] == straight.config["best"] == {"epoch": best, "validation_auc": aucs[best - 1]}
    assert run.history["validation_auc"] == straight.history["validation_auc"]
    assert len(run.history["epoch"]) == (5 if patience == 3 else 8)
    one, two = (load_file(tmp_path / name / store.WEIGHTS) for name in ("straight", "cut"))
    assert one.keys() == two.keys()
    assert equal(one, two)


def test_a_run_cut_before_its_first_look_goes_on(script, tmp_path, monkeypatch):
    script([50.0] * 12)
    settings = {**SMALL, "epochs": 12}
    straight = graphssl.pretrain(linked(), "bandana", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(runner.Saver, "due", lambda self: self.optimizer.state and stop())
        calls = []

        def stop():
            calls.append(1)
            if len(calls) == 4:
                raise Killed
            return True

        with pytest.raises(Killed):
            graphssl.pretrain(linked(), "bandana", out=tmp_path / "run", **settings)
    assert store.load_best(tmp_path / "run") == ({}, {"epoch": 0, "auc": -1.0, "waited": 0})
    run = graphssl.pretrain(linked(), "bandana", out=tmp_path / "run", resume=True, **settings)
    assert run.config["best"] == straight.config["best"] == {"epoch": 10, "validation_auc": 50.0}
    assert equal(run.method.state_dict(), straight.method.state_dict())


CHILD = """
import os, signal, sys, torch
torch.set_num_threads(1)
import graphssl
from graphssl import runner
from graphssl.methods import S2GAE
out, cut = sys.argv[1], int(sys.argv[2])
runner.Saver.due = lambda self: True
steps = []
def after_step(self, progress):
    steps.append(progress)
    if len(steps) == cut:
        os.kill(os.getpid(), signal.SIGKILL)
S2GAE.after_step = after_step
graphssl.pretrain("citations-mini", "s2gae", out=out, epochs=6, width=8, inner=8, lr=0.05, resume=True, progress=False)
"""


def test_a_killed_process_goes_on_to_the_same_bits(tmp_path):
    settings = {"epochs": 6, "lr": 0.05, **SMALL}
    straight = graphssl.pretrain("citations-mini", "s2gae", out=tmp_path / "straight", **settings)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", CHILD, str(tmp_path / "cut"), "4"]
    process = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert not json.loads((tmp_path / "cut" / store.CONFIG).read_text())["finished"]
    run = graphssl.pretrain("citations-mini", "s2gae", out=tmp_path / "cut", resume=True, **settings)
    assert run.config["best"] == straight.config["best"]
    assert run.config["best"]["validation_auc"] == max(run.history["validation_auc"])
    assert run.history["validation_auc"] == straight.history["validation_auc"]
    assert run.history["loss"] == straight.history["loss"]
    one, two = (load_file(tmp_path / name / store.WEIGHTS) for name in ("straight", "cut"))
    assert one.keys() == two.keys()
    assert equal(one, two)


def test_a_graph_with_too_few_absent_pairs_chooses_nothing():
    N = 40
    everyone = torch.stack(torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")).flatten(1)
    data = to_dataset(Graph.build(torch.randn(N, 6), everyone[:, everyone[0] != everyone[1]]))
    assert hold_out(data, Select(), 0) == (data, None)


def test_an_untrained_run_names_no_best_epoch():
    assert "best" not in graphssl.pretrain(linked(), "s2gae", epochs=0, width=8, progress=False).config
