"""Several processes, for real: torchrun starts two, which talk over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from processes_worker import Toy, graphs
from test_run_folder import assert_same_weights

import graphssl
from graphssl import processes, store
from graphssl.backbones.base import BatchNorm
from graphssl.balance import CAGrad, Equal
from graphssl.graph import Graph
from graphssl.methods import MultiTask
from graphssl.train import train

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
    g = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=g.normal(size=(12, 4)).astype("f4"), edge_index=g.integers(12, size=(2, 40)))
    done = torchrun(
        "command", tmp_path, "pretrain", tmp_path / "own.npz", "--epochs", 4, "--batch-size", 3, "--set", "width=8",
        "--set", "heads=2", "--set", "loader=neighbor",
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


def test_a_step_of_two_batches_has_the_mean_of_their_losses_and_gradients():
    batch, method, twin = [Graph.from_data(data) for data in graphs(2)], Toy(), Toy()
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    [(step, losses)] = train(method, lambda step, slot: batch[slot], optimizer, 1, accumulate=2)
    both = torch.stack([twin(graph)["far"] for graph in batch]).mean()
    both.backward()
    assert step == 1
    assert torch.allclose(losses["loss"], both)
    for p, q in zip(method.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad)


def test_a_balance_of_gradients_is_refused_where_it_would_see_a_part_of_a_step():
    first = Toy()
    for balance in (CAGrad(), Equal()):
        method = MultiTask({"a": first, "b": Toy(first.encoder, 0.5)}, balance)
        optimizer = torch.optim.SGD(method.parameters(), 0.1)
        run = train(method, lambda step, slot: Graph.from_data(graphs(1)[0]), optimizer, 1, accumulate=2)
        if balance.needs_gram:
            with pytest.raises(graphssl.UserError, match="accumulate is 2"):
                next(run)
        else:
            next(run)


def test_one_process_gets_back_its_own():
    rows = torch.randn(3, 2, requires_grad=True)
    assert processes.gather(rows) is rows
    assert processes.mean(rows) is rows
    assert processes.summed(rows) is rows
    assert (processes.count(), processes.rank(), processes.first()) == (1, 0, True)
    assert processes.differing({"a": 1}) is None
    assert processes.agree(lambda: 7) == processes.in_turn(lambda: 7) == 7
    with pytest.raises(KeyError), processes.together():
        raise KeyError
    with processes.group(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert not processes.joined()


def test_batch_norms_are_those_of_all_processes_only_within(monkeypatch):
    """What they compute there needs GPUs; here, that their weights and statistics stay the same tensors."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(BatchNorm(3)))
    plain, state = module[1][0], {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    with monkeypatch.context() as patch:
        patch.setattr(processes, "count", lambda: 2)
        with processes.shared_norms(module):
            assert isinstance(module[1][0], torch.nn.SyncBatchNorm)
            assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == state
    assert module[1][0] is plain
    assert list(processes.batch_norms(module)) == ["1.0"]
