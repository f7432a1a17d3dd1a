"""Our figures beside the published ones: pretrained anew for each seed, judged by a named protocol.

    python benchmarks/quality.py --table link --seeds 5    # or another of TABLES: what is missing of it
    python benchmarks/quality.py --table graph --full      # with what takes more than half an hour a seed
    python benchmarks/quality.py --sets cora --methods graphmae --set shared_dropout=true    # a row of its own
    python benchmarks/quality.py --show                    # the tables from what is there

A unit is (data set, method, settings, seed); each writes benchmarks/results/quality/SET-METHOD-SETTINGS-SEED.json at
once, and a unit whose file is there is not run again. --show aggregates over seeds and writes
benchmarks/results/quality.md and the tables in README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scipy.stats import t as student

import graphssl
from graphssl.recipes import get_recipe, parse
from graphssl.store import write_json

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
OPEN, CLOSE = "<!-- quality: made by benchmarks/quality.py --show -->", "<!-- end -->"
RUNS = Path(__file__).parent / "runs"  # not committed; a unit that was cut short goes on from there
FINETUNE, TUNING = "finetune", {"epochs": 50}
TRANSFER = {"epochs": 30}  # on other data sets than that of pretraining
HIDDEN = ", validation"  # figures that no table shows


@dataclass(frozen=True)
class Cell:
    """What a table asks for: a method on a data set with settings, judged by protocols."""

    dataset: str
    method: str
    settings: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("node-linear",)
    full: bool = False  # takes more than half an hour a seed on one core
    seeds: int = 3
    labels: float | None = None  # the share of labels that "finetune", one of the protocols, learns from
    onto: tuple[str, ...] = ()  # data sets to finetune on after
    controls: bool = True  # beside raw features and an untrained encoder; without where those have rows of their own

    @property
    def values(self) -> dict[str, Any]:
        """The settings by name, as the recipe types them."""
        pairs = (word.split("=", 1) for word in self.settings)
        return {key: parse(get_recipe(self.method), key, text) for key, text in pairs}

    @property
    def stem(self) -> str:
        return "-".join([self.dataset.replace("/", "-"), self.method, *self.settings])


LINKS = ("link-dot", "link-mlp", "link-mlp-valmsg")
SVM = ("graph-svm",)
FOUR = ("node-linear", "node-cluster", "link-mlp", "partition")  # ParetoGNN's downstream tasks
TASKS = ("features", "link", "node-graph", "node-subgraph", "decorrelation")
PARETO = ("width=128", "inner=256", "hidden=128", "epochs=100")  # so that 126 runs take hours on two cores
STAR = ("influence=true", "gamma=0")  # SCGC*
SMALL = ("width=64", "epochs=200")  # so that four sets take hours, not days, on two cores


def link(dataset: str, method: str, *settings: str, seeds: int = 3) -> Cell:
    return Cell(f"{dataset}/link", method, settings, LINKS, seeds=seeds)


def molecules(method: str, *settings: str, zinc: bool = False) -> Cell:
    """Pretrained on ZINC, finetuned on the others and, where ``zinc`` says so, on ZINC's own target."""
    onto = () if method == "raw" else (*YES_OR_NO, *NUMBERS, *(("zinc-30k",) if zinc else ()))
    return Cell("zinc-30k", method, settings, ("graph-ridge",), onto=onto, controls=False)


def items(
    dataset: str, method: str, *settings: str, full: bool = False, seeds: int = 3, labels: float | None = None
) -> Cell:
    asked = (*ITEMS, *(() if labels is None else (FINETUNE,)))
    return Cell(dataset, method, settings, asked, full, seeds, labels=labels)


ITEMS = ("graph-linear", "graph-knn", "graph-few-shot")
DIGITS = ("width=64", "layers=2", "batch_size=32", "normalize=true", "epochs=75")
PATCHES = ("width=96", "layers=3", "batch_size=64", "normalize=true")
LONG = ("width=96", "layers=3", "batch_size=32", "normalize=true", "mask=0.5", "epochs=150")
PARTS = {  # settings by loader, in which all take about as many steps, and a step of parts sees about as many nodes
    "cora": {
        "full": ("epochs=300",), **dict.fromkeys(("neighbor", "walk", "cluster"), ("batch_size=512", "epochs=50")),
        "local": ("batch_size=27", "ego=64", "epochs=3"),
    },
    "facebook-pagepage": {
        "full": ("width=128", "epochs=200"),
        **dict.fromkeys(("neighbor", "walk", "cluster"), ("width=128", "batch_size=1124", "epochs=10")),
        "local": ("width=128", "batch_size=113", "ego=64", "epochs=1"),
    },
}  # fmt: skip
MASKS = ("color-green", "color-red", "near", "disjoint")
YES_OR_NO = ("bace", "bbbp", "clintox", "sider", "tox21")
NUMBERS = ("esol", "freesolv", "lipophilicity")
ZINC = ("width=64", "epochs=10")  # so that a seed takes minutes, not hours
DEEP = ("encoder=gen+checkpoint", "layers=28", "width=64")
# the method whose encoder from scratch is the same
STARTS = {
    **dict.fromkeys(("attr-masking", "context-pred", "graph-jepa", "graphmae"), "attr-masking"),
    "graphcl": "graphcl",
}
GRAPHMAE_README = "GraphMAE's README: 2 million molecules, width 300, ten seeds"
TRANSFERRED = {"bace": 83.1, "bbbp": 72.0, "clintox": 82.3, "sider": 60.3, "tox21": 75.5}  # its figures
PATCH_METHODS = ("simmim", "crossmae", "maskfeat", "latent-mim", "simsiam", "graphmae")
CITATIONS = ("cora", "citeseer")
TABLES: dict[str, tuple[str, list[Cell]]] = {
    "node": (
        "Node classification on the public split",
        [Cell(s, "graphmae", seeds=5) for s in CITATIONS]
        + [Cell(s, m) for m in ("bandana", "maskgae", "s2gae", "dgi", "cca-ssg", "grace", "bgrl") for s in CITATIONS]
        + [Cell("citeseer", "graphmae2"), Cell("cora", "graphmae2", ("epochs=300", "width=256", "heads=4"))]
        + [Cell("cora", "graphmae2", full=True)],
    ),
    "link": (
        "Link prediction on 85 / 5 / 10 % of the edges",
        [link(s, "bandana", seeds=5) for s in CITATIONS]
        + [link(s, m) for m in ("maskgae", "s2gae", "gae", "vgae") for s in CITATIONS],
    ),
    "graph": (
        "Graph classification on ten folds",
        [Cell(s, "graphmae", (), SVM) for s in ("mutag", "imdb-binary", "proteins", "enzymes")]
        + [Cell("nci1", "graphmae", ("epochs=20",), SVM), Cell("nci1", "graphmae", (), SVM, full=True)]
        + [Cell(s, m, (), SVM) for m in ("infograph", "graphcl") for s in ("mutag", "imdb-binary", "proteins", "nci1")]
        + [Cell("nci1", "infograph", ("lr=0.001",), SVM)],
    ),
    "baselines": (
        "Without a pretext task: node classification, clusters and neighbourhoods",
        [
            Cell(s, m, (), ("node-linear", "node-cluster", "reconstruct"), controls=False)
            for s in CITATIONS
            for m in ("raw", "untrained", "sgc", "fastrp", "line")
        ],
    ),
    "cluster": (
        "Clusters of the last epoch's codes",
        [Cell(s, "scgc", v, ("node-cluster",)) for s in ("citeseer", "facebook-pagepage") for v in ((), STAR)],
    ),
    "multitask": (
        "Five pretext tasks on one encoder, at width 128 and 100 epochs",
        [
            Cell(f"{s}/link", m, v, FOUR, controls=False)
            for s in ("cora", "citeseer", "actor", "chameleon-filtered", "squirrel-filtered", "twitch-engb")
            for m, v in (
                ("paretognn", PARETO),
                ("paretognn", (*PARETO, "balance=equal")),
                *(("paretognn", (*PARETO, f"tasks={task}")) for task in TASKS),
                ("untrained", PARETO[:1]),
                ("raw", ()),
            )
        ]
        + [Cell("cora/link", "paretognn", (*PARETO, "tasks=node-graph", "norm=none"), FOUR, controls=False)]
        + [Cell("cora/link", "paretognn", (*PARETO, "tasks=link", "lr=0.01"), FOUR, controls=False)],
    ),
    "tokens": (
        "Images, videos, voxels and skeletons as token graphs",
        [
            items("digits", "mae"),
            items("digits", "mae", "epochs=100"),  # a minute of one core
            items("digits", "mae", "epochs=300"),
            items("mnist", "mae", *PATCHES, "epochs=40"),
            items("moving-digits", "videomae", *LONG, labels=0.1),
            items("modelnet10", "mae", *PATCHES, "epochs=20", labels=0.1),
            items("msraction3d", "mae", *PATCHES, "epochs=60", labels=0.1),
            items("msraction3d", "skeletonmae", *PATCHES[:3], "epochs=60", labels=0.1),
            items("solids", "point-mae", "width=64", "layers=2", "epochs=60"),
        ],
    ),
    "masks": (
        "What to hide, and whom to ask, at equal steps: digits",
        [
            items("digits", "mae"),
            *(items("digits", "mae", f"masker={m}") for m in MASKS),
            items("digits", "hpm", *DIGITS),
        ],
    ),
    "token-methods": (
        "Ways to learn from the same patches at equal epochs: digits",
        [items("digits", m, *DIGITS[:3], "epochs=75", seeds=1) for m in PATCH_METHODS],
    ),
    "molecules": (
        "Molecules: pretrained on ZINC's 29,445, finetuned on other sets by scaffold splits",
        [
            molecules("attr-masking", "width=64", "epochs=0", zinc=True),
            molecules("attr-masking", *ZINC, zinc=True),
            molecules("context-pred", *ZINC),
            molecules("graphmae", *ZINC),
            molecules("graph-jepa", *ZINC, "layers=5"),
            molecules("graphcl", "width=64", "epochs=0"),
            molecules("graphcl", *ZINC),
            molecules("raw"),
        ],
    ),
    "deep": (
        "28 layers of DeeperGCN: what the loss and the codes come to",
        [
            Cell("twitch-engb", "graphmae", (*DEEP, "norm=batch", "epochs=20")),
            Cell("zinc-30k", "attr-masking", (*DEEP, "epochs=2"), ("graph-ridge",)),
        ],
    ),
    "samplers": (
        "The whole graph against parts of it: 300 steps on cora, 200 at width 128 on facebook-pagepage",
        [
            # GRACE's contrast of all pairs of 22,470 nodes takes more than an hour
            Cell(s, m, (f"loader={loader}", *settings), full=(s, m, loader) == ("facebook-pagepage", "grace", "full"))
            for s in PARTS
            for m in ("graphmae", "grace", "bgrl")
            for loader, settings in PARTS[s].items()
        ],
    ),
    "heterophily": (
        "Who wins where neighbours differ: node classification on ten splits, all at width 64 and 200 epochs",
        [
            Cell(
                s,
                m,
                (*SMALL, "first_width=64") if m in ("maskgae", "gae", "vgae") else SMALL,
                full=s == "tolokers" and m in ("bandana", "s2gae"),
            )
            for s in ("chameleon-filtered", "actor", "twitch-engb", "tolokers")
            for m in ("graphmae", "bandana", "maskgae", "s2gae", "gae", "vgae", "graphmae2")
        ],
    ),
    "ablation": (
        "Ablations, everything else equal",
        [
            link("cora", m, *settings)
            for m, settings in (
                ("bandana", ()),
                ("bandana", ("discrete=0.5",)),
                ("bandana", ("shuffle=true",)),
                ("maskgae", ()),
                ("maskgae", ("masker=edge",)),
                ("maskgae", ("both_ways=true",)),
                ("maskgae", ("masker=edge", "both_ways=true")),
                ("s2gae", ()),
                ("s2gae", ("both_ways=true",)),
                ("gae", ()),
                ("gae", ("weight_decay=0",)),
            )
        ]
        + [Cell("citeseer", "bandana"), Cell("citeseer", "bandana", ("shuffle=false",))]
        + [Cell(s, "graphmae", ("shared_dropout=true",)) for s in CITATIONS],
    ),
}
IN_README = ("node", "link", "graph")
HEADER = (
    "data set", "method", "protocol", "score", "untrained encoder", "raw features", "published", "difference", "seeds",
    "seconds a pretraining",
)  # fmt: skip


def commit() -> str:
    """The commit at hand, with a mark of what was changed in the package since, if anything."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()

    changes = git("diff", "HEAD", "--", "../graphssl") + git("status", "--porcelain", "--", "../graphssl")
    mark = f"+{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else ""
    return git("rev-parse", "--short", "HEAD") + mark


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


@lru_cache(maxsize=16)
def load(dataset: str, split: int) -> graphssl.Dataset:
    """The data set, kept so that raw features are judged once; of a link set the one whose split is drawn so."""
    name, _, linked = dataset.partition("/")
    return graphssl.load_dataset(name).link(split) if linked else graphssl.load_dataset(name)


def run_unit(cell: Cell, seed: int, path: Path) -> None:
    """Pretrains, judges and writes one file."""
    settings = cell.values
    now = commit()  # before the first line that it stands for: others may commit meanwhile
    folder = RUNS / f"{path.stem}-{now}"
    data = load(cell.dataset, seed if "/" in cell.dataset else 0)
    run = graphssl.pretrain(data, cell.method, seed=seed, out=folder, resume=True, progress=False, **settings)
    probes = [protocol for protocol in cell.protocols if protocol != FINETUNE]
    report = run.evaluate(protocol=probes, controls=cell.controls)
    if cell.labels is not None:
        report = graphssl.Report.join([report, *tuned(run, cell, data, settings, seed)])
    if cell.onto:
        others = [run.finetune(load(name, 0), seed=seed, **TRANSFER).test() for name in cell.onto]
        named = [of_method(other, cell.method, f"{FINETUNE} {other.dataset}") for other in others]
        report = graphssl.Report.join([report, *named])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {
        "dataset": cell.dataset, "method": cell.method, "variant": " ".join(cell.settings), "seed": seed,
        "pretrain_seconds": run.lines[-1]["seconds"] if run.lines else 0.0, "epochs": len(run.lines),
        "best": run.config.get("best"), "loss": run.lines[-1]["loss"] if run.lines else None,
        "ends": {key: ends(run.lines, key) for key in ("loss", "effective_rank")},
        "report": report.to_json(),
        "settings": run.config["settings"], "versions": run.config["versions"], "machine": machine(),
        "commit": now,
    })  # fmt: skip


def ends(lines: list[dict], key: str) -> list[float]:
    """The first and the last value of ``key`` in a run's log; none where it has none."""
    values = [line[key] for line in lines if key in line]
    return [values[0], values[-1]] if values else []


def tuned(
    run: graphssl.Pretrained, cell: Cell, data: graphssl.Dataset, settings: dict, seed: int
) -> list[graphssl.Report]:  # fmt: skip
    """Reports of the pretrained encoder and of one of its shape from scratch, finetuned on a share of the labels."""
    scratch = graphssl.pretrain(data, cell.method, seed=seed, progress=False, **settings | {"epochs": 0})
    reports = []
    for who, start in ((cell.method, run), ("untrained encoder", scratch)):
        reports.append(of_method(start.finetune(data, labels=cell.labels, seed=seed, **TUNING).test(), who))
    return reports


def of_method(report: graphssl.Report, name: str, protocol: str = FINETUNE) -> graphssl.Report:
    """The ``report`` of a finetuned run with its row called ``name``, its protocol ``protocol``."""
    rows = [replace(row, name=name, protocol=protocol) for row in report.rows]
    return replace(report, rows=rows, headings={protocol: report.headings[FINETUNE]})


def line_of(units: list[dict], protocol: str, wide: bool) -> list[str] | None:
    """The cells of a line about units that differ in their seed; None where ``protocol`` judged none of them.

    ``wide`` adds all other figures.
    """
    reports = [graphssl.Report.from_json(unit["report"]) for unit in units]
    found = [{row.name: row for row in report.rows if row.protocol == protocol} for report in reports]
    method, variant = units[0]["method"], units[0].get("variant", "")
    if not all(method in rows for rows in found):
        return None

    def scores(name: str) -> list[float]:
        return [rows[name].score for rows in found if name in rows]

    ours, figure = scores(method), found[0].get("published")
    line = [
        units[0]["dataset"], f"{method} with {variant}" if variant else method, protocol, spread(ours),
        spread(scores("untrained encoder")), spread(scores("raw features")),
        spread([figure.score], figure.std) if figure else "",
        f"{mean(ours) - figure.score:+.1f}" if figure and not variant else "",
        str(len(units)), f"{mean(unit['pretrain_seconds'] for unit in units):.0f}",
    ]  # fmt: skip
    others = [n for n in list(found[0][method].metrics)[1:] if not n.endswith(HIDDEN)]
    others = [n for n in others if ", trained" not in n or n.startswith("AUC")]
    beside = [f"{name} {spread([rows[method].metrics[name] for rows in found])}" for name in others]
    return [*line, "; ".join(beside)] if wide else line


def units_of(cell: Cell, units: list[dict]) -> list[dict]:
    """Those of ``units`` that are the ``cell``'s."""
    key = (cell.dataset, cell.method, " ".join(cell.settings))
    return [unit for unit in units if (unit["dataset"], unit["method"], unit.get("variant", "")) == key]


def markdown(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    header = [*header]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))


def table(cells: Iterable[Cell], units: list[dict], protocol: str, wide: bool) -> str:
    """The cells that ``protocol`` judged as a Markdown table."""
    header = [*HEADER, "beside it"] if wide else list(HEADER)
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for cell in cells:
        mine = units_of(cell, units)
        if mine and (line := line_of(mine, protocol, wide)):
            lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def show(units: list[dict], names: Iterable[str], wide: bool) -> str:
    """The tables of these names that have units, one a protocol, and what no table asks for."""
    parts, mark, asked = [], "##" if wide else "###", set()
    for name in names:
        title, cells = TABLES[name]
        asked |= {(cell.dataset, cell.method, " ".join(cell.settings)) for cell in cells}
        if name in WHOLE:
            if text := WHOLE[name](cells, units):
                parts.append(f"{mark} {title}\n\n{text}")
            continue
        for protocol in dict.fromkeys(protocol for cell in cells for protocol in cell.protocols):
            judged = [cell for cell in cells if protocol in cell.protocols]
            if text := table(judged, units, protocol, wide):
                parts.append(f"{mark} {title}: `{protocol}`\n\n{text}")
    others = [u for u in units if (u["dataset"], u["method"], u.get("variant", "")) not in asked]
    keys = {(unit["dataset"], unit["method"], unit.get("variant", "")) for unit in others}
    cells = [Cell(dataset, method, tuple(variant.split())) for dataset, method, variant in sorted(keys)]
    for protocol in dict.fromkeys(row["protocol"] for unit in others for row in unit["report"]["rows"]) if wide else ():
        parts.append(f"{mark} Others: `{protocol}`\n\n{table(cells, others, protocol, wide)}")
    return "\n\n".join(parts)


def averages(cells: Iterable[Cell], units: list[dict]) -> str:
    """A table a data set: every way to weigh the tasks by the four downstream tasks and their average."""
    lines: dict[str, list[list[str]]] = {}
    average: dict[str, dict[str, float]] = {}
    for cell in cells:
        mine = units_of(cell, units)
        if not mine:
            continue
        rows = [[row for row in unit["report"]["rows"] if row["name"] == cell.method] for unit in mine]
        found = [[next(r["score"] for r in of if r["protocol"] == protocol) for protocol in FOUR] for of in rows]
        name = way(cell)
        means = [mean(scores) for scores in found]
        columns = [spread(list(column)) for column in zip(*found, strict=True)]
        seconds = f"{mean(unit['pretrain_seconds'] for unit in mine):.0f}"
        lines.setdefault(cell.dataset, []).append([name, *columns, spread(means), str(len(found)), seconds])
        average.setdefault(cell.dataset, {})[name] = mean(means)
    header = ["", *FOUR, "average", "seeds", "seconds a pretraining"]
    parts = []
    for dataset, body in lines.items():
        parts.append(f"**{dataset}**\n\n{markdown(header, body)}")
    rivals = {"equal weights": ["balance=equal"], "its best single task": [f"tasks={task}" for task in TASKS]}
    for rival, names in rivals.items():
        gains = {
            dataset: scores[MGDA] - max(scores[name] for name in names)
            for dataset, scores in average.items()
            if MGDA in scores and all(name in scores for name in names)
        }
        if gains:
            said = ", ".join(f"{dataset} {gain:+.1f}" for dataset, gain in gains.items())
            parts.append(f"The average of MGDA's weights less that of {rival}: {said}.")
    return "\n\n".join(parts)


def transfers(cells: Iterable[Cell], units: list[dict]) -> str:
    """A line a method: ZINC's target from frozen codes and finetuned, then every data set that was finetuned on."""
    header = [
        "", "zinc-30k, ridge (MAE)", "zinc-30k, finetuned (MAE)", *(f"{name} (AUC)" for name in YES_OR_NO), "average",
        *(f"{name} (RMSE)" for name in NUMBERS), "seeds", "seconds a pretraining",
    ]  # fmt: skip
    lines: list[list[str]] = []
    starts: dict[str, dict[int, float]] = {}  # averages by seed: of the encoders from scratch
    gains: dict[str, dict[int, float]] = {}  # and of the pretrained ones
    for cell in cells:
        mine = units_of(cell, units)
        if not mine:
            continue
        found = [{row["protocol"]: row["metrics"] for row in unit["report"]["rows"]} for unit in mine]

        def column(protocol: str, figure: str, digits: int, found: list[dict] = found) -> str:
            return spread([metrics[protocol][figure] for metrics in found if protocol in metrics], digits=digits)

        averages = [mean(m[f"{FINETUNE} {name}"]["AUC"] for name in YES_OR_NO) for m in found if cell.onto]
        if averages:
            of = starts if "epochs=0" in cell.settings else gains
            of[cell.method] = {unit["seed"]: value for unit, value in zip(mine, averages, strict=True)}
        lines.append([
            f"{cell.method} with {' '.join(cell.settings)}" if cell.settings else cell.method,
            column("graph-ridge", "MAE", 3), column(f"{FINETUNE} zinc-30k", "MAE", 3),
            *(column(f"{FINETUNE} {name}", "AUC", 1) for name in YES_OR_NO), spread(averages),
            *(column(f"{FINETUNE} {name}", "RMSE", 2) for name in NUMBERS),
            str(len(mine)), f"{mean(unit['pretrain_seconds'] for unit in mine):.0f}",
        ])  # fmt: skip
    if not lines:
        return ""
    theirs = [f"{TRANSFERRED[name]:.1f}" for name in YES_OR_NO]
    lines.append([
        f"published ({GRAPHMAE_README})", "", "", *theirs, f"{mean(TRANSFERRED.values()):.1f}",
        *([""] * len(NUMBERS)), "", "",
    ])  # fmt: skip
    text = markdown(header, lines)
    more = {
        method: [average - starts[STARTS[method]][seed] for seed, average in found.items()]
        for method, found in gains.items()
        if len(found) > 1 and found.keys() <= starts.get(STARTS[method], {}).keys()
    }
    said = "; ".join(f"{method} {mean(each):+.1f} ± {half_width(each):.1f}" for method, each in more.items())
    better = [method for method, each in more.items() if mean(each) > half_width(each)]
    verdict = (
        f"The average over {len(YES_OR_NO)} sets less that of the same encoder from scratch, seed by seed, with its "
        f"95 % interval: {said}. Better than from scratch beyond it: {', '.join(better) or 'none'}.\n"
    ) if more else ""  # fmt: skip
    return (
        f"{text}\n\n{verdict}Finetuned for {TRANSFER['epochs']} epochs, the epoch of the least validation loss kept. "
        "Published for ZINC's target on the 12,000 molecules of the benchmark, frozen and ridge: Graph-JEPA 0.434, "
        "GraphCL 0.627, InfoGraph 0.890, GraphMAE 0.935 (Graph-JEPA's table 1). The target here is the same normalised "
        "penalised logP, of other molecules of ZINC and with 22,000 to fit on: the scale compares, the split does not."
    )


def depths(cells: Iterable[Cell], units: list[dict]) -> str:
    """A line a method: loss and effective rank of the codes at the first look and at the last, and what they score."""
    lines = []
    for cell in cells:
        mine = units_of(cell, units)
        if not mine:
            continue
        found = [
            " to ".join(spread([unit["ends"][key][end] for unit in mine], digits=digits) for end in (0, 1))
            for key, digits in (("loss", 3), ("effective_rank", 1))
        ]
        rows = [row for unit in mine for row in unit["report"]["rows"] if row["protocol"] == cell.protocols[0]]
        scores = [
            spread([row["score"] for row in rows if row["name"] == name], digits=2)
            for name in (cell.method, "untrained encoder", "raw features")
        ]
        name = f"{cell.method} with {' '.join(cell.settings)}"
        seconds = f"{mean(u['pretrain_seconds'] for u in mine):.0f}"
        lines.append([cell.dataset, name, *found, cell.protocols[0], *scores, str(len(mine)), seconds])
    header = [
        "data set", "method", "loss", "effective rank", "protocol", "score", "untrained encoder", "raw features",
        "seeds", "seconds a pretraining",
    ]  # fmt: skip
    return markdown(header, lines) if lines else ""


WHOLE = {"multitask": averages, "molecules": transfers, "deep": depths}  # tables of a form of their own
MGDA = "balance=mgda"


def way(cell: Cell) -> str:
    """What a line of the multi-task table is about: what sets its cell apart."""
    if cell.method != "paretognn":
        return cell.method
    return " ".join(word for word in cell.settings if word not in PARETO) or MGDA


def half_width(values: list[float]) -> float:
    """Half of the two-sided 95 % interval of the mean of two values or more, by Student's t."""
    return float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def spread(values: list[float], std: float | None = None, digits: int = 1) -> str:
    if not values:
        return ""
    std = stdev(values) if std is None and len(values) > 1 else std
    return f"{mean(values):.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def write_tables(results: Path) -> None:
    """Aggregates the units under ``results`` and writes quality.md and, from the project's own, the README's tables."""
    units = [json.loads(path.read_text()) for path in sorted((results / "quality").glob("*.json"))]
    text = (
        "# Quality\n\nMade by `python benchmarks/quality.py --show` from `results/quality/*.json`. Pretrained anew\n"
        "for each seed; ± is the unbiased standard deviation over those seeds, of a published figure what its\n"
        "paper says. `untrained encoder` has the same shape and the weights that the seed gave it. Each seed draws\n"
        "a link set of its own, so that its ± is over splits too; the papers' is over runs on one split.\n"
        "`node-linear` scores accuracy after the last epoch of the linear probe, its weight decay chosen on\n"
        "validation; beside it stand that of the best validation epoch, and that of the last epoch with the weight\n"
        "decay that GraphMAE's configurations fix for the data set (Cora 1e-4, CiteSeer 1e-2), which is how its\n"
        "published figures were made. The difference from a published figure is left out where a setting was\n"
        "changed. In the multi-task tables every line has taken the same number of steps; a single task is the same\n"
        "recipe with `tasks=` one, its batch norm and learning rate included, which do not suit each of them.\n\n"
        f"{show(units, TABLES, wide=True)}\n\nCommits: {', '.join(sorted({u['commit'] for u in units}))}. "
        f"Machines: {'; '.join(sorted({u['machine'] for u in units}))}.\n"
    )
    results.mkdir(parents=True, exist_ok=True)
    (results / "quality.md").write_text(text)
    print(text)
    if results == RESULTS:
        before, rest = README.read_text().split(OPEN)
        README.write_text(f"{before}{OPEN}\n\n{show(units, IN_README, wide=False)}\n\n{CLOSE}{rest.split(CLOSE)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="*", choices=list(TABLES), default=[])
    parser.add_argument("--full", action="store_true", help="also what takes more than half an hour a seed")
    parser.add_argument("--sets", nargs="+", default=[], help="in place of a table's, or to choose among them")
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the recipe")
    parser.add_argument("--seeds", type=int, help="how many, from 0 on; else what the table asks for")
    parser.add_argument("--show", action="store_true", help="only make the tables")
    parser.add_argument("--results", type=Path, default=RESULTS)
    a = parser.parse_args()
    if a.table and a.set:
        parser.error(
            "a table has settings of its own; leave out --set, or name --sets and --methods instead of --table"
        )
    cells = [] if a.show else chosen(a)
    if not cells and not a.show:
        parser.error("nothing in these tables has that data set and method; --show lists what there is")
    counts = [a.seeds or cell.seeds for cell in cells]
    for seed in range(max(counts, default=0)):
        for cell in [cell for cell, count in zip(cells, counts, strict=True) if seed < count]:
            path = a.results / "quality" / f"{cell.stem}-{seed}.json"
            if not path.exists():
                run_unit(cell, seed, path)
                print(f"{path.name} written", flush=True)
    write_tables(a.results)


def chosen(a: argparse.Namespace) -> list[Cell]:
    """The cells that the command line asks for."""
    if not a.table:
        sets, methods = a.sets or CITATIONS, a.methods or ["graphmae"]
        return [Cell(s, m, tuple(a.set), graphssl.load_dataset(s).protocols) for s in sets for m in methods]
    cells = [cell for name in a.table for cell in TABLES[name][1] if a.full or not cell.full]
    named = [c for c in cells if not a.sets or {c.dataset, c.dataset.partition("/")[0]} & set(a.sets)]
    return [c for c in named if not a.methods or c.method in a.methods]


if __name__ == "__main__":
    main()
