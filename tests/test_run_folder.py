"""Nothing is lost: kills, Ctrl-C, NaN, foreign and damaged folders."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from test_api import cited

import graphssl
from graphssl import store
from graphssl.methods import GraphMAE

SMALL = {"width": 16, "heads": 2, "progress": False}

CHILD = """
import sys, time, torch
torch.set_num_threads(1)
import graphssl
from graphssl.methods import GraphMAE
out, epochs, slow = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
plain = GraphMAE.after_step
def after_step(self, progress):
    time.sleep(slow)
    plain(self, progress)
GraphMAE.after_step = after_step
graphssl.pretrain("citations-mini", out=out, epochs=epochs, width=16, heads=2, resume=True, progress=False)
"""


def start(code, *arguments):
    """A Python process of its own that runs ``code``."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def child(out, epochs, slow):
    return start(CHILD, out, epochs, slow)


def assert_same_weights(one, two):
    one, two = load_file(one / store.WEIGHTS), load_file(two / store.WEIGHTS)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


def wait_for(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        if time.monotonic() > end:
            process.kill()
            pytest.fail(f"waited too long: {process.communicate()[1]}")
        time.sleep(0.02)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    epochs, cut = 60, tmp_path / "cut"
    process = child(cut, epochs, 0.2)
    wait_for(lambda: (cut / store.CHECKPOINT).exists(), process)
    first = (cut / store.CHECKPOINT).stat().st_mtime_ns
    wait_for(lambda: (cut / store.CHECKPOINT).stat().st_mtime_ns != first, process)
    process.kill()
    process.communicate()
    assert not json.loads((cut / store.CONFIG).read_text())["finished"]
    lines = len(store.read_metrics(cut))
    assert 0 < lines < epochs
    with pytest.raises(graphssl.UserError, match="resume=True"):
        graphssl.load(cut)
    for out in (cut, tmp_path / "straight"):
        graphssl.pretrain("citations-mini", out=out, epochs=epochs, resume=True, **SMALL)
    assert_same_weights(tmp_path / "straight", cut)
    assert [line["epoch"] for line in store.read_metrics(cut)] == list(range(1, epochs + 1))
    losses = [[line["loss"] for line in store.read_metrics(f)] for f in (cut, tmp_path / "straight")]
    assert losses[0] == losses[1]
    assert {p.name for p in cut.iterdir()} == {store.CONFIG, store.METRICS, store.WEIGHTS}


GRAPHS = """
import sys, time, torch
torch.set_num_threads(1)
import graphssl
from graphssl.methods import BGRL
plain = BGRL.after_step
def after_step(self, progress):
    time.sleep(float(sys.argv[2]))
    plain(self, progress)
BGRL.after_step = after_step
graphssl.pretrain("drugs-mini", "bgrl", out=sys.argv[1], epochs=4, width=8, hidden=8, layers=1, batch_size=32,
                  encoder="gcn", resume=True, progress=False)
"""


def test_a_graph_set_is_stopped_and_killed_within_an_epoch_and_goes_on_to_the_same_bits(tmp_path):
    cut = tmp_path / "cut"
    process = start(GRAPHS, cut, 0.2)
    wait_for(lambda: (cut / store.CHECKPOINT).exists(), process)
    process.kill()
    process.communicate()
    process = start(GRAPHS, cut, 0.2)
    first = (cut / store.CHECKPOINT).stat().st_mtime_ns
    wait_for(lambda: (cut / store.CHECKPOINT).stat().st_mtime_ns != first, process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert "stopping after this step" in errors
    assert "resume=True" in errors
    header = store.read_tensors(cut / store.CHECKPOINT)[1]
    step = int(header["step"])
    assert 0 < step < 72
    assert bool(json.loads(header["partial"])) == bool(step % 18)  # 18 steps are an epoch
    settings = {"epochs": 4, "width": 8, "hidden": 8, "layers": 1, "batch_size": 32, "encoder": "gcn"}
    for out in (cut, tmp_path / "straight"):
        graphssl.pretrain("drugs-mini", "bgrl", out=out, resume=True, progress=False, **settings)
    assert_same_weights(tmp_path / "straight", cut)
    losses = [[line["loss"] for line in store.read_metrics(f)] for f in (cut, tmp_path / "straight")]
    assert losses[0] == pytest.approx(losses[1])


def test_a_run_that_is_told_to_end_saves_and_says_how_to_go_on(tmp_path):  # the test above has Ctrl-C
    out = tmp_path / "run"
    process = child(out, 200, 0.05)
    wait_for(lambda: len(store.read_metrics(out)) > 3 if out.exists() else False, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "resume=True" in errors
    step = int(store.read_tensors(out / store.CHECKPOINT)[1]["step"])
    assert step == store.read_metrics(out)[-1]["step"]
    early = graphssl.load(out, unfinished=True)
    assert early.config["epochs"] == step
    assert early.embed("citations-mini").shape == (800, 16)


def test_killed_before_the_first_checkpoint_starts_again(tmp_path):
    graphssl.pretrain(cited(), out=tmp_path / "whole", epochs=3, **SMALL)
    out = tmp_path / "run"
    graphssl.pretrain(cited(), out=out, epochs=3, **SMALL)
    config = json.loads((out / store.CONFIG).read_text())
    store.write_json(out / store.CONFIG, {**config, "finished": False})
    (out / store.WEIGHTS).unlink()
    with open(out / store.METRICS, "a") as file:
        file.write('{"epoch": 4, "st')  # a line cut short
    again = graphssl.pretrain(cited(), out=out, epochs=3, resume=True, **SMALL)
    assert len(again.history["epoch"]) == 3
    assert torch.equal(again.embed(), graphssl.load(tmp_path / "whole").embed(cited()))


def test_resume_of_a_finished_run_returns_it_and_of_another_run_is_refused(tmp_path):
    out = tmp_path / "run"
    run = graphssl.pretrain(cited(), out=out, epochs=3, **SMALL)
    before = (out / store.WEIGHTS).stat().st_mtime_ns
    again = graphssl.pretrain(cited(), out=out, epochs=3, resume=True, **SMALL)
    assert torch.equal(again.embed(), run.embed())
    assert (out / store.WEIGHTS).stat().st_mtime_ns == before
    for changed, words in (
        (dict(epochs=4), "epochs (was 3, now 4)"),
        (dict(epochs=3, lr=0.5), "lr (was 0.001, now 0.5)"),
        (dict(epochs=3, seed=1), "seed"),
        (dict(epochs=3, method="bgrl"), "method (was graphmae, now bgrl)"),
    ):
        settings = {**SMALL, **changed} if "method" not in changed else {"progress": False, "width": 16, **changed}
        with pytest.raises(graphssl.UserError) as caught:
            graphssl.pretrain(cited(), out=out, resume=True, **settings)
        assert words in str(caught.value)
    again = graphssl.pretrain(cited(), out=out, resume=True, progress=False)  # what is not given is what it was
    assert torch.equal(again.embed(), run.embed())
    with pytest.raises(graphssl.UserError, match="data"):
        graphssl.pretrain(cited(seed=9), out=out, epochs=3, resume=True, **SMALL)


def test_an_existing_run_is_never_overwritten_unasked(tmp_path):
    out = tmp_path / "run"
    graphssl.pretrain(cited(), out=out, epochs=2, **SMALL)
    with pytest.raises(graphssl.UserError, match="overwrite"):
        graphssl.pretrain(cited(), out=out, epochs=2, **SMALL)
    with pytest.raises(graphssl.UserError, match="contradict"):
        graphssl.pretrain(cited(), out=out, epochs=2, resume=True, overwrite=True, **SMALL)
    other = graphssl.pretrain(cited(), out=out, epochs=1, seed=3, overwrite=True, **SMALL)
    assert torch.equal(graphssl.load(out).embed(cited()), other.embed())


def test_an_overwrite_killed_at_any_moment_leaves_a_run_that_can_be_begun_again(saved, monkeypatch):
    for survivors in range(5):
        graphssl.pretrain(cited(), out=saved, epochs=1, overwrite=True, **SMALL)
        plain, left = store.Path.unlink, [survivors]

        def unlink(self, missing_ok=False, plain=plain, left=left):
            if self.name in store.OURS:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            plain(self, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(store.Path, "unlink", unlink)
            if survivors < 4:
                with pytest.raises(KeyboardInterrupt):
                    store.open_folder(saved, keep=False)
            else:
                store.open_folder(saved, keep=False)
        (saved / ".model.safetensors.77-1.new").write_bytes(b"half")
        run = graphssl.pretrain(cited(), out=saved, epochs=1, resume=True, **SMALL)
        assert torch.equal(graphssl.load(saved).embed(cited()), run.embed())
        assert {p.name for p in saved.iterdir()} == {store.CONFIG, store.METRICS, store.WEIGHTS}


def test_weights_of_anothers_folder_are_not_taken_for_ours(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Bert"]}')
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(graphssl.UserError, match="no run of graphssl"):
            graphssl.pretrain(cited(), out=tmp_path, epochs=1, **how, **SMALL)
    assert (tmp_path / "model.safetensors").read_bytes() == b"theirs"


def test_a_run_saved_from_a_checkpoint_or_finetuned_is_not_taken_for_the_whole(tmp_path, saved):
    out = tmp_path / "long"
    graphssl.pretrain(cited(), out=out, epochs=3, **SMALL)
    config = json.loads((out / store.CONFIG).read_text())
    store.write_json(out / store.CONFIG, {**config, "epochs": 2})  # what save() of a checkpoint's run writes
    with pytest.raises(graphssl.UserError, match="epochs done"):
        graphssl.pretrain(cited(), out=out, epochs=3, resume=True, **SMALL)
    run = graphssl.load(saved)
    run.finetune(cited(), epochs=1).save(saved, overwrite=True)
    with pytest.raises(graphssl.UserError, match="finetuned"):
        graphssl.pretrain(cited(), out=saved, epochs=1, resume=True, **SMALL)


def test_a_run_from_a_file_finds_it_again(tmp_path, monkeypatch):
    import numpy as np

    x = np.random.default_rng(0).normal(size=(20, 4)).astype("f4")
    edges = np.array([[0, 1, 2, 3], [1, 2, 3, 4]])
    np.savez(tmp_path / "own.npz", x=x, edge_index=edges)
    monkeypatch.chdir(tmp_path)
    run = graphssl.pretrain("own.npz", out="run", epochs=1, **SMALL)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(graphssl.load("../run").embed(), run.embed())
    (tmp_path / "own.npz").unlink()
    with pytest.raises(graphssl.UserError, match="not there any more"):
        graphssl.load("../run").embed()


def test_a_refused_call_leaves_the_run_that_it_would_have_replaced(saved):
    before = (saved / store.WEIGHTS).read_bytes()
    for wrong in ({"lr": -1.0}, {"heads": 3}, {"device": "cuda:9"}):
        with pytest.raises(graphssl.UserError):
            graphssl.pretrain(cited(), out=saved, epochs=1, overwrite=True, **{**SMALL, **wrong})
    assert (saved / store.WEIGHTS).read_bytes() == before


def test_resume_from_another_start_is_refused(saved, tmp_path):
    run = graphssl.load(saved)
    run.dataset = graphssl.to_dataset(cited())
    on = tmp_path / "on"
    graphssl.pretrain(cited(), run, out=on, epochs=1, progress=False)
    with pytest.raises(graphssl.UserError, match="weights that it starts from"):
        graphssl.pretrain(cited(), out=on, epochs=1, resume=True, **SMALL)
    graphssl.pretrain(cited(), run, out=on, epochs=1, resume=True, progress=False)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(graphssl.UserError, match="no run of graphssl"):
            graphssl.pretrain(cited(), out=tmp_path, epochs=1, **how, **SMALL)
    with pytest.raises(graphssl.UserError, match="is a file"):
        graphssl.pretrain(cited(), out=tmp_path / "thesis.txt", epochs=1, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture
def saved(tmp_path):
    graphssl.pretrain(cited(), out=tmp_path / "run", epochs=1, **SMALL)
    return tmp_path / "run"


def test_damaged_folders_give_one_clear_sentence(saved, tmp_path):
    weights = (saved / store.WEIGHTS).read_bytes()
    for content in (weights[: len(weights) // 2], b"", b"\x80\x04garbage" * 9):
        (saved / store.WEIGHTS).write_bytes(content)
        with pytest.raises(graphssl.UserError, match="cut short"):
            graphssl.load(saved)
    (saved / store.WEIGHTS).unlink()
    with pytest.raises(graphssl.UserError, match="missing"):
        graphssl.load(saved)
    config = json.loads((saved / store.CONFIG).read_text())
    odd = [{**config, "format": "1"}, {**config, "spec": {}}, {k: v for k, v in config.items() if k != "recipe"}]
    for content in odd:
        store.write_json(saved / store.CONFIG, content)
        with pytest.raises(graphssl.UserError, match="damaged"):
            graphssl.load(saved)
    store.write_json(saved / store.CONFIG, config)
    for text in ("", "{}", "[1, 2]", '{"format": 1'):
        (saved / store.CONFIG).write_text(text)
        with pytest.raises(graphssl.UserError, match="not the config"):
            graphssl.load(saved)
    (saved / store.CONFIG).unlink()
    with pytest.raises(graphssl.UserError, match="not the folder of a run"):
        graphssl.load(saved)
    with pytest.raises(graphssl.UserError, match="is no folder"):
        graphssl.load(tmp_path / "nowhere")


def test_a_newer_format_is_refused(saved):
    config = json.loads((saved / store.CONFIG).read_text())
    store.write_json(saved / store.CONFIG, {**config, "format": 99})
    with pytest.raises(graphssl.UserError, match="newer graphssl"):
        graphssl.load(saved)


def test_weights_of_another_model_are_refused(saved, tmp_path):
    graphssl.pretrain(cited(), out=tmp_path / "wide", epochs=1, **{**SMALL, "width": 32})
    (saved / store.WEIGHTS).write_bytes((tmp_path / "wide" / store.WEIGHTS).read_bytes())
    with pytest.raises(graphssl.UserError, match="do not fit"):
        graphssl.load(saved)


def test_loading_never_unpickles(saved, monkeypatch):
    import pickle

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert graphssl.load(saved).embed(cited()).size(0) == 60


def test_a_loss_that_turns_nan_stops_with_step_method_and_advice(tmp_path, monkeypatch):
    plain, out = GraphMAE.forward, tmp_path / "run"
    steps = []

    def forward(self, graph, generator=None):
        time.sleep(0.3)
        steps.append(1)
        losses = plain(self, graph, generator)
        return losses if len(steps) < 8 else {"content": losses["content"] * float("nan")}

    monkeypatch.setattr(GraphMAE, "forward", forward)
    with pytest.raises(graphssl.Diverged) as caught:
        graphssl.pretrain(cited(), out=out, epochs=20, **SMALL)
    for words in ("step 8 of 20", "graphmae", "smaller lr", "last good checkpoint"):
        assert words in str(caught.value)
    tensors, header = store.read_tensors(out / store.CHECKPOINT)
    assert 0 < int(header["step"]) < 8
    assert all(t.isfinite().all() for t in tensors.values())
    monkeypatch.setattr(GraphMAE, "forward", plain)
    early = graphssl.load(out, unfinished=True)
    on = graphssl.pretrain(cited(), early, lr=1e-4, epochs=2, out=tmp_path / "on", progress=False)
    assert len(on.history["loss"]) == 2


def test_a_checkpoint_that_is_not_finite_is_not_written(tmp_path):
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    assert store.save_checkpoint(tmp_path, module, optimizer, 1)
    before = (tmp_path / store.CHECKPOINT).read_bytes()
    with torch.no_grad():
        module.weight[0, 0] = float("inf")
    assert not store.save_checkpoint(tmp_path, module, optimizer, 2)
    assert (tmp_path / store.CHECKPOINT).read_bytes() == before


FUSED = partial(torch.optim.Adam, fused=True)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, FUSED, torch.optim.SGD, torch.optim.RMSprop])
def test_optimizers_come_back_from_a_checkpoint(tmp_path, kind):
    def step(module, optimizer):
        optimizer.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    def linear():
        module = torch.nn.Linear(3, 2)
        module.weight = torch.nn.Parameter(torch.randn(3, 2).t())  # not contiguous
        return module

    torch.manual_seed(0)
    module = linear()
    options = {"momentum": 0.9} if kind in (torch.optim.SGD, torch.optim.RMSprop) else {}
    optimizer = kind(module.parameters(), lr=0.1, **options)
    for _ in range(3):
        step(module, optimizer)
    store.save_checkpoint(tmp_path, module, optimizer, 3)
    twin = linear()
    other = kind(twin.parameters(), lr=0.1, **options)
    assert store.load_checkpoint(tmp_path, twin, other) == (3, {})
    for _ in range(3):
        step(module, optimizer)
        step(twin, other)
    assert torch.equal(module.weight, twin.weight)


def test_a_shared_module_is_saved_once_and_comes_back(tmp_path):
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(2, 2)
            self.b = self.a

    one, two = Shared(), Shared()
    store.save_weights(tmp_path / "w.safetensors", one)
    store.load_tensors(two, store.read_tensors(tmp_path / "w.safetensors")[0], "w")
    assert torch.equal(one.a.weight, two.b.weight)
