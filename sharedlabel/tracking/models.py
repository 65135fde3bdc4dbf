"""The run of an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharedlabel.config import digest
from sharedlabel.records import Row
from sharedlabel.tracking.about import About
from sharedlabel.tracking.runs import Files, Run


def of_model(row: Row, folder: Path, checksums: Mapping[str, str], card: Mapping[str, Any], about: About) -> Run:
    """Return the run of an exported model, which holds its folder as an artifact.

    Args:
        row: of the cell.
        folder: with the model.
        checksums: of its files, by name.
        card: what the model says of itself, as plain data.
        about: the experiment.
    """
    paths = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    return Run(
        digest(["export", row.cell, dict(checksums)])[:16],
        about.name(row, "export"),
        "export",
        about.settings(row) | {"method": about.method(row), "cell": row.cell},
        about.tags(row),
        files=Files(f"{about.experiment}-{row.cell}", "model", paths, ("latest", row.cell), card),
    )
