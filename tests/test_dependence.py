"""The sweep over strengths of dependence: one table and one plot of several grids."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import dependence
from sharedlabel.records import read

TINY = (
    "--name=tiny",
    "--data={name: gaussian, classes: 3, dim: 3, instances_per_class: 96, group_size: 8}",
    "--backbones=[{name: mlp, label: mlp, widths: [16]}]",
    "--pruners=[magnitude]",
    "--ratios=[1, 1.5]",
    "--aggregators=[mean_vote, log_pool]",
    "--dense.epochs=1",
    "--retrain.epochs=1",
    "--evaluation={n: [1, 2], protocols: [iid, grouped], partitions: 2}",
    "--adaptive.rules=[]",
    "--margin.epsilons=[]",
    "--latency={batches: [1], repeats: 3, seconds: 0.01}",
    "--sweet_spot.replicates=10",
    "--tracking=none",
)


def test_a_sweep_joins_the_summaries_of_its_grids(tmp_path, capsys):
    arguments = [*TINY, f"--output={tmp_path}", f"--data_root={tmp_path / 'data'}"]
    assert dependence.main(["--option=data.nuisance", "--values=[0, 1.5]", *arguments]) == 0
    assert str(tmp_path / "tiny" / "dependence.svg") in capsys.readouterr().out.replace("\n", "")
    with (tmp_path / "tiny" / "dependence.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (2 * 2 + 1) * 2 * 2  # values, methods on networks and the oracle, protocols, n
    for value, name in ((0.0, "tiny-nuisance-0"), (1.5, "tiny-nuisance-1.5")):
        results = read(tmp_path / name)
        assert results.config["data"]["nuisance"] == value
        expected = [
            {c: str(getattr(s, c)) for c in rows[0] if c != "value"} for s in results.summaries if s.split == "test"
        ]
        assert [
            {c: v for c, v in row.items() if c != "value"} for row in rows if float(row["value"]) == value
        ] == expected
    drawn = (tmp_path / "tiny" / "dependence.svg").read_text()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    for text in (
        "Relative information against data.nuisance",
        "mlp, magnitude 1.5x, grouped",
        "mlp, dense, iid",
        "n = 2",
        "exact",
    ):
        assert text in drawn


def test_a_plan_runs_nothing(tmp_path, capsys):
    arguments = [*TINY, f"--output={tmp_path}", f"--data_root={tmp_path / 'data'}", "--plan"]
    assert dependence.main(["--option=data.nuisance", "--values=[0, 1.5]", *arguments]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"tiny-nuisance-([\d.]+): \d+ cells", printed) == ["0", "1.5"]
    assert not list((tmp_path / "store" / "artifacts").glob("*/*"))


def test_values_reach_the_grid_as_they_are_written(tmp_path):
    close, whole = [0.12345671, 0.12345672], [960, 1_920]
    arguments = [*TINY, f"--output={tmp_path}", f"--data_root={tmp_path / 'data'}"]
    nuisances = [grid.experiment.data["nuisance"] for _, grid, _ in dependence.grids("data.nuisance", close, arguments)]
    assert nuisances == close
    grids = list(dependence.grids("data.instances_per_class", whole, arguments))
    assert [grid.experiment.data["instances_per_class"] for _, grid, _ in grids] == whole
    assert len({grid.experiment.name for _, grid, _ in grids}) == 2


@pytest.mark.parametrize("option", ["name", "output", "data_root", "tracking"])
def test_an_option_without_influence_is_refused(option, tmp_path, capsys):
    given = [f"--option={option}", "--values=[0, 1]", *TINY, f"--output={tmp_path}"]
    assert dependence.main(given) == 2
    assert f"--option: {option} changes no result" in capsys.readouterr().err


def points(values, n=(1, 2)) -> list[dependence.Point]:
    made = []
    for value in values:
        for size in n:
            for aggregator, training in (("lstm", "frozen"), ("lstm", "distilled"), ("exact", "frozen")):
                scores = (0.5, 0.4, 0.6, 0.5 / value, 0.4 / value, 0.6 / value)
                made.append(dependence.Point(value, "net", "none", 1.0, aggregator, training, "iid", size, *scores, 2))
    return made


def test_lines_are_methods_and_values_that_grow_by_factors_get_a_logarithmic_axis():
    given = points([4.0, 1.0, 2.0])
    figure = dependence._figure("data.sources", given)
    panel = figure.panels[0]
    assert panel.x.scale == "log"
    assert [name for _, name in panel.x.ticks] == ["1", "2", "4"]
    assert [[(point.x, point.y) for point in line.points] for line in panel.series] == [
        [(1.0, 0.5), (2.0, 0.25), (4.0, 0.125)]
    ] * 3
    assert [name for name, _ in figure.legend] == ["exact", "lstm", "lstm (distilled)"]
    assert dependence._figure("data.nuisance", points([0.5, 1.0])).panels[0].x.scale == "linear"
    assert dependence.plot("data.sources", given) == dependence.plot("data.sources", given)


def test_tables_have_a_row_per_method_and_a_column_per_value():
    (table,) = dependence.tables("data.sources", points([2.0, 1.0]))
    title, _, header, _, *rows = table.splitlines()
    assert title == "**RI at n = 2, net, dense, iid**"
    assert header == "| data.sources = | 1 | 2 |"
    assert [row.split(" | ")[0] for row in rows] == ["| exact", "| lstm", "| lstm (distilled)"]
    assert rows[1] == "| lstm | 0.500 [0.400, 0.600] | 0.250 [0.200, 0.300] |"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("0.5", "--values: expected a list of different numbers such as '[0, 0.5, 1]', got '0.5'"),
        ("[]", "got '[]'"),
        ("[1, 1.0]", "got '[1, 1.0]'"),
        ("[1, .inf]", "got '[1, .inf]'"),
        ("[weak, strong]", "got '[weak, strong]'"),
        ("[1", "got '[1'"),
    ],
)
def test_values_that_are_no_numbers_are_refused(values, message, capsys):
    assert dependence.main(["--option=data.nuisance", f"--values={values}", *TINY]) == 2
    assert re.search(re.escape(message), capsys.readouterr().err)


def test_an_option_that_does_not_exist_is_named(tmp_path, capsys):
    assert dependence.main(["--option=data.nuisanse", "--values=[0]", *TINY, f"--output={tmp_path}"]) == 2
    assert "unknown option 'nuisanse'; did you mean 'nuisance'?" in capsys.readouterr().err
    assert not Path(tmp_path / "tiny").exists()
