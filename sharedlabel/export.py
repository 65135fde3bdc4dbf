"""`sharedlabel export CELL`: a cell's backbone and aggregator as programs with a card, ready to deploy."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sharedlabel import plugins, records
from sharedlabel.config.arguments import Parser, number, one_of, whole
from sharedlabel.deployment.card import Card
from sharedlabel.deployment.selection import choose, describe
from sharedlabel.errors import guarded, printable
from sharedlabel.tracking import models
from sharedlabel.tracking.about import About
from sharedlabel.tracking.places import Place
from sharedlabel.tracking.tracker import Tracker

_FORMATS: dict[str, tuple[Literal["onnx", "torch"], ...]] = {
    "onnx": ("onnx",),
    "torch": ("torch",),
    "both": ("onnx", "torch"),
}
_TYPES: dict[str, Any] = {"ratio": number, "seed": whole}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser(
        "sharedlabel export",
        "Write the compressed backbone and the aggregator of a finished cell as ONNX programs, or "
        "torch.export ones on demand, checked against PyTorch, with a card that says what they are.",
    )
    built.add_argument("cell", nargs="?", default="", help="first digits of the id in the column `cell` of rows.csv")
    built.add_argument("--run", type=Path, default=Path("runs/digits"), help="folder of the run (default: %(default)s)")
    built.add_argument(
        "--store", help="folder or URL of the run's artifacts (default: store beside the folder of the run)"
    )
    built.add_argument("--output", type=Path, help="folder to write (default: models/CELL in the folder of the run)")
    built.add_argument(
        "--format",
        type=one_of(*_FORMATS),
        default="onnx",
        help="onnx, torch (.pt2 programs, which predict opens with --trust alone) or both (default: %(default)s)",
    )
    built.add_argument("--force", action="store_true", help="replace the output folder if it is there")
    built.add_argument(
        "--plugin",
        action="append",
        default=[],
        help="file, module or entry point of a plugin from outside that the cell was made with; its code runs",
    )
    built.add_argument("--publish", action="store_true", help="publish the folder as an artifact of W&B, too")
    for axis in records.AXES:
        built.add_argument(f"--{axis}", type=_TYPES.get(axis, str), help=f"choose the cell by its {axis}")
    return built


def _main(arguments: Sequence[str] | None) -> None:
    options = parser().parse_args(arguments)
    for plugin in options.plugin:
        plugins.take_any(plugin)
    wanted = {axis: value for axis in records.AXES if (value := getattr(options, axis)) is not None}
    run = records.read(options.run)
    rows = choose(run, options.cell, wanted)
    home = options.run if options.run.is_dir() else options.run.parent
    output = options.output or home / "models" / rows[0].cell
    # torch and Lightning take seconds to import: help and mistakes should not wait for them.
    from sharedlabel.deployment import build

    card = build.export(
        run, rows, options.store or home.absolute().parent / "store", output, _FORMATS[options.format], options.force
    )
    print(printable(f"{rows[0].cell}: {describe(rows[0])}"))
    for name, file in card.files.items():
        checked = "" if file.difference is None else f", largest difference from PyTorch {file.difference:.1e}"
        print(f"  {name}: {file.bytes:,} bytes{checked}")
    if options.publish:
        _publish(run, rows[0], home, output, card)
    trust = " --trust" if options.format == "torch" else ""
    print(printable(f"wrote {output}; next: sharedlabel predict {shlex.quote(str(output))} FOLDER{trust}"))


def _publish(run: records.Results, row: records.Row, home: Path, folder: Path, card: Card) -> None:
    """Publish an exported model, online with an API key, else offline."""
    place = Place.of_results(run, home)
    checksums = {name: file.sha256 for name, file in card.files.items()}
    with Tracker(place) as tracker:
        tracker.publish(models.of_model(row, folder, checksums, dataclasses.asdict(card), About.of(run)))
    where = place.project if place.mode == "online" else f"{place.folder / 'wandb'}, for `wandb sync`"
    print(printable(f"published to {where}"))


if __name__ == "__main__":
    sys.exit(main())
