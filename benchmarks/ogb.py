"""Leaderboard entries of OGB's small sets of molecules, by graphssl.ogb: its runs, and a table of them.

    python benchmarks/ogb.py                              # graphmae, a linear probe, seeds 0-9, four sets
    python benchmarks/ogb.py --epochs 0                   # its encoder without pretraining
    python benchmarks/ogb.py --methods untrained,graphcl --finetune --seeds 0-2 --draft
    python benchmarks/ogb.py --show                       # the table from what is there

Each entry writes benchmarks/results/ogb/SET-METHOD-JUDGE-SETTINGS.json; a seed that is done is not run again. --show
writes benchmarks/results/ogb.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from graphssl.ogb import Submission, leaderboard
from graphssl.recipes import get_recipe, parse
from graphssl.store import write_json

HERE = Path(__file__).resolve().parent
SETS = ("ogbg-molbace", "ogbg-molbbbp", "ogbg-molesol", "ogbg-molfreesolv")
HEADER = (
    "data set", "metric", "method", "settings", "judged", "test", "validation", "seeds", "parameters",
    "seconds a seed", "commit",
)  # fmt: skip


def stem(facts: dict) -> str:
    """The name of an entry's file."""
    asked = facts["asked"]
    settings = [f"{key}={value}" for key, value in asked["settings"].items()]
    return "-".join([facts["dataset"], asked["method"], asked["decoder"] or asked["judge"], *settings])


def save(entry: Submission, results: Path) -> None:
    (results / "ogb").mkdir(parents=True, exist_ok=True)
    write_json(results / "ogb" / f"{stem(entry.facts)}.json", entry.to_json())


def show(results: Path) -> str:
    """The table of all entries, a line each; written to ogb.md."""
    lines = [HEADER, ["---"] * len(HEADER)]
    for path in sorted((results / "ogb").glob("*.json")):
        facts = json.loads(path.read_text())
        asked, seeds = facts["asked"], len(facts["seeds"])
        spread = [
            f"{found['mean']:.4f}" + ("" if found["std"] is None else f" ± {found['std']:.4f}")
            for found in (facts["test"], facts["validation"])
        ]
        settings = ", ".join(f"{key}={value}" for key, value in asked["settings"].items()) or "the recipe's"
        seconds = sum(facts["seconds"].values()) / seeds
        commits = "; ".join(part[:7] + part[40:] for part in facts["commit"].split("; "))
        lines.append([
            facts["dataset"], facts["metric"], asked["method"], settings, asked["decoder"] or asked["judge"], *spread,
            f"{seeds}{' (draft)' if facts['draft'] else ''}", f"{sum(facts['parameters'].values()):,}",
            f"{seconds:.0f}", commits,
        ])  # fmt: skip
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = (
        "# Entries of OGB's leaderboards\n\nMade by `python benchmarks/ogb.py --show`; each line is an entry that "
        "ogb's Evaluator judged on the official split, mean ± unbiased standard deviation over its seeds.\n\n"
        f"{table}\n"
    )
    (results / "ogb.md").write_text(text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", default="graphmae")
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("--finetune", action="store_true")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--encoder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--draft", action="store_true", help="allow fewer than ten seeds")
    parser.add_argument("--show", action="store_true", help="only write the table")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--runs", type=Path, default=HERE / "runs" / "ogb", help="where entries keep their runs")
    a = parser.parse_args()
    for name in () if a.show else a.sets.split(","):
        for method in a.methods.split(","):
            settings = {key: parse(get_recipe(method), key, value) for key, value in (s.split("=", 1) for s in a.set)}
            epochs = None if a.epochs is None else f"epochs={a.epochs}"
            parts = [Path(name).name, method, "finetune" if a.finetune else "probe", a.encoder, epochs, *a.set]
            folder = a.runs / "-".join(part for part in parts if part)
            entry = leaderboard(
                name, method, seeds=a.seeds, draft=a.draft, finetune=a.finetune, epochs=a.epochs, encoder=a.encoder,
                out=os.path.relpath(folder), **settings,  # as the block tells it
            )  # fmt: skip
            print(entry.block(), end="\n\n", flush=True)
            save(entry, a.results)
    print(show(a.results))


if __name__ == "__main__":
    # in its own folder this file would be taken for the package ogb
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != HERE]
    main()
