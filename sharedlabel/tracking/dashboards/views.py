"""W&B's own workspace and report of a dashboard, by the library wandb-workspaces (extra `dashboards`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as ws

from sharedlabel.records import Results
from sharedlabel.tracking import methods
from sharedlabel.tracking.about import About
from sharedlabel.tracking.dashboards.panels import Panel, Section
from sharedlabel.tracking.places import Place
from sharedlabel.tracking.runs import Kind

wr: Any = reports  # it does not say what it exports
_SHOWN = 100  # runs in a plot
_COLORS = (
    "#2a6fbb", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#17807e", "#a0522d", "#5b6770", "#c2488f", "#7a8b00",
)  # fmt: skip
_COLUMNS = ("run:displayName", "config:method.value", "config:ratio.value", "config:seed.value")


@dataclass(frozen=True)
class Shown:
    """What is shown, and of which runs.

    Attributes:
        place: where the runs are.
        grid: identifier of the grid in its present extent.
        methods: ids of the runs of methods.
        sections: the plots.
        columns: metrics of cells that the table of runs shows.
    """

    place: Place
    grid: str
    methods: Sequence[str]
    sections: Sequence[Section]
    columns: Sequence[str]

    def filters(self, *kinds: Kind) -> str:
        """Return the expression of W&B for runs of some kinds; methods and summaries are those of this grid."""
        of_grid = {"method", "summary"}  # these come first, whatever W&B reads first, "and" or "or"
        parts = [
            f"(Metric('JobType') == '{kind}' and Config('grid') == '{self.grid}')"
            if kind in of_grid
            else f"Metric('JobType') == '{kind}'"
            for kind in sorted(kinds, key=lambda kind: kind not in of_grid)
        ]
        return f"Metric('Group') == '{self.place.experiment}' and ({' or '.join(parts)})"


def shown(results: Results, place: Place, sections: Sequence[Section]) -> Shown:
    """Return what is shown of an experiment.

    Args:
        results: of the whole grid.
        place: where its runs are.
        sections: the plots.
    """
    grid = methods.extent(results)
    ids = [place.run_id(run.identifier) for run in methods.of_methods(results, About.of(results), grid)]
    ns = sorted({one.n for one in results.summaries})
    return Shown(place, grid, ids, sections, [f"test/{metric}@{n}" for n in ns for metric in ("ri", "n_accuracy")])


def workspace(shown: Shown) -> ws.Workspace:
    """Return a workspace with all plots, and the table of runs beside them.

    Args:
        shown: what is shown.
    """
    kinds: tuple[Kind, ...] = ("method", "summary", "cell", "training")
    columns = [*_COLUMNS, *(f"summary:{name}" for name in shown.columns)]
    return ws.Workspace(
        entity=shown.place.entity,
        project=shown.place.project,
        name=f"{shown.place.experiment}: methods",
        auto_generate_panels=False,
        sections=[
            ws.Section(name=section.title, panels=[_panel(one, shown) for one in section.panels], is_open=True)
            for section in shown.sections
        ],
        settings=ws.WorkspaceSettings(max_runs=_SHOWN),
        runset_settings=ws.RunsetSettings(filters=shown.filters(*kinds), pinned_columns=columns),
    )


def report(shown: Shown) -> Any:
    """Return a report: every question with its plots, and the cells as a table grouped by method.

    Args:
        shown: what is shown.
    """
    blocks: list[Any] = [wr.TableOfContents()]
    for section in shown.sections:
        kinds: tuple[Kind, ...] = tuple(dict.fromkeys(panel.of for panel in section.panels))
        panels = [_panel(one, shown) for one in section.panels]
        grid = wr.PanelGrid(runsets=[_runset(shown, section.title, kinds)], panels=panels, hide_run_sets=True)
        blocks += [wr.H2(section.title), wr.P(section.about), grid]
    table = _runset(shown, "Cells by method", ("cell",), ["config.method"])
    blocks += [wr.H2("Every cell"), wr.PanelGrid(runsets=[table], panels=[wr.RunComparer(diff_only="split")])]
    return wr.Report(
        entity=shown.place.entity,
        project=shown.place.project,
        title=f"{shown.place.experiment}: how far to compress",
        description="Made by `sharedlabel dashboards`. Chosen on validation, shown on test.",
        blocks=blocks,
        width="fluid",
    )


def specification(shown: Shown) -> dict[str, Any]:
    """Return what W&B would be sent, as plain data.

    Args:
        shown: what is shown.
    """
    models = {"workspace": workspace(shown)._to_model(), "report": report(shown)._to_model()}
    return {
        name: json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True)) for name, model in models.items()
    }


def _runset(shown: Shown, name: str, kinds: Sequence[Kind], groups: Sequence[str] = ()) -> Any:
    columns = [*_COLUMNS, *(f"summary:{metric}" for metric in shown.columns)]
    return wr.Runset(
        name=name,  # of the project of the report: W&B would be asked for another one
        filters=shown.filters(*kinds),
        groupby=list(groups),
        pinned_columns=columns if "cell" in kinds else list(_COLUMNS[:2]),
    )


def _panel(panel: Panel, shown: Shown) -> Any:
    if panel.kind == "line":
        return wr.LinePlot(
            title=panel.title,
            x=panel.x,
            y=[*panel.y, *panel.ends],
            log_x=panel.log_x or None,
            max_runs_to_show=_SHOWN,
            **_grouped(panel),
            **_styles(panel, shown.methods),
        )
    if panel.kind == "points":
        (y,) = panel.y
        x = wr.Config(panel.x.removeprefix("config.")) if panel.x.startswith("config.") else wr.SummaryMetric(panel.x)
        return wr.ScatterPlot(title=panel.title, x=x, y=wr.SummaryMetric(y), log_x=panel.log_x or None)
    return wr.BarPlot(title=panel.title, metrics=list(panel.y), max_runs_to_show=_SHOWN, **_grouped(panel))


def _grouped(panel: Panel) -> dict[str, Any]:
    if not panel.group:
        return {}
    return {"groupby": wr.Config(panel.group), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}


def _styles(panel: Panel, methods: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Return what gives a method one colour in all plots, and the ends of its intervals dots."""
    if panel.of != "method":
        return {}
    colors = {one: _COLORS[at % len(_COLORS)] for at, one in enumerate(methods)}
    lines = {f"{one}:{metric}": color for one, color in colors.items() for metric in (*panel.y, *panel.ends)}
    marks = {f"{one}:{metric}": "dotted" for one in methods for metric in panel.ends}
    return {"line_colors": lines, **({"line_marks": marks} if marks else {})}
