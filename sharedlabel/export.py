"""`python -m sharedlabel.export CELL`: a cell's backbone and aggregator as programs with a card, ready to deploy."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sharedlabel import plugins, records
from sharedlabel.deployment.selection import choose, describe
from sharedlabel.errors import DeploymentError, guarded, nearest, printable

_FORMATS: dict[str, tuple[Literal["onnx", "torch"], ...]] = {
    "onnx": ("onnx",),
    "torch": ("torch",),
    "both": ("onnx", "torch"),
}
_TYPES: dict[str, Any] = {"ratio": float, "seed": int}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sharedlabel.export",
        description="Write the compressed backbone and the aggregator of a finished cell as ONNX programs, or "
        "torch.export ones on demand, checked against PyTorch, with a card that says what they are.",
        allow_abbrev=False,
    )
    parser.add_argument("cell", nargs="?", default="", help="first digits of the id in the column `cell` of rows.csv")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/digits"), help="folder of the run (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="folder to write (default: models/CELL in the folder of the run)")
    parser.add_argument(
        "--format",
        default="onnx",
        help="onnx, torch (.pt2 programs, which predict opens with --trust alone) or both (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace the output folder if it is there")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        help="file, module or entry point of a plugin from outside that the cell was made with; its code runs",
    )
    for axis in records.AXES:
        parser.add_argument(f"--{axis}", type=_TYPES.get(axis, str), help=f"choose the cell by its {axis}")
    return parser


def _main(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    if options.format not in _FORMATS:
        raise DeploymentError(f"unknown format {options.format!r}; {nearest(options.format, _FORMATS)}")
    for plugin in options.plugin:
        plugins.take_any(plugin)
    wanted = {axis: value for axis in records.AXES if (value := getattr(options, axis)) is not None}
    results = records.read(options.run)
    rows = choose(results, options.cell, wanted)
    home = options.run if options.run.is_dir() else options.run.parent
    output = options.output or home / "models" / rows[0].cell
    # torch and Lightning take seconds to import: help and mistakes should not wait for them.
    from sharedlabel.deployment import build

    card = build.export(results, rows, home.parent / "store", output, _FORMATS[options.format], options.force)
    print(printable(f"{rows[0].cell}: {describe(rows[0])}"))
    for name, file in card.files.items():
        checked = "" if file.difference is None else f", largest difference from PyTorch {file.difference:.1e}"
        print(f"  {name}: {file.bytes:,} bytes{checked}")
    trust = " --trust" if options.format == "torch" else ""
    print(printable(f"wrote {output}; next: python -m sharedlabel.predict {shlex.quote(str(output))} FOLDER{trust}"))


if __name__ == "__main__":
    sys.exit(main())
