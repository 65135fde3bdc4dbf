"""Weights & Biases: a view on finished cells, never the source of a number. Imported only when it is used.

One run per cell, grouped by experiment, and one summary run with the comparison tables and plots. A run's id holds the
experiment and the cell, so that experiments that share cells do not overwrite each other's runs. Without an API key
runs are written offline, for `wandb sync` later.
"""

from __future__ import annotations

import contextlib
import dataclasses
import netrc
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from sharedlabel.config import Experiment, digest
from sharedlabel.errors import TrackingError, interrupted, printable
from sharedlabel.records import AXES, TABLES, Results, Row
from sharedlabel.records.measurements import Failure

CURVES = (
    "n_accuracy",
    "ri",
    "ri_raw",
    "negative_log_likelihood",
    "calibration_error",
    "cost_dense_passes",
    "efficiency",
)
_LETTERS = 120  # of a name; W&B takes 128
# How axes are written in a run's name, where not as they are.
_WRITTEN: dict[str, Callable[[Any], str]] = {"ratio": "{:g}x".format, "seed": "s{}".format}


class Tracker:
    """Publishes cells and the summary of one experiment.

    Args:
        experiment: the resolved experiment; `tracking` chooses the mode.
        folder: where offline runs lie; remembers which cells were published.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder
        self.mode, self._started = _mode(experiment.tracking), False
        if self.mode != "none":
            os.environ.setdefault("WANDB_SILENT", "true")
            (folder / "published").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            with _publishing("the last run"):
                import wandb

                wandb.teardown()

    def cell(self, rows: Sequence[Row], losses: Mapping[str, Sequence[float]]) -> None:
        """Publish a finished cell once: configuration, curves against n and epochs, and its rows.

        Args:
            rows: the cell's rows of both splits.
            losses: mean training loss (nats) per epoch, by stage.

        Raises:
            TrackingError: W&B does not take it.
        """
        first = rows[0]
        if self.mode == "none" or self.has(first.cell):
            return
        identity, name = _identity(first)
        with _publishing(name), self._run(first.cell, name, "cell", identity) as run:
            for split in dict.fromkeys(row.split for row in rows):
                run.define_metric(f"{split}/*", step_metric="n")
            for stage in losses:
                run.define_metric(f"loss/{stage}", step_metric="epoch")
            for epoch in range(max(map(len, losses.values()), default=0)):
                reached = {f"loss/{stage}": values[epoch] for stage, values in losses.items() if epoch < len(values)}
                run.log({"epoch": epoch + 1} | reached)
            for n in sorted({row.n for row in rows}):
                run.log(
                    {"n": n}
                    | {f"{row.split}/{metric}": getattr(row, metric) for row in rows if row.n == n for metric in CURVES}
                )
            run.log({"rows": _table(rows)})
            last = max((row for row in rows if row.split == "test"), key=lambda row: row.n)
            run.summary.update(dataclasses.asdict(last))
        self._marker(first.cell).touch()

    def failed(self, failure: Failure) -> None:
        """Publish a cell that failed, once for each reason, as a failed run with the reason in its summary.

        It is no run of the cell, which may be finished later and published then.

        Raises:
            TrackingError: W&B does not take it.
        """
        identifier = digest([failure.cell, failure.reason])[:16]
        if self.mode == "none" or self.has(identifier):
            return
        identity, name = _identity(failure)
        with _publishing(name):
            run = self._run(identifier, f"{name}-failed", "failed cell", identity)
            run.summary.update({"failed": failure.reason} | dataclasses.asdict(failure))
            run.finish(exit_code=1)
        self._marker(identifier).touch()

    def summary(self, results: Results, figures: Callable[[], Mapping[str, str]], identifier: str) -> None:
        """Publish the comparison tables and plots as one run.

        Args:
            results: the whole grid.
            figures: returns SVG text by name; called when the tables are published.
            identifier: hash of the grid's cells.

        Raises:
            TrackingError: W&B does not take it.
        """
        if self.mode == "none" or self.has(identifier):
            return
        name = f"{results.experiment}-summary"
        with _publishing(name), self._run(identifier, name, "summary", results.config) as run:
            import wandb

            run.log({table: _table(getattr(results, table)) for table in TABLES if getattr(results, table)})
            run.log({f"plot/{name}": wandb.Html(svg) for name, svg in figures().items()})
        self._marker(identifier).touch()

    def has(self, identifier: str) -> bool:
        """Tell whether a cell, or the whole grid, was published before.

        Args:
            identifier: its id, as it was published by.
        """
        return self._marker(identifier).exists()

    def run_id(self, identifier: str) -> str:
        """Return the id of a run within its project.

        Args:
            identifier: of a cell, or of the whole grid.
        """
        name = self.experiment.name
        return f"{name[:64]}-{digest([name, identifier])[:16]}"

    def _marker(self, identifier: str) -> Path:
        return self.folder / "published" / f"{self.mode}-{identifier}"

    def _run(self, identifier: str, name: str, job_type: str, config: Mapping[str, Any]) -> Any:
        import wandb

        def start(mode: str) -> Any:
            return wandb.init(
                project=self.experiment.project,
                group=printable(self.experiment.name, _LETTERS),
                job_type=job_type,
                id=self.run_id(identifier),
                name=printable(name, _LETTERS),
                config=dict(config),
                dir=str(self.folder),
                mode=mode,  # type: ignore[arg-type]
                resume="allow" if mode == "online" else None,
                settings=wandb.Settings(
                    x_disable_stats=True,
                    console="off",
                    save_code=False,
                    disable_git=True,
                    x_save_requirements=job_type == "summary",  # a tenth of a second, the same for every cell
                ),
            )

        self._started = True
        try:
            return start(self.mode)
        except wandb.errors.CommError as error:
            warnings.warn(
                f"W&B cannot be reached ({error}); going on offline, `wandb sync` later",
                RuntimeWarning,
                stacklevel=2,
            )
            self.mode = "offline"
            wandb.teardown()  # its service takes no second run of this id, even one that has not begun
            return start(self.mode)


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


def _identity(record: Row | Failure) -> tuple[dict[str, Any], str]:
    """Return what tells a cell apart, and its name made of that."""
    identity = {name: getattr(record, name) for name in ("data", *AXES)}
    return identity, "-".join(_WRITTEN.get(axis, str)(value) for axis, value in identity.items())


def _mode(requested: str) -> str:
    """Resolve `auto`: what WANDB_MODE says, else online with an API key, else offline."""
    if requested != "auto":
        return requested
    stated = os.environ.get("WANDB_MODE", "")
    if stated in {"online", "offline"}:
        return stated
    if stated in {"disabled", "dryrun"}:
        return "none" if stated == "disabled" else "offline"
    return "online" if os.environ.get("WANDB_API_KEY") or _logged_in() else "offline"


def _logged_in() -> bool:
    """Tell whether `wandb login` has left a key in the user's netrc file."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _table(records: Sequence[Any]) -> Any:
    import wandb

    columns: list[str | int] = [item.name for item in dataclasses.fields(records[0])]
    data = [[getattr(record, str(name)) for name in columns] for record in records]
    # W&B finds the types of columns row by row, in a millisecond each: rows of the same types say nothing new.
    telling = {tuple(map(type, row)): row for row in reversed(data)}
    table = wandb.Table(columns=columns, data=list(telling.values()))
    table.data = data
    return table
