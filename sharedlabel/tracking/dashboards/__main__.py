"""`sharedlabel dashboards RESULTS`: a workspace and a report of W&B that compare the methods of a run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharedlabel import records
from sharedlabel.config.arguments import Parser
from sharedlabel.errors import TrackingError, guarded, printable
from sharedlabel.records import Results
from sharedlabel.tracking.dashboards import panels
from sharedlabel.tracking.places import Place

NAME = "dashboards.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the dashboards of a run.

    Args:
        arguments: command line, without the program's name; `sys.argv` if None.

    Returns:
        Exit code: 0, or 2 when the user has something to fix.
    """
    return guarded(lambda: _main(arguments))


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser(
        "sharedlabel dashboards",
        "Save a workspace and a report of W&B that compare the methods of a run, and print where they are. Without an "
        f"API key, write what they would be to {NAME} beside the results.",
    )
    built.add_argument("results", type=Path, help="folder of a run, or its results.json")
    built.add_argument("--project", help="project of W&B (default: that of the run)")
    built.add_argument("--entity", help="user or team of W&B (default: that of the run, or your own)")
    built.add_argument("--offline", action="store_true", help=f"write {NAME}, even where there is an API key")
    return built


def _main(arguments: Sequence[str] | None) -> None:
    options = parser().parse_args(arguments)
    results = records.read(options.results)
    folder = options.results if options.results.is_dir() else options.results.parent
    sections = panels.sections(results)
    panels.check(sections, panels.published(results))
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise TrackingError(
            'expected the package wandb-workspaces, which is not installed; pip install "sharedlabel[dashboards]"'
        )
    from sharedlabel.tracking.dashboards import views

    place = Place.of_results(results, folder, options.project, options.entity)
    if options.offline or place.mode != "online":
        written = folder / NAME
        written.write_text(json.dumps(views.specification(views.shown(results, place, sections)), indent=1))
        print(printable(f"wrote {written}: what W&B is to be sent, nothing to look at; to see it: {_way(place)}"))
        return
    for line in _saved(results, place, sections):
        print(printable(line))


def _way(place: Place) -> str:
    """Say how dashboards come to W&B, whose runs have to be there first."""
    runs = place.folder / "wandb"
    first = f"`wandb sync {runs}`" if runs.exists() else "a run with --tracking online"
    return f"`wandb login`, {first} and the same command again"


def _saved(results: Results, place: Place, sections: Sequence[panels.Section]) -> list[str]:
    """Save both at W&B, and return where they are.

    Raises:
        TrackingError: W&B does not take them.
    """
    import wandb

    from sharedlabel.tracking.dashboards import views

    try:
        entity = place.entity or str(wandb.Api().default_entity)
        shown = views.shown(results, dataclasses.replace(place, entity=entity), sections)
        made: dict[str, Any] = {"workspace": views.workspace(shown), "report": views.report(shown)}
        for one in made.values():
            one.save()
        return [f"{name}: {one.url}" for name, one in made.items()]
    except Exception as error:
        said = printable(" ".join(str(error).split()), 500)
        raise TrackingError(
            f"expected W&B to take the dashboards, got {type(error).__name__}: {said}; correct it, or write them to a "
            "file with --offline"
        ) from error


if __name__ == "__main__":
    raise SystemExit(main())
