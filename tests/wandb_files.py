"""Reads the files of offline runs back: logs of W&B's records, which its own package writes and reads no more."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BLOCK, HEADER = 32_768, 7


@dataclass
class Offline:
    """What the files of a run hold.

    Attributes:
        about: the record of the run itself: id, name, group, tags, project, entity.
        config: its configuration.
        history: every point.
        summary: every value.
        curves: the definition of each metric: its step metric, and which aggregate its summary has.
        artifacts: name, type and aliases of each.
        tables: the file of each table, by its name.
        html: names of files of plots.
        exit: its exit code; None where it has no end.
    """

    about: Any
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, tuple[str, set[str]]] = field(default_factory=dict)
    artifacts: list[tuple[str, str, set[str]]] = field(default_factory=list)
    tables: dict[str, Path] = field(default_factory=dict)
    html: list[str] = field(default_factory=list)
    exit: int | None = None

    def keys(self) -> set[str]:
        """Return the names of all metrics."""
        return set(self.summary).union(*self.history)


def offline(folder: Path) -> dict[str, Offline]:
    """Read all offline runs in a folder, by their ids; parts of one run are joined."""
    runs: dict[str, Offline] = {}
    for one in sorted(folder.glob("wandb/offline-run-*")):
        read = read_run(one)
        first = runs.setdefault(read.about.run_id, read)
        if first is not read:
            first.history += read.history
            first.summary |= read.summary
            first.exit = read.exit
    return runs


def records(path: Path) -> list[Any]:
    """Read a log of blocks, each record in one or several pieces with a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parsed, whole = path.read_bytes(), HEADER, [], b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in {1, 4}:  # complete, or the last piece
            parsed.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return parsed


def read_run(folder: Path) -> Offline:
    """Read the files of one run."""
    (log,) = folder.glob("run-*.wandb")
    parsed = records(log)
    run = Offline(next(record.run for record in parsed if record.HasField("run")))
    run.config = {item.key: json.loads(item.value_json) for item in run.about.config.update}
    for record in parsed:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
        elif kind == "config":
            run.config |= _values(record.config.update)
        elif kind == "metric":
            metric = record.metric
            wanted = {one.name for one, value in metric.summary.ListFields() if value}
            run.curves[metric.glob_name or metric.name] = metric.step_metric, wanted
        elif kind == "artifact":
            one = record.artifact
            run.artifacts.append((one.name, one.type, set(one.aliases)))
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            one = record.request.log_artifact.artifact
            run.artifacts.append((one.name, one.type, set(one.aliases)))
        elif kind == "exit":
            run.exit = record.exit.exit_code
    media = folder / "files" / "media"
    for path in media.glob("table/**/*.table.json"):
        run.tables[path.relative_to(media / "table").as_posix().rsplit("_", 2)[0]] = path
    run.html = sorted(path.name for path in media.glob("html/**/*.html"))
    return run


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def without_account(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Take this machine's key and settings of W&B away.

    Args:
        patch: puts them back.
        home: a folder without a netrc file.
    """
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    patch.setenv("NETRC", str(home / "netrc"))
