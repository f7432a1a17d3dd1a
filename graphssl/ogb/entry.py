"""An entry of OGB's leaderboards: pretrained and judged seed by seed, in a folder that goes on where it stopped."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphssl import store
from graphssl.api import pretrain
from graphssl.data import Dataset
from graphssl.errors import UserError
from graphssl.ogb.asked import against_rules, decoder_of, keep_rules, seed_text, seeds_of, tuning_of
from graphssl.ogb.block import block_of, command_of, commit, facts_of, hardware
from graphssl.ogb.judge import Figures, Judged, judge_pairs, judge_rows
from graphssl.ogb.shown import hide, split_mark, to_pretrain
from graphssl.ogb.sources import find
from graphssl.pretrained import Pretrained, fingerprint, hashed, label_marks, load
from graphssl.processes import launched
from graphssl.recipes import get_recipe
from graphssl.train import memory_advice

ASKED, JSON, TEXT = "asked.json", "submission.json", "submission.txt"


@dataclass(frozen=True)
class Submission:
    """A leaderboard entry: what was asked, what each seed gave, and the block to submit."""

    folder: Path
    facts: dict[str, Any]  # what submission.json holds

    @property
    def test(self) -> tuple[float, float | None]:
        """Mean and unbiased standard deviation over the seeds; the latter None for one seed."""
        return self.facts["test"]["mean"], self.facts["test"]["std"]

    def block(self) -> str:
        """The text to submit, a line for each thing that the form asks for."""
        return block_of(self.facts)

    def to_json(self) -> dict[str, Any]:
        return self.facts


def leaderboard(
    dataset: str, method: str | None = None, *, seeds: str | Iterable[int] = "0-9", out: str | Path | None = None,
    root: str | Path | None = None, draft: bool = False, finetune: bool = False, decoder: str | None = None,
    val_edges: bool = False, year: int | None = None, encoder: str | None = None, epochs: int | None = None,
    batch_size: int | None = None, device: str = "auto", tuning: dict[str, Any] | None = None,
    start: str | Path | None = None, searched: str = "", progress: bool = True, **settings: Any,
) -> Submission:  # fmt: skip
    """Pretrains once a seed, judges each by ogb's Evaluator on the official split, and makes the block to submit.

    Args:
        dataset: a name of OGB, as "ogbn-arxiv", looked for as OGB lays it out (``ogbn_arxiv/raw``) in ``root``, in
            $GRAPHSSL_DATA and in the cache, then as ``load_dataset`` does; or a folder of a set in OGB's layout, as
            ``ogb.io.DatasetSaver`` writes them.
        method: a name of ``list_methods()``; None: that of ``start``, or "graphmae".
        seeds: "0-9", "0,3,7", or numbers; fewer than ten (three of ogbn-papers100M) need ``draft``.
        out: folder of the entry, with a run a seed; where it holds some of them, these are read and not run again.
        finetune: trains the encoder on labels too; else a linear probe (a decoder of pairs) reads its frozen codes.
        decoder: of a link set: "mlp" (the default), "dot" or "own".
        val_edges: of a link set: test pairs are scored on codes that were given the validation edges as messages; of
            OGB's sets other than ogbl-collab that needs ``draft``.
        draft: makes a block that is against OGB's rules, or of a split that cannot be checked, and says so in it.
        year: of a link set: training edges before that year are left out.
        encoder, epochs, batch_size, device: as for ``pretrain``.
        tuning: settings of fine-tuning: epochs, lr, head_lr, weight_decay, and of a graph set batch_size.
        start: folder of a run that every seed goes on from; what other data it saw count as external data.
        searched: what you tried to find these settings, for the block.
        **settings: keywords of the method's recipe.

    A graph set is pretrained on its training and validation graphs alone, others on their one graph. Each choice is
    made by the Evaluator's figure on validation rows, and test labels are read once a seed, after it.
    Raises UserError for what cannot be asked, and what ``pretrain`` raises.
    """
    if launched() > 1:
        raise UserError(
            f"torchrun started {launched()} processes, and an entry is made by one; start graphssl ogb itself"
        )
    numbers = seeds_of(seeds)
    keep_rules(against_rules(Path(dataset.strip()).name.replace("_", "-"), numbers), draft)
    ancestor = None if start is None else load(start)
    recipe = get_recipe(method or "graphmae") if ancestor is None else ancestor.recipe
    if method is not None and get_recipe(method).name != recipe.name:
        raise UserError(f"the run in {start} is of the method {recipe.name!r}, not {method!r}; leave out method")
    data, meta, source = find(dataset, root, year)
    against = against_rules(meta.name, numbers, val_edges and meta.known, source)
    keep_rules(against, draft)
    figure = Figures(meta)
    judge = "finetune" if finetune else "probe"
    decoder = decoder_of(meta, decoder, finetune, val_edges, data)
    tuned = tuning_of(tuning or {}, finetune, data)
    shown = hide(data)
    options = {"encoder": encoder, "epochs": epochs, "batch_size": batch_size}
    given: dict[str, Any] = {**{key: value for key, value in options.items() if value is not None}, **settings}
    asked = {
        "dataset": meta.name, "data": fingerprint(data), "split": split_mark(shown), "method": recipe.name,
        "settings": given, "judge": judge, "decoder": decoder, "fine-tuning": tuned, "val_edges": val_edges,
        "year": year, "from": None if ancestor is None else _start(ancestor, start, data, shown),
    }  # fmt: skip
    stem = f"{meta.name}-{recipe.name}-{decoder or judge}"
    folder = Path("runs") / f"ogb-{stem}" if out is None else Path(out).expanduser()
    command = command_of(dataset, asked, numbers, root, out, draft, device, searched, start)
    open_folder(folder, asked)
    paths = [folder / f"seed-{seed}.json" for seed in numbers]
    check_alike(folder, [_read(path) for path in paths if path.exists()])
    lines: list[dict[str, Any]] = []
    for seed, path in zip(numbers, paths, strict=True):
        if not path.exists():
            began = time.monotonic()
            try:
                run = pretrain(
                    to_pretrain(shown), ancestor or recipe.name, out=folder / f"seed-{seed}", seed=seed, device=device,
                    resume=True, progress=progress, **given,
                )  # fmt: skip
            except KeyboardInterrupt as stop:
                raise KeyboardInterrupt(f"stopped in seed {seed}; the same call goes on with it") from stop
            trained = run.lines[-1]["seconds"] if run.lines else time.monotonic() - began
            began = time.monotonic()
            with memory_advice(f"judging on {meta.name}"):
                if data.task == "link":
                    judged = judge_pairs(run, data, shown, figure, decoder, val_edges, seed)
                else:
                    judged = judge_rows(run, data, shown, figure, tuned if finetune else None, seed)
                line = _line(run, judged, seed)
            line["seconds"] = {"pretraining": trained, "judging": time.monotonic() - began}
            store.write_json(path, line)
        lines.append(_read(path))
        check_alike(folder, lines)
    facts = facts_of(meta, data, source, asked, lines, numbers, draft, command, searched)
    there = (re.fullmatch(r"seed-(\d+)\.json", path.name) for path in folder.iterdir())
    facts |= {"against": against, "not_counted": sorted({int(found[1]) for found in there if found} - {*numbers})}
    store.write_json(folder / JSON, facts)
    entry = Submission(folder, facts)
    store.write_atomically(folder / TEXT, lambda new: new.write_text(entry.block() + "\n"))
    return entry


def _start(run: Pretrained, folder: Any, data: Dataset, shown: Dataset) -> dict[str, Any]:
    """What an entry tells of the ``run`` that it goes on from; UserError for one that has seen labels of ``data``."""
    mark, config = fingerprint(data), run.config
    if label_marks(data, mark) & set(config["labels_seen"]):
        raise UserError(
            f"the run in {folder} was trained on labels of {data.name!r}, perhaps of test rows; go on from one that "
            "was not"
        )
    others = set(config["seen"]) - {mark, fingerprint(to_pretrain(shown))}
    return {
        "pretrained on": config["spec"]["name"] + (" and others" if len(config["seen"]) > 1 else ""),
        "weights": hashed(store.tensors_of(run.method).values()),
        "external": bool(others), "labels": bool(config["labels_seen"]),
        "test items": mark in config["seen"] and data.task == "graph",
    }  # fmt: skip


def check_alike(folder: Path, lines: list[dict[str, Any]]) -> None:
    """UserError where seeds in ``folder`` differ in settings, epochs or parameters; commit and versions may differ."""
    parts = [
        {
            **line["settings"],
            "epochs": line["epochs"],
            **{f"parameters of {k}": n for k, n in line["parameters"].items()},
        }
        for line in lines
    ]
    other = [n for n, part in enumerate(parts) if part != parts[0]]
    if not other:
        return
    a, b = parts[0], parts[other[0]]
    differ = ", ".join(f"{k} ({a.get(k)}, {b.get(k)})" for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k))
    seeds = [[lines[n]["seed"] for n in range(len(lines)) if (n in other) == there] for there in (False, True)]
    raise UserError(
        f"seeds {seed_text(seeds[0])} and {seed_text(seeds[1])} in {folder} were not run alike: {differ}; move the "
        "files of either away, so that they are run again, or choose another out"
    )


def open_folder(folder: Path, asked: dict[str, Any]) -> None:
    """Makes ``folder`` ready to hold what was ``asked``; UserError where it holds something else."""
    path = folder / ASKED
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} holds something that is no leaderboard entry; choose another out")
        folder.mkdir(parents=True, exist_ok=True)
        store.write_json(path, asked)
        return
    before, now = _read(path), json.loads(json.dumps(asked))
    differ = [f"{key} (was {before.get(key)}, now {now[key]})" for key in now if before.get(key) != now[key]]
    if differ and not any(folder.glob("seed-*")):  # it came to nothing
        store.write_json(path, asked)
    elif differ:
        raise UserError(f"{folder} holds another entry: it differs in {', '.join(differ)}; choose another out")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        assert isinstance(found, dict)
        return found
    except (OSError, ValueError, AssertionError) as error:
        raise UserError(f"{path} was damaged; remove it, and what it holds is made again") from error


def _line(run: Pretrained, judged: Judged, seed: int) -> dict[str, Any]:
    """What is kept of one seed; the only reading of test labels."""
    encoder = sum(p.numel() for p in run.encoder.parameters())
    heads = sum(p.numel() for p in run.method.parameters()) - encoder
    parameters = {"encoder": encoder, "pretext heads": heads, judged.what: judged.parameters}
    return {
        "seed": seed, "validation": judged.validation, "test": judged.test(), "chosen": judged.chosen,
        "parameters": parameters, "settings": run.config["settings"], "epochs": run.config["epochs"],
        "best": run.config.get("best"),
        "hardware": hardware(run.device), "commit": commit(),
        "versions": {**run.config["versions"], "ogb": version("ogb")},
    }  # fmt: skip
