"""benchmarks/speed.py: it measures, writes what it says, and fails where a goal is missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed.py"
ROW = "segment_softmax/molecules/4"
SMALLEST = ("--rows", ROW, "--rounds", "2", "--sides", "pyg sorted")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("GRAPHSSL_DATA", str(tmp_path / "none"))  # molecules are made up then

    def speed(goals: list[dict], *words: str) -> subprocess.CompletedProcess:
        (tmp_path / "goals.json").write_text(json.dumps(goals))
        command = [sys.executable, str(SCRIPT), "--results", str(tmp_path), "--must-win", str(tmp_path / "goals.json")]
        return subprocess.run([*command, *words], capture_output=True, text=True, env=os.environ)

    return speed


def test_a_row_is_measured_and_written(run, tmp_path):
    done = run([{"row": "segment_softmax/*", "peak_mib": 10_000}], *SMALLEST)
    assert done.returncode == 0, done.stderr
    assert "no must-win row is lost" in done.stdout
    found = json.loads((tmp_path / "speed-cpu-1t.json").read_text())
    (row,) = found["rows"]
    ours = row["sides"]["ours"]
    assert row["row"] == ROW
    assert ours["rounds"] == 2
    assert ours["deterministic"]
    assert ours["error"] < 1e-5
    assert ours["ms"]["fwd+bwd"][1] > ours["ms"]["fwd"][1] > 0
    assert "### segment_softmax" in (tmp_path / "speed.md").read_text()
    assert run([], "--show").returncode == 0


def test_a_lost_row_is_named_and_fails(run):
    done = run([{"row": ROW, "peak_mib": -1}, {"row": "spmm/*", "ratio": 1e9, "against": "best peer"}], *SMALLEST)
    assert done.returncode == 1
    assert f"LOST {ROW}" in done.stdout
    assert "LOST spmm" not in done.stdout  # not measured, so not judged
