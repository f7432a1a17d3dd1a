"""An entry of OGB's leaderboards: pretrained and judged seed by seed, by ogb's own Evaluator on the official split.

Rules: ogb.stanford.edu/docs/leader_overview, ogb.stanford.edu/docs/leader_rules. Facts of the Evaluators: ogb 1.3.6,
evaluate.py of each family of tasks.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl import store
from graphssl.api import pretrain
from graphssl.data import Dataset, Split, load_dataset, search_path
from graphssl.data.named import CACHE
from graphssl.data.ogb_files import FAMILIES, INSTALL, META, Meta, check_meta, known_meta, open_ogb, read_ogb
from graphssl.errors import UserError, unknown
from graphssl.finetune import CLASSES, NUMBERS, YES_OR_NO, known, loader_for, outputs
from graphssl.finetune import finetune as finetune_encoder
from graphssl.heads import dot
from graphssl.pretrained import Pretrained, fingerprint, hashed, label_marks, load
from graphssl.probes.base import Seen
from graphssl.probes.graph import fit_ridge
from graphssl.probes.link import CHUNK, HIDDEN, Pairs, fit_decoder
from graphssl.probes.metrics import root_mean_square_error
from graphssl.probes.node import fit_linear
from graphssl.recipes import get_recipe
from graphssl.recipes.base import check
from graphssl.train import memory_advice

SEEDS = 10  # that the rules ask for
FEWER = {"ogbn-papers100M": 3}  # of these sets
RULES = "ogb.stanford.edu/docs/leader_rules"
VAL_EDGES = "ogbl-collab"  # the one set whose validation edges may be model input
TASKS = {"ogbn": "node", "ogbl": "link", "ogbg": "graph"}
RAW = "OGB's raw files"
FILE = "a file of graphssl's layout"
CHECKED = f"{FILE} whose graphs, labels and split are OGB's by their mark"
OFFICIAL = {
    "ogbg-molbace": "06b735339a6f3f150165529c37d2c3cf-17cf8bdb785a231cbf9f183216b3ab7f",
    "ogbg-molbbbp": "d13f85ad700f441638d28c84a86fd9cb-a2215cde51af186cdb101b6503602fd3",
    "ogbg-molesol": "32bb54958e7a6bfd3724cd57453fde57-5f7ece926f209d27f971fc6ba80c1a9e",
    "ogbg-molfreesolv": "c666cf7d312784730713875ddad125d7-801e44f3d80980f5fad553d670512332",
}
"""Marks of OGB's graphs, labels and splits; ``{name: official_mark(load_dataset(name)) for name in OFFICIAL}`` makes
them anew where the ``.npz`` files hold the arrays and splits of ogb 1.3.6 unchanged."""
METRICS = {"ogbn": "acc|rocauc", "ogbg": "acc|ap|rocauc|rmse", "ogbl": r"hits@\d+|mrr|rocauc"}  # of the Evaluators
DECODERS = {
    "mlp": "an MLP on the product of two codes, trained on training pairs (that of the protocol link-mlp)",
    "dot": "the dot product of two codes, nothing trained",
    "own": "the method's own, as pretraining left it",
}
TUNING = ("epochs", "lr", "head_lr", "weight_decay", "batch_size")  # settings of fine-tuning
ASKED, JSON, TEXT = "asked.json", "submission.json", "submission.txt"

DECAYS = (0.0, 1e-4, 1e-3, 1e-2)  # of the probe for yes/no labels
RATE, EPOCHS, LOOK = 0.01, 300, 10
MOST_PAIRS = 1_000_000  # that choose a decoder where each joined pair has candidates of its own

Figure = Callable[[Tensor, Tensor], float]  # (outputs, labels) of some rows -> what the Evaluator says


@dataclass(frozen=True)
class Judged:
    """What became of one seed: ``test`` reads the test labels, once all is chosen."""

    validation: float
    test: Callable[[], float]
    what: str  # was trained on labels or pairs, beside the method: "probe", "head" or "decoder"
    parameters: int  # of it
    chosen: str  # by the validation score


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
        return _block(self.facts)

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
    numbers = seeds_of(seeds)
    _keep_rules(against_rules(Path(dataset.strip()).name.replace("_", "-"), numbers), draft)
    ancestor = None if start is None else load(start)
    recipe = get_recipe(method or "graphmae") if ancestor is None else ancestor.recipe
    if method is not None and get_recipe(method).name != recipe.name:
        raise UserError(f"the run in {start} is of the method {recipe.name!r}, not {method!r}; leave out method")
    data, meta, source = find(dataset, root, year)
    against = against_rules(meta.name, numbers, val_edges and meta.known, source)
    _keep_rules(against, draft)
    figure = Figures(meta)
    judge = "finetune" if finetune else "probe"
    decoder = _decoder(meta, decoder, finetune, val_edges, data)
    tuned = _tuning(tuning or {}, finetune, data)
    shown = hide(data)
    options = {"encoder": encoder, "epochs": epochs, "batch_size": batch_size}
    given: dict[str, Any] = {**{key: value for key, value in options.items() if value is not None}, **settings}
    asked = {
        "dataset": meta.name, "data": fingerprint(data), "split": _split_mark(shown), "method": recipe.name,
        "settings": given, "judge": judge, "decoder": decoder, "fine-tuning": tuned, "val_edges": val_edges,
        "year": year, "from": None if ancestor is None else _start(ancestor, start, data, shown),
    }  # fmt: skip
    stem = f"{meta.name}-{recipe.name}-{decoder or judge}"
    folder = Path("runs") / f"ogb-{stem}" if out is None else Path(out).expanduser()
    command = _command(dataset, asked, numbers, root, out, draft, device, searched, start)
    open_folder(folder, asked)
    paths = [folder / f"seed-{seed}.json" for seed in numbers]
    check_alike(folder, [_read(path) for path in paths if path.exists()])
    lines: list[dict[str, Any]] = []
    for seed, path in zip(numbers, paths, strict=True):
        if not path.exists():
            began = time.monotonic()
            try:
                run = pretrain(
                    _to_pretrain(shown), ancestor or recipe.name, out=folder / f"seed-{seed}", seed=seed, device=device,
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
    facts = _facts(meta, data, source, asked, lines, numbers, draft, command, searched)
    there = (re.fullmatch(r"seed-(\d+)\.json", path.name) for path in folder.iterdir())
    facts |= {"against": against, "not_counted": sorted({int(found[1]) for found in there if found} - {*numbers})}
    store.write_json(folder / JSON, facts)
    entry = Submission(folder, facts)
    store.write_atomically(folder / TEXT, lambda new: new.write_text(entry.block() + "\n"))
    return entry


# What is asked


def against_rules(name: str, seeds: list[int], val_edges: bool = False, source: str = RAW) -> list[str]:
    """What of an entry is against OGB's rules, or cannot be shown to keep them; [] where it may be submitted."""
    fewest, found = FEWER.get(name, SEEDS), []
    if len(seeds) < fewest:
        of = f" of {name}" if name in FEWER else ""
        found.append(f"{_seeds(seeds)}; the rules ask for {fewest}{of}")
    if val_edges and name != VAL_EDGES:
        found.append(f"validation edges as model input, which {RULES} allows for {VAL_EDGES} alone")
    if source == FILE:
        found.append("split as in the file, not checked")
    return found


def _keep_rules(against: list[str], draft: bool) -> None:
    if against and not draft:
        raise UserError(
            f"no entry for OGB: {'; '.join(against)}; change that, or say draft=True (--draft) for a block that says "
            "it is none to submit"
        )


def official_mark(data: Dataset) -> str:
    """By what a set shows that its graphs, labels and split are OGB's; compared with ``OFFICIAL``."""
    split = _split(data)
    return f"{fingerprint(data)}-{hashed([data.y, split.train, split.val, split.test])}"


def _start(run: Pretrained, folder: Any, data: Dataset, shown: Dataset) -> dict[str, Any]:
    """What an entry tells of the ``run`` that it goes on from; UserError for one that has seen labels of ``data``."""
    mark, config = fingerprint(data), run.config
    if label_marks(data, mark) & set(config["labels_seen"]):
        raise UserError(
            f"the run in {folder} was trained on labels of {data.name!r}, perhaps of test rows; go on from one that "
            "was not"
        )
    others = set(config["seen"]) - {mark, fingerprint(_to_pretrain(shown))}
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
        f"seeds {_seed_text(seeds[0])} and {_seed_text(seeds[1])} in {folder} were not run alike: {differ}; move the "
        "files of either away, so that they are run again, or choose another out"
    )


def seeds_of(seeds: str | Iterable[int]) -> list[int]:
    """The numbers that "0-9" or "0,3,7" mean, in order; UserError for other text, or a number named twice."""
    wrong = UserError(f"seeds are {seeds!r}; write whole numbers as 0-9 or 0,3,7")
    found: list[int] = []
    if isinstance(seeds, str):
        for part in seeds.replace(" ", "").split(","):
            ends = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
            if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
                raise wrong
            found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    else:
        found = list(seeds)
    if not found or any(isinstance(seed, bool) or not isinstance(seed, int) for seed in found):
        raise wrong
    if len(set(found)) < len(found):
        raise UserError(f"seeds {seeds!r} name one twice; name each once")
    return sorted(found)


def find(
    dataset: str, root: str | Path | None = None, year: int | None = None
) -> tuple[Dataset, Meta, str]:  # fmt: skip
    """The data set, what OGB says of it, and what it was read from: a folder of that path, or what has the name."""
    path = Path(dataset).expanduser()
    if (path / "raw").is_dir() or (path / META).exists():
        place, meta = open_ogb(path)
        return read_ogb(place, meta, year), meta, RAW
    if os.sep in dataset:
        raise UserError(f"{dataset} is no folder of an OGB data set: it has neither raw nor {META}; give one that has")
    name = dataset.strip().replace("_", "-")
    places = [*search_path(root), CACHE.expanduser() / "downloads"]
    for place in places:  # what DatasetSaver wrote there
        if (place / f"submission_{name.replace('-', '_')}" / META).exists():
            return find(str(place / f"submission_{name.replace('-', '_')}"), year=year)
    meta = known_meta(name)
    check_meta(meta)
    if year is not None and meta.family != "ogbl":
        raise UserError(f"year leaves out training edges of a link set, and {name!r} is none; leave it out")
    folder = _folder(name, places)
    if folder is not None:
        return read_ogb(folder, meta, year), meta, RAW
    data = load_dataset(name, root)  # a file, or a download to the cache
    folder = _folder(name, places)
    if folder is not None:
        return data if year is None else read_ogb(folder, meta, year), meta, RAW
    if data.task != TASKS[meta.family] or next(iter(data.splits), "") not in ("public", "scaffold"):
        raise UserError(
            f"the file of {name!r} is not a {TASKS[meta.family]} set with the official split; remove it, or put OGB's "
            f"own files, {name.replace('-', '_')}/raw and {name.replace('-', '_')}/split, in the folder it is in"
        )
    return data, meta, CHECKED if OFFICIAL.get(name) == official_mark(data) else FILE


def _folder(name: str, places: Sequence[Path]) -> Path | None:
    folders = [place / name.replace("-", "_") for place in places]
    return next((folder for folder in folders if (folder / "raw").is_dir()), None)


def _decoder(meta: Meta, decoder: str | None, finetune: bool, val_edges: bool, data: Dataset) -> str | None:
    """The decoder that is meant; None for a set without pairs. UserError for what its family does not have."""
    if data.task != "link":
        for key, asked in (("decoder", decoder is not None), ("val_edges", val_edges)):
            if asked:
                raise UserError(f"{key} is for link sets, and {meta.name!r} is about {data.task}s; leave it out")
        return None
    if finetune:
        raise UserError(
            f"{meta.name!r} is a link set, whose pairs a decoder scores on frozen codes; leave out finetune, and "
            f"choose a decoder: {', '.join(DECODERS)}"
        )
    if decoder is not None and decoder not in DECODERS:
        raise unknown("decoder", decoder, DECODERS)
    if val_edges and data.with_val is None:
        raise UserError(f"edges of {meta.name!r} have features, and its validation edges none; leave out val_edges")
    return decoder or "mlp"


def _tuning(given: dict[str, Any], finetune: bool, data: Dataset | None = None) -> dict[str, Any] | None:
    """All settings of fine-tuning (on ``data``), with those ``given``; None where nothing is fine-tuned."""
    if not finetune:
        if given:
            raise UserError(f"{min(given)} is a setting of fine-tuning, which was not asked for; say finetune")
        return None
    usual = {key: inspect.signature(finetune_encoder).parameters[key].default for key in TUNING}
    if data is not None and data.task != "graph":
        del usual["batch_size"]
        if "batch_size" in given:
            raise UserError(f"{data.name!r} is one graph, fine-tuned on whole; leave out batch_size of fine-tuning")
    for key, value in given.items():
        if key not in usual:
            raise unknown("setting of fine-tuning", key, TUNING)
        usual[key] = check(key, value, type(usual[key]))
    if usual["epochs"] < 1:
        raise UserError(f"epochs of fine-tuning is {usual['epochs']}; choose 1 or more")
    return usual


def parse_tuning(items: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Settings of fine-tuning from text, by key; UserError for one that is unknown or no number."""
    usual, found = _tuning({}, True) or {}, {}
    for key, text in items:
        if key not in usual:
            raise unknown("setting of fine-tuning", key, TUNING)
        try:
            found[key] = type(usual[key])(text)
        except ValueError:
            kind = "a whole number" if isinstance(usual[key], int) else "a number"
            raise UserError(f"setting {key} of fine-tuning expects {kind}, got {text!r}") from None
    return found


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


def _split_mark(shown: Dataset) -> str:
    """By what an entry tells that labels and split are the same, as far as training and choosing see them."""
    split = _split(shown, hidden=True)
    return hashed([shown.y, split.train, split.val, split.test, split.val_absent])


def _split(data: Dataset, hidden: bool = False) -> Split:
    """The official split; UserError where a part of it is empty, but for test pairs that are ``hidden``."""
    split = next(iter(data.splits.values()))[0]
    for part, rows in (("training", split.train), ("validation", split.val), ("test", split.test)):
        if not rows.numel() and not (hidden and part == "test"):
            raise UserError(f"the split of {data.name!r} has no {part} part, which a leaderboard entry needs")
    return split


def hide(data: Dataset) -> Dataset:
    """``data`` without the labels of its test rows, or without its test pairs: all that training and choosing see."""
    split = _split(data)
    if data.task == "link":
        empty = split.test[:, :0]
        return data.replace(splits={"link": (replace(split, test=empty, test_absent=empty),)})
    if data.y is None:
        raise UserError(f"data set {data.name!r} has no labels, which a leaderboard entry needs")
    y = data.y.clone()
    y[split.test] = float("nan") if y.is_floating_point() else -1
    return data.replace(y=y)


def _to_pretrain(shown: Dataset) -> Dataset:
    """What pretraining sees: no label, no test graph of a graph set, and of a link set the training edges."""
    if shown.task == "graph":
        return shown.training().replace(name=shown.name, known=shown.known, y=None)
    return shown.replace(with_val=None) if shown.task == "link" else shown.replace(y=None, splits={})


# How it is judged


class Figures:
    """ogb's own Evaluator of a data set; of one that ogb does not list, that of its family with its metric."""

    def __init__(self, meta: Meta):
        self.metric = meta.metric
        if not re.fullmatch(METRICS[meta.family], self.metric) or (self.metric == "acc" and meta.num_tasks > 1):
            columns = "pairs" if meta.family == "ogbl" else f"{meta.num_tasks} columns of labels"
            raise UserError(
                f"{meta.name!r} is to be judged by {self.metric} of {columns}, which ogb's Evaluator or the probes "
                f"here do not take; they know {METRICS[meta.family].replace('|', ', ')}, and acc of a single column"
            )
        kind = _evaluators(meta)
        self.evaluator = kind(meta.name if meta.known else _OF_FAMILY[meta.family])
        self.evaluator.name, self.evaluator.eval_metric = meta.name, self.metric
        self.evaluator.num_tasks = meta.num_tasks
        if self.metric.startswith("hits@"):
            self.evaluator.K = int(self.metric.removeprefix("hits@"))

    @property
    def higher_is_better(self) -> bool:
        return self.metric != "rmse"

    def __call__(self, out: Tensor, y: Tensor) -> float:
        """The figure of outputs [M, C] or [M, T] for labels [M] (classes) or [M, T]."""
        if self.metric == "acc":
            truth = y.double().masked_fill(y < 0, float("nan")).view(-1, 1)
            said = out.argmax(1, keepdim=True).double()
        else:
            said = out.double().view(len(out), -1)
            truth = y.double().view(len(out), -1)
        return self._eval({"y_true": truth.numpy(), "y_pred": said.numpy()})

    def of_pairs(self, scores: Tensor, present: int) -> float:
        """The figure of the scores [M] of pairs, the first ``present`` of them joined."""
        above, below = scores[:present].float(), scores[present:].float()
        if self.metric == "mrr":
            below = below.view(present, -1)
        return self._eval({"y_pred_pos": above, "y_pred_neg": below})

    def _eval(self, given: dict[str, Any]) -> float:
        try:
            found = self.evaluator.eval(given)
        except (RuntimeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"ogb's Evaluator cannot judge {self.evaluator.name!r}: {error}") from error
        if self.metric == "mrr":
            return float(found["mrr_list"].mean())
        return float(found[self.metric])


_OF_FAMILY = {"ogbn": "ogbn-arxiv", "ogbl": "ogbl-collab", "ogbg": "ogbg-molhiv"}  # a set that each Evaluator knows


def _evaluators(meta: Meta) -> Any:
    """The class Evaluator of that family.

    Its file is loaded by itself: importing the package starts a thread that asks the network for a newer version, and
    imports what is there of DGL.
    """
    found = importlib.util.find_spec("ogb")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"judging by OGB's Evaluator {INSTALL}")
    path = Path(next(iter(found.submodule_search_locations))) / FAMILIES[meta.family] / "evaluate.py"
    spec = importlib.util.spec_from_file_location(f"_ogb_{meta.family}_evaluate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Evaluator


def judge_rows(
    run: Pretrained, data: Dataset, shown: Dataset, figure: Figures, tuning: dict[str, Any] | None, seed: int
) -> Judged:
    """Nodes or graphs, by a linear probe on frozen codes, or, with ``tuning``, by encoder and head trained together."""
    split, y = _split(shown), shown.y
    assert y is not None
    assert data.y is not None
    train, val = (rows[known(y[rows])] for rows in (split.train, split.val))
    if not len(train) or not len(val):
        raise UserError(f"data set {data.name!r} has no labelled training or validation rows; give some labels")
    said, parameters, chosen = (
        probe(run, shown, train, val, figure, seed) if tuning is None else fine_tune(run, shown, figure, seed, tuning)
    )
    answers = data.y
    return Judged(
        figure(said(split.val), y[split.val]), lambda: figure(said(split.test), answers[split.test]),
        "probe" if tuning is None else "head", parameters, chosen,
    )  # fmt: skip


Outputs = Callable[[Tensor], Tensor]  # rows [M] -> outputs [M, C]


def probe(
    run: Pretrained, shown: Dataset, train: Tensor, val: Tensor, figure: Figures, seed: int
) -> tuple[Outputs, int, str]:
    """A linear layer on frozen codes, fitted to the labels of the rows ``train`` and chosen on the rows ``val``.

    Classes: the layer of the protocol node-linear, at the best validation epoch. Numbers: the ridge regression of
    graph-ridge, one a column. Yes/no labels: logistic regression, missing ones left out. Codes are standardised by the
    training rows, but not those of nodes for classes, as in that protocol.
    """
    codes, y = run.embed(shown), shown.y
    assert y is not None
    kind = {"acc": CLASSES, "rmse": NUMBERS}.get(figure.metric, YES_OR_NO)
    if not (kind == CLASSES and shown.task == "node"):
        mean, std = codes[train].mean(0), codes[train].std(0, correction=0)
        codes = (codes - mean) / torch.where(std > 1e-6 * mean.abs(), std, 1.0)
    T = y[0].numel()
    if kind == CLASSES:
        each = lambda said, truth: torch.tensor([figure(one, truth) for one in said], dtype=torch.double)  # noqa: E731
        fitted = fit_linear(Seen(codes[train], y[train], codes[val], y[val], each, ""), (seed,))
        said = "best validation epoch"
        C = int(y[torch.cat([train, val])].max()) + 1
        return lambda rows: fitted.predict(codes[rows])[said][0], C * (codes.size(1) + 1), fitted.chosen[0]
    if kind == NUMBERS:
        columns = [_ridge(codes, column, train, val) for column in y.view(len(y), -1).T]
        chosen = ", ".join(dict.fromkeys(column.chosen[0] for column in columns))
        return (
            lambda rows: torch.cat([column.predict(codes[rows])[""] for column in columns]).T,
            T * (codes.size(1) + 1), chosen,
        )  # fmt: skip
    weight, bias, chosen = fit_yes_no(codes[train], y[train], codes[val], y[val], figure, run.device)
    return lambda rows: F.linear(codes[rows], weight, bias), T * (codes.size(1) + 1), chosen


def _ridge(codes: Tensor, y: Tensor, train: Tensor, val: Tensor) -> Any:
    """Ridge regression of one column of labels [rows]; the mean of the columns' errors is the Evaluator's."""
    train, val = (rows[y[rows].isfinite()] for rows in (train, val))
    if len(train) < 2:
        raise UserError("a column of labels has fewer than two training rows, too few for a regression")
    return fit_ridge(
        Seen(codes[train], y[train].double(), codes[val], y[val].double(), root_mean_square_error), (0,)
    )  # fmt: skip


def fit_yes_no(
    train: Tensor, y: Tensor, val: Tensor, val_y: Tensor, figure: Figures, device: torch.device
) -> tuple[Tensor, Tensor, str]:
    """Weight [T, D] and bias [T] of a logistic regression for T labels [n, T], NaN where one is missing.

    Starts from zero, so that nothing is random; weight decay and epoch, looked at every tenth, are those with the best
    figure on the validation rows. All weight decays train at once, as one wide layer.
    """
    y, G, D = y.view(len(y), -1).to(device), len(DECAYS), train.size(1)
    T = y.size(1)
    seen, truth = y.isfinite()[:, None], y.nan_to_num()[:, None].expand(-1, G, T)
    rows, others = train.to(device), val.to(device)
    weight, bias = torch.zeros(G, T, D, device=device), torch.zeros(G, T, device=device)
    optimizer = torch.optim.Adam([weight.requires_grad_(), bias.requires_grad_()], lr=RATE)
    decay = torch.tensor(DECAYS, device=device)
    best, kept = -float("inf"), (torch.zeros(T, D), torch.zeros(T), "")
    for epoch in range(1, EPOCHS + 1):
        out = F.linear(rows, weight.view(G * T, D), bias.view(-1)).view(-1, G, T)
        loss = F.binary_cross_entropy_with_logits(out, truth, reduction="none").masked_fill(~seen, 0).sum() / seen.sum()
        optimizer.zero_grad()
        (loss + 0.5 * (decay * weight.square().sum((1, 2))).sum()).backward()
        optimizer.step()
        if epoch % LOOK:
            continue
        for g in range(G):
            layer = weight[g].detach(), bias[g].detach()
            score = figure(F.linear(others, *layer).cpu(), val_y)
            if score > best:
                best, kept = score, (layer[0].cpu().clone(), layer[1].cpu().clone(), f"weight decay {DECAYS[g]:g}")
    return kept


def fine_tune(
    run: Pretrained, shown: Dataset, figure: Figures, seed: int, tuning: dict[str, Any]
) -> tuple[Outputs, int, str]:  # fmt: skip
    """A copy of the encoder and a linear head, trained together as ``Pretrained.finetune`` does.

    The epoch with the best figure of the Evaluator on the validation rows is kept; Diverged where it is finite in none.
    """
    sign, transform = 1 if figure.higher_is_better else -1, run.plan.transform

    def score(out: Tensor, y: Tensor) -> float:
        return sign * figure(out, y) if out.isfinite().all() else float("nan")

    encoder, head, lines, _ = finetune_encoder(run.encoder, shown, transform, seed=seed, score=score, **tuning)
    finite = [line for line in lines if np.isfinite(line["validation score"])]
    best = max(finite, key=lambda line: line["validation score"])
    loader = loader_for(shown, transform, run.device, tuning.get("batch_size", 1), seed)
    return (
        lambda rows: outputs(encoder, head, loader, rows), sum(p.numel() for p in head.parameters()),
        f"epoch {best['epoch']} of {len(lines)}",
    )  # fmt: skip


def judge_pairs(
    run: Pretrained, data: Dataset, shown: Dataset, figure: Figures, decoder: str | None, val_edges: bool, seed: int
) -> Judged:
    """Pairs of nodes, by a ``decoder`` of frozen codes: of the graph of training edges, for validation always."""
    split, held = _split(data), _pairs_of(data)
    codes = run.embed(shown)
    later = run.embed(shown.replace(graphs=[data.with_val])) if val_edges else codes
    parameters, chosen = 0, "nothing"
    if decoder == "mlp":
        some = _some_pairs(*held["val"], own=figure.metric == "mrr")
        truth = (torch.arange(some[0].size(1)) < some[1]).long()

        def each(scores: Tensor, truth: Tensor) -> Tensor:
            present = int(truth.sum())
            return torch.tensor([figure.of_pairs(one, present) for one in scores], dtype=torch.double)

        ones = torch.ones(split.train.size(1), dtype=torch.long)
        train = Pairs(codes, split.train, data.graph)
        fitted = fit_decoder(Seen(train, ones, Pairs(codes, some[0], data.graph), truth, each), (seed,))
        score = lambda codes, ends: fitted.predict(Pairs(codes, ends, data.graph))[""][0]  # noqa: E731
        parameters, chosen = HIDDEN * codes.size(1) + 2 * HIDDEN + 1, "epoch of the decoder"
    elif decoder == "own":
        own = run._decoder(codes)
        if own is None:
            raise UserError(f"{run.config['method']} has no decoder of pairs of its own; choose decoder 'mlp' or 'dot'")
        score = lambda codes, ends: torch.cat([own(codes, part).float().cpu() for part in ends.split(CHUNK, 1)])  # noqa: E731
    else:
        score = lambda codes, ends: torch.cat([dot(codes, part) for part in ends.split(CHUNK, 1)])  # noqa: E731

    def of(part: str, codes: Tensor) -> float:
        ends, present = held[part]
        return figure.of_pairs(score(codes, ends), present)

    return Judged(of("val", codes), lambda: of("test", later), "decoder", parameters, chosen)


def _pairs_of(data: Dataset) -> dict[str, tuple[Tensor, int]]:
    """Joined pairs before absent ones [2, M], and how many are joined, of the parts "val" and "test"."""
    split, found = _split(data), {}
    for part, present, absent in (("val", split.val, split.val_absent), ("test", split.test, split.test_absent)):
        if absent is None or not absent.numel():
            raise UserError(f"the split of {data.name!r} has no absent pairs in its {part} part, to compare with")
        found[part] = torch.cat([present, absent], 1), present.size(1)
    return found


def _some_pairs(ends: Tensor, present: int, own: bool) -> tuple[Tensor, int]:
    """Of pairs with candidates of their ``own`` every few, so that at most about a million pairs choose a decoder."""
    if not own or ends.size(1) <= MOST_PAIRS:
        return ends, present
    step = -(-ends.size(1) // MOST_PAIRS)
    candidates = ends[:, present:].view(2, present, -1)[:, ::step]
    return torch.cat([ends[:, :present:step], candidates.reshape(2, -1)], 1), len(range(0, present, step))


# What is said of it


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


def _facts(
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
    test = len(_split(data).test)
    return f"{len(data.graphs) - test} graphs, those of the test part ({test}) not among them, no labels"


def _saw_before(start: dict[str, Any] | None) -> str:
    if start is None:
        return ""
    more = (", test graphs of this set among it, without labels" if start["test items"] else "") + (
        ", and labels of other data" if start["labels"] else ""
    )
    return f"; every seed goes on from one run, which saw {start['pretrained on']}{more}"


def _block(f: dict[str, Any]) -> str:
    asked, parts, start = f["asked"], f["parameters"], f["asked"]["from"]
    split = f"official split {f['split_name']!r}" if f["split_checked"] else "split as in the file, not checked"
    external = f"yes: pretrained on {start['pretrained on']}" if f["external_data"] else "no"
    spread = {part: _spread(f[part]) for part in ("test", "validation")}
    of = f"{_seeds(f['seeds'])} ({_seed_text(f['seeds'])})"
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
        ("Chosen on validation", "; ".join(f"{what} (seeds {_seed_text(seeds)})" for what, seeds in chosen.items())),
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
        lines.append(("Note", f"seeds in the folder, not counted: {_seed_text(f['not_counted'])}"))
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


def _seeds(seeds: list[int]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def _seed_text(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def _command(
    dataset: str, asked: dict[str, Any], seeds: list[int], root: Any, out: Any, draft: bool, device: str, searched: str,
    start: Any,
) -> str:  # fmt: skip
    """The command line that asks for the same."""
    words = ["graphssl", "ogb", "--dataset", dataset, "--method", asked["method"], "--seeds", _seed_text(seeds)]
    words += ["--finetune"] if asked["judge"] == "finetune" else []
    options = {"decoder": asked["decoder"], "year": asked["year"], "from": start, "root": root, "out": out}
    own = {key: value for key, value in asked["settings"].items() if key in ("encoder", "epochs", "batch_size")}
    options |= {**own, "device": None if device == "auto" else device, "searched": searched or None}
    for key, value in options.items():
        words += [] if value is None else [f"--{key.replace('_', '-')}", str(value)]
    words += ["--val-edges"] if asked["val_edges"] else []
    words += [f"--set={key}={value}" for key, value in asked["settings"].items() if key not in own]
    usual = _tuning({}, True) or {}
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
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        except OSError:  # no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "__init__.py"):  # installed inside somebody else's checkout, or none
        return f"no git checkout: graphssl {version('graphssl')}"
    return f"{git('rev-parse', 'HEAD')}" + (", changed since" if git("status", "--porcelain", "--", ".") else "")
