"""Graphs larger than memory and several processes: rates, seconds and memory on random graphs of up to 10M nodes.

    python benchmarks/scale.py                            # all rows; each is measured in a process of its own
    python benchmarks/scale.py --rows sampler epoch/1M    # these rows, anew; results/scale.json keeps the others
    python benchmarks/scale.py --missing                  # those that results/scale.json does not have yet
    python benchmarks/scale.py --full                     # whole epochs also where a number of steps stands for one
    python benchmarks/scale.py --show                     # only makes the table from what is there

The graph is power-law-like (Chung-Lu, exponent 3): five pairs a node, each an edge in both directions, so ten directed
edges, and 128 normal features. It is written as a .parquet file of edges and a .npy file of features, which ``graphssl
convert`` turns into a folder; ``--data`` says where (benchmarks/runs/scale, not committed; 10M nodes take some 12 GB
there meanwhile). GraphMAE is the recipe for data without a name at width 64 on one thread, by neighbours (10, 10) of
1024 nodes a step, or of as many as is said.

Seconds are by the wall clock and by the process's CPU time, which a busy machine stretches less, but does: others are
in the way of memory and caches. Sampling is all that makes a batch: draws, content, self-loops. Peak memory is a
process's own (RssAnon, looked at ten times a second) and, beside it, with the pages of files that it had looked at. A
limit is what a process may allocate (RLIMIT_DATA: all but mapped files), importing torch included.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from quality import commit, machine
from speed import RESULTS

import graphssl
from graphssl import ops
from graphssl.data.stored import tensor
from graphssl.loading import batches_for
from graphssl.recipes import Spec, get_recipe
from graphssl.store import write_json
from graphssl.train import seeded, train

DATA = Path(__file__).parent / "runs" / "scale"
SIZES = {"100k": 100_000, "1M": 1_000_000, "10M": 10_000_000}
DEGREE, WIDTH, BATCH = 10, 128, 1024
FANOUTS = (10, 10)
PIECE = 5_000_000  # pairs drawn at a time
SETTINGS = {"width": 64, "loader": "neighbor"}
# one arena and early returns, so that what a step has freed does not count against the limit
ENV = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
GOAL, LINEAR = 3e6, 0.2  # sampled nodes a second; how far the cost a node may differ between sizes
LIMIT = 0.95  # of what the features take: the memory that a process is left that maps them
COLD, REPEATS = 2000, 5  # rows read from the disk at a time, and how often
MIB = 2**20


def write_graph(nodes: int, folder: Path) -> None:
    """Draws the graph and converts it; what that took is in a .json beside the ``folder``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.parent.mkdir(parents=True, exist_ok=True)
    edges, x, rng = folder.with_suffix(".parquet"), folder.with_suffix(".npy"), np.random.default_rng(0)
    number = rng.permutation(nodes)
    with pq.ParquetWriter(edges, pa.schema([("source", pa.int64()), ("target", pa.int64())])) as writer:
        for count in pieces(nodes * DEGREE // 2, PIECE):
            pair = number[(nodes * rng.random((2, count)) ** 2).astype(int)]  # the i-th is met by 1 / sqrt(i)
            pair = pair[:, pair[0] != pair[1]]
            writer.write_table(pa.table({"source": pair[0], "target": pair[1]}))
    rows, start = np.lib.format.open_memmap(x, "w+", np.float32, (nodes, WIDTH)), 0
    for count in pieces(nodes, PIECE // WIDTH * 10):
        rows[start : start + count] = rng.standard_normal((count, WIDTH), dtype=np.float32)
        start += count
    rows.flush()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    words = ["-m", "graphssl", "convert", edges, "--to", folder, "--x", x, "--undirected", "--overwrite"]
    _, own = watched([sys.executable, *map(str, words)])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "seconds": time.perf_counter() - began, "own_mib": own, "files_gb": (size_of(edges) + size_of(x)) / 1e9,
        "folder_gb": sum(map(size_of, folder.iterdir())) / 1e9,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "commit": commit(),
    }  # fmt: skip
    write_json(folder.with_suffix(".json"), found)
    x.unlink()
    edges.unlink()


def pieces(total: int, piece: int) -> Iterator[int]:
    for start in range(0, total, piece):
        yield min(piece, total - start)


def size_of(path: Path) -> int:
    return path.stat().st_size


def watched(words: list[str]) -> tuple[str, float]:
    """Runs the command: what it prints, and the most memory of its own that it had, in MiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, stdout=out, stderr=err, env={**os.environ, **ENV})
        most = 0.0
        while process.poll() is None:
            most = max(most, own_mib(process.pid))
            time.sleep(0.1)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}\n{err.read().strip()[-2000:]}")
        return out.read(), most


def own_mib(process: int) -> float:
    """Memory of the process that is no file's; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


class Timed:
    """``batches`` that keep the CPU seconds that each took to make, and its nodes."""

    def __init__(self, batches):
        self.batches, self.seconds, self.nodes = batches, [], []

    def __call__(self, step: int, slot: int = 0):
        began = time.process_time()
        graph = self.batches(step, slot)
        self.seconds.append(time.process_time() - began)
        self.nodes.append(graph.num_nodes)
        return graph


def prepared(folder: Path, mapped: bool, batch: int = BATCH):
    """Plan and batches of the recipe, as ``pretrain`` makes them; the graph is in memory, or where it is."""
    data = graphssl.to_dataset(str(folder))
    if not mapped:
        data = graphssl.to_dataset(data.graph, name=data.name)
    spec, recipe = Spec.of(data), get_recipe("graphmae")
    with seeded(0):
        plan = recipe.plan(spec, recipe.settings(spec, {**SETTINGS, "epochs": 1, "batch_size": batch}))
    batches, _ = batches_for(data, plan, torch.device("cpu"))
    return plan, batches


def sampler(folder: Path, nodes: int) -> dict:
    """Rates of one thread, by CPU time: draws alone, and with content, self-loops and all."""
    _, batches = prepared(folder, mapped=True)
    csr, generator = batches.source.csr, torch.Generator().manual_seed(0)
    drawn, met = [], []
    for seeds in torch.randperm(nodes, generator=generator)[: 100 * BATCH].split(BATCH):
        began = time.thread_time()
        found = ops.sample_hops(csr, seeds, FANOUTS, generator)
        seconds = time.thread_time() - began
        drawn.append((found.edges.size(1) + len(seeds)) / seconds)
        met.append(len(found.nodes) / seconds)
    timed = Timed(batches)
    for step in range(min(60, batches.per_epoch)):
        timed(step)
    return {
        "nodes": nodes, "edges": batches.source.num_edges, "drawn_a_second": median(drawn), "met_a_second": median(met),
        "whole_a_second": median(n / s for n, s in zip(timed.nodes, timed.seconds, strict=True)),
        "nodes_a_batch": median(timed.nodes),
    }  # fmt: skip


def epoch(
    folder: Path, nodes: int, steps: int | None = None, mapped: bool = False, batch: int = BATCH, limited: bool = False
) -> dict:
    """An epoch, or what so many ``steps`` of one say of it: seconds, the share that sampling takes, peak memory."""
    features = nodes * WIDTH * 4
    if limited:  # before anything is read: what is mapped does not count, what is copied does
        resource.setrlimit(resource.RLIMIT_DATA, (int(LIMIT * features), int(LIMIT * features)))
    plan, batches = prepared(folder, mapped, batch)
    timed, per_epoch = Timed(batches), batches.per_epoch
    optimizer = plan.optimizer([p for p in plan.method.parameters() if p.requires_grad])
    marks, losses = [(time.perf_counter(), time.process_time())], []
    for _, found in islice(train(plan.method, timed, optimizer, per_epoch, schedule=plan.schedule), steps):
        marks.append((time.perf_counter(), time.process_time()))
        losses.append(found["loss"].item())
    wall, cpu = np.diff(np.array(marks), axis=0).T
    return {
        "nodes": nodes, "edges": batches.source.num_edges, "mapped": mapped, "batch": batch, "steps": len(losses),
        "steps_an_epoch": per_epoch, "step_seconds": median(wall), "step_cpu_seconds": median(cpu),
        "epoch_seconds": mean(wall) * per_epoch, "epoch_cpu_seconds": mean(cpu) * per_epoch,
        "sampling_share": sum(timed.seconds) / sum(cpu), "sampled": sum(timed.nodes) * per_epoch / len(losses),
        "features_mib": features / MIB, "limit_mib": LIMIT * features / MIB if limited else None,
        "loss": [losses[0], mean(losses[-20:])],
    }  # fmt: skip


def linear(folder: Path, nodes: int, batch: int, steps: int) -> dict:
    """CPU seconds of steps on graphs of all sizes, one of each in turn, so that what else runs slows all of them."""
    loops, sizes = {}, {}
    for size, count in SIZES.items():
        plan, batches = prepared(folder.with_name(size), mapped=True, batch=batch)
        timed, optimizer = Timed(batches), plan.optimizer(list(plan.method.parameters()))
        loops[size] = timed, train(plan.method, timed, optimizer, steps), []
        sizes[size] = {"nodes": count, "steps_an_epoch": batches.per_epoch}
    for _ in range(steps):
        for _, loop, seconds in loops.values():
            began = time.process_time()
            if next(loop, None) is not None:
                seconds.append(time.process_time() - began)
    for size, (timed, _, seconds) in loops.items():
        sampled = mean(timed.nodes) * sizes[size]["steps_an_epoch"]
        cpu = median(seconds) * sizes[size]["steps_an_epoch"]
        sizes[size] |= {"epoch_cpu_seconds": cpu, "sampled": sampled}
    return {"nodes": nodes, "batch": batch, "steps": steps, "sizes": sizes}


def reads(folder: Path, nodes: int) -> dict:
    """Rows a second from x.npy by the wall clock: from memory and from the disk, read ahead or not (MADV_RANDOM)."""
    stored, path = graphssl.to_dataset(str(folder)).source, folder / "x.npy"
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(nodes, generator=generator)[:COLD].sort().values
    near = ops.sample_hops(stored.csr, some[: BATCH // 16], FANOUTS, generator).nodes

    def rate(rows: torch.Tensor, ahead: bool = False, threads: int = 1, cold: bool = True) -> float:
        if cold:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        array = np.load(path, mmap_mode="r")
        if not ahead:
            array.base.madvise(mmap.MADV_RANDOM)
        x = tensor(array)
        if not cold:
            x.index_select(0, rows)
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: x.index_select(0, part), rows.chunk(threads)))
        return len(rows) / (time.perf_counter() - began)

    def typical(rows: torch.Tensor, **how: Any) -> float:
        return median(rate(rows, **how) for _ in range(REPEATS))

    found = {
        "from disk as the system reads ahead": rate(some, ahead=True),
        "without reading ahead": typical(some), "by 8 threads": typical(some, threads=8),
        "of a batch": typical(near), "of a batch by 8 threads": typical(near, threads=8),
        "from memory": typical(near, cold=False),
    }  # fmt: skip
    return {"nodes": nodes, "rows_a_second": found, "rows_of_a_batch": len(near)}


def embed(folder: Path, nodes: int) -> dict:
    """Codes of all nodes, exact, from the files to a file."""
    data = graphssl.to_dataset(str(folder))
    run = graphssl.pretrain(data, "graphmae", **SETTINGS, epochs=0, progress=False)
    path, began = folder.with_name("codes.npy"), (time.perf_counter(), time.process_time())
    run.export(path, overwrite=True)
    found = {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    codes = np.load(path, mmap_mode="r")
    assert codes.shape == (nodes, SETTINGS["width"])
    assert np.isfinite(codes[:: max(1, nodes // 1000)]).all()
    path.unlink()
    return {"nodes": nodes, "edges": data.source.num_edges, **found}


def processes(folder: Path, nodes: int, count: int) -> dict:
    """An epoch of ``graphssl pretrain`` on so many processes of one thread each, under torchrun where there are two."""
    launcher = [] if count == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    words = ["-m", "graphssl", "pretrain", folder, "--epochs", 1, "--batch-size", BATCH, "--quiet", "--overwrite"]
    words += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        run = [sys.executable, *launcher, *words, "--method", "graphmae", "--out", f"{out}/run"]
        subprocess.run(list(map(str, run)), check=True, stdout=subprocess.DEVNULL)
        line = json.loads(Path(out, "run", "metrics.jsonl").read_text().splitlines()[-1])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "nodes": nodes, "processes": count, "steps": line["step"], "epoch_seconds": line["seconds"],
        "cpu_seconds": used.ru_utime + used.ru_stime, "loss": line["loss"],
    }  # fmt: skip


ROWS: dict[str, tuple[str, Any, dict[str, Any]]] = {  # size of the graph, what measures, how
    "sampler": ("1M", sampler, {}),
    "epoch/100k": ("100k", epoch, {}),
    "epoch/1M": ("1M", epoch, {}),
    "epoch/10M": ("10M", epoch, {"mapped": True, "steps": 200}),
    "linear/1024": ("10M", linear, {"batch": BATCH, "steps": 30}),
    "linear/128": ("10M", linear, {"batch": 128, "steps": 100}),
    "epoch/1M-128-limited": ("1M", epoch, {"batch": 128, "mapped": True, "limited": True, "steps": 1000}),
    "reads/10M": ("10M", reads, {}),
    "embed/1M": ("1M", embed, {}),
    "processes/1": ("100k", processes, {"count": 1}),
    "processes/2": ("100k", processes, {"count": 2}),
}


def measure(row: str, data: Path, full: bool) -> dict:
    """Runs the ``row`` in this process."""
    size, call, asked = ROWS[row]
    torch.set_num_threads(1)
    asked = {key: value for key, value in asked.items() if not (full and call is epoch and key == "steps")}
    found = call(folder=data / size, nodes=SIZES[size], **asked)
    self, below = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    about = {"machine": machine(), "torch": torch.__version__, "commit": commit()}
    return {"row": row, **found, "peak_mib": below if call is processes else self, **about}


def claims(rows: dict[str, dict]) -> list[tuple]:
    """Row, what it is about, what was measured, what was to be reached and whether it was, for the rows there are."""
    found: list[tuple] = []

    def add(row: str, what: str, measured: str, goal: str = "", met: bool | None = None) -> None:
        found.append((row, what, measured, goal, "" if met is None else "yes" if met else "**no**"))

    if row := rows.get("sampler"):
        said = (
            f"{row['met_a_second'] / 1e6:.1f}M different nodes, {row['drawn_a_second'] / 1e6:.1f}M draws; as a Graph "
            f"with content and self-loops {row['whole_a_second'] / 1e6:.2f}M nodes"
        )
        add("sampler", f"nodes a second, neighbours {FANOUTS}", said, f"{GOAL / 1e6:.0f}M", row["met_a_second"] >= GOAL)
    if row := rows.get("epoch/1M"):
        said = (
            f"{row['epoch_seconds']:.0f} s, {row['epoch_cpu_seconds']:.0f} s of CPU time, "
            f"{row['sampled'] / row['epoch_cpu_seconds'] / 1e3:.0f}k sampled nodes a CPU second, sampling "
            f"{100 * row['sampling_share']:.0f} %, {row['own_mib']:.0f} MiB"
        )
        add("epoch/1M", f"an epoch of {row['nodes']:,} nodes, {row['edges']:,} edges{by_steps(row)}", said)
    if row := rows.get("epoch/1M-128-limited"):
        said = f"done{by_steps(row)} with {row['limit_mib']:.0f} MiB, {row['own_mib']:.0f} taken; the features take "
        said += f"{row['features_mib']:.0f}"
        what = f"features mapped, {row['batch']} nodes a step, less memory than the features take"
        add("epoch/1M-128-limited", what, said, "ends", True)
    for row in (row for name, row in rows.items() if name.startswith("linear/")):
        sizes = row["sizes"]
        for by in ("nodes", "sampled"):
            costs = {size: 1e6 * cost(found, by) for size, found in sizes.items()}
            ratios = [found / costs["1M"] for found in costs.values()]
            said = ", ".join(f"{size} {found:.{0 if by == 'nodes' else 2}f} us" for size, found in costs.items())
            said += f"; to that of 1M {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
            what = f"CPU time of an epoch a {'node' if by == 'nodes' else 'sampled node'}, {row['batch']} nodes a step"
            add(row["row"], what, said, f"1 +- {LINEAR}", all(abs(ratio - 1) <= LINEAR for ratio in ratios))
    if row := rows.get("reads/10M"):
        said = ", ".join(f"{what} {rate:,.0f}" for what, rate in row["rows_a_second"].items())
        add("reads/10M", f"rows of {WIDTH} float32 a second, wall clock", said)
    if row := rows.get("embed/1M"):
        said = f"{row['seconds']:.0f} s, {row['cpu_seconds']:.0f} s of CPU time, {row['own_mib']:.0f} MiB"
        add("embed/1M", f"exact codes of {row['nodes']:,} nodes, from the files to a file", said)
    for name in ("processes/1", "processes/2"):
        if row := rows.get(name):
            said = (
                f"{row['epoch_seconds']:.0f} s for {row['steps']} steps; {row['cpu_seconds']:.0f} s of CPU time with "
                f"start and end, loss {row['loss']:.3f}"
            )
            add(name, f"`graphssl pretrain`, an epoch of {row['nodes']:,} nodes on {row['processes']}", said)
    return found


def cost(row: dict, by: str) -> float:
    """CPU seconds of an epoch a node of the graph, or a node "sampled"."""
    return row["epoch_cpu_seconds"] / row[by]


def by_steps(row: dict) -> str:
    steps, per_epoch = row["steps"], row["steps_an_epoch"]
    return "" if steps == per_epoch else f" (by {steps} of its {per_epoch} steps)"


def epoch_cells(row: dict) -> tuple:
    return (
        row["row"], f"{row['nodes']:,}", f"{row['edges']:,}", "mapped" if row["mapped"] else "in memory", row["batch"],
        f"{row['steps']} of {row['steps_an_epoch']}", f"{row['step_seconds']:.2f}", f"{row['step_cpu_seconds']:.2f}",
        f"{row['epoch_cpu_seconds']:.0f}", f"{1e6 * cost(row, 'nodes'):.0f}", f"{row['sampled'] / row['nodes']:.1f}",
        f"{1e6 * cost(row, 'sampled'):.2f}", f"{100 * row['sampling_share']:.0f} %", f"{row['own_mib']:.0f}",
        f"{row['peak_mib']:.0f}", f"{row['loss'][0]:.3f} to {row['loss'][1]:.3f}",
    )  # fmt: skip


def table(header: tuple, rows: Iterable[tuple]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]


def kept(path: Path) -> dict[str, Any]:
    """What was measured before."""
    return json.loads(path.read_text()) if path.exists() else {"graphs": {}, "rows": []}


def show(results: Path) -> None:
    """Makes scale.md of scale.json."""
    found = kept(results / "scale.json")
    rows, graphs = {row["row"]: row for row in found["rows"]}, found["graphs"]
    lines = [
        "# Scale", "", "Made by `python benchmarks/scale.py --show`; that file says at its top how it is measured.", "",
        *table(("row", "what", "measured", "goal", "met"), claims(rows)), "",
    ]  # fmt: skip
    if epochs := [row for name, row in rows.items() if name.startswith("epoch/")]:
        header = (
            "row", "nodes", "edges", "features", "nodes a step", "steps", "s a step", "of CPU time", "CPU s an epoch",
            "us a node", "nodes sampled a node", "us a sampled node", "sampling", "own MiB", "MiB with files", "loss",
        )  # fmt: skip
        lines += ["## A GraphMAE epoch by neighbour sampling", "", *table(header, map(epoch_cells, epochs)), ""]
    header = ("graph", "files GB", "folder GB", "seconds", "of CPU time", "own MiB", "commit")
    cells = [
        (size, f"{c['files_gb']:.2f}", f"{c['folder_gb']:.2f}", f"{c['seconds']:.0f}", f"{c['cpu_seconds']:.0f}",
         f"{c['own_mib']:.0f}", c["commit"])
        for size, c in graphs.items()
    ]  # fmt: skip
    lines += ["## `graphssl convert` of edges and features", "", *table(header, cells), ""]
    places = sorted({"; ".join(row[key] for key in ("machine", "torch", "commit")) for row in rows.values()})
    lines += ["Machine; torch; commit:", "", *(f"- {place}" for place in places)]
    (results / "scale.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--missing", action="store_true", help="leave out rows that the results have")
    parser.add_argument("--full", action="store_true", help="whole epochs, which takes hours")
    parser.add_argument("--data", type=Path, default=DATA, help="where the graphs are written")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="only make the table")
    parser.add_argument("--one", choices=list(ROWS), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        print(json.dumps(measure(a.one, a.data, a.full)))
        return
    path = a.results / "scale.json"
    done = {row["row"] for row in kept(path)["rows"]} if a.missing else set()
    for name in [] if a.show else [row for row in a.rows if row not in done]:
        size = ROWS[name][0]
        about = a.data / f"{size}.json"
        for needed in SIZES if ROWS[name][1] is linear else (size,):
            if not (a.data / f"{needed}.json").exists():
                write_graph(SIZES[needed], a.data / needed)
        words = [sys.executable, __file__, "--one", name, "--data", str(a.data), *(["--full"] if a.full else [])]
        said, own = watched(words)
        row = {**json.loads(said.splitlines()[-1]), "own_mib": own}
        print(json.dumps(row), flush=True)
        before = kept(path)
        rows = {**{old["row"]: old for old in before["rows"]}, name: row}
        graphs = {**before["graphs"], size: json.loads(about.read_text())}
        a.results.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {"graphs": {k: graphs[k] for k in SIZES if k in graphs}, "rows": [rows[k] for k in ROWS if k in rows]},
        )
    show(a.results)


if __name__ == "__main__":
    main()
