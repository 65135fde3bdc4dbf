"""The leaderboard as static pages: an index, a table for each protocol and a page for each entry; no network needed."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from sharedlabel.errors import StoreError
from sharedlabel.files import together
from sharedlabel.leaderboard.board import facts, score, writing
from sharedlabel.leaderboard.board.downloads import Line, line_of, seconds
from sharedlabel.leaderboard.board.markdown import BEGIN, END, caution, place, with_tables
from sharedlabel.leaderboard.board.plots import against_cost
from sharedlabel.leaderboard.board.standings import Listed, Standing, entries, standings
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.records import to_csv

MADE = ".sharedlabel-site"  # a folder that holds this file is one that `build` may replace
_ABOUT = "Made by `sharedlabel leaderboard site`, which replaces this folder as a whole.\n"


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
    writing.replace_folder(out, {name: text.encode() for name, text in {MADE: _ABOUT, **pages}.items()})
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
        loader=ChoiceLoader(
            [PackageLoader("sharedlabel.leaderboard.board", ""), PackageLoader("sharedlabel.report", "")]
        ),
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
        lines = [line_of(row) for row in rows]
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


def _run_by_maintainer(entry: Listed) -> bool:
    """Return whether the predictions are those of a verified run, which a dispute or a new scoring leaves in place."""
    runs = [event.status for event in entry.history if event.status in (facts.RANKED, "self-reported")]
    return runs[-1] == facts.RANKED


def chart(protocol: Protocol, means: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Return the lines of an entry's chart, RI by network for each n, in a box of 520 by 240, and its lowest value.

    Args:
        protocol: networks are drawn from left to right in its order.
        means: by network and n.
    """
    names, drawn = [network.name for network in protocol.networks], []
    left, width, top, height = 40, 470, 12, 190
    low = min(0.0, *(one["ri"] for one in means.values()))
    for n in protocol.n:
        points = [
            (left + width * i / max(1, len(names) - 1), top + height * (1 - (means[name, n]["ri"] - low) / (1 - low)))
            for i, name in enumerate(names)
        ]
        drawn.append({"n": n, "points": [(round(x, 1), round(y, 1)) for x, y in points]})
    return {"lines": drawn, "low": low}
