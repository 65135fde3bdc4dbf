"""Names that could do something, in everything that a run prints and writes: they do nothing."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sharedlabel import errors, evaluate, export, predict, records, train
from sharedlabel.choose import __main__ as choose
from sharedlabel.records import shown as inert
from sharedlabel.report import __main__ as report
from sharedlabel.report import html, plots, terminal
from sharedlabel.report.charts.svg import STYLE

CLASSES = ["=cmd()", "[31mred", "<script>document.title='owned'<", "$\\frac{", "{{7*7}}", "-1+1", "😀[x]", "l" * 250]
AGGREGATORS = ["a[/x]", "=cmd|' '!A0", "]0;owned", "<script>document.title='owned'</script>", "$\\frac{"]
POOLS = ("log_pool", "mean_vote", "mean_logit", "max_vote", "majority_vote", "confusion_vote")
PRUNER, BACKBONE = "{{7*7}} :smile:", "_b [bold]"
LONG = "l" * 100  # the longest label of a method
# What no folder of classes and no configuration may be called; a results file of a stranger says it all the same.
STEERING = ["\x1b[31mred", "a\nb", "\u202evil", "\x1b]0;owned\x07", "x\u2028\u202e", "_b\r\n[bold]", "l" * 300, "\ttab"]
NASTY = [*CLASSES, *AGGREGATORS, PRUNER, BACKBONE, LONG, *STEERING, "'=1", "half \udc80", "\x9b31m", "]]>", '"&<']
NASTY += ["_", '" style="fill: red" id="x"', "<!-- -->", "{% raw %}", "%s%n", "__proto__", "#x)"]


def plain_text(text: str) -> bool:
    """Whether a text holds nothing but printable letters, and ends of lines of our own."""
    return all(letter == "\n" or letter.isprintable() for letter in text)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole experiment with names like these, and what it printed."""
    folder = tmp_path_factory.mktemp("nasty")
    generator = np.random.default_rng(0)
    for index, name in enumerate(CLASSES):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(40):
            pixels = (generator.random((8, 8)) * 30 + 28 * index).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pets" / name / f"{number}.png")
    plugins = [{"name": name, "label": label} for name, label in zip(POOLS, (*AGGREGATORS, LONG), strict=True)]
    arguments = [
        f"--data={json.dumps({'name': 'imagefolder', 'path': str(folder / 'pets')})}",
        f"--backbones={json.dumps([{'name': 'mlp', 'label': BACKBONE, 'widths': [16]}])}",
        f"--pruners={json.dumps([{'name': 'magnitude', 'label': PRUNER}])}",
        "--ratios=[1, 2]",
        f"--aggregators={json.dumps(plugins)}",
        "--dense.epochs=4",
        "--retrain.epochs=1",
        "--evaluation.n=[1, 2]",
        "--evaluation.partitions=2",
        "--sweet_spot.replicates=10",
        "--tracking=none",
        "--adaptive.rules=[]",
        "--latency.batches=[1]",
        "--latency.repeats=3",
        f"--output={folder / 'runs'}",
        f"--data_root={folder / 'data'}",
        "--name=nasty",
    ]
    return folder / "runs" / "nasty", arguments


@pytest.fixture(scope="module")
def printed(done):
    """What every command prints for this experiment, by its name."""
    folder, arguments = done
    commands = {
        "plan": (train.main, [*arguments, "--plan"]),
        "train": (train.main, arguments),
        "evaluate": (evaluate.main, arguments),
        "report": (report.main, [str(folder)]),
        "choose": (choose.main, [str(folder)]),
        "choose --json": (choose.main, [str(folder), "--json"]),
        "export": (export.main, ["--run", str(folder), "--aggregator", "$\\frac{", "--ratio", "2"]),
    }
    outputs = {}
    for name, (main, given) in commands.items():
        outputs[name] = captured(main, given)
    return outputs


def captured(main, arguments) -> str:
    output, former = io.StringIO(), sys.stdout
    sys.stdout = output
    try:
        assert main(arguments) == 0
    finally:
        sys.stdout = former
    return output.getvalue()


def test_every_command_prints_lines_that_steer_nothing(printed):
    for name, text in printed.items():
        assert plain_text(text), name
        assert text.count("\n") > 0
    assert "a[/x]" in printed["train"]
    assert "]0;owned" in printed["train"].replace("\n", "")
    assert ":smile:" in printed["plan"]
    assert json.loads(printed["choose --json"])["recommended"]["backbone"] == BACKBONE


def test_predictions_of_such_labels_and_groups_are_lines(done, printed, tmp_path, capsys):
    folder, _ = done
    (model,) = (folder / "models").iterdir()
    for name in ("=cmd()", "a[x]", "-1+1", "😀"):
        (tmp_path / name).mkdir()
        shutil.copy(folder.parents[1] / "pets" / CLASSES[0] / "0.png", tmp_path / name / "0.png")
    assert predict.main([str(model), str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert plain_text(text)
    assert len(text.splitlines()) == 5
    assert predict.main([str(model), str(tmp_path), "--json"]) == 0
    lines = capsys.readouterr().out
    assert plain_text(lines)
    assert lines.isascii()
    answers = [json.loads(line) for line in lines.splitlines()]
    assert {record["tuple"] for record in answers} == {"=cmd()", "a[x]", "-1+1", "😀"}
    assert set(answers[0]["posterior"]) == set(CLASSES)
    (tmp_path / "\x1b[31m").mkdir()
    assert predict.main([str(model), str(tmp_path)]) == 3
    told = capsys.readouterr()
    assert plain_text(told.out + told.err)
    assert "expected a sub-folder with a name of letters in UTF-8, got '\\x1b[31m'; rename it" in told.err


def test_tables_hold_no_formula_and_read_back_as_they_were(done, printed):
    folder, _ = done
    results = records.read(folder)
    tables = [path for path in folder.glob("*.csv") if path.stat().st_size]
    assert len(tables) == len(records.TABLES)
    for path in tables:
        text = path.read_text()
        assert plain_text(text)
        kinds = {item.name: str(item.type) for item in dataclasses.fields(records.TABLES[path.stem])}
        kept = getattr(results, path.stem)
        lines = list(csv.DictReader(io.StringIO(text)))
        assert len(lines) == len(kept)
        for line, record in zip(lines, kept, strict=True):
            for name, cell in line.items():
                value = getattr(record, name)
                if isinstance(value, tuple):
                    assert json.loads(cell) == list(value)
                elif "str" in kinds[name] and value is not None:
                    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
                    assert records.from_cell(cell) == errors.printable(value)
                elif isinstance(value, float):
                    assert float(cell) == value


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@a", "\tx", "\rx", "\nx", "'", "'=1", "''", "\uff1d1", "", "plain", "a=1"]
)
def test_a_cell_is_a_text_for_spreadsheets_and_reads_back(text):
    @dataclasses.dataclass
    class Line:
        name: str
        value: float

    (cell,) = csv.DictReader(io.StringIO(records.to_csv(Line, [Line(text, -1.5)])))
    assert not cell["name"].startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    assert records.from_cell(cell["name"]) == errors.printable(text)
    assert cell["value"] == "-1.5"


def test_figures_are_well_formed_and_show_names_as_they_are(done, printed):
    folder, _ = done
    files = list((folder / "plots").glob("*.svg"))
    assert len(files) > 3
    texts = ""
    for path in files:
        assert re.fullmatch(r"[a-z0-9_-]{1,160}\.svg", path.name)
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        tags = {element.tag.rsplit("}")[-1] for element in root.iter()}
        assert tags <= {"svg", "g", "path", "rect", "text", "title", "style"}
        (style,) = (element.text for element in root.iter("{http://www.w3.org/2000/svg}style"))
        assert style == STYLE
        texts += " ".join(root.itertext())
        assert not [key for element in root.iter() for key in element.attrib if key.startswith("on")]
    assert "$\\frac{" in texts
    assert "<script>document.title" in texts
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", texts)


CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")
def test_nothing_in_the_page_runs(done, printed, tmp_path):
    folder, _ = done
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={tmp_path}", "--dump-dom", (folder / "report.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert "<title>nasty: sharedlabel report</title>" in shown
    assert "owned" in shown
    assert len(re.findall("<script", shown)) == len(re.findall("<script", (folder / "report.html").read_text()))
    assert not re.search(r"<script>document\.title", shown)
    assert "{{7*7}}" in shown
    assert "49 :smile:" not in shown


def test_the_page_holds_no_letter_that_turns_lines_around(done, printed):
    folder, _ = done
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not [
        letter for letter in set(text) - {"\n"} if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    ]


def test_names_that_differ_stay_different(done, printed):
    results = records.read(done[0])
    renamed = dict(zip([*AGGREGATORS, LONG], ["a\n", "a\\n", "a\r", "a\\r", LONG, LONG + "m"], strict=True))
    rows = tuple(dataclasses.replace(row, aggregator=renamed[row.aggregator]) for row in results.rows)
    names = {row.aggregator for row in inert.shown(dataclasses.replace(results, rows=rows), inert.name).rows}
    assert len(names) == len(renamed)
    assert {"a\\n", "a\\r"} < names
    assert all(name.isprintable() and len(name) < 210 for name in names)


def test_harmless_names_are_shown_as_they_are(done, printed):
    results = records.read(done[0])
    harmless = {"data": "pets", "backbone": "größe", "pruner": "a: b", "aggregator": "[x] 😀 lstm(hidden=16)"}
    rows = tuple(dataclasses.replace(row, **harmless) for row in results.rows)
    assert inert.shown(dataclasses.replace(results, rows=rows)).rows == rows


@pytest.mark.parametrize("part", range(2))
def test_every_exit_takes_every_name(done, printed, part):
    """Not all of them can be a folder or a label today; a results file of a stranger can hold any."""
    results = records.read(done[0])
    copies = {
        table: tuple(
            dataclasses.replace(record, aggregator=name)
            for name in NASTY[part::2]
            for record in getattr(results, table)
            if record.aggregator == LONG
        )
        for table in ("rows", "summaries", "sweet_spots", "reliability")
    }
    emptied = dict.fromkeys(("comparisons", "pooled", "ranks", "wins", "adaptive", "thresholds", "latencies"), ())
    named = {
        "experiment": NASTY[1],
        "config": {name: [name] for name in NASTY},
        "provenance": {name: name for name in NASTY},
    }
    nasty = dataclasses.replace(results, **emptied, **copies, **named)
    drawn = plots.drawn(nasty)
    for svg in plots.files(drawn).values():
        ElementTree.fromstring(svg)
    page = html.render(nasty, drawn)
    assert plain_text(page)
    console = Console(file=io.StringIO(), width=100)
    terminal.print_report(nasty, console)
    assert plain_text(console.file.getvalue())
    for table in copies:
        assert plain_text(records.to_csv(records.TABLES[table], getattr(nasty, table)))


def test_output_without_letters_for_a_name_is_escaped(done, printed):
    folder, _ = done
    commands = [("report", [str(folder)]), ("choose", [str(folder)]), ("choose", [str(folder), "--json"])]
    for encoding, (module, arguments) in zip(("ascii", "latin-1", "ascii"), commands, strict=True):
        run = subprocess.run(
            [sys.executable, "-m", f"sharedlabel.{module}", *arguments],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        )
        assert (run.returncode, run.stderr) == (0, b"")
        assert plain_text(run.stdout.decode(encoding))


def test_warnings_are_lines_without_code(capsys):
    def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = own
            warnings.warn("red \x1b[31m\nline", RuntimeWarning, stacklevel=1)

    def own(message, category, filename, lineno, file=None, line=None):
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)

    former = warnings.formatwarning
    assert errors.guarded(main) == 0
    line = capsys.readouterr().err
    assert line.endswith("RuntimeWarning: red \\x1b[31m\\nline\n")
    assert line.count("\n") == 1
    assert warnings.formatwarning is former


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda whole: whole["summaries"].pop(),
            "expected rows and summaries of the same methods, got one of them alone",
        ),
        (lambda whole: whole["rows"].clear(), "expected rows and summaries of the same methods"),
        (lambda whole: whole["rows"][0].update(n="1\x1b[31m" * 99), r"rows.0.n = '1\\x1b\[31m"),
        (lambda whole: whole.update(rows=None), "got rows = None"),
        (lambda whole: whole.update(format="4"), "has format '4', this version reads 4"),
        (lambda whole: whole["rows"][0].update(ri="deep"), "rows.0.ri = 'deep'"),
    ],
)
def test_results_of_a_stranger_are_refused_in_a_sentence(done, printed, tmp_path, capsys, change, message):
    whole = json.loads((done[0] / "results.json").read_text())
    change(whole)
    (tmp_path / "results.json").write_text(json.dumps(whole))
    for main in (choose.main, report.main):
        assert main([str(tmp_path)]) == 2
        printed_line = capsys.readouterr().err
        assert re.match(r"error: .*; run the grid again to rewrite it\n$", printed_line)
        assert re.search(message, printed_line.replace("\\\\", "\\"))


@pytest.mark.parametrize("text", ['{"format": 4, "format": 4}', "[" * 9999, '{"format": 1e999}', "", "\udc80", "null"])
def test_results_that_are_no_plain_json_are_refused(tmp_path, capsys, text):
    (tmp_path / "results.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for main in (choose.main, report.main):
        assert main([str(tmp_path)]) == 2
        assert re.match(r"error: .*; run .* (first|rewrite it)\n$", capsys.readouterr().err)


def test_results_that_are_a_pipe_are_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "results.json")
    assert choose.main([str(tmp_path)]) == 2
    assert "no plain file but a folder, pipe or device" in capsys.readouterr().err
