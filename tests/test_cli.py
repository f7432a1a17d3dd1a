"""The command line: the words of the Python calls, exit statuses, one line for a mistake."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from graphssl.cli import main

QUICK = ["--set", "width=8", "--set", "heads=2", "--epochs", "2", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["pretrain", "citations-mini", "--out", str(out), *QUICK]) == 0
    return out


def said(capsys, *words, status=2):
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("graphssl: ")
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err
    return captured


def test_the_whole_way(run, capsys, tmp_path):
    assert main(["evaluate", str(run), "--protocol", "node-knn", "--json", str(tmp_path / "report.json")]) == 0
    out = capsys.readouterr().out
    for word in ("graphmae", "untrained encoder", "raw features", "node-knn"):
        assert word in out
    assert json.loads((tmp_path / "report.json").read_text())["dataset"] == "citations-mini"
    assert main(["embed", str(run), "--to", str(tmp_path / "codes.npy")]) == 0
    assert np.load(tmp_path / "codes.npy").shape[1] == 8
    assert main(["embed", str(run), "--to", str(tmp_path / "codes.csv")]) == 0
    assert (tmp_path / "codes.csv").read_text().startswith("node,code_0,code_1")
    assert main(["plot", str(run), "--to", str(tmp_path / "codes.png")]) == 0
    assert (tmp_path / "codes.png").stat().st_size > 1000


def test_one_run_on_a_link_set_is_judged_by_four_tasks(capsys, tmp_path):
    out = str(tmp_path / "run")
    assert main(["pretrain", "citations-mini/link", "--out", out, *QUICK]) == 0
    capsys.readouterr()
    assert main(["evaluate", out, "--protocol", "link-dot,node-knn, node-cluster,partition"]) == 0
    blocks = capsys.readouterr().out.split("\n\ncitations-mini/link: ")
    assert [block.split(" (")[0].split(": ")[-1] for block in blocks] == [
        "link-dot", "node-knn", "node-cluster", "partition",
    ]  # fmt: skip
    assert main(["evaluate", out, "--protocol", "link-dot,node-kn"]) == 2
    said(capsys, "did you mean 'node-knn'")


def bars(count=60):
    """Bytes [count, 1, 8, 8] with a bright bar whose row says the class."""
    y = np.arange(count) % 3
    images = np.random.default_rng(0).integers(0, 100, (count, 1, 8, 8)).astype(np.uint8)
    for i, c in enumerate(y):
        images[i, :, 2 * c : 2 * c + 2] += 80
    return images, y


SMALL = ["--method", "mae", *QUICK, "--set", "layers=1", "--batch-size", "20"]


def test_the_whole_way_from_a_file_of_images(capsys, tmp_path):
    images, y = bars()
    np.savez(tmp_path / "bars.npz", images=images, y=y)
    out = str(tmp_path / "run")
    assert main(["pretrain", str(tmp_path / "bars.npz"), "--out", out, *SMALL]) == 0
    assert main(["pretrain", str(tmp_path / "bars.npz"), "--out", out, *SMALL, "--resume"]) == 0
    capsys.readouterr()
    assert main(["evaluate", out, "--protocol", "graph-knn"]) == 0
    said_by_it = capsys.readouterr().out
    for word in ("mae", "untrained encoder", "raw features", "graph-knn"):
        assert word in said_by_it
    assert main(["embed", out, "--to", str(tmp_path / "codes.npy")]) == 0
    assert np.load(tmp_path / "codes.npy").shape == (60, 8)
    assert main(["plot", out, "--to", str(tmp_path / "items.png")]) == 0
    assert main(["plot", out, "--to", str(tmp_path / "rebuilt.png"), "--what", "reconstruction"]) == 0
    assert main(["plot", out, "--to", str(tmp_path / "codes.png"), "--what", "codes"]) == 0
    drawn = [(tmp_path / f"{name}.png").read_bytes() for name in ("items", "rebuilt", "codes")]
    assert drawn[0] == drawn[1] != drawn[2]
    capsys.readouterr()
    assert main(["plot", out, "--to", str(tmp_path / "film.gif")]) == 2
    said(capsys, "images do not move", ".png")
    assert main(["embed", out, "--to", str(tmp_path / "other.npy"), "--dataset", "drugs-mini"]) == 2
    said(capsys, "pretrained on images", "holds graphs")


def test_the_whole_way_from_a_folder_of_images(capsys, tmp_path):
    images, y = bars()
    for i, (image, c) in enumerate(zip(images, y, strict=True)):
        path = tmp_path / "pictures" / f"row{c}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(path)
    out = str(tmp_path / "run")
    assert main(["pretrain", str(tmp_path / "pictures"), "--out", out, *SMALL]) == 0
    assert main(["embed", out, "--to", str(tmp_path / "codes.csv")]) == 0
    lines = (tmp_path / "codes.csv").read_text().splitlines()
    assert (len(lines), lines[0].startswith("graph,code_0")) == (61, True)
    assert lines[1].startswith("row0/00.png,")
    assert main(["evaluate", out, "--protocol", "graph-linear"]) == 0
    assert "raw features" in capsys.readouterr().out


def test_a_named_set_of_images(capsys, tmp_path):
    out = str(tmp_path / "run")
    assert main(["pretrain", "digits", "--out", out, *SMALL, "--epochs", "0"]) == 0
    assert "digits: 0 epochs" in capsys.readouterr().out
    assert main(["embed", out, "--to", str(tmp_path / "codes.npy")]) == 0
    assert np.load(tmp_path / "codes.npy").shape == (1797, 8)


def test_files_are_not_overwritten_unasked(run, capsys, tmp_path):
    path = tmp_path / "codes.npy"
    path.write_text("mine")
    assert main(["embed", str(run), "--to", str(path)]) == 2
    said(capsys, "exists", "--overwrite")
    assert path.read_text() == "mine"
    assert main(["embed", str(run), "--to", str(path), "--overwrite"]) == 0


def test_resume_and_overwrite(run, capsys):
    again = ["pretrain", "citations-mini", "--out", str(run), *QUICK]
    assert main(again) == 2
    said(capsys, "resume", "overwrite")
    assert main([*again, "--resume"]) == 0


MISTAKES = {
    "data": (["pretrain", "citations-mimi"], "did you mean 'citations-mini'"),
    "method": (["pretrain", "citations-mini", "--method", "graphmea"], "did you mean 'graphmae'"),
    "setting": (["pretrain", "citations-mini", "--set", "widht=8"], "did you mean 'width'"),
    "no value": (["pretrain", "citations-mini", "--set", "width"], "KEY=VALUE"),
    "type": (["pretrain", "citations-mini", "--set", "lr=fast"], "expects float"),
    "option": (["pretrain", "citations-mini", "--set", "epochs=3"], "--epochs"),
    "number": (["pretrain", "citations-mini", "--epochs", "many"], "--epochs"),
    "command": (["pretrian"], "pretrain"),
    "nothing": ([], "COMMAND"),
    "folder": (["evaluate", "nowhere"], "is no folder"),
    "file": (["pretrain", "nowhere/data.npz"], "nowhere/data.npz"),
    "list": (["list", "colours"], "methods"),
    "pattern": (["list", "methods", "zzz*"], "list methods"),
    "picture": (["plot", "nowhere", "--to", "a.png", "--what", "colours"], "reconstruction"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, expected = MISTAKES[name]
    try:
        status = main(words)
    except SystemExit as left:
        status = left.code
    assert status == 2
    said(capsys, expected)


def test_wrong_protocol_and_suffix(run, capsys, tmp_path):
    assert main(["evaluate", str(run), "--protocol", "graph-svm"]) == 2
    said(capsys, "node-linear")
    assert main(["embed", str(run), "--to", str(tmp_path / "codes.xlsx")]) == 2
    said(capsys, ".npy, .csv or .parquet")


def test_a_failure_is_status_1(capsys, tmp_path):
    out = str(tmp_path / "run")
    assert main(["pretrain", "citations-mini", "--out", out, "--set", "lr=1e30", "--quiet", "--epochs", "9"]) == 1
    said(capsys, "smaller lr")


def test_lists_and_doctor(capsys):
    for what, name in (("methods", "graphmae"), ("datasets", "citations-mini"), ("encoders", "gat")):
        assert main(["list", what]) == 0
        assert name in capsys.readouterr().out
    assert main(["list", "protocols", "node-*"]) == 0
    assert "graph-svm" not in capsys.readouterr().out
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch" in out
    assert "GPU" in out


def test_module_and_version():
    done = subprocess.run([sys.executable, "-m", "graphssl", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("graphssl ")
