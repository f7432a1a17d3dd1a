"""What pretraining returns: an encoder with its settings, to embed with, judge, tune, save and draw."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphssl import store
from graphssl.data import Dataset, Transform, load_dataset, to_dataset
from graphssl.data.loader import Batches
from graphssl.encoder import Encoder, pool
from graphssl.errors import UserError, unknown
from graphssl.graph import Graph
from graphssl.methods import Method
from graphssl.ops import Content, Rows, dense
from graphssl.probes import EDGE_EXPOSURE, Outcome, get_protocol, judge
from graphssl.recipes import Plan, Recipe, Spec
from graphssl.recipes.base import get_recipe
from graphssl.recipes.custom import custom
from graphssl.report import Report, Row
from graphssl.train import seeded


def dataset_of(data: Any) -> Dataset:
    """A name as a data set loaded, anything else through the door."""
    if isinstance(data, str) and not data.endswith(".npz") and not os.path.isdir(data):
        return load_dataset(data)
    return to_dataset(data)


def fingerprint(dataset: Dataset) -> str:
    """A hash of the graphs' content and edges; labels and splits are no part of it."""
    digest = hashlib.sha256()

    def add(value: Content | Tensor | None) -> None:
        if isinstance(value, Rows):
            for part in (value.csr.ptr, value.csr.col, value.value):
                add(part)
        elif isinstance(value, Tensor):
            digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
            digest.update(np.ascontiguousarray(value.cpu().numpy()).data)

    for graph in dataset.graphs:
        for value in (graph.x, graph.edge_index, graph.edge_weight, graph.edge_attr, graph.pos):
            add(value)
    return digest.hexdigest()[:32]


def versions() -> dict[str, str]:
    """What must be the same for runs to be bit-equal."""
    import torch_geometric

    return {
        "graphssl": version("graphssl"), "python": platform.python_version(), "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__, "numpy": np.__version__, "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }  # fmt: skip


@torch.no_grad()
def embed(
    encode: Callable[[Graph], Tensor], pool: Callable[[Graph, Tensor], Tensor], dataset: Dataset, transform: Transform,
    level: str, device: torch.device | str,
) -> Tensor:  # fmt: skip
    """Codes on the CPU: [N, D] of all nodes in order (``level`` "node") or [B, D] of all graphs ("graph")."""
    if level not in ("node", "graph"):
        raise unknown("level", level, ("node", "graph"))
    parts = []
    for graph in Batches(dataset, transform, device, batch_size=256).in_order():
        codes = encode(graph)
        parts.append((pool(graph, codes) if level == "graph" else codes).float().cpu())
    return torch.cat(parts)


class Pretrained:
    """An encoder and all that is known of how it came to be.

    ``history`` is a dict of lists with one entry an epoch; ``config`` is what config.json holds.
    """

    def __init__(
        self, plan: Plan, recipe: Recipe, config: dict[str, Any], *, dataset: Dataset | None = None,
        history: list[dict[str, float]] | None = None, module: nn.Module | None = None, head: nn.Module | None = None,
    ):  # fmt: skip
        self.plan, self.recipe, self.config, self.dataset, self.head = plan, recipe, config, dataset, head
        self.method: Method = plan.method
        self.encoder: Encoder = plan.method.encoder
        self.module = module  # the user's own encoder before training, for the control
        lines = history or []
        self.history = {key: [line[key] for line in lines if key in line] for key in (lines[-1] if lines else {})}

    def __repr__(self) -> str:
        done = f"{self.config['epochs']} epochs, seed {self.config['seed']}"
        what = f"{self.config['method']} on {self.config['spec']['name']}"
        return f"Pretrained({what}, {done}, codes of width {self.encoder.dim})"

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def data(self, dataset: Any = None) -> Dataset:
        """The data set given, or the one pretrained on; UserError where it is not at hand or does not fit."""
        spec = self.config["spec"]
        if dataset is None and self.dataset is None:
            if spec["name"] in ("data", "graph"):
                raise UserError(
                    "this run was pretrained on data of your own, which is not saved with it; pass it again"
                )
            self.dataset = load_dataset(spec["name"])
            if fingerprint(self.dataset) != self.config["fingerprint"]:
                self.dataset = None
                raise UserError(
                    f"the data set {spec['name']!r} found now differs from the one pretrained on; pass yours"
                )
        chosen = self.dataset if dataset is None else dataset_of(dataset)
        assert chosen is not None
        if chosen.dim != spec["dim"]:
            raise UserError(
                f"{chosen.name!r} has {chosen.dim} features a node, but the encoder was pretrained on {spec['dim']} "
                f"({spec['name']}); give data of that width, or pretrain on this"
            )
        return chosen

    def embed(self, dataset: Any = None, level: str | None = None) -> Tensor:
        """Codes on the CPU: [N, D] of nodes or [B, D] of graphs; ``level`` None: what the data set is about."""
        return self._codes(self.encoder, self.data(dataset), level)

    def _codes(self, encoder: Encoder, dataset: Dataset, level: str | None = None) -> Tensor:
        training = encoder.training
        encoder.eval()
        codes = embed(encoder, encoder.pool, dataset, self.plan.transform, level or dataset.level, self.device)
        encoder.train(training)
        return codes

    def untrained(self) -> Encoder | None:
        """The encoder as it was before the first step; None for a method object of the user's."""
        if self.recipe.name == "custom":
            return None
        spec, settings = Spec(**self.config["spec"]), dict(self.config["settings"])
        if self.module is not None:
            settings["encoder"] = copy.deepcopy(self.module)
        with seeded(self.config["seed"]):
            return self.recipe.plan(spec, settings).method.encoder.to(self.device)

    def evaluate(self, dataset: Any = None, protocol: str | None = None) -> Report:
        """Judges the frozen codes by ``protocol``, or by every one that the data set offers, beside controls.

        The controls are raw features and the encoder before training; where the recipe cites a published figure, that
        too.
        """
        data = self.data(dataset)
        notes = () if data is self.dataset or data.task != "link" else (EDGE_EXPOSURE,)
        before = self.untrained()
        subjects = {self.config["method"]: self._codes(self.encoder, data)}
        if before is not None and self.config["epochs"] > 0:
            subjects["untrained encoder"] = self._codes(before, data)
        published = self.plan.published if data.name == self.config["spec"]["name"] else {}
        return judge_all(
            subjects, data, protocol, seed=self.config["seed"], notes=notes, published=published,
            pooling=self.encoder.pooling,
        )  # fmt: skip

    def finetune(self, dataset: Any = None, **settings: Any) -> Pretrained:
        """Trains encoder and a linear head on the labels of the training part; see ``graphssl.finetune.finetune``."""
        from graphssl.finetune import finetune

        return finetune(self, self.data(dataset), **settings)

    def predict(self, dataset: Any = None) -> Tensor:
        """Outputs of the head that ``finetune`` trained, on the CPU: [N, C] for nodes, [B, C] for graphs."""
        if self.head is None:
            raise UserError("this run has no head; run.finetune(dataset) returns one that has")
        with torch.no_grad():
            return self.head(self.embed(dataset).to(self.device)).cpu()

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Writes config, weights and history to ``folder``; UserError where a run is there already."""
        folder = Path(folder)
        store.open_folder(folder, resume=False, overwrite=overwrite)
        lines = [dict(zip(self.history, values, strict=True)) for values in zip(*self.history.values(), strict=True)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        store.write_atomically(folder / store.METRICS, lambda new: new.write_text(text))
        store.save_weights(folder / store.WEIGHTS, self.method)
        if self.head is not None:
            store.save_weights(folder / store.HEAD, self.head)
        store.write_json(folder / store.CONFIG, {**self.config, "finished": True})
        return folder

    def plot(self, path: str | Path, dataset: Any = None, overwrite: bool = False) -> Path:
        """Draws a 2-D map of the codes, coloured by label where there is one, to ``path`` (.png, .pdf or .svg)."""
        from graphssl.plot import plot_codes

        data = self.data(dataset)
        title = f"{data.name}, {self.config['method']}"
        return plot_codes(self.embed(data), path, data.y, classes=data.classes, title=title, overwrite=overwrite)


def judge_all(
    subjects: dict[str, Tensor], data: Dataset, protocol: str | None, *, seed: int, notes: tuple[str, ...] = (),
    published: Any = None, pooling: str = "mean",
) -> Report:  # fmt: skip
    """A Report of ``subjects`` (codes by name, the first is judged), raw features and published figures."""
    names = (get_protocol(protocol).name,) if protocol else data.protocols
    if not names:
        raise UserError(
            f"data set {data.name!r} has nothing to judge codes by (no labels); use embed, or data with labels"
        )
    raw = raw_features(data, pooling)
    rows = []
    for name in names:
        about = get_protocol(name)
        for who, codes in {**subjects, "raw features": raw}.items():
            outcome: Outcome = judge(codes, data, name, seed)
            own = notes if who in subjects and who != "untrained encoder" else ()
            rows.append(Row.of(about, who, outcome, notes=own))
        if published and name in published:
            figure = published[name]
            rows.append(Row.published(about, figure.score, figure.std, figure.source))
    return Report(data.name, rows)


def raw_features(data: Dataset, how: str) -> Tensor | Rows:
    """The content itself as codes: of nodes as it is, of graphs pooled as the encoder pools."""
    if data.level == "node":
        x = data.graph.x
        return x if isinstance(x, (Tensor, Rows)) else dense(x)
    return embed(lambda graph: dense(graph.x), lambda graph, x: pool(graph, x, how), data, Transform(), "graph", "cpu")


def load(folder: str | Path, *, method: Method | None = None, encoder: nn.Module | None = None) -> Pretrained:
    """The run that ``pretrain(out=...)`` or ``save`` wrote to ``folder``; nothing is unpickled.

    A run of your own Method or encoder module needs that object again, as ``method`` or ``encoder``.
    Raises UserError for a folder that is no finished run, or that is damaged.
    """
    folder = Path(folder)
    config = store.read_config(folder)
    if not config.get("finished"):
        raise UserError(f"the run in {folder} has not finished; go on with pretrain(..., out=..., resume=True)")
    spec, settings = Spec(**config["spec"]), dict(config["settings"])
    own = config.get("own_encoder")
    if own and encoder is None:
        raise UserError(
            f"the run in {folder} used an encoder of your own ({own}); pass load(folder, encoder=...) with one"
        )
    if own:
        settings["encoder"] = copy.deepcopy(encoder)
    recipe = custom(method, config["method"], folder) if config["recipe"] == "custom" else get_recipe(config["recipe"])
    with seeded(config["seed"]):
        plan = recipe.plan(spec, settings)
    tensors, _ = store.read_tensors(folder / store.WEIGHTS)
    store.load_tensors(plan.method, tensors, str(folder / store.WEIGHTS))
    plan.method.eval()
    head = None
    if (folder / store.HEAD).exists():
        tensors, _ = store.read_tensors(folder / store.HEAD)
        head = nn.Linear(tensors["weight"].size(1), tensors["weight"].size(0)).eval()
        store.load_tensors(head, tensors, str(folder / store.HEAD))
    return Pretrained(plan, recipe, config, history=store.read_metrics(folder), module=encoder, head=head)
