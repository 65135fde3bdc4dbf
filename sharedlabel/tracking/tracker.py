"""Hands runs to W&B, online or into files for `wandb sync`; imports it when there is something to publish."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sharedlabel.config import digest
from sharedlabel.errors import TrackingError, interrupted, printable
from sharedlabel.tracking.places import SWEEP, Place
from sharedlabel.tracking.runs import Files, Run

_LETTERS = 120  # of a name; W&B takes 128
_WAIT = 60.0  # seconds for W&B to take what is left of a run at its end


class Tracker:
    """Publishes the runs of one experiment, each once.

    Args:
        place: where they go.
    """

    def __init__(self, place: Place) -> None:
        self.place, self._started = place, False
        if place.mode != "none":
            (place.folder / "published").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            with _publishing("the last run"):
                import wandb

                wandb.teardown()

    def publish(self, run: Run) -> None:
        """Publish a run, unless it was published before.

        Raises:
            TrackingError: W&B does not take it.
        """
        if self.place.mode == "none" or self.has(run.identifier):
            return
        self._started = True
        with _publishing(run.name):
            self._write(run)
        self._marker(run.identifier).touch()

    def has(self, identifier: str) -> bool:
        """Tell whether a run was published before.

        Args:
            identifier: its own.
        """
        return self._marker(identifier).exists()

    def _marker(self, identifier: str) -> Path:
        where = digest([self.place.entity, self.place.project])[:8]
        return self.place.folder / "published" / f"{self.place.mode}-{where}-{identifier}"

    def _write(self, run: Run) -> None:
        begun, self.place = begin(self.place, run)
        try:
            with begun:
                fill(begun, run)
                begun.finish(exit_code=1 if run.failed else 0)
        except TimeoutError:
            self.place = _offline(self.place, f"it has not taken all of {run.name} within {_WAIT:g} s")


def begin(place: Place, run: Run, live: bool = False) -> tuple[Any, Place]:
    """Begin a run; offline, with a warning, where W&B takes none.

    Args:
        place: where it goes.
        run: what it is called, and its configuration.
        live: it is of a training, whose machine is watched, too.

    Returns:
        The run of W&B, and where later ones go.
    """
    import wandb

    try:
        return _start(place, run, live), place
    except wandb.errors.CommError as error:
        place = _offline(place, str(error))
        wandb.teardown()  # its service takes no second run of this id, even one that has not begun
        return _start(place, run, live), place


def _offline(place: Place, reason: str) -> Place:
    advice = "a run that was deleted there keeps its id for ever: choose another `name`; " if "delete" in reason else ""
    warnings.warn(
        f"W&B takes no runs now: {' '.join(reason.split()).rstrip('.')}; {advice}going on offline: nothing is lost, "
        f"`wandb sync --no-skip-online {place.folder / 'wandb'}` later",
        RuntimeWarning,
        stacklevel=2,
    )
    return dataclasses.replace(place, mode="offline")


def _start(place: Place, run: Run, live: bool) -> Any:
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    _settle(place.folder)
    for name in SWEEP:  # it would put every run of this process into the one that it says
        os.environ.pop(name, None)
    sweep = place.sweep if run.kind == "summary" else None
    return wandb.init(
        entity=place.entity or None,
        project=place.project,
        group=printable(place.experiment, _LETTERS),
        job_type=run.kind,
        id=sweep.run_id if sweep else place.run_id(run.identifier),
        name=printable(run.name, _LETTERS),
        tags=[printable(tag, 64) for tag in run.tags],
        config={**run.config, **(sweep.options if sweep else {})},
        dir=str(place.folder),
        mode=place.mode,  # type: ignore[arg-type]
        resume="allow" if place.mode == "online" else None,
        settings=wandb.Settings(
            sweep_id=sweep.identifier if sweep else None,
            x_disable_stats=not live,
            console="off",
            save_code=False,
            disable_git=True,
            finish_timeout=_WAIT,
            finish_timeout_raises=True,
            x_save_requirements=run.kind == "summary",  # a tenth of a second, the same for every run
        ),
    )


def _settle(folder: Path) -> None:
    """Let W&B copy artifacts and write its own log below our folder, where the user has no home that can be written."""
    from wandb import env

    for name, usual in (("WANDB_DATA_DIR", env.get_data_dir()), ("WANDB_CACHE_DIR", env.get_cache_dir())):
        if name not in os.environ:
            try:
                Path(usual).mkdir(parents=True, exist_ok=True)
            except OSError:
                os.environ[name] = str(folder / "home")


def fill(begun: Any, run: Run) -> None:
    """Write what a run holds into one of W&B that has begun."""
    for curve in run.curves:
        begun.define_metric(curve.name, step_metric=curve.step, summary=curve.best)
    # The first steps were told from another folder, or by a process that died.
    for told in itertools.islice(_told(run), begun.starting_step, None):
        begun.log(told)
    begun.summary.update(dict(run.summary))
    if run.files is not None:
        begun.log_artifact(_artifact(run.files), aliases=list(run.files.aliases))


def _told(run: Run) -> Iterator[dict[str, Any]]:
    """Yield what is logged of a run, a step each."""
    import wandb

    yield from map(dict, run.history)
    if run.tables:
        yield {name: _table(records) for name, records in run.tables.items()}
    if run.plots:
        yield {f"plot/{name}": wandb.Html(svg) for name, svg in run.plots.items()}


@contextlib.contextmanager
def _publishing(name: str) -> Iterator[None]:
    """Say in a sentence what W&B does not take: it is the last step of a run, and everything else of it is done."""
    try:
        yield
    except Exception as error:
        if interrupted():
            raise KeyboardInterrupt from error
        said = printable(" ".join(str(error).split()), 500)
        raise TrackingError(
            f"expected W&B to take {name}, got {type(error).__name__}: {said}; all results are stored and the report "
            "is written: correct it, or choose --tracking none, and run the same command again"
        ) from error


def _table(records: Sequence[Any]) -> Any:
    import wandb

    columns: list[str | int] = [item.name for item in dataclasses.fields(records[0])]
    data = [[getattr(record, str(name)) for name in columns] for record in records]
    # W&B finds the types of columns row by row, in a millisecond each: rows of the same types say nothing new.
    telling = {tuple(map(type, row)): row for row in reversed(data)}
    table = wandb.Table(columns=columns, data=list(telling.values()))
    table.data = data
    return table


def _artifact(files: Files) -> Any:
    import wandb

    artifact = wandb.Artifact(files.name, type=files.kind, metadata=dict(files.facts))
    for name, path in files.paths.items():
        artifact.add_file(str(path), name=name)
    return artifact
