"""What a recipe is: a typed function from what is known of the data, and settings, to a Plan."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from numbers import Integral, Real
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from graphssl.backbones import EDGE_READERS, Backbone, backbone, foreign
from graphssl.balance import BALANCES, Balance
from graphssl.data import Dataset, Transform
from graphssl.data.dataset import Alter
from graphssl.data.features import ATOM_FIELDS
from graphssl.data.samplers import LOADERS, Loading, read_fanouts
from graphssl.encoder import Encoder
from graphssl.errors import UserError, unknown
from graphssl.methods import Method
from graphssl.ops import Rows
from graphssl.tokens import Items, Tokenizer, from_json, to_json


@dataclass(frozen=True)
class Spec:
    """What a recipe may know of the data: widths, kinds and sizes, never the data."""

    name: str
    task: str
    dim: int  # width of a node's content
    nodes: int  # of all graphs
    edges: int  # of all graphs, self-loops aside
    graphs: int
    sparse: bool  # the content is bags of words
    known: bool = False  # loaded by name, so that the papers' settings and figures for that name are meant
    edge_dim: int = 0  # numbers that an edge carries
    axes: int = 0  # coordinates of where a node stands
    kind: str = "graphs"  # of items: "graphs", or what their tokens were cut of ("images", ...)
    shape: tuple[int | None, ...] = ()  # of such an item; None where they differ
    tokens: Mapping[str, Any] | None = None  # how the data set cuts them where a recipe does not say
    fields: tuple[int, ...] = ()  # widths of the one-hot blocks of content; (): it is not of classes
    edge_fields: tuple[int, ...] = ()  # those of what an edge carries

    def __post_init__(self):
        for key in ("shape", "fields", "edge_fields"):  # lists where they come from JSON
            object.__setattr__(self, key, tuple(getattr(self, key)))

    @property
    def molecules(self) -> bool:
        """Whether these are graphs of OGB's classes of atoms, as named sets, SMILES and csv files of molecules are."""
        return self.task == "graph" and self.fields == ATOM_FIELDS

    @classmethod
    def of(cls, dataset: Dataset) -> Spec:
        if dataset.items is not None and dataset.tokenizer is not None:
            return cls._of_items(dataset, dataset.items, dataset.tokenizer)
        if (stored := dataset.stored) is not None:
            attr, pos = stored.edge_attr, stored.pos
            return cls(
                dataset.name, dataset.task, dataset.dim, stored.num_nodes, stored.num_edges - stored.loops, 1, False,
                dataset.known, 0 if attr is None else attr.shape[1:].numel(),
                0 if pos is None else pos.shape[1:].numel(), fields=dataset.fields, edge_fields=dataset.edge_fields,
            )  # fmt: skip
        nodes = sum(graph.num_nodes for graph in dataset.graphs)
        edges = sum(int((graph.edge_index[0] != graph.edge_index[1]).sum()) for graph in dataset.graphs)
        sparse, count = isinstance(dataset.graphs[0].x, Rows), len(dataset.graphs)
        carried = [graph.edge_attr for graph in dataset.graphs]
        widths = {0 if attr is None else attr.shape[1:].numel() for attr in carried}
        edge_dim = widths.pop() if len(widths) == 1 else 0  # what some graphs lack is left out of a batch
        places = {0 if graph.pos is None else graph.pos.shape[1:].numel() for graph in dataset.graphs}
        axes = places.pop() if len(places) == 1 else 0  # likewise
        return cls(
            dataset.name, dataset.task, dataset.dim, nodes, edges, count, sparse, dataset.known, edge_dim, axes,
            fields=dataset.fields, edge_fields=dataset.edge_fields if edge_dim else (),
        )  # fmt: skip

    @classmethod
    def _of_items(cls, dataset: Dataset, items: Items, tokenizer: Tokenizer) -> Spec:
        """Counts what one of them has where all have the same."""
        count, some = len(items), dataset.batch([0])
        pos = some.pos
        if None in items.shape:
            sizes = [(graph.num_nodes, graph.num_edges) for graph in dataset.graphs]
            nodes, edges = (sum(column) for column in zip(*sizes, strict=True))
        else:
            nodes, edges = some.num_nodes * count, some.num_edges * count
        return cls(
            dataset.name, dataset.task, dataset.dim, nodes, edges, count, False, dataset.known,
            axes=0 if pos is None else pos.size(1), kind=items.kind, shape=items.shape, tokens=to_json(tokenizer),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Published:
    """A figure of the literature, for the report."""

    score: float
    std: float | None
    source: str
    std_over: str = "as published"


@dataclass(frozen=True)
class Select:
    """Ends a run with the weights of the epoch that scored held-out pairs of nodes best, by AUC.

    Looks every ``every`` epochs and stops after ``patience`` looks without a gain. ``dot`` scores by the dot product of
    codes, else the method's own decoder does. Of a node set a share ``hold_out`` of the edges is set aside for this; a
    link set has its validation pairs. No labels are involved.
    """

    every: int = 10
    patience: int = 30
    dot: bool = False
    hold_out: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that pretraining needs besides data."""

    method: Method
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    epochs: int
    schedule: Callable[[float], float] | None = None  # fraction of training done -> factor of the learning rate
    batch_size: int | None = None  # graphs a step; None: 32 of a graph set, all of a node set
    clip: float | None = None
    select: Select | None = None  # which epoch's weights to end with; None: the last one's
    transform: Transform = field(default_factory=Transform)  # applied again in embed and evaluate
    tokenizer: Tokenizer | None = None  # of raw items, there too; None: the data set's own
    alter: Alter | None = None  # what training does to raw items before they are cut
    views: int = 1  # how often a batch holds each item, altered anew
    loading: Loading = field(default_factory=Loading)  # how the steps of one graph are made
    accumulate: int = 1  # batches whose gradients make a step
    published: Mapping[str, Published] = field(default_factory=dict)  # by protocol


def common(
    *, loader: str = "auto", fanouts: str = "10,10", walk_length: int = 4, ego: int = 256, workers: int = 0,
    accumulate: int = 1, checkpoint: bool = False,
) -> Callable[[Plan], Plan]:  # fmt: skip
    """Settings of every recipe: what they make of the Plan that it gives.

    ``loader`` says what a step sees of one graph: "full", all of it; "neighbor", ``batch_size`` nodes (1024 where
    nothing is said), or edges for a method that predicts these, with ``fanouts`` neighbours a hop drawn for each, such
    as "10,5" or (10, 5), -1 for all; "walk", the nodes on random walks of ``walk_length`` steps from so many nodes, as
    GraphSAINT; "cluster", METIS's parts, together about so many nodes; "local", the ``ego`` nodes nearest to each of so
    many; "auto", the whole graph where a step of it fits in memory, else "neighbor". ``workers`` threads make batches
    ahead, with the same result. ``accumulate`` batches make a step. ``checkpoint`` keeps only the inputs of the
    encoder's layers for the backward.
    """
    if loader not in LOADERS:
        raise unknown("loader", loader, LOADERS)
    loading = Loading(loader, read_fanouts(fanouts), walk_length, ego, workers)

    def change(plan: Plan) -> Plan:
        if checkpoint:
            for layer in plan.method.encoder.backbone.layers:
                layer.checkpoint = True  # type: ignore[assignment]
        return replace(plan, loading=loading, accumulate=accumulate)

    return change


@dataclass(frozen=True)
class Recipe:
    """A recipe function with the values it takes for kinds of tasks, for molecules and for named data sets."""

    name: str
    make: Callable[..., Plan]
    by_task: Mapping[str, Mapping[str, Any]]
    by_name: Mapping[str, Mapping[str, Any]]
    published: Mapping[str, Mapping[str, Published]]
    of_molecules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Any]:
        """All settings with the values that they have for data without a name: its own, and those of ``common``."""
        return {**defaults_of(self.make), **COMMON}

    @property
    def hints(self) -> dict[str, Any]:
        """The type of each setting."""
        return get_type_hints(common) | get_type_hints(self.make)

    def settings(self, spec: Spec, given: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe's settings for that data, with those ``given`` on top.

        What is not given comes from the values for the data set's name, else for molecules, else for its task, else
        from the signature.
        Raises UserError for a setting that the recipe does not have, a value of the wrong type or out of its range.
        """
        defaults, hints = self.defaults, self.hints
        for key in given:
            if key not in defaults:
                raise unknown(f"setting of {self.name}", key, defaults)
        if spec.task != "graph" and "batch_size" in defaults:
            defaults["batch_size"] = None  # a signature's is of sets of graphs
        if isinstance(given.get("fanouts"), Sequence) and not isinstance(given["fanouts"], str):
            given = {**given, "fanouts": ",".join(map(str, given["fanouts"]))}
        checked = {key: check(key, value, hints[key]) for key, value in given.items()}
        of_name = self.by_name.get(spec.name) if spec.known else None
        of_kind = self.of_molecules if spec.molecules else None
        return {**defaults, **(of_name or of_kind or self.by_task.get(spec.task, {})), **checked}

    def plan(self, spec: Spec, settings: Mapping[str, Any]) -> Plan:
        """Builds the Plan; weights are drawn from the default generator. Raises UserError for impossible settings."""
        try:
            change = common(**{key: value for key, value in settings.items() if key in COMMON})
            plan = change(self.make(spec, **{key: value for key, value in settings.items() if key not in COMMON}))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.name}: {error}") from error
        if spec.tokens is not None and plan.tokenizer is None:
            plan = replace(plan, tokenizer=from_json(spec.tokens))
        dim = spec.dim if plan.tokenizer is None else plan.tokenizer.width(spec.shape)
        if plan.method.encoder.dim_in != dim:
            raise UserError(
                f"the encoder takes content of width {plan.method.encoder.dim_in}, but {spec.name!r} has {dim}; "
                "build one of that width"
            )
        plan.method.encoder.transform = plan.transform
        return replace(plan, published=self.published.get(spec.name, {}) if spec.known else {})


def defaults_of(make: Callable[..., Any]) -> dict[str, Any]:
    """The keywords of a function and their values where nothing is given."""
    return {p.name: p.default for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY}


COMMON = defaults_of(common)
RECIPES: dict[str, Recipe] = {}


def recipe(
    name: str, *, by_task: Mapping[str, Mapping[str, Any]] | None = None,
    by_name: Mapping[str, Mapping[str, Any]] | None = None,
    published: Mapping[str, Mapping[str, Published]] | None = None, of_molecules: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:  # fmt: skip
    """Registers a function ``(spec, *, setting=..., ...) -> Plan`` under the method's name.

    ``by_task`` holds settings for a task ("node", "link", "graph"), ``of_molecules`` those for ``Spec.molecules``,
    whatever their name, in place of the task's, ``by_name`` those for a data set loaded by name, in place of both;
    ``published`` the literature's figures by data set name and protocol.
    """

    def register(make: Callable[..., Plan]) -> Callable[..., Plan]:
        RECIPES[name] = Recipe(name, make, by_task or {}, by_name or {}, published or {}, of_molecules or {})
        return make

    return register


def list_methods(pattern: str = "*") -> list[str]:
    """Names that ``method=`` takes."""
    return [name for name in sorted(RECIPES) if fnmatch(name, pattern)]


def get_recipe(name: str) -> Recipe:
    """The recipe of that name; UserError with the nearest names otherwise."""
    if name.lower() not in RECIPES:
        raise unknown("method", name, RECIPES)
    return RECIPES[name.lower()]


def parse(recipe: Recipe, key: str, text: str) -> Any:
    """``text`` of a command line as the type that the recipe's setting ``key`` has."""
    if key not in recipe.defaults:
        raise unknown(f"setting of {recipe.name}", key, recipe.defaults)
    hint = recipe.hints[key]
    kinds = getattr(hint, "__args__", (hint,))
    if type(None) in kinds and text.lower() == "none":
        return None
    for kind in kinds:
        if kind is bool and text.lower() in ("true", "false", "yes", "no", "1", "0"):
            return text.lower() in ("true", "yes", "1")
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                continue
    raise UserError(f"setting {key} of {recipe.name} expects {_say(hint)}, got {text!r}")


SHARE = "from 0 up to, not including, 1", lambda v: 0 <= v < 1
COUNT = "1 or more", lambda v: v >= 1
POSITIVE = "above 0", lambda v: v > 0
NOT_NEGATIVE = "0 or more", lambda v: v >= 0
WHOLE_SHARE = "from 0 to 1", lambda v: 0 <= v <= 1
SOME_SHARE = "above 0 and up to 1", lambda v: 0 < v <= 1
RATE = "above 0 and below 1e38", lambda v: 0 < v < 1e38

# what the settings of any recipe may be, by name
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys((
        "width", "inner", "hidden", "layers", "heads", "batch_size", "views", "patience", "decoder_layers",
        "decoder_width", "patch", "frames", "steps", "projection", "dilation", "groups", "neighbours", "hops", "walks",
        "content_nodes", "negative_nodes", "samples", "parts", "r2",
        "walk_length", "ego", "accumulate",
    ), COUNT),
    **dict.fromkeys(("clip", "tau", "alpha", "temperature"), POSITIVE),
    **dict.fromkeys((
        "dropout", "attention_dropout", "decoder_dropout", "edges_1", "edges_2", "features_1", "features_2",
        "features", "warmup", "discrete", "drop_edges", "ratio",
    ), SHARE),
    "edges": (SHARE[0], lambda v: isinstance(v, str) or SHARE[1](v)),  # a share, or how tokens are joined
    "targets": (COUNT[0], lambda v: isinstance(v, str) or COUNT[1](v)),  # how many, or of which kind
    **dict.fromkeys(("replace", "momentum", "hardest"), WHOLE_SHARE),
    **dict.fromkeys(("mask", "mask_end", "remask", "kept", "decoded", "cut", "labels"), SOME_SHARE),
    **dict.fromkeys(("lr", "warmup_lr", "head_lr"), RATE),
    **dict.fromkeys((
        "beta", "gamma", "clusters", "global_nodes", "weight_decay", "seed", "degree", "latent", "weight", "eta", "r1",
        "workers",
    ), NOT_NEGATIVE),
    "epochs": ("0 (untrained) or more", lambda v: v >= 0),
}  # fmt: skip


def check(key: str, value: Any, hint: Any) -> Any:
    """``value`` as the type that the setting ``key`` has; UserError where it is of another or out of its range."""
    kinds = getattr(hint, "__args__", (hint,))
    if isinstance(value, (bool, np.bool_)):
        fits, value = bool in kinds, bool(value)
    elif isinstance(value, Integral) and int in kinds:
        fits, value = True, int(value)
    elif isinstance(value, Real) and float in kinds:
        fits, value = True, float(value)
    else:
        fits = any(kind not in (int, float, bool) and isinstance(value, kind) for kind in kinds)
    if not fits:
        came = f"a {type(value).__name__}" if isinstance(value, nn.Module) else repr(value)
        raise UserError(f"setting {key} expects {_say(hint)}, got {came}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"setting {key} expects a finite number, got {value!r}")
    words, inside = RANGES.get(key, ("", lambda v: True))
    if value is not None and not inside(value):
        raise UserError(f"setting {key} is {value!r}; choose a value {words}")
    return value


def _say(hint: Any) -> str:
    return " or ".join("none" if kind is type(None) else kind.__name__ for kind in getattr(hint, "__args__", (hint,)))


def adam(
    lr: float, weight_decay: float, decoupled: bool = False, betas: tuple[float, float] = (0.9, 0.999),
    spare: nn.Module | None = None,
) -> Callable[[Iterable[nn.Parameter]], Optimizer]:  # fmt: skip
    """Adam with L2 weight decay, or AdamW, as a function of the parameters.

    Of the method ``spare`` only weights of linear maps and their like decay, in the first of two groups: neither
    biases and norms, as in MAE's reference, nor tokens, tables of positions and whatever else has no matrix for inputs.
    """
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    # fused, as small models spend a fifth of a step in it otherwise

    def make(parameters: Iterable[nn.Parameter]) -> Optimizer:
        if spare is None:
            return kind(parameters, lr=lr, weight_decay=weight_decay, betas=betas, fused=True)
        spared = {p for name, p in spare.named_parameters() if p.ndim < 2 or "weight" not in name.rsplit(".")[-1]}
        groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for parameter in parameters:
            groups[parameter in spared].append(parameter)
        decays = zip(groups, (weight_decay, 0.0), strict=True)
        some = [{"params": group, "weight_decay": decay} for group, decay in decays if group]
        return kind(some, lr=lr, betas=betas, fused=True)

    return make


def cosine_decay(progress: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * progress)) / 2


def warmed_up(share: float) -> Callable[[float], float]:
    """A linear rise to 1 over the first ``share`` of training, which may be 0, then half a cosine to 0."""
    return lambda p: p / share if p < share else cosine_decay((p - share) / (1 - share))


def selecting(spec: Spec, select: bool, how: Select) -> Select | None:
    """``how`` where ``select`` asks for it; UserError for a list of graphs, of which no edges are held out."""
    if select and spec.task == "graph":
        raise UserError("select needs one graph whose edges can be held out; leave it out for a list of graphs")
    return how if select else None


def names_in(words: str, pool: Iterable[str], what: str) -> list[str]:
    """The names in ``words``, which commas part, or all of ``pool`` for "all"; UserError for one that is unknown."""
    known = list(pool)
    names = known if words == "all" else [name.strip() for name in words.split(",")]
    for name in names:
        if name not in known:
            raise unknown(what, name, known)
    if len(set(names)) < len(names):
        raise UserError(f"{what}s {words!r} name one twice; name each once")
    return names


def balance_named(name: str, tasks: int) -> Balance:
    """A new Balance of so many tasks by its name in ``BALANCES``."""
    if name not in BALANCES:
        raise unknown("balance", name, BALANCES)
    return BALANCES[name](tasks)


def edges_read(spec: Spec, encoder: str | nn.Module, edge_attr: bool | None = None) -> int:
    """How many attributes of edges a backbone of that name is to read.

    All that ``spec`` has where ``edge_attr`` is True, none where it is False; where it is None all for a backbone that
    is asked for because it reads them ("gine", "gen", "gps"), none for others ("gin").
    """
    reads = isinstance(encoder, str) and encoder.split("+")[0] in EDGE_READERS if edge_attr is None else edge_attr
    return spec.edge_dim if reads else 0


def backbone_of(
    spec: Spec, encoder: str | nn.Module, widths: list[int], *, edge_attr: bool | None = None, dim: int | None = None,
    **options: Any,
) -> Backbone:  # fmt: skip
    """The recipe's backbone, or the user's own module in its place.

    It takes content of width ``dim`` (None: the ``spec``'s) and reads edges as ``edges_read`` says; ``options`` are
    those of ``backbone``.
    """
    dim_in = spec.dim if dim is None else dim
    if isinstance(encoder, Encoder):
        if encoder.read != "last":
            raise UserError(
                f"an Encoder that reads {encoder.read!r} layers cannot stand in for a backbone; hand in its .backbone"
            )
        encoder = encoder.backbone
    if isinstance(encoder, Backbone) and encoder.dim_in != dim_in:
        raise UserError(f"the encoder takes content of width {encoder.dim_in}, but the data has {dim_in}; use another")
    if isinstance(encoder, nn.Module):
        return encoder if isinstance(encoder, Backbone) else foreign(encoder, dim_in)
    return backbone(encoder, dim_in, widths, edge_dim=edges_read(spec, encoder, edge_attr), **options)
