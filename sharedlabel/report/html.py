"""The report as one self-contained HTML file: no request to any network, nothing beside it needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sharedlabel import records
from sharedlabel.files import together
from sharedlabel.machine import memory
from sharedlabel.records import DatasetFacts, Results, Row, shown
from sharedlabel.records.written import number, percent
from sharedlabel.report import PLOTS, adaptive, costs, layout, plots, standings, views
from sharedlabel.report.answer import answer
from sharedlabel.report.charts.figure import Panel
from sharedlabel.report.charts.marks import Mark
from sharedlabel.report.charts.svg import panel_svg, swatch
from sharedlabel.report.plots import Drawn
from sharedlabel.report.sentences import order, seeds, sentence
from sharedlabel.report.tables import long_tables
from sharedlabel.report.views import Best, View
from sharedlabel.report.wrong import wrong

NAME = "report.html"
FAILURES = "failures/"
_LINE = 100  # letters of the configuration
_PICTURE = 40  # height of an image of a mistake, in pixels


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
    drawn = plots.drawn(results)
    together.replace(folder, _files(results, drawn, name, csv_folder), lambda name: name.startswith(PLOTS))
    return folder / name


@memory.uncollected()
def publish(results: Results, folder: Path, details: Mapping[str, str] | None, made_of: str = "") -> Mapping[str, str]:
    """Write all that a run leaves beside its store, together or not at all: tables, report, figures, tracebacks.

    Where the report cannot be drawn, the tables are written all the same.

    Args:
        results: what a grid found.
        folder: of the run; made if absent.
        details: text of every traceback by file name, in the place of those that are there; None leaves these.
        made_of: a digest of what all this follows from, by which it is known again.

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
        drawn = plots.drawn(results)
        files |= _files(results, drawn, NAME, ".")
    except Exception:
        replace()
        raise
    replace(made_of)
    return plots.files(drawn)


def _files(results: Results, drawn: Sequence[Drawn], name: str, csv_folder: str) -> dict[str, str]:
    page = render(results, drawn, csv_folder=csv_folder)
    return {name: page} | {f"{PLOTS}{stem}.svg": text for stem, text in plots.files(drawn).items()}


def render(results: Results, drawn: Sequence[Drawn] | None = None, *, csv_folder: str = ".") -> str:
    """Render the report.

    Args:
        results: what a grid found.
        drawn: its figures if `plots.drawn` has run already.
        csv_folder: folder of the CSV tables, relative to the report.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    figures = plots.drawn(results) if drawn is None else drawn
    results = shown.shown(results)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "whole": _whole,
        "number": number,
        "panel": _panel,
        "swatch": _swatch,
        "script": _script,
    }
    parts = views.split(results)
    networks = {view.network: view for view in reversed(parts)}.values()
    return environment.get_template("template.html").render(
        results=results,
        shortfall=views.shortfall(results),
        failed=views.failed(results),
        views=[_view(view, results) for view in parts],
        costs=list(filter(None, map(costs.costs, networks))),
        margins=list(filter(None, map(costs.margins, networks))),
        adaptive=[(table, adaptive.sentence(view)) for view in parts if (table := adaptive.table(view))],
        unfitted=list(filter(None, map(adaptive.unfitted, parts))),
        wrong=[one for view in parts if (one := wrong(view, results.dataset.class_names))],
        warnings=views.collapses(results),
        figures_of=layout.by_section(figures, len(parts)),
        tables=long_tables(results),
        provenance=list(_flat(results.provenance)),
        config=_compact(results.config),
        glossary=records.meanings(Row),
        csv=csv_folder,
        data=_data(results.dataset),
    )


def _whole(share: float) -> str:
    """Write a share as a whole percentage that says 100 only for all and 0 only for nothing.

    >>> [_whole(share) for share in (0.002, 0.124, 0.999, 1.0)]
    ['<1', '12', '>99', '100']
    """
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def _compact(value: Any, indent: str = "") -> str:
    """Write JSON with one line for whatever fits into one, and for lists of plain values.

    >>> _compact({"ratios": [1, 2, 4]})
    '{"ratios": [1, 2, 4]}'
    """
    line, deeper = json.dumps(value, ensure_ascii=False), f"{indent}  "
    if len(indent + line) <= _LINE:
        return line
    if isinstance(value, Mapping):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {_compact(part, deeper)}" for name, part in value.items()]
    elif isinstance(value, list) and any(isinstance(part, (Mapping, list)) for part in value):
        parts = [_compact(part, deeper) for part in value]
    else:
        return line
    return f"{line[0]}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{line[-1]}"


def _panel(panel: Panel) -> Markup:
    return Markup(panel_svg(panel))  # noqa: S704 (it escapes all names)


def _swatch(mark: Mark) -> Markup:
    return Markup(swatch(mark))  # noqa: S704


def _script(text: str) -> Markup:
    """Let JSON stand inside a script element."""
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _view(view: View, results: Results) -> dict[str, Any]:
    headline = views.headline(view)
    spots = [(spot.asked, sentence(spot, view)) for spot in views.winners(view) if spot is not headline]
    return {
        "view": view,
        "answer": answer(results, view),
        "seeds": seeds(view.seeds),
        "order": order(view),
        "others": spots,
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
    channels, height, width = facts.image_shape
    shape = f"{height} x {width}, {channels} channel{'s' * (channels != 1)}, {facts.dtype}"
    picture = min(max(round(_PICTURE * width / height), _PICTURE // 2), 4 * _PICTURE)
    return {
        "width": picture,
        "splits": splits,
        "classes": classes,
        "totals": totals,
        "grouped": grouped,
        "shape": shape,
    }


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


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
