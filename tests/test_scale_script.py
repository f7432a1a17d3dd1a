"""benchmarks/scale.py: each row is measured and written at once, and scale.md says what scale.json says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from graphssl import cli

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scale.py"
SIZES = {"100k": 300, "1M": 600, "10M": 900}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux for memory and for reads from the disk")


@pytest.fixture(scope="module")
def scale():
    """The script as a module, its graphs small and its steps few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        spec = importlib.util.spec_from_file_location("scale_script", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr(module, "SIZES", SIZES)
        few = {
            name: (size, call, {**how, "steps": 3}) for name, (size, call, how) in module.ROWS.items() if "steps" in how
        }
        patch.setattr(module, "ROWS", {**module.ROWS, **few})
        yield module


def call(patch, scale, *words) -> None:
    patch.setattr(sys, "argv", ["scale.py", *map(str, words)])
    scale.main()


@pytest.fixture(scope="module")
def measured(scale, tmp_path_factory):
    """The folder of a run of all rows within this process, and what it asked for: limits, words of ``graphssl``."""
    folder, limits, runs = tmp_path_factory.mktemp("scale"), [], []

    def watched(words):
        if "convert" in words:
            cli.main(words[words.index("graphssl") + 1 :])
            return "", 2.0
        row = words[words.index("--one") + 1]
        return json.dumps(scale.measure(row, folder / "data", full=False)), 3.0

    def run(words, **more):
        runs.append(words)
        assert cli.main(words[words.index("graphssl") + 1 :]) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale, "watched", watched)
        patch.setattr(scale, "subprocess", SimpleNamespace(run=run, DEVNULL=None))
        patch.setattr(scale, "commit", lambda: "0123456")
        patch.setattr(scale.resource, "setrlimit", lambda which, limit: limits.append((which, limit)))
        call(patch, scale, "--data", folder / "data", "--results", folder)
    return SimpleNamespace(folder=folder, limits=limits, runs=runs)


def rows_of(folder: Path) -> dict[str, dict]:
    return {row["row"]: row for row in json.loads((folder / "scale.json").read_text())["rows"]}


def test_every_row_is_measured(scale, measured):
    rows = rows_of(measured.folder)
    assert [*rows] == [*scale.ROWS]
    assert all(row["nodes"] == SIZES[scale.ROWS[name][0]] and row["own_mib"] == 3 for name, row in rows.items())
    assert rows["sampler"]["drawn_a_second"] > rows["sampler"]["met_a_second"] > 0
    row = rows["epoch/1M-128-limited"]
    assert (row["steps"], row["batch"], row["mapped"]) == (3, 128, True)
    assert 0 < row["sampling_share"] < 1
    assert row["nodes"] < row["sampled"] <= row["steps_an_epoch"] * row["nodes"]
    assert all(found["epoch_cpu_seconds"] > 0 for found in rows["linear/128"]["sizes"].values())
    assert all(rate > 0 for rate in rows["reads/10M"]["rows_a_second"].values())
    assert json.loads((measured.folder / "scale.json").read_text())["graphs"].keys() == SIZES.keys()
    assert {path.name for path in (measured.folder / "data").iterdir()} == {*SIZES, *(f"{size}.json" for size in SIZES)}


def test_the_limit_is_less_than_the_features(scale, measured):
    ((which, limit),) = measured.limits
    assert which == scale.resource.RLIMIT_DATA
    assert limit[0] == limit[1] < SIZES["1M"] * scale.WIDTH * 4


def test_two_processes_come_from_torchrun(measured):
    one, two = measured.runs
    assert "torch.distributed.run" not in one
    assert two[1:4] == ["-m", "torch.distributed.run", "--nproc-per-node=2"]
    assert {"loader=neighbor", "width=64"} <= {*one} & {*two}


def test_the_table_says_what_was_measured(scale, measured):
    rows, text = rows_of(measured.folder), (measured.folder / "scale.md").read_text()
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in reversed(text.splitlines()) if " | " in line}
    assert {*rows} <= {*lines}  # the first of each: claims before epochs
    assert f"{rows['sampler']['met_a_second'] / 1e6:.1f}M different nodes" in lines["sampler"]
    assert f"{rows['epoch/1M']['epoch_cpu_seconds']:.0f} s of CPU time" in lines["epoch/1M"]
    assert f"with {rows['epoch/1M-128-limited']['limit_mib']:.0f} MiB" in lines["epoch/1M-128-limited"]
    assert f"on {rows['processes/2']['processes']}" in lines["processes/2"]
    assert "0123456" in text


def test_goals_are_judged(scale, measured, tmp_path, monkeypatch):
    found = json.loads((measured.folder / "scale.json").read_text())
    rows = {row["row"]: row for row in found["rows"]}
    rows["sampler"]["met_a_second"] = 2.9e6
    for size, seconds, sampled in (("100k", 45.0, 3000), ("1M", 100.0, 6000), ("10M", 200.0, 12_000)):
        rows["linear/128"]["sizes"][size] |= {"epoch_cpu_seconds": seconds, "sampled": sampled}
    (tmp_path / "scale.json").write_text(json.dumps(found))
    call(monkeypatch, scale, "--show", "--results", tmp_path)
    lines = (tmp_path / "scale.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("| sampler |"))
    assert line.endswith("| 3M | **no** |")
    of_node, of_sampled = (line for line in lines if line.startswith("| linear/128 |"))
    assert "to that of 1M 0.90, 1.00, 1.33" in of_node  # 300, 600 and 900 nodes
    assert of_node.endswith("| **no** |")
    assert "to that of 1M 0.90, 1.00, 1.00" in of_sampled
    assert of_sampled.endswith("| yes |")


def test_a_row_has_a_process_of_its_own_and_others_are_kept(scale, measured, tmp_path, monkeypatch):
    before = rows_of(measured.folder)
    (tmp_path / "scale.json").write_text((measured.folder / "scale.json").read_text())
    words = ("--data", measured.folder / "data", "--results", tmp_path)
    call(monkeypatch, scale, "--missing", *words)
    assert rows_of(tmp_path) == before
    call(monkeypatch, scale, "--rows", "epoch/100k", *words)
    after = rows_of(tmp_path)
    assert after.pop("epoch/100k")["own_mib"] > 50
    del before["epoch/100k"]
    assert after == before


def test_a_command_that_fails_is_told(scale):
    assert scale.watched([sys.executable, "-c", "print('well')"])[0] == "well\n"
    with pytest.raises(SystemExit, match="no such luck"):
        scale.watched([sys.executable, "-c", "raise ValueError('no such luck')"])
