"""benchmarks/quality.py: its tables ask for what there is, a unit is run once, and what is shown is what was found."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

import graphssl
from graphssl.data import list_datasets
from graphssl.probes import get_protocol
from graphssl.recipes import get_recipe, list_methods, parse

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "quality.py"
WORDS = ("--sets", "citations-mini", "--methods", "gae", "--set", "epochs=2", "--seeds", "2")
SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C1CCCCC1N"]
SETS_OF_GRAPHS = {"graph", "tokens", "masks", "token-methods", "molecules"}  # tables about them
NOT_DOWNLOADED = {  # known where their files are
    "actor", "chameleon-filtered", "facebook-pagepage", "squirrel-filtered", "tolokers", "twitch-engb", "mnist",
    "modelnet10", "msraction3d", "zinc-30k",
}  # fmt: skip


def script():
    spec = importlib.util.spec_from_file_location("quality_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


quality = script()
CELLS = [(name, cell) for name, (_, cells) in quality.TABLES.items() for cell in cells]


def call(folder, *words):
    """The script's ``main`` with its results, runs and README in ``folder``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quality.py", "--results", str(folder / "results"), *words])
        patch.setattr(quality, "RUNS", folder / "runs")
        patch.setattr(quality, "README", folder / "README.md")
        quality.main()


def cells_of(text, start):
    """The first line of a Markdown table that begins with ``start``, by the name of its column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    header = next(line for line in lines if line[0] == "data set")
    return dict(zip(header, next(line for line in lines if line[: len(start)] == list(start)), strict=True))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    (folder / "README.md").write_text(f"before {quality.OPEN} tables {quality.CLOSE} after")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphssl.probes.node.EPOCHS", 20)
        patch.setattr("graphssl.probes.node.DRAWS", 2)
        call(folder, *WORDS)
    return folder


def units_of(folder):
    return {path.name: json.loads(path.read_text()) for path in (folder / "results" / "quality").iterdir()}


def test_each_seed_is_a_file_of_what_was_found(measured):
    units = units_of(measured)
    assert sorted(units) == ["citations-mini-gae-epochs=2-0.json", "citations-mini-gae-epochs=2-1.json"]
    for seed, unit in enumerate(units[name] for name in sorted(units)):
        assert (unit["dataset"], unit["method"], unit["variant"], unit["seed"]) == (
            "citations-mini",
            "gae",
            "epochs=2",
            seed,
        )
        assert unit["epochs"] == unit["settings"]["epochs"] == 2
        assert unit["pretrain_seconds"] > 0
        assert unit["commit"] == quality.commit()
        assert unit["best"] is None
        report = graphssl.Report.from_json(unit["report"])
        assert report.protocols == graphssl.load_dataset("citations-mini").protocols
        for protocol in report.protocols:
            names = [row.name for row in report.rows if row.protocol == protocol]
            assert names == ["gae", "untrained encoder", "raw features"]
    first, second = units.values()
    assert first["loss"] != second["loss"]


def test_a_unit_is_what_the_same_calls_give(measured):
    run = graphssl.pretrain("citations-mini", "gae", epochs=2, seed=1, progress=False)
    unit = units_of(measured)["citations-mini-gae-epochs=2-1.json"]
    assert unit["loss"] == run.history["loss"][-1]
    found = graphssl.Report.from_json(unit["report"])
    ours = run.evaluate(protocol="node-knn")
    assert [row for row in found.rows if row.protocol == "node-knn"] == list(ours.rows)


def test_a_second_call_runs_nothing(measured, monkeypatch, capsys):
    monkeypatch.setattr(graphssl, "pretrain", lambda *words, **more: pytest.fail("it ran again"))
    before = units_of(measured)
    call(measured, *WORDS)
    assert units_of(measured) == before
    assert "written" not in capsys.readouterr().out
    with pytest.raises(pytest.fail.Exception, match="it ran again"):  # a third seed is missing
        call(measured, *WORDS[:-1], "3")


def test_the_table_has_the_mean_and_deviation_over_seeds_and_the_controls(measured):
    call(measured, "--show")
    text = (measured / "results" / "quality.md").read_text()
    units = list(units_of(measured).values())
    for protocol in ("node-linear", "node-knn"):
        line = cells_of(text, ("citations-mini", "gae with epochs=2", protocol))
        for column, name in (("score", "gae"), ("untrained encoder",) * 2, ("raw features",) * 2):
            one, two = (
                next(
                    row["score"] for row in unit["report"]["rows"] if (row["protocol"], row["name"]) == (protocol, name)
                )
                for unit in units
            )
            deviation = math.sqrt(2) * abs(one - two) / 2  # of two values, divided by n - 1
            assert line[column] == f"{(one + two) / 2:.1f} ± {deviation:.1f}"
        assert line["seeds"] == "2"
        assert line["published"] == line["difference"] == ""
    assert units[0]["commit"] in text
    assert units[0]["machine"] in text


def made_up(dataset, method, seed, score, settings="", published=None, protocol="node-linear", **metrics):
    """A unit's file as ``run_unit`` writes it."""

    def row(name, score, **more):
        figures = {"accuracy": score, **metrics} if name == method else {"accuracy": score}
        return {
            "protocol": protocol,
            "version": 1,
            "name": name,
            "score": score,
            "metrics": figures,
            "notes": [],
            **more,
        }

    rows = [row(method, score), row("untrained encoder", score - 10), row("raw features", 50.0)]
    rows += [row("published", published[0], std=published[1], source="a paper")] if published else []
    return {
        "dataset": dataset, "method": method, "variant": settings, "seed": seed, "pretrain_seconds": 10.0 + seed,
        "commit": "abc", "machine": "a machine", "report": {"dataset": dataset, "rows": rows, "headings": {}},
    }  # fmt: skip


def write(folder, *units):
    (folder / "results" / "quality").mkdir(parents=True)
    for unit in units:
        stem = f"{unit['dataset'].replace('/', '-')}-{unit['method']}-{unit['variant']}-{unit['seed']}"
        (folder / "results" / "quality" / f"{stem}.json").write_text(json.dumps(unit))


def test_figures_by_hand(tmp_path):
    figure = (84.2, 0.4)
    units = [made_up("cora", "graphmae", s, v, published=figure) for s, v in enumerate((80.0, 82.0, 87.0))]
    units += [
        made_up(
            "cora",
            "graphmae",
            0,
            70.0,
            "shared_dropout=true",
            published=figure,
            **{"AUC": 91.26, "best, validation": 3.0},
        )
    ]
    units += [made_up("cora", "gae", 0, 60.0, published=(60.5, None)), made_up("own", "gae", 0, 61.0)]
    write(tmp_path, *units)
    call(tmp_path, "--show")
    text = (tmp_path / "results" / "quality.md").read_text()
    line = cells_of(text, ("cora", "graphmae", "node-linear"))
    # mean 83; squares 9, 1, 16 by two degrees of freedom
    assert line["score"] == f"83.0 ± {math.sqrt(26 / 2):.1f}" == "83.0 ± 3.6"
    assert line["untrained encoder"] == "73.0 ± 3.6"
    assert line["raw features"] == "50.0 ± 0.0"
    assert line["published"] == "84.2 ± 0.4"
    assert line["difference"] == "-1.2"
    assert line["seeds"] == "3"
    assert line["seconds a pretraining"] == "11"
    line = cells_of(text, ("cora", "graphmae with shared_dropout=true"))
    assert line["score"] == "70.0"  # one seed has no deviation
    assert line["difference"] == ""  # a setting was changed
    assert line["beside it"] == "AUC 91.3"
    assert cells_of(text, ("cora", "gae"))["published"] == "60.5"
    assert cells_of(text, ("cora", "gae"))["difference"] == "-0.5"
    assert cells_of(text, ("own", "gae"))["published"] == ""
    parts = text.split("## ")
    assert "cora | graphmae |" in next(part for part in parts if part.startswith("Node"))
    others = next(part for part in parts if part.startswith("Others"))  # no table asks for them
    assert "| own | gae |" in others
    assert "| cora | graphmae |" not in others


def test_the_readme_is_written_from_the_project_s_own_results_alone(measured, tmp_path, monkeypatch):
    own = SCRIPT.parents[1] / "README.md"
    before = own.read_text()
    call(measured, "--show")
    assert (measured / "README.md").read_text() == f"before {quality.OPEN} tables {quality.CLOSE} after"
    assert own.read_text().count(quality.OPEN) == 1 == before.count(quality.OPEN)
    write(tmp_path, made_up("cora", "graphmae", 0, 80.0), made_up("own", "gae", 0, 61.0))
    (tmp_path / "README.md").write_text(f"before {quality.OPEN} tables {quality.CLOSE} after")
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "results")
    for _ in range(2):  # a second time changes nothing
        call(tmp_path, "--show")
        text = (tmp_path / "README.md").read_text()
        assert text.startswith("before ")
        assert text.endswith(" after")
        assert "tables" not in text
        assert text.count(quality.OPEN) == text.count(quality.CLOSE) == 1
        assert cells_of(text, ("cora", "graphmae"))["score"] == "80.0"
        assert "own" not in text  # only what its tables ask for


def test_the_command_line_chooses_cells(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(quality, "run_unit", lambda cell, seed, path: asked.append((cell, seed)))
    (tmp_path / "results").mkdir()

    def cells(*words):
        asked.clear()
        call(tmp_path, "--seeds", "1", *words)
        return [cell for cell, _ in asked]

    every = quality.TABLES["node"][1]
    assert cells("--table", "node") == [cell for cell in every if not cell.full]
    assert cells("--table", "node", "--full") == every
    assert any(cell.full for cell in every)
    assert {c.dataset for c in cells("--table", "node", "link", "--sets", "cora", "cora/link")} == {"cora", "cora/link"}
    assert {c.method for c in cells("--table", "link", "--methods", "gae", "vgae")} == {"gae", "vgae"}
    (one,) = cells("--sets", "citations-mini/link", "--methods", "gae", "--set", "lr=0.1", "epochs=3")
    assert one.settings == ("lr=0.1", "epochs=3")
    assert one.stem == "citations-mini-link-gae-lr=0.1-epochs=3"
    assert one.protocols == graphssl.load_dataset("citations-mini/link").protocols
    call(tmp_path, "--seeds", "3", "--sets", "citations-mini", "--methods", "gae")
    assert [seed for _, seed in asked[-3:]] == [0, 1, 2]


def test_a_link_unit_is_of_a_split_of_its_own_seed(tmp_path, monkeypatch):
    fingerprints = []
    plain = graphssl.pretrain

    def pretrain(data, *words, **settings):
        fingerprints.append(data.splits["link"][0].test)
        return plain(data, *words, **settings)

    monkeypatch.setattr(graphssl, "pretrain", pretrain)
    monkeypatch.setattr(quality, "RUNS", tmp_path / "runs")
    cell = quality.Cell("citations-mini/link", "gae", ("epochs=1", "width=4", "first_width=4"), ("link-dot",))
    for seed in (0, 1):
        quality.run_unit(cell, seed, tmp_path / f"{seed}.json")
    one, two = fingerprints
    assert one.shape != two.shape or not (one == two).all()
    expected = graphssl.load_dataset("citations-mini").link(1).splits["link"][0].test
    assert (two == expected).all()
    assert json.loads((tmp_path / "1.json").read_text())["report"]["protocol"] == "link-dot"


def test_a_unit_with_labels_has_rows_of_finetuning_from_both_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(quality, "TUNING", {"epochs": 1})
    settings = ("epochs=1", "width=4", "first_width=4")
    cell = quality.Cell("citations-mini", "gae", settings, ("node-knn", quality.FINETUNE), labels=0.5)
    quality.run_unit(cell, 0, tmp_path / "unit.json")
    unit = json.loads((tmp_path / "unit.json").read_text())
    tuned = [row["name"] for row in unit["report"]["rows"] if row["protocol"] == quality.FINETUNE]
    assert tuned == ["gae", "untrained encoder"]
    assert quality.line_of([unit], quality.FINETUNE, wide=True)[1] == f"gae with {' '.join(settings)}"


def test_a_unit_that_is_finetuned_onto_other_sets_has_a_row_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(quality, "TRANSFER", {"epochs": 1})
    settings = ("epochs=1", "width=4", "layers=1")
    cell = quality.Cell("drugs-mini", "graphmae", settings, ("graph-ridge",), onto=("drugs-mini",), controls=False)
    quality.run_unit(cell, 0, tmp_path / "unit.json")
    rows = json.loads((tmp_path / "unit.json").read_text())["report"]["rows"]
    assert [row["protocol"] for row in rows] == ["graph-ridge", "finetune drugs-mini"]
    assert [row["name"] for row in rows] == ["graphmae", "graphmae"]
    assert set(rows[1]["metrics"]) == {"MAE", "RMSE"}


def test_transfers_have_means_over_seeds_and_over_data_sets():
    def unit(seed, variant="", less=0.0):
        row = {"metrics": {"MAE": 0.5 + 0.25 * seed}, "protocol": "graph-ridge"}
        ours = [
            {"metrics": {"AUC": 60.0 + 10 * seed - less}, "protocol": f"finetune {name}"} for name in quality.YES_OR_NO
        ]
        numbers = [{"metrics": {"RMSE": 1.0}, "protocol": f"finetune {name}"} for name in quality.NUMBERS]
        rows = {"rows": [row, *ours, *numbers]}
        about = {"dataset": "zinc-30k", "method": "graphcl", "variant": variant, "seed": seed}
        return {**about, "pretrain_seconds": 3.0, "report": rows}

    cells = [quality.molecules("graphcl"), quality.molecules("graphcl", "epochs=0")]
    units = [unit(0), unit(1), unit(0, "epochs=0", 2), unit(1, "epochs=0", 4)]
    header, _, line, _, published, _, verdict, _ = quality.transfers(cells, units).splitlines()
    # t of one degree of freedom, 12.706, times the deviation
    assert verdict.endswith("interval: graphcl +3.0 ± 12.7. Better than from scratch beyond it: none.")
    units[3] = unit(1, "epochs=0", 2.1)
    assert "graphcl +2.0 ± 0.6. Better than from scratch beyond it: graphcl.\n" in quality.transfers(cells, units)
    assert "from scratch" not in quality.transfers(cells, units[::2])  # no interval of one seed
    found = [cell.strip() for cell in line.strip("|").split("|")]
    spread = "65.0 ± 7.1"
    assert found == ["graphcl", "0.625 ± 0.177", "", *[spread] * 6, *["1.00 ± 0.00"] * 3, "2", "3"]
    assert len(header.split("|")) == len(published.split("|"))
    assert not quality.transfers([quality.molecules("graphmae")], [unit(0)])


def test_methods_that_share_a_line_from_scratch_start_alike():
    pytest.importorskip("rdkit")
    starts = {}
    for cell in quality.TABLES["molecules"][1]:
        if cell.method in quality.STARTS:
            settings = cell.values | {"epochs": 0}
            starts[cell.method] = graphssl.pretrain(SMILES, cell.method, progress=False, **settings)
    assert starts.keys() == quality.STARTS.keys()
    for method, start in quality.STARTS.items():
        assert repr(starts[method].encoder) == repr(starts[start].encoder)
        assert starts[method].plan.transform == starts[start].plan.transform
        ours, theirs = (starts[name].encoder.state_dict() for name in (method, start))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_depth_is_told_by_where_loss_and_rank_begin_and_end(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "RUNS", tmp_path / "runs")
    settings = ("encoder=gen+checkpoint", "layers=3", "width=4", "epochs=2")
    cell = quality.Cell("drugs-mini", "attr-masking", settings, ("graph-ridge",), controls=False)
    quality.run_unit(cell, 0, tmp_path / "unit.json")
    unit = json.loads((tmp_path / "unit.json").read_text())
    *_, line = quality.depths([cell], [unit]).splitlines()
    loss, rank = (
        [f"{value:.{digits}f}" for value in unit["ends"][key]] for key, digits in (("loss", 3), ("effective_rank", 1))
    )
    assert loss[0] != loss[1]
    assert [cell.strip() for cell in line.strip("|").split("|")][2:4] == [" to ".join(loss), " to ".join(rank)]


@pytest.mark.parametrize(("table", "cell"), CELLS, ids=[f"{name}-{cell.stem}" for name, cell in CELLS])
def test_every_cell_can_be_run(table, cell):
    assert cell.method in list_methods()
    recipe = get_recipe(cell.method)
    given = dict(word.split("=", 1) for word in cell.settings)
    assert len(given) == len(cell.settings)
    values = {key: parse(recipe, key, text) for key, text in given.items()}
    name, _, linked = cell.dataset.partition("/")
    task = "link" if linked else ("graph" if table in SETS_OF_GRAPHS or name == "zinc-30k" else "node")
    spec = graphssl.recipes.Spec(cell.dataset, task, 8, 100, 400, 1, False, True)
    assert recipe.settings(spec, values).items() >= values.items()
    usual = recipe.settings(spec, {})
    assert not values or any(usual[key] != value for key, value in values.items())  # else it is the plain cell again
    assert cell.protocols
    tasks = (task, "node") if linked else (task,)  # a link set's codes are judged by what is known of its nodes, too
    assert all(get_protocol(p).task in tasks for p in cell.protocols if p != quality.FINETUNE)
    assert (cell.labels is None) == (quality.FINETUNE not in cell.protocols)
    assert linked in ("", "link")
    if name in NOT_DOWNLOADED and name not in list_datasets():
        pytest.skip(f"{name} comes as a file, which is not on this machine")
    assert {cell.dataset, *cell.onto} <= set(list_datasets())


@pytest.mark.parametrize("table", quality.TABLES)
def test_no_two_cells_of_a_table_share_a_file(table):
    title, cells = quality.TABLES[table]
    assert title
    stems = [cell.stem for cell in cells]
    assert len(set(stems)) == len(stems)
    assert all(Path(stem).name == stem for stem in stems)


def test_cells_of_one_file_agree_in_what_they_ask_for():
    cells = {}
    for _, cell in CELLS:
        known = cells.setdefault(cell.stem, cell)
        assert (known.dataset, known.method, known.settings, known.protocols) == (
            cell.dataset, cell.method, cell.settings, cell.protocols,
        )  # fmt: skip


def test_tables_in_the_readme_are_tables():
    assert set(quality.IN_README) <= set(quality.TABLES)
    text = (SCRIPT.parents[1] / "README.md").read_text()
    assert text.index(quality.OPEN) < text.index(quality.CLOSE)


def test_tables_are_those_of_the_units_that_are_there(tmp_path):
    (tmp_path / "quality").symlink_to(quality.RESULTS / "quality")
    quality.write_tables(tmp_path)
    shown = (quality.RESULTS / "quality.md").read_text()
    assert (tmp_path / "quality.md").read_text() == shown, "make them again: python benchmarks/quality.py --show"
