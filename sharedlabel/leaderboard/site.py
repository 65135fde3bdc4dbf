"""The leaderboard as static pages: an index, a table for each protocol and a page for each entry; no network needed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib import rc_context

from sharedlabel.leaderboard import score
from sharedlabel.leaderboard.plots import against_cost
from sharedlabel.leaderboard.protocol import Board, Protocol
from sharedlabel.leaderboard.standings import Standing, entries, standings
from sharedlabel.results import to_csv

TOP = 10  # rows of the README's tables
BEGIN, END = "<!-- standings: made by `python -m sharedlabel.leaderboard site` -->", "<!-- end of standings -->"


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
        front: whether no ranked entry that costs no more scores higher.
        tied: entries that it is not shown to differ from.
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
    front: bool
    tied: str
    authors: str
    license: str
    external_data: bool
    trials: int
    updated: str


def build(board: Board, out: Path) -> int:
    """Write the site into a folder, in the place of an older one, and the tables of the README.

    Args:
        board: the leaderboard.
        out: folder; replaced as a whole.

    Returns:
        Number of entries.

    Raises:
        SharedLabelError: a protocol, a submission or a result is missing or was altered; nothing is written then.
    """
    tables = {name: _standings(board, board.protocol(name)) for name in board.ids()}
    pages = _pages(tables)
    readme = with_tables(_readme(board), {name: rows for name, (_, rows) in tables.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    for name, text in pages.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text, encoding="utf-8")
    made.chmod(0o755)
    shutil.rmtree(out, ignore_errors=True)
    made.rename(out)
    (board.root / "README.md").write_text(readme, encoding="utf-8")
    return sum(len(rows) for _, rows in tables.values())


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
    environment.globals["place"] = place
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
            pages[f"{name}/{row.entry.result.name}.html"] = entry.render(
                protocol=protocol, row=row, means=means, chart=chart(protocol, means), root="../"
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
        row.front,
        ",".join(row.tied),
        ", ".join(author.name for author in card.authors),
        card.license,
        card.external_data,
        card.tuning.trials,
        row.entry.history[-1].time,
    )


def place(row: Standing) -> str:
    """Write a rank as an interval: `1`, `2 to 5`, or a dash where there is none.

    Args:
        row: of the table.
    """
    if row.best is None or row.worst is None:
        return "\N{EN DASH}"
    return f"{row.best}" if row.best == row.worst else f"{row.best} to {row.worst}"


def chart(protocol: Protocol, means: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Return the lines of an entry's chart, RI by network for each n, in a box of 600 by 240, and its lowest value.

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


def with_tables(readme: str, tables: dict[str, Sequence[Standing]]) -> str:
    """Put the first rows of every table between the marks of a README.

    Args:
        readme: with `BEGIN` and `END`, each on a line of its own.
        tables: by protocol.
    """
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [BEGIN, ""]
    for name, rows in tables.items():
        lines += [f"### {name}", "", *markdown(rows[:TOP])]
        left = len(rows) - TOP
        lines += [f"and {left} more." if left > 0 else "", ""] if left > 0 else [""]
    return before + "\n".join([*lines, END]) + after


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
        link = f"[{row.entry.submission.card.title}](submissions/{name}/)"
        lines.append(f"| {place(row)} | {link} | {score_} | {100 * row.accuracy:.1f}% | {row.macs:,} | {status} |")
    return lines
