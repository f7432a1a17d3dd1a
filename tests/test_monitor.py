"""Collapse is seen without labels, and runs may end for it or for the loss."""

import math
import warnings

import pytest
import torch
from conftest import generator, random_graph

import graphssl
from graphssl.backbones import backbone
from graphssl.encoder import Encoder
from graphssl.methods import GAE, Method
from graphssl.monitor import EarlyStop, Monitor, effective_rank, spread
from graphssl.train import seeded


def test_effective_rank_is_the_papers_formula():
    codes = torch.randn(30, 5, generator=generator(0)) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.0])
    values = torch.linalg.svdvals((codes - codes.mean(0)).double())
    share = values / values.sum()
    entropy = -sum(float(p) * math.log(float(p)) for p in share if p > 0)
    assert effective_rank(codes) == pytest.approx(math.exp(entropy), rel=1e-5)
    wide = torch.randn(5, 30, generator=generator(1))  # fewer rows than columns
    share = torch.linalg.svdvals((wide - wide.mean(0)).double())
    share = share / share.sum()
    entropy = -sum(float(p) * math.log(float(p)) for p in share if p > 1e-12)
    assert effective_rank(wide) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_effective_rank_of_known_codes():
    line = torch.linspace(-1, 1, 20)[:, None] * torch.ones(1, 6)
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert effective_rank(line + 100) == pytest.approx(1, abs=1e-2)  # columns are centred
    assert effective_rank(torch.cat([torch.eye(6), -torch.eye(6)])) == pytest.approx(6)
    assert effective_rank(torch.full((20, 6), 3.0)) == 0
    assert effective_rank(torch.zeros(20, 6)) == 0


def test_spread_of_known_codes():
    everywhere = torch.randn(5000, 16, generator=generator(1))
    assert spread(everywhere) == pytest.approx(1, abs=0.02)
    assert spread(everywhere * 1e3) == pytest.approx(spread(everywhere))
    assert spread(torch.full((20, 6), 3.0)) == 0


class ToOnePoint(Method):
    """Pulls all codes to the same point: what collapse is."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, graph, generator=None):
        return {"far": (self.encoder(graph) - 1).square().mean()}


def encoder(dim: int) -> Encoder:
    with seeded(0):
        return Encoder(backbone("mlp", dim, [8], activation="none"))


def test_the_monitor_fires_on_a_constant_encoder():
    body = encoder(12)
    with torch.no_grad():
        body.backbone.layers[0].conv.linear.weight.zero_()
        body.backbone.layers[0].conv.linear.bias.fill_(1.0)
    monitor = Monitor(body, random_graph(50, 0), 10, "constant on data")
    with pytest.warns(UserWarning, match="the codes of constant on data collapse: at epoch 1 of 10 .* rank is 0 of 8"):
        found = monitor.look(1)
    assert found == {"effective_rank": 0, "spread": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.look(2)  # says so once


def test_the_monitor_fires_when_the_rank_falls_and_not_before():
    body = encoder(12)
    monitor = Monitor(body, random_graph(50, 0), 100, "method on data")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert monitor.look(5)["effective_rank"] > 5
        assert monitor.look(7) == {}  # not its turn
        monitor.look(10)
    with torch.no_grad():
        body.backbone.layers[0].conv.linear.weight[1:] *= 1e-4  # one direction is left
    with pytest.warns(UserWarning, match="at epoch 15 of 100 their effective rank is 1"):
        monitor.look(15)


def test_a_run_that_collapses_warns():
    data = graphssl.load_dataset("citations-mini")
    with pytest.warns(UserWarning, match="collapse"):
        graphssl.pretrain(data, ToOnePoint(encoder(data.dim)), lr=0.05, epochs=200, progress=False)


def test_every_run_logs_rank_and_spread_and_looking_changes_nothing(monkeypatch):
    settings = {"width": 16, "epochs": 40, "progress": False, "dropout": 0.2}
    run = graphssl.pretrain("citations-mini", "graphmae", heads=2, **settings)
    looks = [line["epoch"] for line in run.lines if "effective_rank" in line]
    assert looks == list(range(2, 41, 2))
    assert all(0 < line["effective_rank"] <= 16 and line["spread"] > 0 for line in run.lines if "spread" in line)
    monkeypatch.setattr(Monitor, "look", lambda self, epoch: {})
    blind = graphssl.pretrain("citations-mini", "graphmae", heads=2, **settings)
    assert blind.history["loss"] == run.history["loss"]
    assert torch.equal(blind.embed(), run.embed())


def test_graph_sets_are_looked_at_too():
    run = graphssl.pretrain("drugs-mini", "graphmae", width=16, epochs=2, progress=False)
    assert run.lines[0]["effective_rank"] > 1


def lines(*losses):
    return [{"loss": loss} for loss in losses]


def test_early_stop_waits_for_a_new_low():
    stop = EarlyStop("loss:2")
    assert [stop.done(line) for line in lines(5, 4, 4.5, 3.9, 4, 4)] == [False, False, False, False, False, True]
    stop = EarlyStop("rank:2")
    told = [{"effective_rank": rank} if rank else {} for rank in (5, 0, 6, 0, 5, 0, 5.5)]
    assert [stop.done({"loss": 1.0, **line}) for line in told] == [False] * 6 + [True]


def test_early_stop_adds_up_tasks_as_they_are_and_waits_for_a_method_to_settle():
    stop = EarlyStop("loss:1")
    told = [{"loss": -t, "a": 3.0 - t, "b": 1.0, "a weight": 0.5, "b weight": 0.5} for t in range(3)]
    assert [stop.done(line) for line in told] == [False] * 3
    assert stop.done({"loss": -9.0, "a": 2.5, "b": 1.0, "a weight": 0.5, "b weight": 0.5})  # weighed, it looks lower
    stop = EarlyStop("loss:1")
    assert not stop.done({"loss": 0.1}, settled=False)
    assert [stop.done(line) for line in lines(5, 4, 4)] == [False, False, True]  # 0.1 was of another loss


@pytest.mark.parametrize("how", ["rnak", "loss:", "loss:0", "loss:x", "rank:-1", "", 5, True, ["loss"]])
def test_early_stop_refuses(how):
    with pytest.raises(graphssl.UserError, match="choose 'loss' or 'rank'"):
        EarlyStop(how)


def test_a_run_ends_early_and_says_so(tmp_path):
    data = graphssl.load_dataset("citations-mini")
    settings = {"lr": 0.0, "epochs": 50, "decay": False, "progress": False, "early_stop": "loss:4"}
    with seeded(0):
        method = Frozen(Encoder(backbone("mlp", data.dim, [4])))
    run = graphssl.pretrain(data, method, **{**settings, "lr": 1e-9}, out=tmp_path / "run")
    assert len(run.lines) == 5  # the first is the lowest, and four are no lower
    assert run.config["early_stop"] == "loss:4"
    assert "early_stop='loss:4'" in run._unlike_the_recipe()
    assert len(graphssl.load(tmp_path / "run", method=method).lines) == 5
    again = graphssl.pretrain(data, method, **{**settings, "lr": 1e-9}, out=tmp_path / "run", resume=True)
    assert len(again.lines) == 5  # finished: nothing goes on
    with pytest.raises(graphssl.UserError, match="early_stop"):
        graphssl.pretrain(
            data, method, **{**settings, "lr": 1e-9, "early_stop": None}, out=tmp_path / "run", resume=True
        )


class Frozen(Method):
    """A loss that never changes."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, graph, generator=None):
        return {"constant": self.encoder(graph).sum() * 0 + 1}


def test_what_sees_labels_is_not_judged_where_they_came_from():
    data = graphssl.load_dataset("citations-mini")
    with seeded(0):
        method = GAE(Encoder(backbone("gcn", data.dim, [8])))
    method.sees_labels = True
    run = graphssl.pretrain(data, method, epochs=1, progress=False)
    for same in (None, "citations-mini/link"):  # whose nodes have the same labels
        with pytest.raises(graphssl.UserError, match="trained on labels"):
            run.evaluate(same, protocol="node-linear")


def test_a_finetuned_run_is_not_judged_on_the_link_set_of_its_labels():
    run = graphssl.pretrain("citations-mini", "gae", epochs=1, progress=False).finetune(epochs=1)
    with pytest.raises(graphssl.UserError, match="trained on labels"):
        run.evaluate("citations-mini/link", protocol="node-linear")


@pytest.mark.parametrize("name", ["loss", "step", "spread"])
def test_names_of_the_log_are_taken(name):
    class Shadowing(Frozen):
        def logged(self):
            return {name: torch.zeros(())}

    data = graphssl.load_dataset("citations-mini")
    with seeded(0):
        method = Shadowing(Encoder(backbone("mlp", data.dim, [4])))
    with pytest.raises(graphssl.UserError, match=f"calls a loss '{name}', which the log needs"):
        graphssl.pretrain(data, method, epochs=1, progress=False)
