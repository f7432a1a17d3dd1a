"""benchmarks/speed.py: it measures, writes what it says, and fails where a goal is missed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed.py"
ROW = "segment_softmax/molecules/4"
SMALLEST = ("--rows", ROW, "--rounds", "2", "--sides", "pyg sorted")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder of the results of a run on its own, which is one that wins, and the run."""
    folder = tmp_path_factory.mktemp("speed")
    (folder / "goals.json").write_text(json.dumps([{"row": "segment_softmax/*", "peak_mib": 10_000}]))
    command = [sys.executable, str(SCRIPT), "--results", str(folder), "--must-win", str(folder / "goals.json")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GRAPHSSL_DATA": str(folder / "none")}  # molecules are made up then
    return folder, subprocess.run([*command, *SMALLEST], capture_output=True, text=True, env=env)


@pytest.fixture
def speed(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("speed_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_is_measured_and_written(measured):
    folder, done = measured
    assert done.returncode == 0, done.stderr
    assert "no must-win row is lost" in done.stdout
    found = json.loads((folder / "speed-cpu-1t.json").read_text())
    (row,) = found["rows"]
    ours = row["sides"]["ours"]
    assert row["row"] == ROW
    assert ours["rounds"] == 2
    assert ours["deterministic"]
    assert ours["error"] < 1e-5
    assert ours["ms"]["fwd+bwd"][1] > ours["ms"]["fwd"][1] > 0
    assert "### segment_softmax" in (folder / "speed.md").read_text()


def test_the_table_is_made_anew_from_what_is_there(measured, speed, monkeypatch):
    table = measured[0] / "speed.md"
    before = table.read_text()
    table.unlink()
    monkeypatch.setattr(sys, "argv", ["speed.py", "--results", str(measured[0]), "--show"])
    speed.main()
    assert table.read_text() == before


def test_a_lost_row_is_named_and_fails(measured, speed, tmp_path, monkeypatch, capsys):
    (row,) = json.loads((measured[0] / "speed-cpu-1t.json").read_text())["rows"]
    goals = [{"row": ROW, "peak_mib": -1}, {"row": "spmm/*", "ratio": 1e9, "against": "best peer"}]
    (tmp_path / "goals.json").write_text(json.dumps(goals))
    words = ["--results", str(tmp_path), "--must-win", str(tmp_path / "goals.json"), *SMALLEST]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("GRAPHSSL_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "argv", ["speed.py", *words])
    monkeypatch.setattr(speed, "CPU", lambda threads: SimpleNamespace(main="cpu"))
    monkeypatch.setattr(speed, "limits", lambda meter: {"copy GB/s": 1.0, "product TFLOP/s": 1.0})
    monkeypatch.setattr(speed, "measure", lambda *asked: row)  # as it was found
    with pytest.raises(SystemExit) as ended:
        speed.main()
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert f"LOST {ROW}" in told
    assert "LOST spmm" not in told  # not measured, so not judged
