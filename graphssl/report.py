"""What an evaluation says: figures by protocol, controls of the same run beside them, as text and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from graphssl.errors import UserError
from graphssl.probes import Outcome, Protocol, get_protocol

RAW = "raw features"
UNTRAINED = "untrained encoder"
PUBLISHED = "published"

WIDTH = 100


@dataclass(frozen=True)
class Row:
    """One line of a report: codes judged by a protocol, or a figure from the literature."""

    protocol: str
    version: int
    name: str  # "graphmae", or one of UNTRAINED, RAW, PUBLISHED
    score: float
    std: float | None = None
    std_over: str = ""
    metrics: dict[str, float] = field(default_factory=dict)  # every figure by name, the headline first
    notes: tuple[str, ...] = ()
    source: str = ""  # of a published figure: where it stands
    dataset: str = ""

    @classmethod
    def of(cls, protocol: Protocol, name: str, outcome: Outcome, notes: Iterable[str] = ()) -> Row:
        """The row of what ``judge`` returned for codes called ``name``; ``notes`` are added to its own."""
        figures = {key: getattr(outcome, key) for key in ("score", "std", "std_over", "metrics")}
        return cls(protocol.name, protocol.version, name, notes=(*outcome.notes, *notes), **figures)

    @classmethod
    def published(
        cls, protocol: Protocol, score: float, std: float | None = None, source: str = "", std_over: str = ""
    ) -> Row:
        """The row of a figure from the literature, with its ``source``."""
        return cls(protocol.name, protocol.version, PUBLISHED, score, std, std_over, source=source)


@dataclass(frozen=True)
class Heading:
    """What a report says about a protocol, kept with it so that an old file can be read."""

    metric: str
    higher_is_better: bool
    unit: str
    about: str

    @classmethod
    def of(cls, protocol: str) -> Heading:
        known = get_protocol(protocol)
        return cls(known.metric, known.higher_is_better, known.unit, known.about)


@dataclass(frozen=True)
class Report:
    """Rows of figures; the first is of the codes that were judged, and ``score``, ``std`` and the rest are its own.

    >>> protocol = get_protocol("node-linear")
    >>> report = Report("cora", [Row.of(protocol, "graphmae", judge(codes, dataset, protocol.name))])
    >>> print(report)  # the same as report.table()
    """

    dataset: str
    rows: Sequence[Row]
    headings: dict[str, Heading] = field(default_factory=dict)  # by protocol; those of known protocols are filled in

    def __post_init__(self) -> None:
        if not self.rows:
            raise UserError(
                f"a report needs a row, and that about {self.dataset!r} has none; name a protocol to judge by"
            )
        rows = [row if row.dataset else replace(row, dataset=self.dataset) for row in self.rows]
        object.__setattr__(self, "rows", rows)
        missing = {row.protocol: Heading.of(row.protocol) for row in rows if row.protocol not in self.headings}
        object.__setattr__(self, "headings", {**self.headings, **missing})

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the protocols, in the order of the rows."""
        return tuple(dict.fromkeys(row.protocol for row in self.rows))

    @property
    def protocol(self) -> str:
        return self.rows[0].protocol

    @property
    def score(self) -> float:
        """The headline figure of the first protocol; accuracy, AUC and AP in percent."""
        return self.rows[0].score

    @property
    def std(self) -> float | None:
        return self.rows[0].std

    @property
    def std_over(self) -> str:
        """What ``std`` is over: "10 splits", "10 folds", "3 probe initialisations"; "": nothing was repeated."""
        return self.rows[0].std_over

    @property
    def higher_is_better(self) -> bool:
        return self.headings[self.protocol].higher_is_better

    @classmethod
    def join(cls, reports: Iterable[Report]) -> Report:
        """All rows of ``reports`` in one, the same control or published figure once."""
        reports = list(reports)
        if not reports:
            raise UserError("there are no reports to join; give at least one")
        rows: list[Row] = []
        headings: dict[str, Heading] = {}
        versions: dict[str, int] = {}
        for report in reports:
            for row in report.rows:
                if versions.setdefault(row.protocol, row.version) != row.version:
                    raise UserError(
                        f"reports by versions {versions[row.protocol]} and {row.version} of {row.protocol} cannot "
                        "stand in one table; evaluate the older codes again"
                    )
                if row not in rows:
                    rows.append(row)
            headings |= {name: heading for name, heading in report.headings.items() if name not in headings}
        return cls(", ".join(dict.fromkeys(report.dataset for report in reports)), rows, headings)

    def to_json(self) -> dict[str, Any]:
        """The report as dicts, lists, texts and numbers, for ``json.dump``."""
        rows = [{**asdict(row), "notes": list(row.notes)} for row in self.rows]
        return {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "score": self.score,
            "std": self.std,
            "std_over": self.std_over,
            "higher_is_better": self.higher_is_better,
            "rows": rows,
            "headings": {name: asdict(heading) for name, heading in self.headings.items()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Report:
        """The report that ``to_json`` wrote; its protocols need not exist any more."""
        rows = [Row(**{**row, "notes": tuple(row["notes"])}) for row in content["rows"]]
        return cls(content["dataset"], rows, {name: Heading(**h) for name, h in content["headings"].items()})

    def table(self) -> str:
        """The report as plain text for a terminal of 100 columns, one block for each data set and protocol."""
        blocks = dict.fromkeys((row.dataset, row.protocol) for row in self.rows)
        return "\n\n".join(self._block(dataset, protocol) for dataset, protocol in blocks)

    def __str__(self) -> str:
        return self.table()

    def _block(self, dataset: str, protocol: str) -> str:
        rows = [row for row in self.rows if (row.dataset, row.protocol) == (dataset, protocol)]
        heading = self.headings[protocol]
        headline = next((next(iter(row.metrics)) for row in rows if row.metrics), heading.metric)
        unit = f" ({heading.unit})" if heading.unit else ""
        direction = "higher" if heading.higher_is_better else "lower"
        lines = [f"{dataset}: {protocol} (version {rows[0].version}), {headline}{unit}; {direction} is better"]
        lines += textwrap.wrap(heading.about, WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines.append("")
        cells, below = self._fitting(rows, headline, heading)
        lines += _align(cells)
        for note in below:
            lines += textwrap.wrap(note, WIDTH, initial_indent="  ", subsequent_indent="    ")
        for row in rows:
            for note in (*row.notes, *([f"from {row.source}"] if row.source else [])):
                lines += textwrap.wrap(f"{row.name}: {note}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)

    def _fitting(self, rows: list[Row], headline: str, heading: Heading) -> tuple[list[list[str]], list[str]]:
        """The cells of a block that fit into ``WIDTH`` columns, and what to say below about those that do not.

        What the spread is over goes first, then figures from the right, those of the headline's metric last.
        """
        beside = list(
            dict.fromkeys(name for row in rows for name in list(row.metrics)[1:] if not name.endswith(", validation"))
        )
        metric = headline.split(", ")[0]
        leaving = [name for name in beside if name.split(", ")[0] == metric]
        leaving += [name for name in beside if name not in leaving]
        spread, left_out = True, []
        while True:
            cells = self._cells(rows, headline, heading, beside, spread)
            if max(map(len, _align(cells))) <= WIDTH or not (spread or leaving):
                break
            if spread:
                spread = False
            else:
                left_out.append(leaving.pop())
                beside.remove(left_out[-1])
        over = dict.fromkeys(row.std_over for row in rows if row.std_over and not spread)
        below = [f"{', '.join(row.name for row in rows if row.std_over == what)}: ± over {what}" for what in over]
        if left_out:
            below.append(f"in to_json() only: {'; '.join(reversed(left_out))}")
        return cells, below

    def _cells(
        self, rows: list[Row], headline: str, heading: Heading, beside: list[str], spread: bool
    ) -> list[list[str]]:
        """A block's table with the figures ``beside``, its header first; columns that no row fills are left out."""
        digits = 1 if heading.unit == "%" else 3
        control = next((row.score for row in rows if row.name == UNTRAINED), None)

        def difference(row: Row) -> str:
            if control is None or row.name == UNTRAINED:
                return ""
            gain = row.score - control
            verdict = "" if heading.higher_is_better else " better" if gain < 0 else " worse"
            return f"{gain:+.{digits}f}{verdict}"

        cells = [["", headline, *beside, "against untrained", "± over"]]
        for row in rows:
            score = f"{row.score:.{digits}f}" + (f" ± {row.std:.{digits}f}" if row.std is not None else "")
            others = [f"{row.metrics[name]:.{digits}f}" if name in row.metrics else "" for name in beside]
            cells.append([row.name, score, *others, difference(row), row.std_over if spread else ""])
        filled = [column for column in range(len(cells[0])) if any(line[column] for line in cells[1:])]
        return [[line[column] for column in filled] for line in cells]


def _align(cells: list[list[str]]) -> list[str]:
    """Lines of text: names to the left, figures below each other, the header broken into several lines."""
    header = [textwrap.wrap(text, 16) for text in cells[0]]
    height = max(len(text) for text in header)
    header = [[""] * (height - len(text)) + text for text in header]
    lines = [[text[line] for text in header] for line in range(height)] + cells[1:]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  " + "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
