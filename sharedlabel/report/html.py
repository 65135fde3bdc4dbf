"""The report as one self-contained HTML file: no request to any network, nothing beside it needed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sharedlabel import records
from sharedlabel.files import together
from sharedlabel.machine import memory
from sharedlabel.records import TABLES, DatasetFacts, Results, Row, shown
from sharedlabel.report import PLOTS, adaptive, costs, plots, standings, views
from sharedlabel.report._theme import GRID, INK, MUTED, PAPER, SERIES
from sharedlabel.report.sentences import number, percent, seeds, sentence, title
from sharedlabel.report.views import Best, View

NAME = "report.html"
FAILURES = "failures/"
EMBEDDED = 10_000  # records of a table that the page itself holds; browsers and mailboxes choke on more
_LEAD = (
    "aggregator",
    "method",
    "reference",
    "ratio",
    "n",
    "pruner",
    "protocol",
    "split",
    "seed",
    "rule",
    "value",
    "metric",
)
_COLORS = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"} | {
    color: f"--series-{i}" for i, color in enumerate(SERIES)
}


def write_report(results: Results, folder: Path, name: str = NAME, *, csv_folder: str = ".") -> Path:
    """Write the HTML report and, beside it, every figure as `plots/*.svg`, together or not at all.

    Args:
        results: what a grid found.
        folder: where to write; made if absent.
        name: file name of the report.
        csv_folder: folder of the CSV tables, relative to `folder`, for the links.

    Returns:
        Path of the report.

    Raises:
        StoreError: no cell has finished, nor failed.
        WriteError: a file cannot be written; the message names it.
    """
    drawn = plots.figures(results)
    together.replace(folder, _files(results, drawn, name, csv_folder), lambda name: name.startswith(PLOTS))
    return folder / name


@memory.uncollected()
def publish(
    results: Results, folder: Path, details: Mapping[str, str] | None, made_of: str = "", processes: int = 1
) -> Mapping[str, str]:
    """Write all that a run leaves beside its store, together or not at all: tables, report, figures, tracebacks.

    Where the report cannot be drawn, the tables are written all the same.

    Args:
        results: what a grid found.
        folder: of the run; made if absent.
        details: text of every traceback by file name, in the place of those that are there; None leaves these.
        made_of: a digest of what all this follows from, by which it is known again.
        processes: that draw figures.

    Returns:
        The figures, SVG text by name.

    Raises:
        WriteError: a file cannot be written; the message names it.
    """
    files = {**records.files(results), **(details or {})}
    replaced = () if details is None else (PLOTS, NAME, FAILURES)

    def replace(made_of: str = "") -> None:
        together.replace(folder, files, lambda name: name.startswith(replaced), made_of)

    try:
        drawn = plots.figures(results, processes)
        files |= _files(results, drawn, NAME, ".")
    except Exception:
        replace()
        raise
    replace(made_of)
    return drawn


def _files(results: Results, drawn: Mapping[str, str], name: str, csv_folder: str) -> dict[str, str]:
    page = render(results, drawn, csv_folder=csv_folder)
    return {name: page} | {f"{PLOTS}{stem}.svg": svg for stem, svg in drawn.items()}


def render(results: Results, figures: Mapping[str, str] | None = None, *, csv_folder: str = ".") -> str:
    """Render the report.

    Args:
        results: what a grid found.
        figures: SVG text by name if `plots.figures` has run already.
        csv_folder: folder of the CSV tables, relative to the report.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    results = shown.shown(results)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number}
    parts = views.split(results)
    networks = {view.network: view for view in reversed(parts)}.values()
    return environment.get_template("template.html").render(
        results=results,
        shortfall=views.shortfall(results),
        failed=views.failed(results),
        views=[_view(view) for view in parts],
        costs=list(filter(None, map(costs.costs, networks))),
        margins=list(filter(None, map(costs.margins, networks))),
        adaptive=[(table, adaptive.sentence(view)) for view in parts if (table := adaptive.table(view))],
        warnings=views.collapses(results),
        figures=_figures(plots.figures(results) if figures is None else figures),
        tables=_tables(results),
        provenance=list(_flat(results.provenance)),
        config=json.dumps(results.config, indent=2, ensure_ascii=False),
        glossary=records.meanings(Row),
        csv=csv_folder,
        data=_data(results.dataset),
    )


def _view(view: View) -> dict[str, Any]:
    spots = [(title(spot), sentence(spot, view)) for spot in views.winners(view)]
    headline = views.headline(view)
    return {
        "view": view,
        "seeds": seeds(view.seeds),
        "headline": headline and (title(headline), sentence(headline, view)),
        "budgets": [(title(s), sentence(s, view)) for s in views.winners(view, ("budget",)) if s is not headline],
        "others": [pair for pair, spot in zip(spots, views.winners(view), strict=True) if spot.rule != "budget"],
        "best": _matrix(views.best_methods(view)),
        "standings": [(training, _standing(view, training)) for training in standings.trainings(view)],
        "matrices": [
            (name, matrix) for name in standings.trainings(view) if (matrix := standings.matrix(view, name)) is not None
        ],
        "place": views.place,
    }


def _data(facts: DatasetFacts) -> dict[str, Any]:
    """Arrange the counts of images and groups by class and split."""
    splits = list(dict.fromkeys(count.split for count in facts.counts))
    classes: dict[str, dict[str, str]] = {}
    totals = dict.fromkeys(splits, 0)
    for count in facts.counts:
        groups = "" if count.groups is None else f" ({count.groups:,})"
        classes.setdefault(count.label, {})[count.split] = f"{count.images:,}{groups}"
        totals[count.split] += count.images
    grouped = any(count.groups is not None for count in facts.counts)
    return {"splits": splits, "classes": classes, "totals": totals, "grouped": grouped}


def _matrix(bests: Sequence[Best]) -> dict[float, dict[int, Best]]:
    matrix: dict[float, dict[int, Best]] = {}
    for best in bests:
        matrix.setdefault(best.chosen.ratio, {})[best.chosen.n] = best
    return matrix


def _standing(view: View, training: str) -> dict[str, Any]:
    """Arrange the ranks by aggregator and n, those with the best mean at the largest n first."""
    sizes = standings.sizes(view, training) or [1]
    orders = {n: {rank.aggregator: rank for rank in standings.standing(view, training, n)} for n in sizes}
    titles = {n: f"n = {n}" for n in sizes}
    return {"names": list(orders[sizes[-1]]), "titles": titles, "orders": orders, "span": standings.span}


def _figures(drawn: Mapping[str, str]) -> list[dict[str, Any]]:
    groups = []
    for kind, (heading, caption) in plots.CAPTIONS.items():
        own = [(name, Markup(_themed(svg))) for name, svg in drawn.items() if name.split("-")[0] == kind]  # noqa: S704
        if own:
            groups.append({"kind": kind, "heading": heading, "caption": caption, "figures": own})
    return groups


def _themed(svg: str) -> str:
    """Let a figure take its colours from the page and its width from its box."""

    def recolor(match: re.Match[str]) -> str:
        return re.sub(
            r"#[0-9a-f]{6}", lambda color: f"var({_COLORS[color[0]]})" if color[0] in _COLORS else color[0], match[0]
        )

    text = re.sub(r' style="[^"]*"', recolor, svg)
    width = re.search(r' width="([\d.]+)pt"', text)
    points = float(width[1]) if width else 720.0
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    size = f"min-width: {points * 1.2:.0f}px; max-width: {points * 1.55:.0f}px; "
    return text.replace('style="', f'style="{size}', 1)


def _tables(results: Results) -> list[dict[str, Any]]:
    """Arrange the tables that `Results` describes for readers: failures first, and the longest one last."""
    described = {item.name: item.metadata for item in dataclasses.fields(results) if "heading" in item.metadata}
    order = sorted(described, key=lambda name: (name != "failures", name == "rows"))
    return [
        {
            "name": name,
            **described[name],
            "json": _json(TABLES[name], getattr(results, name)[:EMBEDDED]),
            "embedded": min(len(getattr(results, name)), EMBEDDED),
            "count": len(getattr(results, name)),
        }
        for name in order
    ]


def _json(kind: type, lines: Sequence[Any]) -> Markup:
    """Write records as columns and rows, six digits each, safe inside a script element."""
    names = [field.name for field in dataclasses.fields(kind)]
    names.sort(key=lambda name: _LEAD.index(name) if name in _LEAD else len(_LEAD))
    glossary = records.meanings(kind)
    rows = [[_short(getattr(record, name)) for name in names] for record in lines]
    titles = [glossary.get(name, "") for name in names]
    text = json.dumps({"columns": names, "titles": titles, "rows": rows}, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
