"""What is said of an entry: the facts of all its seeds, and the block to submit."""

from __future__ import annotations

import platform
import re
import shlex
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from graphssl.data import Dataset
from graphssl.data.ogb_files import Meta
from graphssl.ogb.asked import DECODERS, count_text, seed_text, tuning_of
from graphssl.ogb.shown import split_of
from graphssl.ogb.sources import FILE


def facts_of(
    meta: Meta, data: Dataset, source: str, asked: dict[str, Any], lines: list[dict[str, Any]], seeds: list[int],
    draft: bool, command: str, searched: str,
) -> dict[str, Any]:  # fmt: skip
    """All that submission.json holds."""
    figures = {
        part: torch.tensor([line[part] for line in lines], dtype=torch.double) for part in ("validation", "test")
    }
    spread = {
        part: {"mean": float(values.mean()), "std": float(values.std()) if len(values) > 1 else None}
        for part, values in figures.items()
    }  # fmt: skip
    seconds = {stage: [line["seconds"][stage] for line in lines] for stage in lines[0]["seconds"]}
    return {
        "draft": draft, "dataset": meta.name, "split_name": meta.split, "metric": meta.metric, "known": meta.known,
        "split_checked": source != FILE,
        "seeds": seeds, "external_data": bool(asked["from"] and asked["from"]["external"]), **spread,
        "parameters": lines[0]["parameters"], "asked": asked,
        "searched": searched, "command": command, "input": f"{_input(data)}, from {source}",
        "saw": _saw(data, selected=any(line["best"] for line in lines)) + _saw_before(asked["from"]),
        "notes": list(data.notes), "seconds": {stage: sum(values) for stage, values in seconds.items()},
        "ogb": _several(line["versions"]["ogb"] for line in lines),
        "versions": _several(_versions(line["versions"]) for line in lines),
        "commit": _several(line["commit"] for line in lines),
        "hardware": _several(line["hardware"] for line in lines), "runs": lines,
    }  # fmt: skip


def _several(values: Iterable[str]) -> str:
    """What seeds say, each once."""
    return "; ".join(dict.fromkeys(values))


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{key} {found[key]}" for key in ("graphssl", "torch", "ogb", "torch_geometric", "python"))


def _input(data: Dataset) -> str:
    content = f"content of width {data.dim}" + (" (one-hot degrees: the set has none)" if data.from_degrees else "")
    if data.task == "graph":
        return f"{len(data.graphs)} graphs, {content}"
    carried = [word for word, there in (("features", data.graph.edge_attr), ("weights", data.graph.edge_weight))
               if there is not None]  # fmt: skip
    edges = f"{data.graph.num_edges} directed edges" + (f" with {' and '.join(carried)}" if carried else "")
    return f"{data.graph.num_nodes} nodes, {edges}, {content}"


def _saw(data: Dataset, selected: bool) -> str:
    if data.task == "link":
        return "the graph of training edges" + (", and validation pairs to choose its epoch by" if selected else "")
    if data.task == "node":
        return "the whole graph and the content of all nodes, no labels"
    test = len(split_of(data).test)
    return f"{len(data.graphs) - test} graphs, those of the test part ({test}) not among them, no labels"


def _saw_before(start: dict[str, Any] | None) -> str:
    if start is None:
        return ""
    more = (", test graphs of this set among it, without labels" if start["test items"] else "") + (
        ", and labels of other data" if start["labels"] else ""
    )
    return f"; every seed goes on from one run, which saw {start['pretrained on']}{more}"


def block_of(f: dict[str, Any]) -> str:
    asked, parts, start = f["asked"], f["parameters"], f["asked"]["from"]
    split = f"official split {f['split_name']!r}" if f["split_checked"] else "split as in the file, not checked"
    external = f"yes: pretrained on {start['pretrained on']}" if f["external_data"] else "no"
    spread = {part: _spread(f[part]) for part in ("test", "validation")}
    of = f"{count_text(f['seeds'])} ({seed_text(f['seeds'])})"
    settings = f["runs"][0]["settings"]
    given = ", ".join(f"{key}={value}" for key, value in asked["settings"].items())
    chosen: dict[str, list[int]] = {}
    for line in f["runs"]:
        chosen.setdefault(line["chosen"], []).append(line["seed"])
    lines = [
        (
            "Dataset",
            f"{f['dataset']}, {split}" + ("" if f["known"] else "; not one of OGB's"),
        ),
        ("Method", f"{asked['method']}{' (' + external[5:] + ')' if f['external_data'] else ''}, {_judged_by(asked)}"),
        ("OGB version", f["ogb"]),
        ("External data", external),
        (f"Test {f['metric']}", f"{spread['test']} (mean ± unbiased standard deviation over {of})"),
        (f"Validation {f['metric']}", f"{spread['validation']} (the same)"),
        ("Parameters", f"{sum(parts.values()):,} = " + " + ".join(f"{n:,} {part}" for part, n in parts.items())),
        ("Hardware", f["hardware"]),
        ("Wall time", ", ".join(f"{_time(total)} {stage}" for stage, total in f["seconds"].items()) + " in all"),
        ("Pretraining saw", f["saw"]),
        ("Input", f["input"]),
    ]
    if asked["decoder"]:
        used = (
            "as messages where test pairs are scored, trained on nowhere" if asked["val_edges"] else "not used as input"
        )
        year = "none" if asked["year"] is None else f"training edges of {asked['year']} and later alone"
        lines += [("Validation edges", used), ("Decoder", DECODERS[asked["decoder"]]), ("Year filter", year)]
    lines += [
        ("Chosen on validation", "; ".join(f"{what} (seeds {seed_text(seeds)})" for what, seeds in chosen.items())),
        ("Tuned", f["searched"] or f"not said (--searched); given by hand: {given or 'nothing'}"),
        ("Settings", ", ".join(f"{key}={value}" for key, value in settings.items())),
        ("Command", f["command"]),
        ("Commit", f["commit"]),
        ("Versions", f["versions"]),
        ("Contact, paper, code", "yours to fill in"),
    ]
    if asked["fine-tuning"]:
        lines.append(("Fine-tuning", ", ".join(f"{key}={value}" for key, value in asked["fine-tuning"].items())))
    lines += [("Note", note) for note in f["notes"]]
    if f["not_counted"]:
        lines.append(("Note", f"seeds in the folder, not counted: {seed_text(f['not_counted'])}"))
    head = "OGB leaderboard entry"
    if f["draft"]:
        head = f"DRAFT, not to be submitted ({'; '.join(f['against']) or 'a draft was asked for'})"
    return "\n".join([head, *(f"  {key:<22}{value}" for key, value in lines)])


def _judged_by(asked: dict[str, Any]) -> str:
    if asked["decoder"]:
        return f"frozen encoder, decoder {asked['decoder']!r}"
    return "encoder fine-tuned with a linear head" if asked["judge"] == "finetune" else "frozen encoder, linear probe"


def _spread(found: dict[str, float | None]) -> str:
    return f"{found['mean']:.4f} ± " + ("-" if found["std"] is None else f"{found['std']:.4f}")


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def command_of(
    dataset: str, asked: dict[str, Any], seeds: list[int], root: Any, out: Any, draft: bool, device: str, searched: str,
    start: Any,
) -> str:  # fmt: skip
    """The command line that asks for the same."""
    words = ["graphssl", "ogb", "--dataset", dataset, "--method", asked["method"], "--seeds", seed_text(seeds)]
    words += ["--finetune"] if asked["judge"] == "finetune" else []
    options = {"decoder": asked["decoder"], "year": asked["year"], "from": start, "root": root, "out": out}
    own = {key: value for key, value in asked["settings"].items() if key in ("encoder", "epochs", "batch_size")}
    options |= {**own, "device": None if device == "auto" else device, "searched": searched or None}
    for key, value in options.items():
        words += [] if value is None else [f"--{key.replace('_', '-')}", str(value)]
    words += ["--val-edges"] if asked["val_edges"] else []
    words += [f"--set={key}={value}" for key, value in asked["settings"].items() if key not in own]
    usual = tuning_of({}, True) or {}
    tuned = {key: value for key, value in (asked["fine-tuning"] or {}).items() if value != usual[key]}
    words += [f"--tune={key}={value}" for key, value in tuned.items()]
    return shlex.join([*words, *(["--draft"] if draft else [])])


def hardware(device: torch.device) -> str:
    """The GPU and its memory, or the CPU, how many threads ran, and the memory of the machine."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return f"{found.name}, {found.total_memory / 1e9:.0f} GB"
    name, memory = platform.processor() or platform.machine(), ""
    try:
        text = Path("/proc/cpuinfo").read_text() + Path("/proc/meminfo").read_text()
    except OSError:  # not Linux
        text = ""
    if model := re.search(r"model name\s*: (.*)", text):
        name = model[1]
    if total := re.search(r"MemTotal:\s*(\d+)", text):
        memory = f", {int(total[1]) * 1024 / 1e9:.0f} GB"
    return f"{name}, {torch.get_num_threads()} threads{memory}"


def commit() -> str:
    """The commit that this code is of, "changed since" where it was; the version where it is no git checkout."""
    here = Path(__file__).parents[1]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        except OSError:  # no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "__init__.py"):  # installed inside somebody else's checkout, or none
        return f"no git checkout: graphssl {version('graphssl')}"
    return f"{git('rev-parse', 'HEAD')}" + (", changed since" if git("status", "--porcelain", "--", ".") else "")
