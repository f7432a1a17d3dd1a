"""`graphssl ogb`: sets of the three families go the whole way, what is printed is what ogb's Evaluator says."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import graphssl
from graphssl import cli, ogb, runner
from graphssl.data.ogb_files import known_meta, open_ogb, read_ogb
from graphssl.errors import Diverged, UserError
from graphssl.ogb import asked, block, entry, judge, shown, sources

pytestmark = pytest.mark.skipif(find_spec("ogb") is None, reason="ogb is not installed: pip install 'graphssl[ogb]'")

ROOT = Path(__file__).parents[1]
DATA = (ROOT / (os.environ.get("GRAPHSSL_DATA") or "../shared/data")).resolve()
N = 80
QUICK = ("--epochs", "2", "--set", "width=8", "--quiet", "--draft")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Probes of fewer epochs."""
    for module, epochs in (("probes.node", 20), ("probes.link", 5), ("ogb.judge", 20)):
        monkeypatch.setattr(f"graphssl.{module}.EPOCHS", epochs)


class Writer:
    """Writes sets by ogb's own DatasetSaver."""

    def __init__(self, folder):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what ogb imports
            patch.setitem(sys.modules, "outdated", None)  # which asks the network for a newer version
            from ogb.io import DatasetSaver
        self.saver, self.folder = DatasetSaver, folder
        (folder / "mapping").mkdir()
        (folder / "mapping" / "README.md").touch()

    def __call__(self, name, graphs, split, y=None, task="link prediction", metric="hits@20", classes=2, hetero=False):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            saver = self.saver(name, hetero, 1, root=str(self.folder / "submission"))
            saver.save_graph_list(graphs)
            if y is not None:
                saver.save_target_labels(y)
            saver.save_split(split, "official")
            saver.copy_mapping_dir(str(self.folder / "mapping"))
            saver.save_task_info(task, metric, classes)
            saver.get_meta_dict()
        return self.folder / f"submission_{name.replace('-', '_')}"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ogb")
    write, rng = Writer(folder), np.random.default_rng(0)
    y, order = rng.integers(3, size=(N, 1)), rng.permutation(N)
    x = rng.normal(size=(N, 6)).astype(np.float32)
    x[np.arange(N), y[:, 0]] += 2
    edges = rng.integers(N, size=(2, 400))
    edges = np.unique(edges[:, edges[0] < edges[1]], axis=1)
    edges = edges[:, rng.permutation(edges.shape[1])]
    both = np.concatenate([edges, edges[::-1]], 1)
    parts = {"train": order[:40], "valid": order[40:60], "test": order[60:]}
    graph = {"edge_index": both, "num_nodes": N, "node_feat": x}
    yes = np.where(rng.random((N, 3)) < 0.2, np.nan, y == np.arange(3)).astype(np.float32)
    write("ogbn-labels", [graph], parts, yes, "binary classification", "rocauc")
    classes = "multiclass classification"
    write("ogbn-toy", [graph], parts, y, classes, "acc", 3)

    train, val, test = np.split(edges, [120, 150], axis=1)
    absent = rng.integers(N, size=(2, 40, 2))
    year, weight = rng.integers(2000, 2010, 120), rng.integers(1, 4, 120)
    graph = {"edge_index": np.concatenate([train, train[::-1]], 1), "num_nodes": N, "node_feat": x}
    graph |= {"edge_weight": np.tile(weight, 2)[:, None], "edge_year": np.tile(year, 2)[:, None]}
    pairs = {"train": {"edge": train.T, "year": year, "weight": weight}}
    pairs |= {"valid": {"edge": val.T, "edge_neg": absent[0]}, "test": {"edge": test.T, "edge_neg": absent[1]}}
    write("ogbl-toy", [graph], pairs)
    one = lambda ends: {"source_node": ends[0], "target_node": ends[1]}  # noqa: E731
    held = {key: one(ends) | {"target_node_neg": rng.integers(N, size=(ends.shape[1], 7))}
            for key, ends in (("valid", val), ("test", test))}  # fmt: skip
    write("ogbl-ranked", [{"edge_index": train, "num_nodes": N}], {"train": one(train), **held}, metric="mrr")

    graphs, yes = [], []
    for i in range(40):
        n = int(rng.integers(4, 9))
        path = np.stack([np.arange(n - 1), np.arange(1, n)])
        path = np.concatenate([path, path[::-1]], 1)
        content = rng.normal(size=(n, 5)).astype(np.float32) + i % 2
        attr = rng.normal(size=(path.shape[1], 2)).astype(np.float32)
        graphs.append({"edge_index": path, "num_nodes": n, "node_feat": content, "edge_feat": attr})
        yes.append([i % 2, np.nan if i % 7 == 0 else (i // 2) % 2])
    order = rng.permutation(40)
    parts = {"train": order[:20], "valid": order[20:30], "test": order[30:]}
    yes = np.array(yes, np.float32)
    write("ogbg-toy", graphs, parts, yes, "binary classification", "rocauc")
    size = np.array([[graph["num_nodes"]] for graph in graphs], np.float32)
    write("ogbg-sizes", graphs, parts, size, "regression", "rmse")
    return folder


def run(sets, name, out, *words, status=0):
    asked = ["ogb", "--dataset", str(sets / f"submission_{name}"), "--out", str(out), *QUICK, *words]
    assert cli.main(asked) == status
    return json.loads((out / "submission.json").read_text()) if status == 0 else None


LINES = (
    "Dataset", "Method", "OGB version", "External data", "Parameters", "Hardware", "Wall time", "Pretraining saw",
    "Input", "Chosen on validation", "Tuned", "Settings", "Command", "Commit", "Versions", "Contact, paper, code",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ogbn_toy", []),
        ("ogbn_toy", ["--finetune", "--tune", "epochs=3"]),
        ("ogbn_labels", []),
        ("ogbl_toy", []),
        ("ogbl_toy", ["--year", "2005", "--val-edges", "--decoder", "dot"]),
        ("ogbl_toy", ["--method", "gae", "--decoder", "own"]),
        ("ogbl_ranked", []),
        ("ogbg_toy", []),
        ("ogbg_toy", ["--finetune", "--tune", "epochs=3", "--tune", "lr=0.01"]),
        ("ogbg_sizes", []),
        ("ogbg_sizes", ["--finetune", "--tune", "epochs=2"]),
    ],
)
def test_the_whole_way(sets, name, words, tmp_path, capsys):
    out = tmp_path / "entry"
    found = run(sets, name, out, "--seeds", "0-1", *words)
    said = capsys.readouterr().out
    assert said.startswith("DRAFT, not to be submitted (2 seeds; the rules ask for 10)\n")
    assert said.splitlines()[:-1] == (out / "submission.txt").read_text().splitlines()
    lines = dict(line[2:].split("  ", 1) for line in said.splitlines()[1:-1] if "  " in line[2:])
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    assert lines.keys() >= set(LINES)
    links = {"Validation edges", "Decoder", "Year filter"}
    assert (links <= lines.keys()) == name.startswith("ogbl")
    for part in ("test", "validation"):
        scores = torch.tensor([line[part] for line in found["runs"]], dtype=torch.double)
        assert (found[part]["mean"], found[part]["std"]) == (float(scores.mean()), float(scores.std()))
        line = next(value for key, value in lines.items() if key == f"{part.capitalize()} {found['metric']}")
        assert line.startswith(f"{scores.mean():.4f} ± {scores.std():.4f} (")
    total = sum(found["parameters"].values())
    assert lines["Parameters"].startswith(f"{total:,} = {found['parameters']['encoder']:,} encoder + ")
    one = graphssl.load(out / "seed-1")
    assert found["runs"][1]["seed"] == one.config["seed"] == 1
    assert found["parameters"]["encoder"] + found["parameters"]["pretext heads"] == one.config["parameters"]
    if "--year" in words:
        assert lines["Year filter"] == "training edges of 2005 and later alone"
        assert lines["Validation edges"].startswith("as messages where test pairs are scored")

    # the command that is printed asks for the same entry, and finds it
    before = [(out / f"seed-{seed}.json").read_text() for seed in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "pretrain", None)
        assert cli.main([*shlex.split(lines["Command"])[1:], "--quiet"]) == 0
    assert before == [(out / f"seed-{seed}.json").read_text() for seed in (0, 1)]


def evaluator(family, name):
    """ogb's Evaluator of a set that it lists."""
    path = Path(find_spec("ogb").submodule_search_locations[0]) / family / "evaluate.py"
    spec = importlib.util.spec_from_file_location("theirs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Evaluator(name)


def test_pairs_by_hand(sets, tmp_path):
    """Dot products of the codes of a run's folder, on both graphs, as ogb's Evaluator of ogbl-collab judges them."""
    found = run(sets, "ogbl_toy", tmp_path / "a", "--seeds", "3", "--decoder", "dot", "--val-edges")["runs"][0]
    place, meta = open_ogb(sets / "submission_ogbl_toy")
    data, one = read_ogb(place, meta), graphssl.load(tmp_path / "a" / "seed-3")
    theirs = evaluator("linkproppred", "ogbl-collab")
    theirs.K = 20
    (split,) = data.splits["link"]
    for part, graph, pairs, absent in (
        ("validation", data.graph, split.val, split.val_absent),
        ("test", data.with_val, split.test, split.test_absent),
    ):
        codes = one.embed(data.replace(graphs=[graph]))
        up, down = ((codes[ends[0]] * codes[ends[1]]).sum(1) for ends in (pairs, absent))
        assert found[part] == theirs.eval({"y_pred_pos": up, "y_pred_neg": down})["hits@20"]
    assert found["parameters"]["decoder"] == 0


def test_figures_against_slow_ones():
    draws = np.random.default_rng(0)
    out, truth = torch.from_numpy(draws.normal(size=(50, 2))), draws.integers(2, size=(50, 2)).astype(float)
    truth[draws.random((50, 2)) < 0.2] = np.nan
    y = torch.from_numpy(truth)
    kept = [~np.isnan(column) for column in truth.T]
    meta = known_meta("ogbg-molclintox")
    for metric, slow in (("rocauc", roc_auc_score), ("ap", average_precision_score)):
        each = [slow(truth[rows, t], out[rows, t]) for t, rows in enumerate(kept)]
        assert judge.Figures(changed(meta, metric=metric))(out, y) == pytest.approx(np.mean(each))
    errors = [np.sqrt(np.mean((truth[rows, t] - out[rows, t].numpy()) ** 2)) for t, rows in enumerate(kept)]
    assert judge.Figures(changed(meta, metric="rmse"))(out, y) == pytest.approx(np.mean(errors))
    classes = torch.from_numpy(draws.integers(-1, 2, size=50))
    right = (out.argmax(1) == classes)[classes >= 0].double().mean()
    assert judge.Figures(known_meta("ogbn-arxiv"))(out, classes) == pytest.approx(float(right))
    with pytest.raises(UserError, match="No positively labeled data"):
        judge.Figures(meta)(out, y * 0)


def changed(meta, **changes):
    return type(meta)(**{**meta.__dict__, "known": False, **changes})


def test_figures_of_pairs():
    scores = torch.tensor([0.9, 0.2, 0.1, 0.5, 0.3, 0.2])
    collab = known_meta("ogbl-collab")
    assert judge.Figures(changed(collab, metric="hits@1")).of_pairs(scores, 2) == 0.5
    ranked = judge.Figures(known_meta("ogbl-citation2"))
    assert ranked.of_pairs(scores, 2) == pytest.approx((1 + 1 / 2.5) / 2)  # a tie counts half
    assert judge.Figures(known_meta("ogbl-vessel")).of_pairs(scores, 2) == pytest.approx(5.5 / 8)


def test_a_million_pairs_choose_a_decoder(monkeypatch):
    monkeypatch.setattr(judge, "MOST_PAIRS", 12)
    ends = torch.arange(80).view(2, 40)  # eight joined pairs with four candidates each
    some, present = judge._some_pairs(ends, 8, own=True)
    assert present == 2
    assert some[0].tolist() == [0, 4, 8, 9, 10, 11, 24, 25, 26, 27]
    assert judge._some_pairs(ends, 8, own=False)[0] is ends


def spy(monkeypatch, stop_at=None):
    """The seeds that are pretrained; Ctrl-C at one of them."""
    seeds, real = [], entry.pretrain

    def pretrain(*given, seed, **named):
        if seed == stop_at:
            raise KeyboardInterrupt("stopped")
        seeds.append(seed)
        return real(*given, seed=seed, **named)

    monkeypatch.setattr(entry, "pretrain", pretrain)
    return seeds


def test_seeds_that_are_done_are_read(sets, tmp_path, monkeypatch, capsys):
    out = tmp_path / "entry"
    with monkeypatch.context() as patch:
        seeds = spy(patch, stop_at=1)
        run(sets, "ogbn_toy", out, "--seeds", "0-2", status=1)
        assert seeds == [0]
        assert "stopped in seed 1; the same call goes on" in capsys.readouterr().err
    seeds = spy(monkeypatch)
    first = run(sets, "ogbn_toy", out, "--seeds", "0-2")
    assert seeds == [1, 2]
    whole = run(sets, "ogbn_toy", tmp_path / "other", "--seeds", "0-2")
    for a, b in zip(first["runs"], whole["runs"], strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    del seeds[:]
    more = run(sets, "ogbn_toy", out, "--seeds", "0-9")
    assert seeds == list(range(3, 10))
    assert more["runs"][:3] == first["runs"]
    capsys.readouterr()
    words = [word for word in QUICK if word != "--draft"]
    assert cli.main(["ogb", "--dataset", str(sets / "submission_ogbn_toy"), "--out", str(out), *words]) == 0
    assert capsys.readouterr().out.startswith("OGB leaderboard entry\n")  # ten seeds make no draft
    run(sets, "ogbn_toy", out, "--seeds", "0-1", "--set", "mask=0.25", status=2)
    assert "it differs in settings" in capsys.readouterr().err
    (out / "seed-4.json").write_text("{")
    run(sets, "ogbn_toy", out, "--seeds", "0-9", status=2)
    assert "seed-4.json was damaged" in capsys.readouterr().err


def test_a_run_cut_short_goes_on(sets, tmp_path, monkeypatch):
    """Its checkpoint is taken up, and the result is that of a run in one go."""
    whole = run(sets, "ogbn_toy", tmp_path / "whole", "--seeds", "0", "--epochs", "6")
    real, out = runner.train, tmp_path / "entry"

    def cut(*given, **named):
        for step, losses in real(*given, **named):
            yield step, losses
            if step == 3:
                os.kill(os.getpid(), 2)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", cut)
        run(sets, "ogbn_toy", out, "--seeds", "0", "--epochs", "6", status=1)
    assert (out / "seed-0" / "checkpoint.safetensors").exists()
    again = run(sets, "ogbn_toy", out, "--seeds", "0", "--epochs", "6")
    assert again["runs"][0]["test"] == whole["runs"][0]["test"]
    assert len((out / "seed-0" / "metrics.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("name", ["ogbn_toy", "ogbg_toy", "ogbg_sizes"])
@pytest.mark.parametrize("words", [[], ["--finetune", "--tune", "epochs=2"]])
def test_test_labels_choose_nothing(sets, name, words, tmp_path, monkeypatch):
    found = run(sets, name, tmp_path / "a", "--seeds", "0", *words)
    real = sources.find

    def shifted(*given, **named):
        data, meta, source = real(*given, **named)
        y, rows = data.y.clone(), next(iter(data.splits.values()))[0].test
        y[rows] = 1 - y[rows] if y.is_floating_point() else (y[rows] + 1) % 3
        return data.replace(y=y), meta, source

    monkeypatch.setattr(entry, "find", shifted)
    other = run(sets, name, tmp_path / "b", "--seeds", "0", *words)
    for key in ("validation", "chosen", "parameters"):
        assert found["runs"][0][key] == other["runs"][0][key]
    assert found["asked"] == other["asked"]
    assert found["test"] != other["test"]


def test_what_training_sees(sets):
    data = read_ogb(*open_ogb(sets / "submission_ogbg_toy"))
    (split,) = data.splits["official"]
    hidden = shown.hide(data)
    assert hidden.y[split.test].isnan().all()
    assert torch.equal(hidden.y[split.train].nan_to_num(), data.y[split.train].nan_to_num())
    seen = shown.to_pretrain(hidden)
    assert (len(seen.graphs), seen.y, seen.name) == (30, None, "ogbg-toy")
    nodes = shown.to_pretrain(shown.hide(read_ogb(*open_ogb(sets / "submission_ogbn_toy"))))
    assert (nodes.y, nodes.splits) == (None, {})
    links = shown.to_pretrain(shown.hide(read_ogb(*open_ogb(sets / "submission_ogbl_toy"))))
    assert links.with_val is None
    assert links.splits["link"][0].test.numel() == links.splits["link"][0].test_absent.numel() == 0


def test_validation_edges_are_model_input_of_one_set_alone(sets, tmp_path, monkeypatch, capsys):
    place, meta = open_ogb(sets / "submission_ogbl_toy")
    data = read_ogb(place, meta)

    def named(name):
        return lambda *given: (
            data.replace(name=name),
            type(meta)(**{**meta.__dict__, "name": name, "known": True}),
            sources.RAW,
        )

    monkeypatch.setattr(entry, "find", named("ogbl-ppa"))
    words = ("--dataset", "ogbl-ppa", "--decoder", "dot", "--val-edges", "--method", "untrained", "--set", "width=8")
    said = refused(capsys, *words, "--out", str(tmp_path / "a"))
    assert (
        "validation edges as model input, which ogb.stanford.edu/docs/leader_rules allows for ogbl-collab alone" in said
    )
    assert not (tmp_path / "a").exists()
    assert cli.main(["ogb", *words, "--out", str(tmp_path / "a"), "--seeds", "0-1", "--draft"]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert head.startswith("DRAFT, not to be submitted (2 seeds; the rules ask for 10; validation edges as model input")
    monkeypatch.setattr(entry, "find", named("ogbl-collab"))
    assert asked.against_rules("ogbl-collab", [*range(10)], True) == []
    assert cli.main(["ogb", "--dataset", "ogbl-collab", *words[2:], "--out", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.startswith("OGB leaderboard entry\n")


def test_fewer_seeds_of_the_largest_set():
    assert asked.against_rules("ogbn-papers100M", [0, 1, 2]) == []
    assert asked.against_rules("ogbn-arxiv", [0, 1, 2]) == ["3 seeds; the rules ask for 10"]


def test_seeds_of_other_recipes_do_not_mix(sets, tmp_path, capsys):
    out, words = tmp_path / "entry", ("--seeds",)
    run(sets, "ogbn_toy", out, *words, "0-2")
    path = out / "seed-1.json"
    line = json.loads(path.read_text())
    path.write_text(json.dumps({**line, "commit": "another", "versions": {**line["versions"], "torch": "0"}}))
    run(sets, "ogbn_toy", out, *words, "0-2")
    capsys.readouterr()
    for changed, differ in (
        ({"settings": {**line["settings"], "width": 9}}, "width (8, 9)"),
        ({"parameters": {**line["parameters"], "probe": 1}}, f"parameters of probe ({line['parameters']['probe']}, 1)"),
        ({"epochs": 7}, f"epochs ({line['epochs']}, 7)"),
    ):
        path.write_text(json.dumps({**line, **changed}))
        run(sets, "ogbn_toy", out, *words, "0-3", status=2)
        said = capsys.readouterr().err
        assert f"seeds 0,2 and 1 in {out} were not run alike: {differ}; move" in said
        assert said.count("\n") == 1
        assert not (out / "seed-3").exists()  # told before anything is run
    run(sets, "ogbn_toy", out, *words, "0,2")
    found = capsys.readouterr().out
    assert "  Note                  seeds in the folder, not counted: 1\n" in found


def test_a_seed_of_now_beside_one_of_another_recipe(sets, tmp_path, capsys):
    out, words = tmp_path / "entry", ("--seeds",)
    run(sets, "ogbn_toy", out, *words, "0")
    line = json.loads((out / "seed-0.json").read_text())
    (out / "seed-0.json").write_text(json.dumps({**line, "epochs": 7}))
    run(sets, "ogbn_toy", out, *words, "0-1", status=2)
    assert "seeds 0 and 1 in" in capsys.readouterr().err


def test_a_node_set_is_fine_tuned_whole(sets, tmp_path, capsys):
    found = run(sets, "ogbn_toy", tmp_path / "a", "--seeds", "0", "--finetune", "--tune", "epochs=1")
    assert "batch_size" not in found["asked"]["fine-tuning"]
    line = "  Fine-tuning           epochs=1, lr=0.001, head_lr=0.01, weight_decay=0.0001"
    assert f"{line}\n" in capsys.readouterr().out
    run(sets, "ogbg_toy", tmp_path / "b", "--seeds", "0", "--finetune", "--tune", "epochs=1")
    assert f"{line}, batch_size=32\n" in capsys.readouterr().out


def test_fine_tuning_without_a_finite_figure(sets, tmp_path, monkeypatch):
    place, meta = open_ogb(sets / "submission_ogbn_toy")
    data = read_ogb(place, meta)
    one = graphssl.pretrain(data, "untrained", width=8, progress=False)
    monkeypatch.setattr(judge.Figures, "_eval", lambda self, given: float("nan"))
    with pytest.raises(Diverged, match="the validation score is finite in none of 2 epochs"):
        judge.fine_tune(one, shown.hide(data), judge.Figures(meta), 0, {"epochs": 2})
    monkeypatch.setattr("graphssl.finetune.one_pass", lambda *given: 1.0 if len(given) == 7 else float("nan"))
    with pytest.raises(Diverged, match="the validation loss is finite in none of 2 epochs"):
        one.finetune(data, epochs=2)


def test_the_epoch_is_that_of_the_best_figure(sets):
    """The head that is kept is that of a run cut at that epoch."""
    place, meta = open_ogb(sets / "submission_ogbn_toy")
    data, given = read_ogb(place, meta), iter([0.1, 0.4, float("nan"), 0.4, 0.2])
    one = graphssl.pretrain(data, "untrained", width=8, progress=False)

    class Given:
        higher_is_better = True

        def __call__(self, out, y):
            return next(given)

    rows = data.splits["public"][0].val
    kept, _, chosen = judge.fine_tune(one, shown.hide(data), Given(), 0, {"epochs": 5, "lr": 0.1})
    assert chosen == "epoch 2 of 5"
    given = iter([0.0, 1.0])
    cut, _, _ = judge.fine_tune(one, shown.hide(data), Given(), 0, {"epochs": 2, "lr": 0.1})
    torch.testing.assert_close(kept(rows), cut(rows), rtol=0, atol=0)
    tuned = one.finetune(data, epochs=3, score=lambda out, y: -len(out))
    assert tuned.config["finetuned"]["kept"] == "highest validation score"


def test_probe_and_finetune_are_one_choice(sets, tmp_path, capsys):
    found = run(sets, "ogbn_toy", tmp_path / "a", "--seeds", "0", "--probe")
    assert found["asked"]["judge"] == "probe"
    with pytest.raises(SystemExit):
        cli.main(["ogb", "--dataset", "ogbn-arxiv", "--probe", "--finetune"])
    assert "not allowed with argument --probe" in capsys.readouterr().err


def test_going_on_from_a_run(sets, tmp_path, capsys):
    """Each seed starts from the run's weights; what other data it saw are external, labels of this set are refused."""
    graph = read_ogb(*open_ogb(sets / "submission_ogbg_toy"))
    other = graph.replace(name="others", graphs=graph.graphs[::2], y=None, splits={})
    how = {"epochs": 1, "width": 8, "progress": False}
    there = graphssl.pretrain(other, "graphcl", out=tmp_path / "other", **how)
    words = ("--seeds", "0-1", "--from", str(tmp_path / "other"), "--epochs", "0")
    found = run(sets, "ogbg_toy", tmp_path / "a", *words)
    said = capsys.readouterr().out
    assert found["external_data"]
    assert "  External data         yes: pretrained on others\n" in said
    assert "  Method                graphcl (pretrained on others), frozen encoder" in said
    assert f"--from {tmp_path / 'other'}" in said
    assert "every seed goes on from one run, which saw others\n" in said
    one = graphssl.load(tmp_path / "a" / "seed-1")
    for ours, theirs in zip(one.encoder.parameters(), there.encoder.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    graphssl.pretrain(other, "graphcl", out=tmp_path / "second", seed=5, **how)
    words = ("--seeds", "0-1", "--from", str(tmp_path / "second"), "--epochs", "0")
    run(sets, "ogbg_toy", tmp_path / "a", *words, status=2)
    assert "it differs in from" in capsys.readouterr().err
    run(sets, "ogbg_toy", tmp_path / "b", *words, "--method", "graphmae", status=2)
    assert "is of the method 'graphcl', not 'graphmae'" in capsys.readouterr().err

    own = graphssl.pretrain(graph, "graphcl", out=tmp_path / "own", **how)
    found = run(sets, "ogbg_toy", tmp_path / "c", "--seeds", "0", "--from", str(tmp_path / "own"))
    said = capsys.readouterr().out
    assert not found["external_data"]
    assert "which saw ogbg-toy, test graphs of this set among it, without labels\n" in said
    graphssl.pretrain(graph, there, out=tmp_path / "both", epochs=0, progress=False)
    run(sets, "ogbg_toy", tmp_path / "e", "--seeds", "0", "--from", str(tmp_path / "both"), "--epochs", "0")
    assert "yes: pretrained on ogbg-toy and others\n" in capsys.readouterr().out
    own.finetune(graph, epochs=1).save(tmp_path / "tuned")
    run(sets, "ogbg_toy", tmp_path / "d", "--seeds", "0", "--from", str(tmp_path / "tuned"), status=2)
    assert "was trained on labels of 'ogbg-toy', perhaps of test rows" in capsys.readouterr().err


def refused(capsys, *words, status=2):
    assert cli.main(["ogb", *words]) == status
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith("graphssl: ")
    return said


def test_wrong_use_ends_in_one_line(sets, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node, link, graph = (("--dataset", str(sets / f"submission_ogb{kind}_toy"), "--draft") for kind in "nlg")
    few = (*QUICK, "--seeds", "0")
    for words, expected in (
        (("--dataset", "ogbn-arxiff"), "did you mean 'ogbn-arxiv'"),
        (("--dataset", "ogbn-mag"), "several kinds of nodes"),
        (("--dataset", "ogbl-wikikg2"), "triplets of a knowledge graph"),
        (("--dataset", "ogbg-code2"), "asks for words"),
        (("--dataset", "some/folder"), "is no folder of an OGB data set"),
        ((*node[:2], "--seeds", "0-4"), "5 seeds; the rules ask for 10; change that, or say draft=True (--draft)"),
        (("--dataset", "ogbn-papers100M", "--seeds", "0-1"), "2 seeds; the rules ask for 3 of ogbn-papers100M"),
        ((*node, "--seeds", "a-b"), "write whole numbers as 0-9 or 0,3,7"),
        ((*node, "--seeds", "9-0"), "write whole numbers"),
        ((*node, "--seeds", "1,1"), "name one twice"),
        ((*node, "--method", "graphmea"), "did you mean 'graphmae'"),
        ((*node, "--decoder", "dot"), "decoder is for link sets"),
        ((*graph, "--val-edges"), "val_edges is for link sets"),
        ((*node, "--year", "2000"), "year leaves out training edges of a link set"),
        ((*link, "--finetune"), "choose a decoder: mlp, dot, own"),
        ((*link, "--decoder", "doot"), "did you mean 'dot'"),
        ((*link, "--decoder", "own", *few), "has no decoder of pairs of its own"),
        ((*node, "--tune", "lr=0.1"), "not asked for"),
        ((*node, "--finetune", "--tune", "batch_size=8"), "leave out batch_size of fine-tuning"),
        ((*node, "--finetune", "--tune", "lr"), "write --tune KEY=VALUE"),
        ((*node, "--finetune", "--tune", "rate=1"), "unknown setting of fine-tuning"),
        ((*node, "--finetune", "--tune", "epochs=few"), "expects a whole number"),
        ((*node, "--finetune", "--tune", "epochs=0"), "choose 1 or more"),
        ((*node, "--set", "widht=8"), "did you mean 'width'"),
        ((*node, "--set", "epochs=8"), "is the option --epochs"),
        ((*node, "--method", "videomae", "--seeds", "0"), "the graph has no pos"),
        ((*node, "--method", "graphcl", "--seeds", "0"), "graph"),
        ((*node, "--device", "tpu", *few), "device 'tpu' is unknown"),
    ):
        assert expected in refused(capsys, *words, "--quiet"), words
    assert "holds something that is no leaderboard entry" in refused(capsys, *node, "--out", str(sets))
    with monkeypatch.context() as patch:
        patch.setattr("graphssl.data.ogb_files.find_spec", lambda name: None)
        assert "pip install 'graphssl[ogb]'" in refused(capsys, "--dataset", "ogbn-arxiv")
        patch.setenv("WORLD_SIZE", "2")
        assert "torchrun started 2 processes" in refused(capsys, *node)
    # what came to nothing is not in the way
    assert cli.main(["ogb", *node, "--seeds", "0", *QUICK, "--out", "x", "--set", "mask=2"]) == 2
    assert cli.main(["ogb", *node, "--seeds", "0", *QUICK, "--out", "x"]) == 0


class Runs:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_split_that_would_run_code(sets, tmp_path, capsys):
    shutil.copytree(sets / "submission_ogbn_toy", tmp_path / "bad")
    mark = tmp_path / "ran"
    torch.save({"train": Runs(mark)}, tmp_path / "bad" / "toy" / "split" / "official" / "split_dict.pt")
    said = refused(capsys, "--dataset", str(tmp_path / "bad"), "--draft", "--seeds", "0", "--out", str(tmp_path / "o"))
    assert re.search(r"asks to run \w+\.mkdir, which is refused", said)
    assert not mark.exists()
    assert not (tmp_path / "o").exists()


def test_a_set_of_several_kinds_is_refused(tmp_path, capsys):
    kinds = {"num_nodes_dict": {"a": 4, "b": 3}, "edge_index_dict": {("a", "to", "b"): np.array([[0, 1], [2, 0]])}}
    parts = {part: {"a": np.array([i])} for i, part in enumerate(("train", "valid", "test"))}
    y = {"a": np.zeros((4, 1), np.int64)}
    folder = Writer(tmp_path)("ogbn-kinds", [kinds], parts, y, "multiclass classification", "acc", 2, hetero=True)
    assert "several kinds of nodes and edges" in refused(capsys, "--dataset", str(folder))


def test_a_set_is_found_by_name(sets, tmp_path, monkeypatch):
    data, meta, source = sources.find("ogbn-toy", root=sets)
    assert (data.name, meta.metric, source) == ("ogbn-toy", "acc", sources.RAW)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GRAPHSSL_DATA", str(sets))
    assert sources.find("ogbl-toy", year=2005)[0].splits["link"][0].train.size(1) < 120
    np.savez(tmp_path / "ogbn_arxiv.npz", edge_index=np.array([[0], [1]]), x=np.ones((40, 2)), y=np.arange(40) % 2)
    with pytest.raises(UserError, match="is not a node set with the official split"):
        sources.find("ogbn-arxiv", root=tmp_path)


def test_python_call_and_where_the_code_is_from(sets, tmp_path):
    entry = ogb.leaderboard(
        str(sets / "submission_ogbn_toy"), "untrained", seeds=[4], draft=True, out=tmp_path / "entry", width=8,
        searched="width of 8, 16", progress=False,
    )  # fmt: skip
    assert entry.test == (entry.to_json()["runs"][0]["test"], None)
    assert "± - (mean" in entry.block()
    assert "width of 8, 16" in entry.block()
    said = block.commit()
    assert re.fullmatch(r"[0-9a-f]{40}(, changed since)?|no git checkout: graphssl .*", said)


def test_wide_layers_of_yes_and_no_are_each_their_own():
    """The layer of one weight decay is what torch's Adam makes of it alone."""
    draws = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=draws), (torch.rand(30, 2, generator=draws) < 0.5).float()
    y[torch.rand(30, 2, generator=draws) < 0.2] = float("nan")
    last = []

    def figure(out, truth):
        last.append(out)
        return -1.0 / len(last) * (-1 if len(last) == 8 else 1)  # the last look, of the largest weight decay

    weight, bias, chosen = judge.fit_yes_no(x, y, x, y, figure, torch.device("cpu"))
    layer = torch.nn.Linear(4, 2)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    groups = [{"params": [layer.weight], "weight_decay": 1e-2}, {"params": [layer.bias]}]
    optimizer, there = torch.optim.Adam(groups, lr=judge.RATE), y.isfinite()
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(layer(x)[there], y[there]).backward()
        optimizer.step()
    assert chosen == "weight decay 0.01"
    torch.testing.assert_close(weight, layer.weight.detach())
    torch.testing.assert_close(bias, layer.bias.detach())


@pytest.mark.skipif(not (DATA / "molecule" / "ogbg_molesol.npz").exists(), reason="$GRAPHSSL_DATA has no molecules")
@pytest.mark.parametrize("name", ["ogbg-molbace", "ogbg-molfreesolv"])
def test_molecules_for_real(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRAPHSSL_DATA", str(DATA))
    words = (*QUICK, "--epochs", "1", "--seeds", "0", "--out", str(tmp_path / "entry"))
    assert cli.main(["ogb", "--dataset", name, *words]) == 0
    said = capsys.readouterr().out
    assert f"{name}, official split 'scaffold'" in said
    assert "content of width 174" in said
    found = json.loads((tmp_path / "entry" / "submission.json").read_text())
    if name == "ogbg-molbace":
        assert 0.3 < found["test"]["mean"] < 0.95
        assert "1361 graphs, those of the test part (152) not among them" in said
    else:
        assert 0.5 < found["test"]["mean"] < 12  # kcal/mol; the labels spread over 4


@pytest.mark.skipif(not (DATA / "molecule" / "ogbg_molesol.npz").exists(), reason="$GRAPHSSL_DATA has no molecules")
def test_a_file_is_vouched_for_by_its_mark(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRAPHSSL_DATA", str(DATA))
    for name in sources.OFFICIAL:
        assert sources.find(name)[2] == sources.CHECKED
    arrays = dict(np.load(DATA / "molecule" / "ogbg_molfreesolv.npz"))
    train, test = arrays["train_idx"].copy(), arrays["test_idx"].copy()
    train[0], test[0] = test[0], train[0]
    y, x = arrays["y"] + np.float32(0.5), arrays["node_feat"].copy()
    x[0, 8] = 1 - x[0, 8]
    for changed in ({"train_idx": train, "test_idx": test}, {"y": y}, {"node_feat": x}):
        np.savez(tmp_path / "ogbg_molfreesolv.npz", **{**arrays, **changed})
        assert sources.find("ogbg-molfreesolv", root=tmp_path)[2] == sources.FILE
    words = ("--dataset", "ogbg-molfreesolv", "--root", str(tmp_path), "--out", str(tmp_path / "entry"))
    words = (*words, "--method", "untrained", "--quiet")
    assert "split as in the file, not checked; change that, or say draft=True" in refused(capsys, *words)
    assert cli.main(["ogb", *words, "--seeds", "0", "--draft", "--set", "width=8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "DRAFT, not to be submitted (1 seed; the rules ask for 10; split as in the file, not checked)"
    )
    assert "  Dataset               ogbg-molfreesolv, split as in the file, not checked\n" in said
    assert "official" not in said


def test_the_benchmark_shows_what_was_saved(sets, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("ogb_script", ROOT / "benchmarks" / "ogb.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = str(sets / "submission_ogbg_toy")
    entry = ogb.leaderboard(
        folder, "graphmae", seeds="0-1", draft=True, out=tmp_path / "entry", epochs=1, width=8, progress=False
    )
    script.save(entry, tmp_path / "results")
    text = script.show(tmp_path / "results")
    assert (tmp_path / "results" / "ogb.md").read_text() == text
    (line,) = [line for line in text.splitlines() if line.startswith("| ogbg-toy")]
    mean, std = entry.test
    assert f"| {mean:.4f} ± {std:.4f} |" in line
    assert "| epochs=1, width=8 | probe |" in line
    assert "2 (draft)" in line
    asked = []
    monkeypatch.setattr(script, "leaderboard", lambda name, method, **named: asked.append((name, named)) or entry)
    monkeypatch.setattr(sys, "argv", ["ogb.py", "--results", str(tmp_path / "results"), "--set", "width=8"])
    script.main()
    assert [name for name, _ in asked] == list(script.SETS)
    assert {named["width"] for _, named in asked} == {8}
    assert {named["seeds"] for _, named in asked} == {"0-9"}
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--epochs", "0"])
    script.main()
    assert {named["epochs"] for _, named in asked[len(script.SETS) :]} == {0}
    assert len({named["out"] for _, named in asked}) == 2 * len(script.SETS)


def test_the_benchmark_runs(sets, tmp_path):
    words = ["--sets", sets / "submission_ogbg_toy", "--seeds", "0", "--epochs", "0", "--set", "width=8", "--draft"]
    script = ROOT / "benchmarks" / "ogb.py"
    done = subprocess.run(
        [sys.executable, script, *words, "--results", tmp_path, "--runs", tmp_path / "runs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    assert "| ogbg-toy |" in (tmp_path / "ogb.md").read_text()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "submission_ogbg_toy-graphmae-probe-epochs=0-width=8"
