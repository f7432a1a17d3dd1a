"""Speed and memory of every op and of whole training steps beside their peers, measured in one process.

    pip install torch_geometric dgl==1.1.3 torch-scatter        # peers; what is missing is printed as "-"
    python benchmarks/speed.py --threads 1                      # all rows but the LONG ones; about 20 minutes
    python benchmarks/speed.py --threads 1 --rows '*'           # all rows
    python benchmarks/speed.py --threads 2 --rows 'gat/*' 'graphmae-step/*'
    python benchmarks/speed.py --device cuda --minutes 9        # stops in time; what was not reached is named
    python benchmarks/speed.py --show                           # only makes the table from what is there

Each row is written to benchmarks/results/speed-{cpu-1t,cpu-2t,cuda}.json once it is measured, in the place of the same
row of a run before; results/speed.md is made of those files. Exit status 1 where a row of must_win.json is lost.

How a row is measured. Every side gets the same inputs and runs twice outside the clock: the first call makes its
caches (compilation, transposes), the second gives the peak of memory above what was in use before. The two must agree
bit for bit, or the side is marked ``~``. Then come rounds in which each side runs once, the order rotated: A B C,
B C A, ... A side takes part until it has used up its seconds, three times at least, or twice if a call takes seconds.
The figure is the median. With one thread on the CPU it is the process's CPU time (wall time is in the JSON), with two
the wall time, on CUDA the time between events, with the L2 cache overwritten before each call. ``fwd`` is the forward
that keeps what the backward needs.

Memory on the CPU is the growth of the resident set (VmHWM of Linux, reset before the call, after free memory was given
back), so it holds all allocators; on CUDA it is torch's max_memory_allocated. A process that would take more than the
machine's free memory is refused it, which is printed as OOM.

Limits. "GB" are bytes that forward and backward must move: first if every row of the content comes from memory once
(best cache), then if once an edge (no cache); each with the share of this run's copy bandwidth that it amounts to.
"gather" is the time in which this machine just reads the rows that the edges name, as often as the op must, as a share
of ours. For dense rows the limit is this run's matrix product. Errors are the largest difference from ours in float64
(by the reference path, or the tiled one where that would not fit), relative to the largest entry of the output or
gradient.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import itertools
import json
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import speed_cases
import speed_steps
import torch
import torch.nn.functional as F
from quality import commit, machine
from speed_cases import Case, Side
from torch import Tensor

from graphssl import ops
from graphssl.recipes import get_recipe, parse
from graphssl.store import write_json

RESULTS = Path(__file__).parent / "results"
MUST_WIN = Path(__file__).parent / "must_win.json"
SLOW = 4.0  # seconds: a side that has used up so many after one round or two gets two, any other three at least
GATHER = "gather only"
LONG = (  # minutes each, most of them the peers'
    "*/powerlaw-100k/4x256", "gat-layer/powerlaw-100k/4x64", "gatv2/powerlaw-100k/4x64", "qkv/powerlaw-100k/4x64",
)  # fmt: skip
EXACT_BYTES = 2**30  # above this, what the reference path would hold is tiled; far above, errors are left out


class CPU:
    """Clock and memory of this process."""

    def __init__(self, threads: int):
        self.device, self.main = "cpu", "cpu" if threads == 1 else "wall"
        try:
            self.libc = ctypes.CDLL("libc.so.6")
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.libc = None  # no Linux: memory is left out
        else:
            import resource

            most = self._status("VmData") + int(0.9 * self._status("MemAvailable", "/proc/meminfo"))
            resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))

    def time(self, call: Callable[[Callable[[], None]], Any]) -> dict[str, list[float]]:
        """Seconds between the marks that ``call`` makes, by clock."""
        stamps: list[tuple[float, float]] = []
        call(lambda: stamps.append((time.perf_counter(), time.process_time())))
        wall, cpu = zip(*stamps, strict=True)
        return {"wall": np.diff(wall).tolist(), "cpu": np.diff(cpu).tolist()}

    def peak(self, call: Callable[[], Any]) -> tuple[Any, float | None]:
        """What ``call`` returns, and the MiB that it needed at once."""
        if self.libc is None:
            return call(), None
        gc.collect()
        self.libc.malloc_trim(0)
        before = self._status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        result = call()
        return result, (self._status("VmHWM") - before) / 2**20

    @staticmethod
    def _status(key: str, path: str = "/proc/self/status") -> int:
        return 1024 * int(re.search(rf"{key}:\s+(\d+) kB", Path(path).read_text())[1])


class CUDA:
    """Clock and memory of the first GPU."""

    def __init__(self):
        self.device = self.main = "cuda"
        self.cache = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")

    def time(self, call: Callable[[Callable[[], None]], Any]) -> dict[str, list[float]]:
        events: list[torch.cuda.Event] = []

        def mark() -> None:
            events.append(torch.cuda.Event(enable_timing=True))
            events[-1].record()

        self.cache.zero_()
        call(mark)
        torch.cuda.synchronize()
        return {"cuda": [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(events)]}

    def peak(self, call: Callable[[], Any]) -> tuple[Any, float | None]:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        return result, (torch.cuda.max_memory_allocated() - before) / 2**20


def once(side: Side, cotangent: Tensor | None, mark: Callable[[], None] = lambda: None) -> list[Tensor]:
    """One forward and, where there is something to differentiate, one backward: the output and the gradients."""
    mark()
    out = side.run()
    mark()
    results = list(out) if isinstance(out, tuple) else [out]
    if any(leaf.requires_grad for leaf in side.leaves):
        results += torch.autograd.grad(out, side.leaves, torch.ones_like(out) if cotangent is None else cotangent)
        mark()
    return [r.detach().values() if r.layout == torch.sparse_csr else r.detach() for r in results]


def reseed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    if "dgl" in sys.modules:
        sys.modules["dgl"].seed(0)


def exactly(case: Case) -> tuple[list[Tensor] | None, Tensor | None]:
    """Output and gradients in float64, and the cotangent that all sides get."""
    if case.exact is None:
        return None, None
    buffer = 8 * case.rows[0].size(1) * len(case.rows[1]) if case.rows else 8 * case.size.get("rows", 0) ** 2
    if buffer > 40 * EXACT_BYTES:
        return None, None
    with ops.using("reference" if buffer <= EXACT_BYTES else "torch"):
        side = case.exact()
        if not side.leaves:
            return once(side, None), None
        with torch.no_grad():
            shape = side.run().shape
        generator = torch.Generator(side.leaves[0].device).manual_seed(9)
        cotangent = torch.randn(shape, generator=generator, device=generator.device)
        return once(side, cotangent.double()), cotangent


def error_of(results: list[Tensor], exact: list[Tensor], side: Side, edgewise: tuple[int, ...]) -> float:
    worst = 0.0
    for i, (ours, true) in enumerate(zip(results, exact, strict=False)):
        true = true[side.order] if side.order is not None and i in edgewise else true
        worst = max(worst, float((ours.double() - true).abs().max() / true.abs().max().clamp(min=1e-30)))
    return worst


def attempt(what: Callable[[], Any]) -> tuple[Any, str]:
    """What it returns, or why it failed."""
    try:
        return what(), ""
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}"
        short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or re.search(
            r"allocate memory|out of memory|bad_alloc", text
        )
        return None, "OOM" if short else text[:300]


def prepare(case: Case, make: Callable[[], Side], meter: CPU | CUDA, exact, cotangent) -> tuple[Side, dict[str, Any]]:
    """Makes a side and calls it twice outside the clock."""
    side = make()
    if cotangent is not None and side.order is not None and 0 in case.edgewise:
        cotangent = cotangent[side.order]
    reseed()
    first = once(side, cotangent)
    reseed()
    second, peak = meter.peak(lambda: once(side, cotangent))
    cell: dict[str, Any] = {"peak_mib": peak}
    if not case.step:
        cell["deterministic"] = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    if exact is not None:
        cell["error"] = error_of(second, exact, side, case.edgewise)
    return side, cell


def measure(name: str, case: Case, meter: CPU | CUDA, wanted: list[str], rounds: int, seconds: float) -> dict:
    """A row of the results."""
    found, why = attempt(lambda: exactly(case))
    exact, cotangent = found or (None, None)
    cells: dict[str, dict[str, Any]] = {}
    sides: dict[str, Side] = {}
    torch.compiler.reset()
    for who, make in case.sides.items():
        if not any_of(who, ("ours", *wanted)):
            continue
        made, failed = attempt(lambda make=make: prepare(case, make, meter, exact, cotangent))
        if failed:
            cells[who] = {"failed": failed}
            gc.collect()
        else:
            sides[who], cells[who] = made
        if meter.device == "cuda":
            torch.cuda.empty_cache()
        if who == "ours":
            path, _ = attempt(lambda: ops.backend(case.op))
    if case.gathers and case.rows:
        sides[GATHER] = gather_only(*case.rows)
        cells[GATHER] = {}
    times: dict[str, dict[str, list[list[float]]]] = {who: {} for who in sides}
    spent, live, cotangents = dict.fromkeys(sides, 0.0), list(sides), {}
    for who, side in sides.items():
        moved = cotangent is not None and side.order is not None and 0 in case.edgewise
        cotangents[who] = cotangent[side.order] if moved else cotangent
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        for who in live[turn % len(live) :] + live[: turn % len(live)] if live else ():
            began = time.perf_counter()
            for clock, parts in meter.time(lambda mark, who=who: timed(sides[who], cotangents[who], mark)).items():
                times[who].setdefault(clock, []).append(parts)
            spent[who] += time.perf_counter() - began
        budget = 4 * seconds if case.step else seconds
        live = [who for who in live if spent[who] < budget or turn + 1 < (2 if spent[who] > SLOW else 3)]
    gc.enable()
    backward = bool(sides) and len(times.get("ours", {}).get(meter.main, [[0]])[0]) == 2
    for who, clocks in times.items():
        for clock, parts in clocks.items():
            spans = {"fwd": [p[0] for p in parts], "fwd+bwd": [sum(p) for p in parts]} if backward else {}
            if len(parts[0]) == 1:
                spans = {"fwd" if backward else "run": [p[0] for p in parts]}
            quantiles = {phase: [1e3 * float(q) for q in np.quantile(v, (0.1, 0.5, 0.9))] for phase, v in spans.items()}
            cells[who]["ms" if clock == meter.main else f"{clock}_ms"] = quantiles
        cells[who]["rounds"] = len(parts)
    row: dict[str, Any] = {
        "row": name, "size": case.size, "path": path, "commit": commit(), "sides": cells, "flops": case.flops,
        "gigabytes": [b / 1e9 for b in case.traffic or ()], "gathers": case.gathers,
    }  # fmt: skip
    return row | ({"no error measured": why} if why else {})


def timed(side: Side, cotangent: Tensor | None, mark: Callable[[], None]) -> None:
    """Results are freed within the last span, as they are in training."""
    once(side, cotangent, mark)


def gather_only(x: Tensor, index: Tensor) -> Side:
    """Reads row ``index[e]`` of ``x`` for each e in turn and writes next to nothing."""
    if x.is_cuda:
        try:
            from speed_gather import gather
        except ImportError:
            pass
        else:
            return Side(lambda: gather(x, index))
    index = index.int()
    bags = torch.arange(0, len(index), 4096, dtype=torch.int32, device=x.device)
    return Side(lambda: F.embedding_bag(index, x, bags, mode="sum"))


def limits(meter: CPU | CUDA) -> dict[str, float]:
    """This run's copy bandwidth, reading and writing, and its matrix product."""
    a = torch.ones(64 * 2**20, device=meter.device)
    b, square = torch.ones_like(a), torch.ones(2048, 2048, device=meter.device)
    copying, product = Side(lambda: b.copy_(a)), Side(lambda: square @ square)
    middle = [
        float(np.median([meter.time(lambda mark, s=s: once(s, None, mark))[meter.main][0] for _ in range(7)]))
        for s in (copying, product)
    ]
    return {"copy GB/s": 8 * a.numel() / middle[0] / 1e9, "product TFLOP/s": 2 * 2048**3 / middle[1] / 1e12}


def judge(row: dict, limit: dict[str, float]) -> dict:
    """Adds what follows from the measured times: ratios to the peers and shares of the limits, phase by phase."""
    sides, row["phases"] = row["sides"], {}
    for phase, (_, ours, _) in sides["ours"].get("ms", {}).items():
        others = {who: cell["ms"][phase][1] for who, cell in sides.items() if phase in cell.get("ms", {})}
        gathering = others.pop(GATHER, None)
        gathering = sides.get(GATHER, {}).get("ms", {}).get("fwd", [0, gathering])[1]
        others.pop("ours")
        best = min(others, key=others.__getitem__, default=None)
        found = row["phases"][phase] = {"best peer": best, "ratios": {who: ms / ours for who, ms in others.items()}}
        if phase != "fwd":
            found["share of copy"] = [gb / (ours / 1e3) / limit["copy GB/s"] for gb in row["gigabytes"]]
            if row["gathers"] and gathering:
                found["share of gather"] = row["gathers"] * gathering / ours
            if row["flops"]:
                found["share of product"] = row["flops"] / (ours / 1e3) / 1e12 / limit["product TFLOP/s"]
    return row


def lost(rows: list[dict], goals: list[dict], device: str) -> list[str]:
    """What of ``goals`` the rows miss, in words; a goal against a peer that was not measured is not judged."""
    words = []
    for goal in goals:
        for row in rows:
            if goal.get("device", "cpu") != device or not fnmatch(row["row"], goal["row"]):
                continue
            if not row["phases"]:
                words.append(f"{row['row']}: ours did not run ({row['sides']['ours'].get('failed', '')})")
                continue
            phase, found = list(row["phases"].items())[-1]
            who = found["best peer"] if goal.get("against") == "best peer" else goal.get("against")
            cells = row["sides"]
            if "ratio" in goal and who in found["ratios"] and found["ratios"][who] < goal["ratio"]:
                words.append(f"{row['row']}: {found['ratios'][who]:.2f} times {who} in {phase}, not {goal['ratio']}")
            ours, theirs = (cells.get(w, {}).get("peak_mib") for w in ("ours", who))
            if "memory" in goal and ours is not None and theirs is not None and theirs < goal["memory"] * ours:
                words.append(f"{row['row']}: {theirs / ours:.1f} times less memory than {who}, not {goal['memory']}")
            if ours is not None and ours > goal.get("peak_mib", ours):
                words.append(f"{row['row']}: {ours:.0f} MiB, more than {goal['peak_mib']}")
            if (share := found.get("share of gather", 1)) < goal.get("gather", 0):
                words.append(f"{row['row']}: {share:.2f} of the gather's speed, not {goal['gather']}")
    return words


def lines(row: dict, peers: list[str]) -> list[list[str]]:
    """The cells of a row, one line a phase."""
    made = []
    for phase, found in row["phases"].items() or {"": {}}.items():
        line = [row["row"].partition("/")[2] or row["row"], phase]
        for who in ("ours", *peers):
            cell = row["sides"].get(who, {"failed": "-"})
            text = "OOM" if cell.get("failed") == "OOM" else "-"
            if phase in cell.get("ms", {}):
                text = number(cell["ms"][phase][1])
                text += f" ({cell['peak_mib']:.0f})" if phase != "fwd" and cell["peak_mib"] is not None else ""
                text += "" if cell.get("deterministic", True) else "~"
            line.append(text)
        best = found.get("best peer")
        line.append(f"{found['ratios'][best]:.2f}" if best else "")
        shares = found.get("share of copy", [])
        traffic = [f"{gb:.3g}: {s:.0%}" for gb, s in zip(row["gigabytes"], shares, strict=False)] or ["", ""]
        last = found.get("share of gather"), found.get("share of product")
        limit = f"gather {last[0]:.2f}" if last[0] else f"product {last[1]:.0%}" if last[1] else ""
        ours = row["sides"]["ours"]
        error = f"{ours['error']:.0e}" if ours.get("error") is not None else ""
        made.append([*line, *traffic, limit, error, {True: "yes", False: "no"}.get(ours.get("deterministic"), ""),
                     row["path"] or ""])  # fmt: skip
    return made


def head(peers: list[str]) -> list[str]:
    columns = ["best peer / ours", "GB best cache: of copy", "GB no cache: of copy", "limit", "error", "same bits"]
    return ["", "phase", "ours", *peers, *columns, "path"]


def number(ms: float) -> str:
    return f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"


def peers_of(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(who for row in rows for who in row["sides"] if who not in ("ours", GATHER)))


def show(results: Path) -> str:
    """The Markdown of all that was measured."""
    parts = ["# Speed\n\nMade by `python benchmarks/speed.py --show`; that file says at its top how it is measured."]
    parts.append(
        "Milliseconds, medians; in brackets the MiB that a call needs at its peak; `~` two calls differ in their bits; "
        "`-` it has no such function there, or the package is missing; OOM out of memory."
    )
    for name, title in (("cpu-1t", "CPU, one thread"), ("cpu-2t", "CPU, two threads"), ("cuda", "CUDA")):
        path = results / f"speed-{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        commits = ", ".join(sorted({row["commit"] for row in found["rows"]}))
        measured = ", ".join(f"{what} {value:.3g}" for what, value in found["limits"].items())
        parts.append(f"## {title}\n\n{found['machine']}; {found['clock']}; {measured}; {versions}; commit {commits}.")
        for op, rows in groups(found["rows"]).items():
            peers = peers_of(rows)
            table = [head(peers), ["---"] * len(head(peers)), *(line for row in rows for line in lines(row, peers))]
            body = "\n".join(f"| {' | '.join(line)} |" for line in table)
            parts.append(f"### {op}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def groups(rows: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["row"].partition("/")[0], []).append(row)
    return found


def versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "triton", "torch_geometric", "torch_scatter", "dgl"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", nargs="+", help="patterns of names such as gat/cora/4x64; default: all but LONG")
    parser.add_argument("--sides", nargs="+", default=["*"], help="patterns of the peers to measure")
    parser.add_argument("--rounds", type=int, default=30, help="at most")
    parser.add_argument("--seconds", type=float, default=1.5, help="that a side gets in a row")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no row begins later than this")
    parser.add_argument("--step-settings", nargs="*", default=[], metavar="KEY=VALUE", help="of our side of graphmae")
    parser.add_argument("--must-win", type=Path, default=MUST_WIN)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="only make the table")
    a = parser.parse_args()
    if a.show:
        return publish(a.results)
    if os.environ.get("OMP_NUM_THREADS") != str(a.threads):  # dgl reads it when it is loaded
        os.environ["OMP_NUM_THREADS"] = str(a.threads)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    torch.set_num_threads(a.threads)
    warnings.filterwarnings("ignore")
    began = time.perf_counter()
    meter = CUDA() if a.device == "cuda" else CPU(a.threads)
    pairs = [text.partition("=")[::2] for text in a.step_settings]
    given = {key: value if key == "precision" else parse(get_recipe("graphmae"), key, value) for key, value in pairs}
    cases = speed_cases.table(a.device) | speed_steps.table(a.device, given)
    without = () if a.rows or a.device == "cuda" else LONG
    chosen = [name for name in cases if any_of(name.partition(" (")[0], a.rows or ["*"]) and not any_of(name, without)]
    if a.device == "cuda":  # the rows that say most first, should the time run out
        first = ("arxiv-size", "products-size", "molecules", "cora", "powerlaw-100k", "citeseer")
        chosen.sort(key=lambda name: next((i for i, graph in enumerate(first) if graph in name), -1))
    if not chosen:
        sys.exit(f"no row is called {' or '.join(a.rows or ())}; there are: {', '.join(cases)}")
    name = torch.cuda.get_device_name() if a.device == "cuda" else machine()
    clock = {"cpu": "process CPU time", "wall": "wall time", "cuda": "CUDA events, float32 without TF32"}[meter.main]
    path = a.results / f"speed-{a.device if a.device == 'cuda' else f'cpu-{a.threads}t'}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    limit = limits(meter)
    print(f"{name}; {clock}; {', '.join(f'{k} {v:.3g}' for k, v in limit.items())}; commit {commit()}; {versions()}")
    measured: dict[str, dict] = {}
    op = ""
    for i, row in enumerate(chosen):
        if time.perf_counter() - began > 60 * a.minutes:
            print(f"\nnot measured, for want of time: {', '.join(chosen[i:])}")
            break
        case, failed = attempt(cases[row])
        if failed:
            print(f"{row}: {failed}")
            continue
        start = time.perf_counter()
        measured[row] = judge(measure(row, case, meter, a.sides, a.rounds, a.seconds), limit)
        measured[row]["seconds to measure"] = round(time.perf_counter() - start, 1)
        peers = peers_of([measured[row]])
        if op != row.partition("/")[0]:
            op = row.partition("/")[0]
            print(f"\n{op}\n" + text([row, *head(peers)[1:]]))
        for line in lines(measured[row], peers):
            print(text(line), flush=True)
        for who, cell in measured[row]["sides"].items():
            if not cell.get("failed", "OOM").startswith(("OOM", "ModuleNotFoundError")):
                print(f"    {who}: {cell['failed']}")
        rows = {old["row"]: old for old in before} | measured
        order = {known: place for place, known in enumerate(cases)}
        kept = sorted(rows.values(), key=lambda found: order.get(found["row"], len(order)))
        write_json(path, {"machine": name, "clock": clock, "limits": limit, "versions": versions(), "rows": kept})
        del case
    publish(a.results)
    words = lost(list(measured.values()), json.loads(a.must_win.read_text()), a.device)
    print("\n".join(f"LOST {word}" for word in words) or "no must-win row is lost")
    sys.exit(1 if words else 0)


def any_of(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def publish(results: Path) -> None:
    (results / "speed.md").write_text(show(results))
    print(f"{results / 'speed.md'} written")


def text(line: list[str]) -> str:
    return "  ".join(cell.ljust(24 if i == 0 else 9 if i == 1 else 13) for i, cell in enumerate(line)).rstrip()


if __name__ == "__main__":
    main()
