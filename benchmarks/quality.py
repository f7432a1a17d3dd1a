"""Our figures beside the published ones: pretrained anew for each seed, judged by a named protocol.

    python benchmarks/quality.py --sets cora citeseer --methods graphmae --seeds 5   # runs what is missing
    python benchmarks/quality.py --sets cora --set shared_dropout=true               # a row of its own, named by this
    python benchmarks/quality.py --show                                              # the table from what is there

A unit is (data set, method, settings, seed); each writes benchmarks/results/quality/SET-METHOD-SETTINGS-SEED.json at
once, and a unit whose file is there is not run again. --show aggregates over seeds and writes
benchmarks/results/quality.md and the table in README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from pathlib import Path
from statistics import mean, stdev

import torch

import graphssl
from graphssl.recipes import get_recipe, parse
from graphssl.store import write_json

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
OPEN, CLOSE = "<!-- quality: made by benchmarks/quality.py --show -->", "<!-- end -->"
RUNS = Path(__file__).parent / "runs"  # not committed; a unit that was cut short goes on from there
FIGURES = "best validation", "GraphMAE's weight decay"


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "../graphssl") else "")


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def run_unit(dataset: str, method: str, words: list[str], seed: int, path: Path) -> None:
    """Pretrains, judges and writes one file."""
    pairs = (word.split("=", 1) for word in words)
    settings = {key: parse(get_recipe(method), key, text) for key, text in pairs}
    run = graphssl.pretrain(dataset, method, seed=seed, out=RUNS / f"{path.stem}-{commit()}", resume=True, **settings)
    report = run.evaluate()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {
        "dataset": dataset, "method": method, "variant": " ".join(words), "seed": seed,
         "pretrain_seconds": run.history["seconds"][-1],
        "loss": run.history["loss"][-1], "report": report.to_json(), "settings": run.config["settings"],
        "versions": run.config["versions"], "machine": machine(), "commit": commit(),
    })  # fmt: skip


def show(units: list[dict], protocols: tuple[str, ...] = ()) -> str:
    """The units as a Markdown table, one line a (data set, protocol, codes); ``protocols`` empty: all."""
    lines = [
        "| data set | protocol | codes | score | best validation epoch | GraphMAE's weight decay | published | seeds | "
        "seconds a pretraining |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict]] = {}
    for unit in units:
        groups.setdefault((unit["dataset"], unit["method"], unit.get("variant", "")), []).append(unit)
    for (dataset, method, variant), members in sorted(groups.items()):
        reports = [graphssl.Report.from_json(unit["report"]) for unit in members]
        for protocol in [p for p in reports[0].protocols if not protocols or p in protocols]:
            rows = [[row for row in report.rows if row.protocol == protocol] for report in reports]
            figure = next((row for row in rows[0] if row.name == "published"), None)
            for who in [row.name for row in rows[0] if row.name != "published"]:
                same = [next(row for row in found if row.name == who) for found in rows]
                best, fixed = ([v for row in same for k, v in row.metrics.items() if part in k] for part in FIGURES)
                cited = spread([figure.score], figure.std) if figure and who == method else ""
                codes = who if who in (method, "raw features") else f"{who} ({method})"
                codes += f" with {variant}" if variant else ""
                seconds = f"{mean(u['pretrain_seconds'] for u in members):.0f}" if who == method else ""
                lines.append(
                    f"| {dataset} | {protocol} | {codes} | {spread([row.score for row in same])} | "
                    f"{spread(best)} | {spread(fixed)} | {cited} | {len(members)} | {seconds} |"
                )
    return "\n".join(lines)


def spread(values: list[float], std: float | None = None) -> str:
    if not values:
        return ""
    std = stdev(values) if std is None and len(values) > 1 else std
    return f"{mean(values):.1f}" + (f" ± {std:.1f}" if std is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["cora", "citeseer"])
    parser.add_argument("--methods", nargs="+", default=["graphmae"])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the recipe")
    parser.add_argument("--show", action="store_true", help="only make the table")
    parser.add_argument("--results", type=Path, default=RESULTS)
    a = parser.parse_args()
    for seed in range(0 if a.show else a.seeds):
        for dataset in a.sets:
            for method in a.methods:
                stem = "-".join([dataset.replace("/", "-"), method, *a.set, str(seed)])
                path = a.results / "quality" / f"{stem}.json"
                if not path.exists():
                    run_unit(dataset, method, a.set, seed, path)
                    print(f"{path.name} written", flush=True)
    units = [json.loads(path.read_text()) for path in sorted((a.results / "quality").glob("*.json"))]
    text = (
        "# Quality\n\nMade by `python benchmarks/quality.py --show` from `results/quality/*.json`. Pretrained anew\n"
        "for each seed; ± is the unbiased standard deviation over those seeds. The score of `node-linear` is the\n"
        "accuracy after the last epoch of the linear probe, its weight decay chosen on validation; beside it stand\n"
        "that of the best validation epoch, and that of the last epoch with the weight decay that GraphMAE's\n"
        "configurations fix for the data set (Cora 1e-4, CiteSeer 1e-2), which is how its published figures were\n"
        "made.\n\n"
        f"{show(units)}\n\nCommits: {', '.join(sorted({u['commit'] for u in units}))}. "
        f"Machines: {'; '.join(sorted({u['machine'] for u in units}))}.\n"
    )
    (a.results / "quality.md").write_text(text)
    print(text)
    if a.results != RESULTS:
        return
    readme = README.read_text()
    before, rest = readme.split(OPEN)
    table = show(units, ("node-linear", "graph-svm", "link-dot"))
    README.write_text(f"{before}{OPEN}\n\n{table}\n\n{CLOSE}{rest.split(CLOSE)[1]}")


if __name__ == "__main__":
    main()
