"""The leaderboard as static pages: an index, a table for each protocol and a page for each entry; no network needed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib import rc_context

from sharedlabel import together
from sharedlabel.errors import StoreError
from sharedlabel.leaderboard import records, score
from sharedlabel.leaderboard.plots import against_cost
from sharedlabel.leaderboard.protocol import Board, Protocol
from sharedlabel.leaderboard.records import Result
from sharedlabel.leaderboard.standings import Listed, Standing, entries, standings
from sharedlabel.results import MIN_SEEDS, to_csv

TOP = 10  # rows of the README's tables
BEGIN, END = "<!-- standings: made by `python -m sharedlabel.leaderboard site` -->", "<!-- end of standings -->"
MADE = ".sharedlabel-site"  # a folder that holds this file is one that `build` may replace
_ABOUT = "Made by `sharedlabel leaderboard site`, which replaces this folder as a whole.\n"


@dataclass(frozen=True)
class Line:
    """A row of the downloads.

    Attributes:
        rank_best: 1 + those shown to be better; empty where it is not ranked.
        rank_worst: all but those shown to be worse; empty where it is not ranked.
        name: of the submission.
        title: as its authors call it.
        status: self-reported, verified, disputed or withdrawn.
        ri: primary score: mean relative information over networks, seeds and n.
        ri_low: end of its 95% interval over images and seeds.
        ri_high: likewise.
        n_accuracy: mean over the same cells, in [0, 1].
        macs: of a tuple of the largest n.
        parameters: of the aggregator.
        seconds: to train and predict with one network and seed, median; of the run that made the result.
        front: whether no other ranked entry has at least its mean for at most its MACs, and more of it or fewer MACs.
        alike: entries that it is not shown to differ from.
        authors: names.
        license: of the code.
        external_data: whether it learnt from other data.
        trials: settings that were tried.
        updated: of the last line of its history, UTC.
    """

    rank_best: int | None
    rank_worst: int | None
    name: str
    title: str
    status: str
    ri: float
    ri_low: float
    ri_high: float
    n_accuracy: float
    macs: int
    parameters: int
    seconds: float
    front: bool
    alike: str
    authors: str
    license: str
    external_data: bool
    trials: int
    updated: str


def build(board: Board, out: Path) -> int:
    """Write the site into a folder, in the place of an older one, and the tables of the README.

    Args:
        board: the leaderboard.
        out: folder that is absent, empty or a site made here before; replaced as a whole.

    Returns:
        Number of entries.

    Raises:
        SharedLabelError: there are no protocols, a protocol, a submission or a result is missing or was altered, the
            README has lost a mark, or `out` holds something else; nothing is written then.
    """
    present = board.present()
    out = Path(os.path.abspath(out))
    _check_replaceable(out)
    tables = {name: _standings(board, board.protocol(name)) for name in present}
    pages = _pages(tables)
    readme = with_tables(_readme(board), {name: rows for name, (_, rows) in tables.items()})
    records.replace_folder(out, {name: text.encode() for name, text in {MADE: _ABOUT, **pages}.items()})
    together.replace(board.root, {"README.md": readme})
    return sum(len(rows) for _, rows in tables.values())


def _check_replaceable(out: Path) -> None:
    """Refuse a link, a file, and a folder with content that is no site."""
    advice = "name another folder with --out, or delete this one"
    if out.is_symlink():
        raise StoreError(f"expected a folder to write the site to, got the link {out}; {advice}")
    if out.exists() and not out.is_dir():
        raise StoreError(f"expected a folder to write the site to, got the file {out}; {advice}")
    if out.is_dir() and any(out.iterdir()) and not (out / MADE).is_file():
        raise StoreError(f"expected an empty folder or a site (with {MADE}), got {out} with other files; {advice}")


def _standings(board: Board, protocol: Protocol) -> tuple[Protocol, list[Standing]]:
    return protocol, standings(entries(board, protocol), protocol, board.answers(protocol))


def _readme(board: Board) -> str:
    path = board.root / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"


def _pages(tables: dict[str, tuple[Protocol, list[Standing]]]) -> dict[str, str]:
    """Return the text of every file by its place in the site."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("sharedlabel.leaderboard", ""), PackageLoader("sharedlabel.report", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": lambda value: f"{value:,}", "percent": lambda value: f"{100 * value:.1f}"}
    environment.globals |= {"place": place, "caution": caution}
    index, table, entry = (environment.get_template(f"{name}.html") for name in ("index", "table", "entry"))
    pages = {"index.html": index.render(tables=tables, root="")}
    for name, (protocol, rows) in tables.items():
        lines = [_line(row) for row in rows]
        with rc_context():
            figure = against_cost(rows, protocol) if rows else ""
        pages[f"{name}/index.html"] = table.render(protocol=protocol, rows=rows, figure=figure, root="../")
        pages[f"{name}/standings.csv"] = to_csv(Line, lines, digits=6)
        pages[f"{name}/standings.json"] = json.dumps([dataclasses.asdict(line) for line in lines], indent=1) + "\n"
        for row in rows:
            cells = [cell.model_dump() for cell in row.entry.result.cells]
            means = {(one["network"], one["n"]): one for one in score.mean_by(cells, "network", "n")}
            pages[f"{name}/entries/{row.entry.result.name}.html"] = entry.render(
                protocol=protocol,
                row=row,
                means=means,
                chart=chart(protocol, means),
                seconds=seconds(row.entry.result),
                machine="the maintainer's" if _run_by_maintainer(row.entry) else "its author's",
                root="../../",
            )
    return pages


def _line(row: Standing) -> Line:
    result, card = row.entry.result, row.entry.submission.card
    return Line(
        row.best,
        row.worst,
        result.name,
        card.title,
        row.entry.history[-1].status,
        row.ri,
        row.low,
        row.high,
        row.accuracy,
        row.macs,
        result.cost.parameters,
        seconds(result)["both"],
        row.front,
        ",".join(row.alike),
        ", ".join(author.name for author in card.authors),
        card.license,
        card.external_data,
        card.tuning.trials,
        row.entry.history[-1].time,
    )


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def seconds(result: Result) -> dict[str, float]:
    """Return medians over processes of the time of `training`, `prediction` and `both`, in seconds.

    Args:
        result: of an entry.

    Raises:
        StoreError: it holds no times.
    """
    if not result.seconds:
        raise StoreError(
            f"expected seconds in the result of {result.name}, got none; it was altered: run and score again"
        )
    training, prediction = zip(*result.seconds.values(), strict=True)
    return {
        "training": statistics.median(training),
        "prediction": statistics.median(prediction),
        "both": statistics.median(map(sum, result.seconds.values())),
    }


def _run_by_maintainer(entry: Listed) -> bool:
    """Return whether the predictions are those of a verified run, which a dispute or a new scoring leaves in place."""
    runs = [event.status for event in entry.history if event.status in (records.RANKED, "self-reported")]
    return runs[-1] == records.RANKED


def place(row: Standing) -> str:
    """Write a rank as an interval: `1`, `2 to 5`, or a dash where there is none.

    Args:
        row: of the table.
    """
    if row.best is None or row.worst is None:
        return "\N{EN DASH}"
    return f"{row.best}" if row.best == row.worst else f"{row.best} to {row.worst}"


def caution(rows: Sequence[Standing]) -> str:
    """Say that no two entries of a table have a verdict, where there are too few training seeds for any; else nothing.

    Args:
        rows: of the table.
    """
    ranked = [row for row in rows if row.best is not None]
    seeds = len({cell.seed for row in ranked for cell in row.entry.result.cells})
    if len(ranked) < 2 or seeds >= MIN_SEEDS:
        return ""
    counted = f"{seeds} training seed{'s' if seeds > 1 else ''}"
    return (
        f"This protocol has {counted}, and with fewer than {MIN_SEEDS} there is no verdict: "
        f"no entry is shown to be better than another, so every rank is {place(ranked[0])}. The rows are in order of "
        "their mean RI, which may be chance."
    )


def chart(protocol: Protocol, means: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Return the lines of an entry's chart, RI by network for each n, in a box of 520 by 240, and its lowest value.

    Args:
        protocol: networks are drawn from left to right in its order.
        means: by network and n.
    """
    names, found = [network.name for network in protocol.networks], []
    left, width, top, height = 40, 470, 12, 190
    low = min(0.0, *(one["ri"] for one in means.values()))
    for n in protocol.n:
        points = [
            (left + width * i / max(1, len(names) - 1), top + height * (1 - (means[name, n]["ri"] - low) / (1 - low)))
            for i, name in enumerate(names)
        ]
        found.append({"n": n, "points": [(round(x, 1), round(y, 1)) for x, y in points]})
    return {"lines": found, "low": low}


def with_tables(readme: str, tables: Mapping[str, Sequence[Standing]]) -> str:
    """Put the first ranked rows of every table between the marks of a README: from the first `BEGIN` to the last `END`.

    Args:
        readme: with `BEGIN` and `END`, each on a line of its own.
        tables: by protocol.

    Raises:
        StoreError: a mark is missing, or they stand in the wrong order.
    """
    before = readme.split("\n")
    marks = [i for i, line in enumerate(before) if line.rstrip() == BEGIN]
    ends = [i for i, line in enumerate(before) if line.rstrip() == END]
    if not marks or not ends or marks[0] > ends[-1]:
        found = f"{len(marks)} and {len(ends)} of them" + (" in the wrong order" if marks and ends else "")
        raise StoreError(
            f"expected the lines {BEGIN!r} and, below it, {END!r} in the README of the leaderboard, got {found}; "
            "put both back, each on a line of its own"
        )
    lines = [BEGIN, ""]
    for name, every in tables.items():
        rows = [row for row in every if row.best is not None]
        lines += [f"### {name}", ""]
        lines += [said, ""] if (said := caution(rows)) else []
        lines += [*markdown(rows[:TOP]), ""]
        lines += [f"and {len(rows) - TOP} more.", ""] if len(rows) > TOP else []
    return "\n".join([*before[: marks[0]], *lines, END, *before[ends[-1] + 1 :]])


def markdown(rows: Sequence[Standing]) -> list[str]:
    """Write rows as a Markdown table; entries that are not shown to differ have ranks that overlap.

    Args:
        rows: of a table.
    """
    if not rows:
        return ["No entries yet."]
    lines = [
        "| rank | entry | mean RI [95%] | n-accuracy | MACs of a tuple | status |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        name, status = row.entry.result.name, row.entry.history[-1].status
        score_ = f"{row.ri:.4f} [{row.low:.4f}, {row.high:.4f}]"
        link = f"[{literal(row.entry.submission.card.title)}](submissions/{name}/)"
        lines.append(f"| {place(row)} | {link} | {score_} | {100 * row.accuracy:.1f}% | {row.macs:,} | {status} |")
    return lines


def literal(text: str) -> str:
    r"""Write text on one line of Markdown so that it shows as it is: no link, code, cell, tag or entity begins in it.

    Args:
        text: anything.

    >>> literal("a|b\n[c](d)")
    'a\\|b \\[c\\](d)'
    """
    line = " ".join(_on_one_line(text).split())
    return re.sub(r"[!-&*./:-@\[-`{-~]", r"\\\g<0>", line)
