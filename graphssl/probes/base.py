"""What a protocol is, the list of them, and the one place where test labels are read.

A protocol sets exams. Each shows a probe the codes and labels of its training and validation rows (``Seen``), asks for
predictions on the test rows, and only then, in ``Examiner``, opens the envelope with the answers.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from graphssl.data.dataset import Dataset, Split
from graphssl.errors import UserError, unknown
from graphssl.ops.rows import Rows, dense
from graphssl.probes.metrics import Metric

T = TypeVar("T")  # what a probe reads: codes [n, D], or pairs of them
Decoder = Callable[[Tensor, Tensor], Tensor]  # (codes [N, D], pairs [2, M]) -> [M]: the higher the likelier an edge


@dataclass(frozen=True, eq=False)
class LinkCodes:
    """Codes of the nodes of a link set, and what else of the same run a link protocol may ask for."""

    codes: Tensor  # [N, D], of the graph of training edges
    with_val: Tensor | None = None  # [N, D], of ``Dataset.with_val`` by the same encoder; None: an array has none
    score: Decoder | None = None  # the method's own decoder; None: it has none


@dataclass(frozen=True)
class Outcome:
    """What a protocol says about codes; shares in percent."""

    score: float  # the headline
    std: float | None = None  # of the population, as the field's papers give it; None: nothing was repeated
    std_over: str = ""  # "10 splits", "10 folds", "3 probe initialisations"
    metrics: dict[str, float] = field(default_factory=dict)  # every figure by name, the headline first
    repeats: int = 1
    notes: tuple[str, ...] = ()


Judge = Callable[[Any, Dataset, int], Outcome]


@dataclass(frozen=True)
class Protocol:
    """A fixed way of judging frozen codes; recipes cannot change it, and ``version`` grows when a number could move."""

    name: str
    version: int
    task: str  # "node" (of node sets, and of the graphs of link sets), "graph" or "link"
    metric: str
    higher_is_better: bool
    about: str  # one sentence: split source, label budget, probe and grid, selection, repeats
    judge: Judge  # (codes or, of links, LinkCodes; data set; seed) -> Outcome
    labels: str | None = "classes"  # what it needs in ``Dataset.y``: "classes", "numbers", or None: nothing
    unit: str = "%"  # of its figures; "": none
    two_graphs: bool = False  # it asks for codes of ``Dataset.with_val`` too, so that an array of codes is not enough


PROTOCOLS: dict[str, Protocol] = {}


def register(protocol: Protocol) -> Protocol:
    """Adds ``protocol`` to the list; raises UserError where another one has its name."""
    if PROTOCOLS.get(protocol.name, protocol) is not protocol:
        raise UserError(f"there is a protocol {protocol.name!r} already; give yours another name")
    PROTOCOLS[protocol.name] = protocol
    return protocol


def list_protocols(pattern: str = "*") -> list[str]:
    """Names of the protocols that match ``pattern``, such as "node-*"."""
    return sorted(fnmatch.filter(PROTOCOLS, pattern))


def get_protocol(name: str) -> Protocol:
    """The protocol called ``name``; raises UserError that suggests the nearest name."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def judge(codes: Any, dataset: Dataset, protocol: str, seed: int = 0, notes: Iterable[str] = ()) -> Outcome:
    """Judges ``codes`` [N, D] of the nodes (or [B, D] of the graphs) of ``dataset`` by the protocol of that name.

    ``codes`` may be a tensor, an array or sparse rows, and LinkCodes of them on a link set, where a protocol for nodes
    judges those of the training graph; ``notes`` are added to the outcome's own. The global random state is neither
    used nor changed. Raises UserError where the protocol does not fit the data set, labels or splits are missing, or
    the codes have another number of rows or values that are not finite.
    """
    chosen, asked = get_protocol(protocol), dataset
    if chosen.task == "node" and dataset.task == "link":
        dataset, codes = dataset.as_nodes(), codes.codes if isinstance(codes, LinkCodes) else codes
    _check_fit(chosen, dataset, asked)
    outcome = chosen.judge(_check(codes, dataset), dataset, seed)
    return replace(outcome, notes=(*outcome.notes, *notes))


def _offers(dataset: Dataset) -> str:
    return f"it offers {', '.join(dataset.protocols)}" if dataset.protocols else "it offers no protocol"


def _check_fit(protocol: Protocol, dataset: Dataset, asked: Dataset) -> None:
    if protocol.task != dataset.task:
        raise UserError(
            f"{protocol.name} judges codes on {protocol.task} sets, but {dataset.name!r} is a {dataset.task} set; "
            f"{_offers(asked)}"
        )
    if protocol.labels is None:
        return
    if dataset.y is None:
        raise UserError(
            f"{protocol.name} needs labels, but data set {dataset.name!r} has none (y is None); {_offers(asked)}"
        )
    if dataset.y.ndim > 2 or (dataset.y.ndim == 2 and dataset.y.size(1) != 1):
        raise UserError(
            f"{protocol.name} needs one label a {dataset.level}, but y of {dataset.name!r} has shape "
            f"{tuple(dataset.y.shape)}; choose a column: dataset.replace(y=dataset.y[:, 0])"
        )
    kind = "numbers" if dataset.y.is_floating_point() else "classes"
    if kind != protocol.labels:
        raise UserError(
            f"{protocol.name} needs labels that are {protocol.labels}, but those of {dataset.name!r} are {kind} "
            f"({dataset.y.dtype}); {_offers(asked)}"
        )


def _check(codes: Any, dataset: Dataset) -> Tensor | LinkCodes:
    if not isinstance(codes, LinkCodes):
        return _check_codes(codes, dataset)
    if dataset.task != "link":
        raise UserError(f"LinkCodes came for {dataset.name!r}, which is no link set; give their field codes alone")
    first, second = _check_codes(codes.codes, dataset), codes.with_val
    if second is not None:
        second = first if second is codes.codes else _check_codes(second, dataset)
        if second.size(1) != first.size(1):
            raise UserError(
                f"codes of the training graph have width {first.size(1)} and those with validation edges "
                f"{second.size(1)}; give both of one encoder"
            )
    return LinkCodes(first, second, codes.score)


def _check_codes(codes: Any, dataset: Dataset) -> Tensor:
    """``codes`` as float32 [rows, D] on the CPU."""
    codes = dense(codes) if isinstance(codes, Rows) else torch.as_tensor(codes)
    codes = codes.detach().cpu()
    count = len(dataset.graphs) if dataset.level == "graph" else dataset.num_nodes
    if codes.ndim != 2 or codes.size(0) != count or codes.size(1) == 0:
        raise UserError(
            f"codes have shape {tuple(codes.shape)}, but data set {dataset.name!r} has {count} {dataset.level}s; "
            f"give one row a {dataset.level}, [{count}, width]"
        )
    codes = codes.float()
    bad = ~codes.isfinite()
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise UserError(
            f"codes have {int(bad.sum())} values that are NaN, infinite or beyond float32, the first in row {row}, "
            f"column {column}; look at the run's losses, or try a smaller learning rate"
        )
    return codes


@dataclass(frozen=True, eq=False)
class Seen(Generic[T]):
    """All that a probe is shown of one repeat: training and validation rows with their labels, and how it is scored."""

    train: T
    train_y: Tensor  # [n]
    val: T
    val_y: Tensor  # [m]; m = 0 where a protocol leaves selection to folds of the training rows
    metric: Metric
    dataset: str = ""  # its name

    @property
    def num_classes(self) -> int:
        return int(torch.cat([self.train_y, self.val_y]).max()) + 1


@dataclass(frozen=True, eq=False)
class Fitted(Generic[T]):
    """A fitted probe, or I of them that differ in how they were initialised."""

    predict: Callable[[T], dict[str, Tensor]]  # rows -> predictions [I, M, ...] by figure, the headline first
    chosen: tuple[str, ...] = ()  # what selection chose, one entry each


Fit = Callable[[Seen[T], tuple[int, ...]], Fitted[T]]  # (what may be seen, a seed for each initialisation) -> Fitted


@dataclass(frozen=True, eq=False)
class Exam(Generic[T]):
    """One repeat: what the probe sees, the test rows, and an envelope with their labels."""

    seen: Seen[T]
    questions: T  # the M test rows, without labels
    answers: Callable[[], Tensor]  # -> [M]


@dataclass(frozen=True, eq=False)
class Exams(Generic[T]):
    """The repeats of a protocol on one data set, made one at a time."""

    exams: Iterator[Exam[T]]
    count: int
    each: str  # "split", "fold" or "draw"
    metrics: Mapping[str, Metric]  # by name, the headline and what selection goes by first
    notes: tuple[str, ...] = ()
    fits: str = "probe initialisations"  # what several fits of a single repeat differ in


@dataclass(frozen=True)
class Examiner(Generic[T]):
    """A protocol's ``judge``, of two functions: one sets the exams, one fits a probe to what an exam shows.

    Every protocol here is one, and so can yours be: nothing that ``fit`` is given leads to a test label.
    """

    set_exams: Callable[[Any, Dataset], Exams[T]]  # (codes or LinkCodes, data set)
    fit: Fit[T]
    initialisations: int = 1  # of the probe where there is a single repeat

    def __call__(self, codes: Any, dataset: Dataset, seed: int) -> Outcome:
        with one_thread(), torch.inference_mode(False), torch.enable_grad():
            return self._judge(codes, dataset, seed)

    def _judge(self, codes: Any, dataset: Dataset, seed: int) -> Outcome:
        exams = self.set_exams(codes, dataset)
        initialisations = self.initialisations if exams.count == 1 else 1
        figures: dict[str, list[Tensor]] = {}
        chosen: Counter[str] = Counter()
        for number, exam in enumerate(exams.exams):
            seeds = np.random.SeedSequence((seed, number)).generate_state(initialisations)
            fitted = self.fit(exam.seen, tuple(seeds.tolist()))
            chosen.update(fitted.chosen)
            predictions = fitted.predict(exam.questions)
            answers = exam.answers()  # the only reading of test labels; nothing is fitted or chosen from here on
            for figure, prediction in predictions.items():
                for name, metric in exams.metrics.items():
                    figures.setdefault(f"{name}, {figure}" if figure else name, []).append(metric(prediction, answers))
            if len(exam.seen.val_y):
                prediction = next(iter(fitted.predict(exam.seen.val).values()))
                for name, metric in exams.metrics.items():
                    figures.setdefault(f"{name}, validation", []).append(metric(prediction, exam.seen.val_y))
        values = {name: torch.cat(parts).double() for name, parts in figures.items()}
        headline = next(iter(values.values()))
        repeats = len(headline)
        notes = exams.notes
        if chosen:
            times = [f"{what} ({count} of {repeats})" if repeats > 1 else what for what, count in chosen.most_common()]
            notes = (*notes, f"{', '.join(times)}, chosen without test labels")
        each = f"{exams.each}s" if exams.count > 1 else exams.fits
        return Outcome(
            score=float(headline.mean()),
            std=float(headline.std(correction=0)) if repeats > 1 else None,
            std_over=f"{repeats} {each}" if repeats > 1 else "",
            metrics={name: float(value.mean()) for name, value in values.items()},
            repeats=repeats,
            notes=notes,
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch works on one thread: probes are small, and their figures do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_splits(dataset: Dataset, needs_validation: bool = True) -> tuple[Split, ...]:
    """The repeats of the data set's first split; raises UserError where it has none, or parts are empty or overlap."""
    splits = next(iter(dataset.splits.values()), ())
    if not splits:
        raise UserError(
            f"data set {dataset.name!r} has no split, which the protocol needs; "
            "give train_mask, val_mask and test_mask, or dataset.replace(splits={'mine': (Split(train, val, test),)})"
        )
    for number, split in enumerate(splits):
        parts = {"training": split.train, "validation": split.val, "test": split.test}
        for part, rows in parts.items():
            if rows.numel() == 0 and (needs_validation or part != "validation"):
                raise UserError(
                    f"split {number} of {dataset.name!r} has no {part} rows, which the protocol needs; set some aside"
                )
        if split.test.ndim == 1:
            joined = torch.cat([rows.unique() for rows in parts.values()])
            twice = joined.numel() - joined.unique().numel()
            if twice:
                raise UserError(f"split {number} of {dataset.name!r} has {twice} rows in more than one part; part them")
    return splits


def row_exam(
    codes: Tensor, y: Tensor, train: Tensor, val: Tensor, test: Tensor, metric: Metric, name: str = ""
) -> Exam[Tensor]:
    """The exam on rows of ``codes`` with labels ``y``; row numbers [n], [m] (may be empty) and [M]."""
    seen = Seen(codes[train], labels(y, train), codes[val], labels(y, val), metric, name)
    if not y.is_floating_point() and seen.train_y.unique().numel() < 2:
        raise UserError(
            "the training rows are all of one class, so there is nothing to tell apart; give rows of two classes"
        )
    return Exam(seen, codes[test], lambda: labels(y, test))


def labels(y: Tensor, rows: Tensor) -> Tensor:
    """The labels of ``rows`` [n]: classes as int64, numbers as float64; raises UserError where one is missing."""
    found = y[rows].reshape(-1)
    missing = found.isnan() if found.is_floating_point() else found < 0
    if missing.any():
        row = int(rows[missing.nonzero()[0, 0]])
        raise UserError(
            f"{int(missing.sum())} rows of a split have no label (NaN or negative), the first is row {row}; drop them"
        )
    return found.double() if found.is_floating_point() else found.long()
