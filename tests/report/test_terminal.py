"""The report in the terminal and its command line."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys

from pydantic import TypeAdapter
from rich.console import Console

from sharedlabel import records
from sharedlabel.records.written import percent
from sharedlabel.report import __main__ as command
from sharedlabel.report import html, terminal, views


def printed(results, width=100):
    console = Console(file=io.StringIO(), width=width)
    terminal.print_report(results, console)
    return console.file.getvalue()


def test_best_table_shows_the_numbers_of_the_summaries(results):
    text = printed(results)
    for best in views.best_methods(views.split(results)[0]):
        chosen = best.chosen
        assert f"{chosen.ri:.3f} [{chosen.ri_low:.3f}, {chosen.ri_high:.3f}]" in text


def test_the_tables_that_are_printed_are_enough(results, tmp_path):
    records.write(results, tmp_path)
    file = tmp_path / records.NAME
    kept = records.only(file.read_bytes(), terminal.PRINTED)
    assert len(kept) < file.stat().st_size / 2
    for read in (records.read(tmp_path, terminal.PRINTED), TypeAdapter(records.Results).validate_json(kept)):
        emptied = {name: () for name in records.TABLES if name not in terminal.PRINTED}
        assert read == dataclasses.replace(results, **emptied)
        assert printed(read) == printed(results)


def test_few_seeds_are_said_to_allow_no_verdict(results):
    few = dataclasses.replace(results, summaries=tuple(dataclasses.replace(s, seeds=3) for s in results.summaries))
    said = "Three training seeds: there are no verdicts on differences, which need five, and intervals"
    assert said in printed(few)
    assert said in html.render(few, {})
    assert "May be best" not in printed(few)
    one = dataclasses.replace(results, summaries=tuple(dataclasses.replace(s, seeds=1) for s in results.summaries))
    assert "One training seed: intervals are over images alone" in " ".join(printed(one).split())
    enough = dataclasses.replace(results, summaries=tuple(dataclasses.replace(s, seeds=5) for s in results.summaries))
    assert "training seeds:" not in printed(enough)
    assert "May be best" in printed(enough)


def test_fits_100_columns_without_broken_cells(results):
    lines = printed(results).splitlines()
    assert max(map(len, lines)) <= 100
    table = lines[: next(i for i, line in enumerate(lines) if "Sweet spots" in line)]
    assert sum("[0." in line for line in table) == 24
    spots = lines[len(table) : next(i for i, line in enumerate(lines) if line.startswith("Best method of each rule"))]
    assert sum("residual_lstm " in line or "log_pool " in line for line in spots) >= 8
    assert not any(re.search(r"^\s+\w+\s*$", line) for line in spots)


def test_sentences_edges_nothing_and_collapse_are_said(results):
    text = " ".join(printed(results).split())
    assert "With 8 images per object, compress 16x (residual_lstm on magnitude):" in text
    assert "This is the largest ratio of the grid" in text
    assert "99.99% right: Nothing qualifies" in text
    best = max(s.n_accuracy for s in results.summaries if s.split == "validation" and s.protocol == "iid")
    assert f"gets {percent(best)} right on validation." in text
    assert "n-accuracy on validation is 0." not in text
    assert "warning: random at 32x left layers of resnet_cifar-8 on cifar10-small without a weight" in text


def test_markup_in_names_is_printed_as_it_is(hostile):
    assert "</script><script>[bold]$x$" in printed(hostile)


def test_command_writes_the_report_and_prints_the_tables(small, kinds, tmp_path, capsys):
    kinds("ratio", "cost")
    records.write(small, tmp_path / "run")
    assert command.main([str(tmp_path / "run"), "--output", str(tmp_path / "out" / "page.html")]) == 0
    assert "Best method per ratio and n" in capsys.readouterr().out
    page = (tmp_path / "out" / "page.html").read_text()
    assert 'href="../run/rows.csv"' in page
    assert len(list((tmp_path / "out" / "plots").glob("*.svg"))) == page.count("<figure")


def test_command_reports_errors_without_a_traceback(small, kinds, tmp_path, capsys):
    kinds("ratio")
    assert command.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: expected a results.json at {tmp_path / 'results.json'}")
    (tmp_path / "results.json").write_text('{"format": 99}')
    assert command.main([str(tmp_path)]) == 2
    assert f"has format 99, this version reads {records.FORMAT}" in capsys.readouterr().err
    records.write(small, tmp_path)
    (tmp_path / "file").write_text("")
    assert command.main([str(tmp_path), "--output", str(tmp_path / "file" / "report.html")]) == 2
    assert "error: expected to write" in capsys.readouterr().err


def test_report_needs_no_torch():
    code = "import sys, sharedlabel.report.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
