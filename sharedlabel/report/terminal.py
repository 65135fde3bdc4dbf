"""The report in the terminal: tables, sweet spots in sentences, warnings."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sharedlabel.records import Results, SweetSpot, shown
from sharedlabel.records.written import number, percent
from sharedlabel.report import adaptive, sentences, standings, views
from sharedlabel.report.sentences import edge, sentence
from sharedlabel.report.views import View

# The tables that it needs of a run in which nothing has failed.
PRINTED = ("summaries", "comparisons", "sweet_spots", "layers", "adaptive", "ranks", "wins")
_SHOWN_OTHERS = 2
_SHOWN_FAILURES = 10
_WIDTH = 100
_SPOKEN_RULES = ("budget", "retain", "target")


def open_console(quiet: bool = False) -> Console:
    """Return a console as wide as the terminal, and wide enough for the tables where there is none.

    It takes texts as they are: names in brackets or between colons are no markup.

    Args:
        quiet: print nothing.
    """
    console = Console(markup=False, emoji=False, quiet=quiet)
    if console.is_terminal:
        return console
    return Console(width=max(_WIDTH, console.width), markup=False, emoji=False, quiet=quiet)


def print_report(results: Results, console: Console) -> None:
    """Print the report.

    Args:
        results: what a grid found.
        console: where to print; 100 columns are enough.
    """
    for renderable in render(results):
        console.print(renderable)


def render(results: Results) -> list[RenderableType]:
    """Render the report: what failed, per data set, backbone and protocol the best methods and sweet spots, warnings.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    results = shown.shown(results)
    parts: list[RenderableType] = _failed(results)
    for view in views.split(results):
        seeds = f"{view.seeds} seed{'s' * (view.seeds > 1)}"
        parts += [Text(), Text(f"{view.data}, {view.backbone}, {view.protocol} tuples, {seeds}", style="bold")]
        parts.append(_best_table(view))
        if few := sentences.seeds(view.seeds):
            parts.append(Text(f" {few}"))
        else:
            for training in standings.trainings(view):
                parts += _standing(view, training)
        if said := sentences.order(view):
            parts.append(Text(f" {said}"))
        spots = views.winners(view)
        if spots:
            parts += [_spot_table(spots, view), _sentences(spots, view)]
        stops = adaptive.sentence(view)
        if stops:
            parts.append(Text.assemble((" Adaptive n: ", "bold"), stops))
    parts += [Text(f"warning: {line}", style="yellow") for line in views.collapses(results)]
    return parts


def _failed(results: Results) -> list[RenderableType]:
    """Name every call that failed once, with its reason and how to run the first cell of it alone."""
    if not results.failures:
        return []
    calls = views.failed(results)
    parts: list[RenderableType] = [Text(), Text(views.shortfall(results), style="bold red")]
    for call in calls[:_SHOWN_FAILURES]:
        parts += [
            Text(f" - {call.first.call} ({call.lost}): {call.first.reason}"),
            Text(f"   traceback: {call.first.details}; alone: {call.first.repeat}", style="dim"),
        ]
    if len(calls) > _SHOWN_FAILURES:
        parts.append(Text(f"   and {len(calls) - _SHOWN_FAILURES} more: failures.csv"))
    return parts


def _table(title: str, caption: str, columns: Sequence[tuple[str, bool | None]]) -> Table:
    table = Table(
        title=Text(title),
        caption=Text(caption),
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for name, numeric in columns:
        table.add_column(
            Text(name), justify="right" if numeric else "left", no_wrap=numeric is not False, overflow="fold"
        )
    return table


def _best_table(view: View) -> Table:
    columns: list[tuple[str, bool | None]] = [
        ("ratio", True),
        ("n", True),
        ("best", False),
        ("pruner", False),
        ("RI", True),
        ("right", True),
    ]
    table = _table(
        "Best method per ratio and n",
        "Chosen on validation, shown on test: calibrated RI [95%], n-accuracy. Others: not shown to be worse on test.",
        [*columns, ("others", False)],
    )
    previous = None
    for best in views.best_methods(view):
        chosen = best.chosen
        if previous not in {None, chosen.ratio}:
            table.add_section()
        ratio = f"{chosen.ratio:g}x" if chosen.ratio != previous else ""
        previous = chosen.ratio
        ri = f"{number(chosen.ri)} [{number(chosen.ri_low)}, {number(chosen.ri_high)}]"
        where = (views.method(chosen), views.network(chosen))
        table.add_row(
            *map(Text, (ratio, str(chosen.n), *where, ri, percent(chosen.n_accuracy), best.named(_SHOWN_OTHERS)))
        )
    return table


def _standing(view: View, training: str) -> list[RenderableType]:
    """Say who may be best, and show how often each is better or worse than another if it fits."""
    sizes = standings.sizes(view, training)
    lines: list[RenderableType] = [
        Text.assemble((f" May be best at n = {n}: ", "bold"), standings.leaders(view, training, n)) for n in sizes[-1:]
    ]
    matrix = standings.matrix(view, training)
    if matrix is None:
        return lines
    table = _table(
        f"Better / equivalent / undecided / worse, over all networks and n >= 2 ({training} training)",
        "Method of the row against that of the column: paired differences in RI, adjusted for all comparisons.",
        [("", None), *((name, False) for name in matrix.names)],
    )
    for name in matrix.names:
        tallies = [matrix.cells.get((name, other)) for other in matrix.names]
        table.add_row(Text(name), *(Text(str(t) if t else "") for t in tallies))
    return [*lines, table] if Console(width=10 * _WIDTH).measure(table).maximum <= _WIDTH else lines


def _spot_table(spots: Sequence[SweetSpot], view: View) -> Table:
    table = _table(
        "Sweet spots",
        "Best method of each rule, chosen on validation, shown on test. Agree: share of replicates.",
        [
            ("rule", None),
            ("ratio", True),
            ("n", True),
            ("method", False),
            ("pruner", False),
            ("RI", True),
            ("passes", True),
            ("grid", False),
            ("agree", True),
        ],
    )
    for spot in spots:
        if spot.ratio is None:
            table.add_row(Text(spot.asked), "-", "-", Text("none qualifies"))
            continue
        cells = (
            spot.asked,
            f"{spot.ratio:g}x",
            str(spot.n),
            views.method(spot),
            views.network(spot),
            number(spot.ri or 0.0),
            f"{spot.cost_dense_passes or 0.0:.2f}",
            "guessing" if spot.guessing else edge(spot, view),
            f"{100 * spot.modal_share:.0f}%",
        )
        table.add_row(*map(Text, cells))
    return table


def _sentences(spots: Sequence[SweetSpot], view: View) -> Table:
    grid = Table.grid(padding=(0, 1))
    for spot in spots:
        if spot.rule in _SPOKEN_RULES or spot.ratio is None:
            text = Text.assemble((f"{spot.asked}: ", "bold"), sentence(spot, view))
            grid.add_row(Text(" -"), text)
    return grid
