"""Several processes, for real: torchrun starts two, which talk over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_run_folder import assert_same_weights

from graphssl import store

WORKER = Path(__file__).with_name("processes_worker.py")


def torchrun(*words, seconds=150):
    """Two processes that run the worker with ``words``."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         "--local-addr", "127.0.0.1", "--max-restarts", "1", str(WORKER), *map(str, words)],
        capture_output=True, text=True, timeout=seconds,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GRAPHSSL_TIMEOUT": "30", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip


def test_two_processes(tmp_path):
    done = torchrun("checks", tmp_path)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    for rank in range(2):
        failed = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert not failed, "\n".join(f"rank {rank}, {name}\n{trace}" for name, trace in failed.items())
    assert "Warning" not in done.stderr


def test_a_killed_process_is_started_again_and_all_go_on_to_the_same_bits(tmp_path):
    pytest.importorskip("rdkit", reason="rdkit reads the SMILES")
    (tmp_path / "mols.csv").write_text("smiles\n" + "\n".join("C" * n + end for n in range(1, 7) for end in "ON"))
    done = torchrun(
        "command", tmp_path, "pretrain", tmp_path / "mols.csv", "--epochs", 4, "--batch-size", 3, "--set", "width=8",
        "--set", "norm=none", "--encoder", "gat", "--set", "decoder=gat",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path / "cut", tmp_path / "straight")
    cut, straight = (store.read_metrics(tmp_path / name) for name in ("cut", "straight"))
    assert [line["loss"] for line in cut] == [line["loss"] for line in straight]
    for rank in range(2):
        assert 0 < json.loads((tmp_path / f"steps{rank}.json").read_text()) < 8  # of those of the whole run
    assert done.stderr.count("one of the 2 processes was lost") == 1  # the other one's last words
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("saved to") == 2  # of two runs; the first process speaks
