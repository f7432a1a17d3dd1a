"""Reports: what they show, and that nothing is lost on the way to JSON and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from graphssl.errors import UserError
from graphssl.probes import Outcome, get_protocol
from graphssl.report import RAW, UNTRAINED, Report, Row


def linear(name: str, last: float, early: float) -> Row:
    metrics = {"accuracy, last epoch": last, "accuracy, best validation epoch": early, "accuracy, validation": 79.0}
    outcome = Outcome(
        last, 0.31, "3 probe initialisations", metrics, 3, ("chosen without the test rows: weight decay 0",)
    )
    return Row.of(get_protocol("node-linear"), name, outcome)


def cora() -> Report:
    published = Row.published(get_protocol("node-linear"), 84.2, 0.4, "table 1, arXiv:2205.10803", "20 seeds")
    neighbours = Row.of(get_protocol("node-knn"), "graphmae", Outcome(82.0, metrics={"accuracy": 82.0}), ["a remark"])
    rows = [
        linear("graphmae", 84.23, 83.9),
        linear(UNTRAINED, 64.0, 63.0),
        linear(RAW, 58.8, 57.5),
        published,
        neighbours,
    ]
    return Report("cora", rows)


def zinc() -> Report:
    outcome = Outcome(0.4341, 0.0142, "10 folds", {"MAE": 0.4341, "RMSE": 0.9}, 10)
    untrained = replace(outcome, score=0.7)
    about = get_protocol("graph-ridge")
    return Report("zinc", (Row.of(about, "graph-jepa", outcome), Row.of(about, UNTRAINED, untrained)))


def test_the_first_row_is_what_the_report_says():
    report = cora()
    assert (report.score, report.std, report.std_over) == (84.23, 0.31, "3 probe initialisations")
    assert report.protocol == "node-linear"
    assert report.protocols == ("node-linear", "node-knn")
    assert report.higher_is_better
    assert not zinc().higher_is_better


def test_the_table_reads_as_text():
    text = cora().table()
    lines = [line.rstrip() for line in text.splitlines()]
    assert str(cora()) == text
    assert lines == text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "cora: node-linear (version 1), accuracy, last epoch (%); higher is better"
    assert "  graphmae            84.2 ± 0.3       83.9               +20.2       3 probe initialisations" in lines
    assert "  untrained encoder   64.0 ± 0.3       63.0                           3 probe initialisations" in lines
    assert "  raw features        58.8 ± 0.3       57.5               -5.2        3 probe initialisations" in lines
    assert "  published           84.2 ± 0.4                          +20.2       20 seeds" in lines
    assert "  published: from table 1, arXiv:2205.10803" in lines
    assert "  graphmae: a remark" in lines
    assert "                      accuracy, last   accuracy, best     against" in lines
    assert "                      epoch            validation epoch   untrained   ± over" in lines
    assert "79.0" not in text  # validation figures stay in the JSON


def test_a_table_too_wide_says_the_rest_below():
    names = ["AUC", "AP", "MRR", "Hits@20", "Hits@50", "Hits@100"]
    figures = {name: 90.0 + place for place, name in enumerate(names)}
    beside = {f"{name}, trained decoder": 80.0 for name in names}
    about = get_protocol("link-mlp")
    trained = Outcome(88.0, 0.5, "3 probe initialisations", figures, 3)
    rows = [Row.of(about, "maskgae", Outcome(90.0, metrics={**figures, **beside})), Row.of(about, UNTRAINED, trained)]
    text = Report("cora/link", rows).table()
    assert max(map(len, text.splitlines())) <= 100
    assert "AUC, trained" in text
    assert "Hits@50" in text
    assert "  untrained encoder: ± over 3 probe initialisations\n" in text
    assert "  in to_json() only: Hits@100; AP, trained decoder; MRR, trained decoder;" in text
    few = Report("cora/link", [replace(rows[1], name=name) for name in ("maskgae", UNTRAINED, RAW)]).table()
    assert "Hits@100" in few
    assert "to_json" not in few
    assert "  maskgae, untrained encoder, raw features: ± over 3 probe initialisations" in few.splitlines()
    assert max(map(len, few.splitlines())) <= 100


def test_other_figures_have_three_decimals():
    lines = zinc().table().splitlines()
    assert lines[0] == "zinc: graph-ridge (version 1), MAE; lower is better"
    assert any(
        line.split() == ["graph-jepa", "0.434", "±", "0.014", "0.900", "-0.266", "better", "10", "folds"]
        for line in lines
    )


def test_json_there_and_back():
    for report in (cora(), zinc()):
        text = json.dumps(report.to_json(), allow_nan=False)
        back = Report.from_json(json.loads(text))
        assert back == report
        assert back.table() == report.table()
    content = cora().to_json()
    assert content["score"] == 84.23
    assert content["rows"][0]["metrics"]["accuracy, validation"] == 79.0


def test_a_file_of_a_protocol_that_is_gone_can_be_read():
    text = json.dumps(cora().to_json()).replace("node-linear", "node-gone")
    assert Report.from_json(json.loads(text)).table().startswith("cora: node-gone (version 1)")


def test_joining_keeps_every_row_once():
    joined = Report.join([cora(), zinc(), cora()])
    assert joined.dataset == "cora, zinc"
    assert len(joined.rows) == 7
    assert joined.table() == f"{cora().table()}\n\n{zinc().table()}"
    assert Report.from_json(joined.to_json()) == joined
    old = Report("cora", [replace(cora().rows[0], version=0)])
    with pytest.raises(UserError, match="versions 1 and 0 of node-linear"):
        Report.join([cora(), old])
    with pytest.raises(UserError, match="no reports"):
        Report.join([])
    with pytest.raises(UserError, match="needs a row"):
        Report("cora", [])
