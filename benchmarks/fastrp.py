"""Seconds and memory of FastRP on a random graph of a million nodes and ten million edges.

    python benchmarks/fastrp.py --threads 1            # then --threads 2; each adds its part to the results
    python benchmarks/fastrp.py --nodes 100000 --edges 1000000 --results /some/where
    python benchmarks/fastrp.py --show                 # only makes the table from what is there

The graph is power-law-like (Chung-Lu, exponent 3), each of its edges standing in both directions. What is timed is what
a user calls: ``graphssl.pretrain(dataset, "fastrp")`` (checks, fingerprint, symmetrising) and ``run.embed()``, by the
wall clock and by the process's CPU time, which a busy machine does not stretch as much. Memory is the growth of the
resident set over what the graph takes. Writes benchmarks/results/fastrp.json and fastrp.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch
from quality import commit, machine
from speed import CPU, RESULTS
from speed_cases import power_law

import graphssl
from graphssl.store import write_json

REPEATS = 3


def measure(nodes: int, edges: int, width: int, threads: int) -> dict:
    """What the table says of one setting, over REPEATS seeds."""
    torch.set_num_threads(threads)
    meter, seconds, cpu, peaks = CPU(threads), [], [], []
    graph = power_law(nodes, 2 * edges, "cpu")
    data = graphssl.to_dataset(graph.replace(x=torch.ones(graph.num_nodes, 1)), name="power-law")
    for seed in range(REPEATS):

        def call(seed: int = seed) -> torch.Tensor:
            return graphssl.pretrain(data, "fastrp", width=width, seed=seed, progress=False).embed()

        began = time.perf_counter(), time.process_time()
        codes, peak = meter.peak(call)
        seconds.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
        peaks.append(peak)
        assert codes.shape == (nodes, width)
        assert codes.isfinite().all()
        del codes
        print(f"seed {seed}: {seconds[-1]:.1f} s, {cpu[-1]:.1f} s of CPU time, {peak or 0:.0f} MiB", flush=True)
    return {
        "nodes": nodes, "edges": graph.num_edges // 2, "width": width, "threads": threads, "seconds": seconds,
        "cpu_seconds": cpu, "peak_mib": peaks, "machine": machine(), "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def show(results: Path) -> None:
    """Makes fastrp.md of fastrp.json."""
    header = ("nodes", "edges", "width", "threads", "seconds", "of CPU time", "peak MiB", "machine, torch, commit")
    lines = [
        "# FastRP on a large graph", "",
        "Made by `python benchmarks/fastrp.py --show`; that file says at its top how it is measured. Seconds are "
        f"medians of {REPEATS}, with all of them in brackets.", "",
        f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}",
    ]  # fmt: skip
    for row in json.loads((results / "fastrp.json").read_text())["rows"]:
        seconds, cpu = (
            f"{median(row[key]):.1f} ({', '.join(f'{s:.1f}' for s in row[key])})" for key in ("seconds", "cpu_seconds")
        )
        known = [peak for peak in row["peak_mib"] if peak is not None]
        peak = f"{max(known):.0f}" if known else "-"
        where = f"{row['machine']}; {row['torch']}; {row['commit']}"
        cells = (f"{row['nodes']:,}", f"{row['edges']:,}", row["width"], row["threads"], seconds, cpu, peak, where)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    (results / "fastrp.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="only make the table")
    a = parser.parse_args()
    if not a.show:
        row, path = measure(a.nodes, a.edges, a.width, a.threads), a.results / "fastrp.json"
        key = ("nodes", "width", "threads")
        before = json.loads(path.read_text())["rows"] if path.exists() else []
        rows = [old for old in before if any(old[k] != row[k] for k in key)] + [row]
        a.results.mkdir(parents=True, exist_ok=True)
        write_json(path, {"rows": sorted(rows, key=lambda r: tuple(r[k] for k in key))})
    show(a.results)


if __name__ == "__main__":
    main()
