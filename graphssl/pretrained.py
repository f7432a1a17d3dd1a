"""What pretraining returns: an encoder with its settings, to embed with, judge, tune, save, export and draw."""

from __future__ import annotations

import copy
import csv
import hashlib
import inspect
import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from graphssl import store
from graphssl.backbones import evaluating
from graphssl.data import Dataset, is_path, load_dataset, to_dataset
from graphssl.data.arrow import arrow
from graphssl.data.loader import Batches
from graphssl.embed import embed_by_layer, fits_whole, whole_only
from graphssl.encoder import Encoder, plain, pool
from graphssl.errors import UserError, unknown
from graphssl.finetune import NUMBERS, figures, finetune, known
from graphssl.graph import Graph
from graphssl.methods import Method
from graphssl.ops import Content, Rows, dense, missing
from graphssl.plot import MOVING, Rebuilt, check_picture, draw, draw_rebuilt, film
from graphssl.probes import EDGE_EXPOSURE, Decoder, LinkCodes, Outcome, get_protocol, judge
from graphssl.recipes import Plan, Published, Recipe, Spec, get_recipe
from graphssl.recipes.custom import custom
from graphssl.report import RAW, UNTRAINED, Heading, Report, Row
from graphssl.train import memory_advice, seeded


def dataset_of(data: Any) -> Dataset:
    """A name as the data set of that name, anything else through the door."""
    return load_dataset(data) if isinstance(data, str) and not is_path(data) else to_dataset(data)


def fingerprint(dataset: Dataset) -> str:
    """A hash of the graphs' content and edges, or of raw items and their kind; labels and splits are no part of it."""
    if dataset.items is not None:
        kind = torch.tensor(list(dataset.items.kind.encode()), dtype=torch.uint8)
        return hashed([kind, *dataset.items.values])
    if dataset.stored is not None:
        return dataset.stored.fingerprint
    fields = ("x", "edge_index", "edge_weight", "edge_attr", "pos")
    return hashed(getattr(graph, field) for graph in dataset.graphs for field in fields)


def label_marks(dataset: Dataset, mark: str) -> set[str]:
    """By what a run remembers whose labels it has seen: the graphs, and content with labels, the same in a link set.

    ``mark`` is the data set's fingerprint.
    """
    if dataset.items is not None:  # they have no link set
        return {mark}
    nodes = dataset.as_nodes()
    if nodes.stored is not None:
        return {mark, hashed([nodes.y, nodes.stored.x])}
    return {mark, hashed([nodes.y, *(graph.x for graph in nodes.graphs)])}


def hashed(values: Iterable[Content | Tensor | None]) -> str:
    """A hash of tensors and sparse rows, their shapes and number types; float16 counts as the float32 it stands for."""
    digest = hashlib.sha256()
    for value in values:
        parts = (value.csr.ptr, value.csr.col, value.value) if isinstance(value, Rows) else (value,)
        for part in parts:
            if isinstance(part, Tensor) and part.dtype == torch.float16:
                digest.update(f"{tuple(part.shape)}{torch.float32}".encode())
                for some in part.split(2**16):
                    digest.update(np.ascontiguousarray(some.float().numpy()).data)
            elif isinstance(part, Tensor):
                digest.update(f"{tuple(part.shape)}{part.dtype}".encode())
                digest.update(np.ascontiguousarray(part.cpu().numpy()).data)
    return digest.hexdigest()[:32]


def rows_mark(dataset: Dataset, mark: str, split: str) -> str:
    """By what a finetuned run remembers which rows of which data it has learned from; ``mark`` is the fingerprint."""
    parts = dataset.splits[split][0]
    return f"{mark}-{hashed([parts.train, parts.val, parts.test])}"


def versions() -> dict[str, str]:
    """What must be the same for runs to be bit-equal."""
    return {
        "graphssl": version("graphssl"), "python": platform.python_version(), "torch": torch.__version__,
        "torch_geometric": version("torch_geometric"), "numpy": np.__version__, "machine": platform.machine(),
        "scikit-learn": version("scikit-learn"), "pymetis": version("pymetis") if find_spec("pymetis") else "none",
        "threads": str(torch.get_num_threads()), "ops": "torch" if missing("c") else "c",
    }  # fmt: skip


@torch.no_grad()
def embed(
    encoder: Encoder, dataset: Dataset, transform: Callable[[Graph], Graph], level: str, device: torch.device | str
) -> Tensor:
    """Codes on the CPU: [N, D] of all nodes in order (``level`` "node") or [B, D] of all graphs ("graph").

    Those of nodes of a stored set, or of one graph that would not fit in memory, are made layer by layer, over a
    temporary file where they are large, unless the encoder looks at the whole graph.
    """
    if level not in ("node", "graph"):
        raise unknown("level", level, ("node", "graph"))
    encode, why = encoder.of_graphs if level == "graph" else encoder, ""
    if level == "node" and in_chunks(encoder, dataset, torch.device(device)):
        why = whole_only(encoder)
        if not why:
            with memory_advice(f"embedding {dataset.name}"):
                return torch.as_tensor(embed_by_layer(encoder, dataset.source, transform, device=device, progress=True))
    with memory_advice(f"embedding {dataset.name}" + (f" whole, as {why}," if why else "")):
        batches = Batches(dataset, transform, device, batch_size=256).in_order()
        return torch.cat([encode(graph).float().cpu() for graph in batches])


def in_chunks(encoder: Encoder, dataset: Dataset, device: torch.device) -> bool:
    """Whether the one graph of ``dataset`` is stored, or too large to be embedded at once."""
    if dataset.task == "graph" or dataset.stored is not None:
        return dataset.stored is not None
    return not fits_whole(encoder, dataset.graph.num_nodes, dataset.graph.num_edges, device)


FINETUNE = (
    "Encoder and a linear head trained together on labels of the training rows of the first repeat of a split, the "
    "epoch chosen by the loss on its validation rows; what the head says of its test rows, whose labels are read once; "
    "accuracy of classes, area under the ROC curve of yes/no labels, mean absolute error of numbers; no repeats."
)
PICTURES = ("codes", "reconstruction")
SEEN = "pretrained on all items, those of the test part included, without labels"
PRETEXT = "its pretext task was of the kind that {} asks: not comparable with methods that never saw one"


class Pretrained:
    """An encoder and all that is known of how it came to be.

    ``history`` is a dict of lists with one entry an epoch; ``config`` is what config.json holds; ``head`` is the linear
    layer that ``finetune`` trained, else None.
    """

    def __init__(
        self, plan: Plan, recipe: Recipe, config: dict[str, Any], *, dataset: Dataset | None = None,
        lines: list[dict[str, float]] | None = None, module: nn.Module | None = None, head: nn.Module | None = None,
    ):  # fmt: skip
        self.plan, self.recipe, self.config, self.dataset, self.head = plan, recipe, config, dataset, head
        self.method: Method = plan.method
        self.encoder: Encoder = plan.method.encoder
        self.module = module  # the user's own encoder before training, for the control
        self.lines = lines or []

    @property
    def history(self) -> dict[str, list[float]]:
        """Losses, learning rate and seconds by name, one entry an epoch; NaN where an epoch had none."""
        keys = dict.fromkeys(key for line in self.lines for key in line)
        return {key: [line.get(key, float("nan")) for line in self.lines] for key in keys}

    def __repr__(self) -> str:
        done = f"{len(self.lines) or self.config['epochs']} epochs, seed {self.config['seed']}"
        if best := self.config.get("best"):
            done += f", weights of epoch {best['epoch']}"
        return f"Pretrained({self.name} on {self.config['spec']['name']}, {done}, codes of width {self.encoder.dim})"

    @property
    def name(self) -> str:
        """What reports call its codes."""
        return self.config["method"] + (", finetuned" if "finetuned" in self.config else "")

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    def data(self, dataset: Any = None) -> Dataset:
        """The data set given, or the one pretrained on; UserError where it is not at hand or does not fit."""
        spec = self.config["spec"]
        if dataset is None and self.dataset is None:
            source = self.config.get("source")
            if source and Path(source).exists():
                found = to_dataset(source)
            elif source:
                raise UserError(
                    f"this run was pretrained on {source}, which is not there any more; pass the data "
                    "again (dataset=..., --dataset FILE)"
                )
            elif spec["known"]:
                found = load_dataset(spec["name"])
            else:
                raise UserError(
                    f"this run was pretrained on data of your own ({spec['name']}), which is not saved with it; pass "
                    "it again (dataset=..., --dataset FILE)"
                )
            if fingerprint(found) != self.config["fingerprint"]:
                raise UserError(
                    f"the data set {spec['name']!r} found now differs from the one pretrained on; pass "
                    "yours (dataset=..., --dataset FILE)"
                )
            self.dataset = found
        chosen = self.dataset if dataset is None else dataset_of(dataset)
        assert chosen is not None
        kind, holds = spec.get("kind", "graphs"), "graphs" if chosen.items is None else chosen.items.kind
        if kind != holds:
            raise UserError(f"this run was pretrained on {kind}, but {chosen.name!r} holds {holds}; give {kind}")
        if self.plan.tokenizer is not None:
            chosen = chosen.tokenize(self.plan.tokenizer)
            if dataset is None:
                self.dataset = chosen
        if chosen.dim != self.encoder.dim_in and self.encoder.reads_content:
            if chosen.items is not None:
                raise UserError(
                    f"{chosen.name!r} holds {kind} of shape {chosen.items.shape}, but the encoder was pretrained on "
                    f"such of shape {tuple(spec['shape'])}; give {kind} with as many channels, or pretrain on these"
                )
            raise UserError(
                f"{chosen.name!r} has {chosen.dim} features a node, but the encoder was pretrained on "
                f"{self.encoder.dim_in} ({spec['name']}); give data of that width, or pretrain on this"
            )
        if self.encoder.transductive and fingerprint(chosen) != self.config["fingerprint"]:
            raise UserError(
                f"{self.config['method']} has learned a row for each node of the graph that it was pretrained on "
                f"({spec['name']}) and cannot embed another ({chosen.name}); pretrain on this, or choose a method that "
                "trains an encoder"
            )
        return chosen

    def embed(self, dataset: Any = None, level: str | None = None) -> Tensor:
        """Codes on the CPU: [N, D] of nodes or [B, D] of graphs; ``level`` None: what the data set is about."""
        return self._codes(self.encoder, self.data(dataset), level)

    def _codes(self, encoder: Encoder, dataset: Dataset, level: str | None = None) -> Tensor:
        with evaluating(encoder):
            return embed(encoder, dataset, self.plan.transform, level or dataset.level, self.device)

    def untrained(self) -> Encoder:
        """An encoder of the same shape with the weights that the seed gives it, or those of an object handed in."""
        spec, settings = Spec(**self.config["spec"]), dict(self.config["settings"])
        if self.module is not None:
            settings["encoder"] = copy.deepcopy(self.module)
        with seeded(self.config["seed"]):
            return self.recipe.plan(spec, settings).method.encoder.to(self.device)

    def evaluate(
        self, dataset: Any = None, protocol: str | Sequence[str] | None = None, *, seed: int | None = None,
        controls: bool = True,
    ) -> Report:  # fmt: skip
        """Judges the frozen codes by ``protocol``, one or several, or by all that the data set offers, beside controls.

        The controls are raw features and the encoder before training (``controls`` False: neither); where the recipe
        cites a published figure, that too. ``seed`` is the probe's, None: the run's. On a link set, protocols for nodes
        judge the same codes by what is known of the nodes. Raises UserError for a run that was trained on the labels of
        that data: a protocol's codes have seen none.
        """
        data = self.data(dataset)
        mark, config = fingerprint(data), self.config
        known = label_marks(data, mark) & set(config["labels_seen"]) if config["labels_seen"] else set()
        if mark in known or (known and any(get_protocol(name).labels for name in names_of(protocol, data))):
            raise UserError(
                f"this run was trained on labels of {data.name!r}, and protocols judge codes that have seen none; "
                "use test() of a finetuned run, or evaluate the run before it was finetuned"
            )
        own = self.module is not None or self.recipe.name == "custom"
        notes: tuple[str, ...] = ()
        if data.task == "link" and (own or set(config["seen"]) != {mark}):
            notes += (EDGE_EXPOSURE,)
        if config["labels_seen"]:
            notes += ("trained on labels of other data; whether they overlap with these is unverified",)
        if self.module is not None:
            notes += ("the encoder was handed in; what it had seen before is unverified",)
        splits = next(iter(data.splits.values()), ())
        if len(splits) == 1 and len(splits[0].test) and self._saw_items(data, mark):
            notes += (SEEN,)
        trained = self._is_trained()
        one = self.encoder.transductive
        subject = subject_of(partial(self._codes, self.encoder), data, protocol, one)
        if (
            isinstance(subject, LinkCodes) and trained and "finetuned" not in config
        ):  # else it has learned no such codes
            subject = replace(subject, score=self._decoder(subject.codes))
        subjects = {self.name: subject}
        if trained and controls:
            subjects[UNTRAINED] = subject_of(partial(self._codes, self.untrained()), data, protocol, one)
        return judge_all(
            subjects, data, protocol, seed=config["seed"] if seed is None else seed, notes=notes,
            pooling=self.encoder.pooling, unlike=self._unlike_the_recipe(),
            pretexts=self.method.pretexts if trained else (), controls=controls,
            published=self.plan.published if data.known and data.name == config["spec"]["name"] else {},
        )  # fmt: skip

    def _is_trained(self) -> bool:
        return self.config["epochs"] > 0 or self.config.get("steps", 0) > 0

    def _saw_items(self, data: Dataset, mark: str) -> bool:
        """Whether ``data`` are raw items that pretraining saw; ``mark`` is their fingerprint."""
        if data.items is None or mark not in self.config["seen"]:
            return False
        return self._is_trained() or (self.module is None and not self._is_untrained())

    def _decoder(self, codes: Tensor) -> Decoder | None:
        """The method's own edge decoder for ``codes`` [N, D] on the CPU; None where it has none for such codes."""

        @torch.no_grad()
        def score(codes: Tensor, pairs: Tensor) -> Tensor | None:
            with evaluating(self.method):
                return self.method.score(codes.to(self.device), pairs.to(self.device))

        def scores(codes: Tensor, pairs: Tensor) -> Tensor:
            found = score(codes, pairs)
            assert found is not None  # it has been tried
            return found

        if self.encoder.unit:  # it was trained on codes before they were scaled
            return None
        return None if score(codes, torch.zeros(2, 1, dtype=torch.long)) is None else scores

    def _unlike_the_recipe(self) -> str:
        """What differs from the run that a published figure of the recipe stands for; empty where nothing does."""
        config = self.config
        usual = self.recipe.settings(Spec(**config["spec"]), {})
        other = [f"{k}={v}" for k, v in config["settings"].items() if usual.get(k) != v]
        other += ["an encoder of your own"] if config.get("own_encoder") else []
        other += [f"precision {config['precision']}"] if config["precision"] != "32-true" else []
        other += [f"early_stop={config['early_stop']!r}"] if config.get("early_stop") else []
        other += ["it went on from another run"] if len(config["seen"]) > 1 else []
        return ", ".join(other)

    def finetune(self, dataset: Any = None, **settings: Any) -> Pretrained:
        """A copy of this run whose encoder and new linear head were trained on the labels of the training part.

        ``settings`` are those of ``graphssl.finetune.finetune``: split, epochs, lr, head_lr, weight_decay, batch_size,
        seed, and the share of the ``labels`` that is used (0.1: a tenth). ``pretrain(..., epochs=0).finetune(...)`` is
        training from scratch, to compare with; ``test`` judges the result.
        """
        data = self.data(dataset)
        names = list(inspect.signature(finetune).parameters)[3:]
        for key in settings:
            if key not in names:
                raise unknown("setting of finetune", key, names)
        with memory_advice(f"finetuning on {data.name}"):
            encoder, head, lines, chosen = finetune(self.encoder, data, self.plan.transform, **settings)
        method = copy.deepcopy(self.method)
        method.encoder.load_state_dict(encoder.state_dict())
        mark = fingerprint(data)
        marks = label_marks(data, mark)
        plan = replace(self.plan, method=method.eval())
        tuned = {
            "dataset": data.name, **chosen, "from": "untrained" if self._is_untrained() else self.name,
            "rows": rows_mark(data, mark, str(chosen["split"])),
            "seen_before": bool(marks & set(self.config["labels_seen"])),
            "saw_items": self._saw_items(data, mark),
        }  # fmt: skip
        config = {
            **{k: v for k, v in self.config.items() if k != "best"}, "finetuned": tuned,
            "seen": sorted({*self.config["seen"], mark}), "labels_seen": sorted({*self.config["labels_seen"], *marks}),
        }  # fmt: skip
        return Pretrained(plan, self.recipe, config, dataset=data, lines=lines, module=self.module, head=head)

    def predict(self, dataset: Any = None) -> Tensor:
        """Outputs of the head that ``finetune`` trained, on the CPU: [N, C] for nodes, [B, C] for graphs."""
        if self.head is None:
            raise UserError("this run has no head; run.finetune(dataset) returns one that has")
        with torch.no_grad():
            return self.head(self.embed(dataset).to(self.device)).cpu()

    def _is_untrained(self) -> bool:
        """Whether the encoder has the weights that the seed gave it."""
        if self.module is not None or "finetuned" in self.config:
            return False
        own, fresh = store.tensors_of(self.encoder), store.tensors_of(self.untrained())
        return all(torch.equal(own[name], fresh[name]) for name in own)

    def test(self, dataset: Any = None) -> Report:
        """Judges ``predict`` on the test rows of the split that ``finetune`` learned from; their labels are read once.

        Accuracy of classes, area under the ROC curve of yes/no labels, mean absolute error of numbers. Raises UserError
        for a run without a head, for other data or another split than it learned from, and where it had seen labels of
        that data before, which may have been those of test rows.
        """
        tuned = self.config.get("finetuned", {})
        if self.head is None or "rows" not in tuned:
            raise UserError("this run was not finetuned; run.finetune(dataset) returns one that was")
        data = self.data(dataset)
        name = tuned["split"]
        if name not in data.splits or rows_mark(data, fingerprint(data), name) != tuned["rows"]:
            raise UserError(
                f"this run learned from the split {name!r} of {tuned['dataset']!r}, and {data.name!r} is other data or "
                "split otherwise; give what it learned from, or use predict()"
            )
        if tuned["seen_before"]:
            raise UserError(
                f"this run had seen labels of {data.name!r} before it was finetuned, perhaps of test rows; finetune "
                "one that has not"
            )
        assert data.y is not None  # it has learned from it
        said, rows = self.predict(data), data.splits[name][0].test
        answers = data.y[rows]
        found = figures(said[rows][known(answers)], answers[known(answers)], tuned["learned"])
        metric, numbers = next(iter(found)), tuned["learned"] == NUMBERS
        notes = (
            f"{tuned['labelled']} labels ({100 * tuned['labels']:g} %) of the split {name!r} to train and "
            f"{tuned['validation']} to choose the epoch; {tuned['epochs']} epochs at {tuned['lr']:g} and "
            f"{tuned['head_lr']:g} for the head, {tuned['kept']}",
            *((SEEN,) if tuned["saw_items"] else ()),
            *data.notes,
        )
        who = self.name + (" from scratch" if tuned["from"] == "untrained" else "")
        row = Row("finetune", 1, who, found[metric], metrics=found, notes=notes)
        heading = Heading(metric, not numbers, "" if numbers else "%", FINETUNE)
        return Report(data.name, [row], {"finetune": heading})

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Writes config, weights and history to ``folder``; UserError where a run is there already."""
        folder = Path(folder).expanduser()
        store.check_folder(folder, resume=False, overwrite=overwrite)
        store.open_folder(folder, keep=False)
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        store.write_atomically(folder / store.METRICS, lambda new: new.write_text(text))
        store.save_weights(folder / store.WEIGHTS, self.method)
        if self.head is not None:
            store.save_weights(folder / store.HEAD, self.head)
        store.write_json(folder / store.CONFIG, {**self.config, "finished": True})
        return folder

    def export(
        self, path: str | Path, dataset: Any = None, level: str | None = None, overwrite: bool = False
    ) -> tuple[Path, tuple[int, ...]]:
        """Writes codes to a .npy file, or to a .csv or .parquet whose first column names nodes or graphs; their shape.

        Names are those that the data came with, else row numbers. Codes of a graph in a folder stand in the order of
        what it was made of, and those for .npy go there without being held in memory. Raises UserError where ``path``
        exists.
        """
        path = Path(path).expanduser()
        kind = path.suffix.lower()
        if kind not in (".npy", ".csv", ".parquet"):
            raise UserError(f"cannot write codes to {path.name!r}; end its name in .npy, .csv or .parquet")
        free(path, overwrite)
        if kind == ".parquet":
            arrow(path)
        data = self.data(dataset)
        what = level or data.level
        order = None if data.stored is None or what == "graph" else data.stored.order
        shape: tuple[int, ...] = ()

        def write(new: Path) -> None:
            nonlocal shape
            direct = kind == ".npy" and what == "node" and in_chunks(self.encoder, data, self.device)
            if direct and not whole_only(self.encoder):
                with memory_advice(f"embedding {data.name}"):
                    shape = embed_by_layer(
                        self.encoder, data.source, self.plan.transform, device=self.device, out=new, order=order,
                        progress=True,
                    ).shape  # fmt: skip
                return
            codes = self.embed(data, what)
            shape = codes.shape
            place = None if order is None else order.argsort()
            if kind == ".npy":
                with open(new, "wb") as binary:
                    np.save(binary, codes.numpy() if place is None else codes[place].numpy())
                return
            names = data.node_names if what == "node" else data.item_names
            if data.stored is not None and not data.stored.named:  # they would be row numbers of the source
                names = None
            write_table(new, kind, what, codes, names, place)

        path.parent.mkdir(parents=True, exist_ok=True)
        store.write_atomically(path, write)
        return path, tuple(shape)

    def plot(
        self, path: str | Path, dataset: Any = None, overwrite: bool = False, what: str | None = None
    ) -> Path:  # fmt: skip
        """Draws a picture to ``path`` (.png, .pdf or .svg; .gif of videos and skeletons); the same at each call.

        ``what`` "reconstruction" shows some items, what the method sees of them, and what it makes of that; "codes" a
        2-D map of the codes, coloured by label where there is one. None: the former of raw items where the method
        rebuilds its input, else the latter. Raises UserError for what cannot be drawn so, and where ``path`` exists.
        """
        path = Path(path).expanduser()
        if what not in (None, *PICTURES):
            raise unknown("picture", str(what), PICTURES)
        check_picture(path)
        free(path, overwrite)
        data, moves = self.data(dataset), path.suffix.lower() == ".gif"
        rebuilt = None if what == "codes" else self._rebuilt(data)
        if rebuilt is None and what == "reconstruction":
            why = "holds graphs" if data.items is None else f"was not rebuilt: {self.config['method']} does not do that"
            raise UserError(f"{data.name!r} {why}; choose what='codes' (--what codes) for a map of codes")
        if moves and (rebuilt is None or not rebuilt.moving):
            still = "a map of codes does" if rebuilt is None else f"{rebuilt.kind} do"
            raise UserError(f"{still} not move, so cannot be drawn to {path.name!r}; end its name in .png")
        title = f"{data.name}, {self.name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if moves and rebuilt is not None:
            first, *rest = film(rebuilt, title)
            options = {"save_all": True, "append_images": rest, "duration": 150, "loop": 0}
            store.write_atomically(path, lambda new: first.save(new, format="GIF", **options))
            return path
        figure = (
            draw(self.embed(data), data.y, classes=data.classes, title=title)
            if rebuilt is None
            else draw_rebuilt(rebuilt, title)
        )
        kind = path.suffix.lower()[1:]
        store.write_atomically(path, lambda new: figure.savefig(new, format=kind, dpi=150))
        return path

    @torch.no_grad()
    def _rebuilt(self, data: Dataset) -> Rebuilt | None:
        """A few of the items, spread over the data set, and what the method makes of them; None where it does not."""
        if data.items is None or data.tokenizer is None:
            return None
        count = min(len(data.graphs), 3 if data.items.kind in MOVING else 5)
        chosen = np.linspace(0, len(data.graphs) - 1, count).round().astype(int).tolist()
        graph = self.plan.transform(data.batch(chosen)).to(self.device)
        with evaluating(self.method), seeded(0, self.device):
            found = self.method.reconstruct(graph, torch.Generator(self.device).manual_seed(0))
        if found is None:
            return None
        hidden, content = (part.cpu() for part in found)
        graph = graph.to("cpu")
        given, back = dense(graph.x), data.tokenizer.back
        covered = given.masked_fill(hidden[:, None], float("nan"))
        bones = getattr(data.tokenizer, "bones", ())
        return Rebuilt(data.items.kind, back(graph, given), back(graph, covered), back(graph, content), bones)


def write_table(
    path: Path, kind: str, what: str, codes: Tensor, names: Sequence[Any] | None, order: Tensor | None
) -> None:  # fmt: skip
    """Writes codes [n, D] with a column of names, or of row numbers, before them: ``kind`` ".csv" or ".parquet".

    Row i of the table is row ``order[i]``, named ``names[order[i]]``; None: row i.
    """
    columns = [what, *(f"code_{i}" for i in range(codes.size(1)))]

    def blocks() -> Iterator[tuple[list[Any], Tensor]]:
        for rows in torch.arange(len(codes)).split(2**14):
            from_ = rows if order is None else order[rows]
            yield rows.tolist() if names is None else [names[i] for i in from_.tolist()], codes[from_]

    if kind == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for some, block in blocks():
                writer.writerows([name, *row] for name, row in zip(some, block.tolist(), strict=True))
        return
    pyarrow, parquet = arrow(path)
    whole = names is None or all(type(name) is int for name in names)
    types = [pyarrow.int64() if whole else pyarrow.string(), *[pyarrow.float32()] * codes.size(1)]
    schema = pyarrow.schema(list(zip(columns, types, strict=True)))
    with parquet.ParquetWriter(path, schema) as table:
        for some, block in blocks():
            arrays = [some if whole else list(map(str, some)), *block.T.contiguous().numpy()]
            table.write_batch(
                pyarrow.record_batch([pyarrow.array(*pair) for pair in zip(arrays, types, strict=True)], schema=schema)
            )


def free(path: Path, overwrite: bool) -> None:
    """Raises UserError where there is something at ``path`` and it is not to be replaced."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another name, or overwrite=True (--overwrite)")


def names_of(protocol: str | Sequence[str] | None, data: Dataset) -> tuple[str, ...]:
    """Names of the protocols asked for, each once; all that ``data`` offers where none is."""
    asked = (protocol,) if isinstance(protocol, str) else protocol or data.protocols
    return tuple(dict.fromkeys(get_protocol(name).name for name in asked))


def subject_of(
    codes_of: Callable[[Dataset], Tensor], data: Dataset, protocol: str | Sequence[str] | None, one_graph: bool = False
) -> Tensor | LinkCodes:
    """What is judged: codes by the encoder ``codes_of`` and, where a protocol asks, of a link set's second graph.

    ``one_graph`` says that the encoder cannot embed that: UserError where such a ``protocol`` is asked for by name.
    """
    codes = codes_of(data)
    if data.task != "link":
        return codes
    asked = any(get_protocol(name).two_graphs for name in names_of(protocol, data))
    if one_graph and asked and protocol:
        raise UserError(
            "link-mlp-valmsg embeds a second graph, and this encoder has learned a row for each node of one and cannot "
            "embed another; judge by link-dot or link-mlp"
        )
    two = asked and data.with_val is not None and not one_graph
    return LinkCodes(codes, codes_of(data.replace(graphs=[data.with_val])) if two else None)


def judge_all(
    subjects: Mapping[str, Tensor | LinkCodes], data: Dataset, protocol: str | Sequence[str] | None, *, seed: int,
    notes: tuple[str, ...] = (), published: Mapping[str, Published] | None = None, pooling: str = "mean",
    unlike: str = "", pretexts: tuple[str, ...] = (), controls: bool = True,
) -> Report:  # fmt: skip
    """A Report of ``subjects`` (codes by name, the first is judged), raw features (``controls``) and published figures.

    ``unlike`` says how the run differs from the one that published figures stand for, ``pretexts`` which protocols ask
    for what it was trained to predict. Without a ``protocol`` an array of codes is judged by those that need no more.
    """
    two = all(isinstance(codes, LinkCodes) and codes.with_val is not None for codes in subjects.values())
    names = [name for name in names_of(protocol, data) if protocol or two or not get_protocol(name).two_graphs]
    if not names:
        raise UserError(
            f"data set {data.name!r} offers no protocol to judge codes by (labels, a split or edges are missing, or "
            "its labels are of a kind that none takes yet); use embed or plot, or give labels"
        )
    everyone: dict[str, Tensor | LinkCodes | None] = {**subjects, **({RAW: None} if controls else {})}
    judged, rows = next(iter(subjects)), []
    total, quiet = len(names) * len(everyone), not sys.stderr.isatty()
    with tqdm(total=total, desc=f"judging on {data.name}", leave=False, disable=quiet, dynamic_ncols=True) as bar:
        for name in names:
            about, figure = get_protocol(name), (published or {}).get(name)
            for who, codes in everyone.items():
                bar.set_postfix_str(f"{name}, {who}")
                said = (*notes, *data.notes) if who == judged else ()
                if about.task != "link":  # it asks for no pair that is held out
                    said = tuple(note for note in said if note != EDGE_EXPOSURE)
                if who == judged and name in pretexts:
                    said += (PRETEXT.format(name),)
                if who == judged and figure and unlike:
                    said += (f"not the run that the published figure stands for: {unlike}",)
                found = judge_raw(data, name, seed, pooling) if codes is None else judge(codes, data, name, seed)
                rows.append(Row.of(about, who, found, notes=said))
                bar.update()
            if figure:
                rows.append(Row.published(about, figure.score, figure.std, figure.source, figure.std_over))
    return Report(data.name, rows)


_judged_raw: WeakKeyDictionary[Dataset, dict[tuple[str, int, int, str], Outcome]] = WeakKeyDictionary()


def judge_raw(data: Dataset, protocol: str, seed: int, pooling: str) -> Outcome:
    """What the protocol says of raw features, once for each data set object: methods come and go beside it."""
    known = _judged_raw.setdefault(data, {})
    key = (protocol, get_protocol(protocol).version, seed, pooling if data.level == "graph" else "")
    if key not in known:
        raw = raw_features(data, pooling)
        known[key] = judge(LinkCodes(raw, raw) if data.task == "link" else raw, data, protocol, seed)
    return known[key]


def raw_features(data: Dataset, how: str) -> Tensor:
    """The content itself as codes: of nodes as it is, of graphs pooled as the encoder pools, or by the mean."""
    if data.items is not None:
        return data.items.flat()
    if data.level == "node":
        return dense(data.source.x)
    return torch.cat([pool(graph, dense(graph.x), plain(how)) for graph in data.graphs])


def load(
    folder: str | Path, *, method: Method | None = None, encoder: nn.Module | None = None, unfinished: bool = False
) -> Pretrained:
    """The run that ``pretrain(out=...)`` or ``save`` wrote to ``folder``; nothing is unpickled.

    A run of your own Method or encoder module needs such an object again, as ``method`` or ``encoder``. ``unfinished``
    reads the checkpoint of a run that was stopped, to look at or to go on from with other settings.
    Raises UserError for a folder that is no run, that is damaged, or unfinished where that was not asked for.
    """
    folder = Path(folder).expanduser()
    config = store.read_config(folder)
    if not (config["finished"] or unfinished):
        raise UserError(
            f"the run in {folder} has not finished; go on with resume=True (graphssl pretrain ... --resume), or read "
            "its last checkpoint with load(folder, unfinished=True)"
        )
    settings, own = dict(config["settings"]), config.get("own_encoder")
    if (encoder is not None and not own) or (method is not None and config["recipe"] != "custom"):
        raise UserError(
            f"the run in {folder} is of the recipe {config['recipe']!r} and needs no such object; leave it out"
        )
    if own and encoder is None:
        raise UserError(
            f"the run in {folder} used an encoder of your own ({own}); pass load(folder, encoder=...) with one"
        )
    if own:
        settings["encoder"] = copy.deepcopy(encoder)
    if config["recipe"] == "custom" and method is None:
        name = config["method"]
        raise UserError(
            f"the run in {folder} used a method of your own ({name}); pass load(folder, method=...) with one"
        )
    recipe = custom(method) if config["recipe"] == "custom" and method is not None else get_recipe(config["recipe"])
    try:
        with seeded(config["seed"]), memory_advice("building the model"):
            plan = recipe.plan(Spec(**config["spec"]), settings)
    except TypeError as error:
        raise UserError(f"{folder / store.CONFIG} was damaged or is of another version ({error})") from error
    lines = store.read_metrics(folder)
    if config["finished"]:
        tensors, _ = store.read_tensors(folder / store.WEIGHTS)
        store.load_tensors(plan.method, tensors, str(folder / store.WEIGHTS))
    else:
        step, _ = store.load_checkpoint(folder, plan.method)
        lines = [line for line in lines if line["step"] <= step]
        config["epochs"], config["steps"] = int(lines[-1]["epoch"]) if lines else 0, step
    head = None
    if (folder / store.HEAD).exists():
        tensors, _ = store.read_tensors(folder / store.HEAD)
        head = nn.Linear(tensors["weight"].size(1), tensors["weight"].size(0)).eval()
        store.load_tensors(head, tensors, str(folder / store.HEAD))
    plan.method.eval()
    return Pretrained(plan, recipe, config, lines=lines, module=encoder, head=head)
