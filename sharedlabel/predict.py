"""`sharedlabel predict MODEL TUPLES`: the shared label of every tuple of images, from an exported model."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sharedlabel.config.arguments import Parser, number, one_of, whole
from sharedlabel.errors import FAILED, ConfigError, DataError, guarded, printable

if TYPE_CHECKING:
    from sharedlabel.deployment.groups import Group
    from sharedlabel.deployment.predictor import Prediction, Predictor

_NAMED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for what the user can fix, 3 if a tuple has no answer."""
    return guarded(lambda: _main(arguments), "what was printed holds; run the same command again for the rest")


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser(
        "sharedlabel predict",
        "Predict the label that the images of each tuple share. Images are looked at in sorted order of "
        "their names, one at a time.",
    )
    built.add_argument("model", type=Path, help="folder that `sharedlabel export` wrote")
    built.add_argument(
        "tuples",
        type=Path,
        help="folder or zip with one sub-folder of images per tuple, or a CSV with the columns group, path",
    )
    built.add_argument(
        "--threshold", type=number, help="stop at this posterior probability, in (0, 1]; without it all images are used"
    )
    built.add_argument(
        "--error",
        type=number,
        help="stop at the threshold that was fitted for this share of wrong answers, one of those on the card",
    )
    built.add_argument("--max-n", type=whole, help="use at most this many images of each tuple")
    built.add_argument("--runtime", help="onnx or torch (default: onnx if it was exported); torch needs --trust")
    built.add_argument(
        "--trust",
        action="store_true",
        help="open .pt2 programs, although opening one runs any code that is in it: only if you know who wrote them",
    )
    built.add_argument(
        "--on-bad-image",
        type=one_of("error", "skip"),
        default="error",
        help="what a file does that cannot be read as an image: fail its tuple (default), or be left out",
    )
    built.add_argument("--encoding", default="utf-8", help="of the text of a CSV, such as latin-1 (default: utf-8)")
    built.add_argument("--json", action="store_true", help="print one JSON object per tuple, with all probabilities")
    return built


def _main(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    _check(options)
    # torch takes seconds to import: help and mistakes should not wait for it.
    from sharedlabel.deployment.groups import check_model, read_groups
    from sharedlabel.deployment.predictor import load

    given = read_groups(options.tuples, options.encoding)
    for remark in given.remarks:
        _tell(f"warning: {remark}")
    groups = given.groups
    predictor = load(options.model, options.runtime, trust=options.trust)
    check_model(predictor.card.preprocessing)
    threshold = options.threshold if options.error is None else predictor.threshold(options.error)
    table = _Table(groups, predictor.card.labels, threshold)
    if not options.json:
        print(table.header)
    extrapolated, failed = [], False
    for group in groups:
        prediction = _predicted(predictor, group, threshold, options)
        if prediction is None:
            failed = True
            continue
        print(_record(group, prediction) if options.json else table.line(group, prediction), flush=True)
        if prediction.extrapolated:
            extrapolated.append(group.name)
    if extrapolated:
        print(_warning(extrapolated, max(predictor.card.calibration.n)), file=sys.stderr)
    return FAILED if failed else 0


def _predicted(
    predictor: Predictor, group: Group, threshold: float | None, options: argparse.Namespace
) -> Prediction | None:
    """Predict one tuple; where it cannot be read, say so."""
    from sharedlabel.deployment.groups import read_images

    skipped: list[str] | None = [] if options.on_bad_image == "skip" else None
    images = read_images(group, predictor.card.preprocessing, skipped)
    try:
        return predictor.predict(images, threshold, options.max_n)
    except DataError as error:
        _tell(f"error: {group.name}: {error}")
        return None
    finally:
        for reason in skipped or ():
            _tell(f"warning: {group.name}: left out: {reason}")


def _tell(message: str) -> None:
    print(printable(" ".join(message.split())), file=sys.stderr, flush=True)


def _check(options: argparse.Namespace) -> None:
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise ConfigError(f"--threshold: expected a probability in (0, 1], got {options.threshold:g}")
    if options.error is not None and not 0 < options.error < 1:
        raise ConfigError(f"--error: expected a share of wrong answers in (0, 1), got {options.error:g}")
    if options.error is not None and options.threshold is not None:
        raise ConfigError(
            f"expected --error or --threshold, got both ({options.error:g} and {options.threshold:g}); leave one out"
        )
    if options.max_n is not None and options.max_n < 1:
        raise ConfigError(f"--max-n: expected at least 1 image, got {options.max_n}")


class _Table:
    """Columns wide enough for what is known before the first prediction."""

    def __init__(self, groups: Sequence[Group], labels: Sequence[str], threshold: float | None) -> None:
        self.name = max(len("tuple"), *(len(printable(group.name)) for group in groups))
        self.label = max(len("label"), *(len(printable(label)) for label in labels))
        self.threshold = threshold
        self.header = f"{'tuple':{self.name}}  {'label':{self.label}}  probability  images"

    def line(self, group: Group, prediction: Prediction) -> str:
        """Phrase one prediction."""
        unsure = f"  below {self.threshold:g}" if prediction.reached is False else ""
        return (
            f"{printable(group.name):{self.name}}  {printable(prediction.label):{self.label}}  "
            f"{prediction.probability:11.4f}  {prediction.instances} of {len(group.paths)}{unsure}"
        )


def _record(group: Group, prediction: Prediction) -> str:
    facts = {"tuple": group.name, "available": len(group.paths), **dataclasses.asdict(prediction)}
    return json.dumps(facts)  # letters outside of ASCII escaped: some steer terminals, some no terminal can show


def _warning(names: Sequence[str], largest: int) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"warning: more images than the {largest} that the aggregator was trained and calibrated with were used for "
        f"{', '.join(map(printable, names[:_NAMED]))}{more}; --max-n {largest} stays within"
    )


if __name__ == "__main__":
    sys.exit(main())
