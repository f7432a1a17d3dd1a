"""One run of the loop with all that goes on around it: the bar, the log, checkpoints, Ctrl-C."""

from __future__ import annotations

import functools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.optim import Optimizer
from tqdm import tqdm

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

from graphssl import processes, store
from graphssl.data.loader import Batches, Full
from graphssl.data.samplers import Ahead, Sampled
from graphssl.errors import Diverged, LostProcess, OutOfMemory
from graphssl.methods import Method
from graphssl.monitor import EarlyStop, Monitor
from graphssl.recipes import Plan
from graphssl.select import Best
from graphssl.train import check_equal, memory_advice, train

CGROUP = Path("/sys/fs/cgroup")
LOOKED = {"effective_rank", "spread", "validation_auc"}  # what only some lines of the log have


class Log:
    """One line an epoch: kept here, and in the run's folder where there is one."""

    def __init__(self, folder: Path | None, per_epoch: int, lines: list[dict[str, float]], partial: dict[str, float]):
        self.lines, self.per_epoch, self.sums = lines, per_epoch, dict(partial)
        self.began = time.monotonic() - (lines[-1]["seconds"] if lines else 0.0)
        self.file: TextIO | None = None if folder is None else open(folder / store.METRICS, "a")  # noqa: SIM115

    def add(
        self, step: int, losses: dict[str, torch.Tensor], lr: float, found: dict[str, float]
    ) -> dict[str, float] | None:
        """Takes the losses of a step, and what was ``found`` besides; the epoch's line where it ends one."""
        for key, loss in losses.items():
            self.sums[key] = self.sums.get(key, 0.0) + loss.item() / self.per_epoch
        if step % self.per_epoch:
            return None
        line = {"epoch": step // self.per_epoch, "step": step, **self.sums, **found, "lr": lr}
        line["seconds"] = round(time.monotonic() - self.began, 3)
        self.lines.append(line)
        self.sums = {}
        if self.file is not None:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        return line

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class Saver:
    """Writes a checkpoint at most every second, and never more often than takes a fiftieth of the time."""

    def __init__(self, folder: Path | None, method: Method, optimizer: Optimizer, best: Best | None):
        self.folder, self.method, self.optimizer, self.best = folder, method, optimizer, best
        self.last, self.cost = time.monotonic(), 0.0

    def due(self) -> bool:
        return time.monotonic() - self.last > max(1.0, 50 * self.cost)

    def save(self, step: int, partial: dict[str, float]) -> bool:
        """Whether a checkpoint of this step was written: not without a folder, nor of weights that are not finite."""
        if self.folder is None:
            return False
        began = time.monotonic()
        best = self.best.state() if self.best else None
        written = store.save_checkpoint(self.folder, self.method, self.optimizer, step, partial, best)
        self.last = time.monotonic()
        self.cost = self.last - began
        return written


def run(
    plan: Plan, batches: Full | Batches | Sampled | Ahead, optimizer: Optimizer, config: dict[str, Any], *,
    folder: Path | None = None, resumed: bool = False, progress: bool = True, best: Best | None = None,
    stop: EarlyStop | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Trains ``plan.method`` in place from the start, or from the checkpoint in ``folder``; returns a line an epoch.

    With ``best`` the method ends with the weights that it found best, with ``stop`` where that says so. Of several
    processes all read the checkpoint and the first alone writes.

    Raises Diverged, OutOfMemory, LostProcess, or KeyboardInterrupt after the first Ctrl-C or SIGTERM in any process,
    with a checkpoint written.
    """
    method, device = plan.method, batches.device
    name, where = config["method"], f"{config['method']} on {config['spec']['name']}"
    steps, start = plan.epochs * batches.per_epoch, 0
    partial_sums: dict[str, float] = {}
    if resumed and folder is not None:
        with processes.together():
            start, partial_sums = store.load_checkpoint(folder, method, optimizer)
            if best:
                best.go_on(*store.load_best(folder))
    lines = [] if folder is None else processes.agree(functools.partial(store.cut_metrics, folder, start))
    own = folder if processes.first() else None
    with processes.together():
        monitor = Monitor(method.encoder, batches.sample(), plan.epochs, where)
        log = Log(own, batches.per_epoch, lines, partial_sums)
        load = f"{name} on {batches.largest()[0]} nodes"
    monitor.go_on(log.lines)
    if stop:
        for logged in log.lines:
            same = logged.keys() - LOOKED == log.lines[-1].keys() - LOOKED  # the same losses as now
            stop.done(logged, method.settled and same)
    saver = Saver(own, method, optimizer, best)
    bar = tqdm(
        total=plan.epochs, initial=start // batches.per_epoch, desc=where, unit="epoch", dynamic_ncols=True,
        disable=not (progress and processes.first() and sys.stderr.isatty()),
    )  # fmt: skip
    half = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=config["precision"] == "bf16-mixed")
    step = start
    try:
        with (
            stop_signals() as stopped,
            memory_advice(load),
            processes.shared_norms(method),
        ):
            for step, losses in train(
                method, batches, optimizer, steps, start=start, seed=config["seed"], accumulate=plan.accumulate,
                schedule=plan.schedule, clip=plan.clip, autocast=half, stop=stopped,
            ):  # fmt: skip
                found = {}
                if step % batches.per_epoch == 0:
                    epoch = step // batches.per_epoch
                    found = {**(best.look(epoch) if best else {}), **monitor.look(epoch)}
                line = log.add(step, losses, optimizer.param_groups[0]["lr"], found)
                if line is not None:
                    bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
                    bar.update()
                if (best and best.done) or (line and stop and stop.done(line, method.settled)):
                    break
                if step < steps and saver.due():
                    saver.save(step, log.sums)
            else:
                if step < steps:
                    saved = processes.agree(functools.partial(saver.save, step, log.sums))
                    raise KeyboardInterrupt(goodbye(saved, step, steps))
    except Diverged as error:
        raise Diverged(f"{where}: {error}{way_back(folder)}") from None
    except LostProcess as error:
        kept = folder is not None and (folder / store.CHECKPOINT).exists()
        way_on = "; go on from the last checkpoint with the same call and resume=True (--resume)" if kept else ""
        raise LostProcess(f"{where}: {error}{way_on}") from error
    finally:
        bar.close()
        log.close()
        if isinstance(batches, Ahead):
            batches.close()
    if not all(p.isfinite().all() for p in method.parameters()):
        raise Diverged(
            f"{where}: weights are not finite after step {step}; try a smaller lr or a clip{way_back(folder)}"
        )
    if best:
        best.restore()
    check_equal(method)
    return log.lines


def goodbye(saved: bool, step: int, steps: int) -> str:
    if not saved:
        return f"stopped after step {step} of {steps}; this step was not saved (no out folder, or weights not finite)"
    return f"stopped after step {step} of {steps} and saved; go on with the same call and resume=True (--resume)"


def way_back(folder: Path | None) -> str:
    if folder is None or not (folder / store.CHECKPOINT).exists():
        return ""
    return (
        f"; the last good checkpoint was kept: graphssl.load({str(folder)!r}, unfinished=True) reads it, to go on from"
    )


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that no step is cut in two; the second acts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt("stopped at once; what came after the last checkpoint is lost")
        asked.append(number)
        print("\ngraphssl: stopping after this step; once more stops at once", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def check_memory(method: Method, largest: tuple[int, int], device: torch.device, name: str) -> None:
    """Raises OutOfMemory for a step that cannot fit, where the system tells how much is free."""
    free = free_bytes(device)
    need = step_need(method, *largest)
    if free is not None and need > free:
        raise OutOfMemory(
            f"one step of {name} on {largest[0]} nodes needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            "free; choose a smaller width or batch_size"
        )


def step_need(method: Method, nodes: int, edges: int) -> int:
    """About how many bytes a step on so many nodes and edges takes: weights, gradient, two moments and activations."""
    return 16 * sum(p.numel() for p in method.parameters()) + method.step_bytes(nodes, edges)


def free_bytes(device: torch.device) -> int | None:
    """What the device, or the system, says is free for this process; None where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    system = _status("/proc/meminfo", "MemAvailable")
    known = [] if system is None else [system // processes.here()]
    if resource is not None and (limit := resource.getrlimit(resource.RLIMIT_DATA)[0]) != resource.RLIM_INFINITY:
        known += [max(0, limit - (_status("/proc/self/status", "VmData") or 0))]
    with suppress(OSError, ValueError):  # a container's; "max", which is no number, where there is none
        limit = int((CGROUP / "memory.max").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        used = int((CGROUP / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
        known += [max(0, limit - used) // processes.here()]
    return min(known, default=None)


def _status(path: str, key: str) -> int | None:
    """The bytes that a file of /proc says of ``key``; None where it does not."""
    try:
        with open(path) as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))
    except (OSError, StopIteration):
        return None
