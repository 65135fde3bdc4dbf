"""The tables of the leaderboard's README."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sharedlabel.errors import StoreError
from sharedlabel.leaderboard.board.standings import Standing
from sharedlabel.records import MIN_SEEDS

TOP = 10  # rows of the README's tables
BEGIN, END = "<!-- standings: made by `python -m sharedlabel.leaderboard site` -->", "<!-- end of standings -->"


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


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
        got = f"{len(marks)} and {len(ends)} of them" + (" in the wrong order" if marks and ends else "")
        raise StoreError(
            f"expected the lines {BEGIN!r} and, below it, {END!r} in the README of the leaderboard, got {got}; "
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
        link = f"[{literal(row.entry.submission.metadata.title)}](submissions/{name}/)"
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
