"""`python -m benchmarks.gpu --data cifar10-jpeg.zip --output FOLDER`: what the package makes of one GPU.

Not yet run on a GPU. It is sized for ten minutes of one large GPU with 16 cores. The most telling parts come first, and
every number is written at once, as a line of `FOLDER/results.jsonl`: a run that is killed leaves what it has measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import _gpu_aggregators, _gpu_grid, _gpu_roofline, _gpu_training
from benchmarks._gpu import Facts, Setting
from sharedlabel.errors import ConfigError, guarded
from sharedlabel.machine import provenance

PARTS: dict[str, Callable[[Setting], Iterator[Facts]]] = {
    "training": _gpu_training.eager,
    "grid": _gpu_grid.retrained,
    "roofline": _gpu_roofline.shares,
    "aggregators": _gpu_aggregators.beside_the_cpu,
    "compiled": _gpu_training.compiled,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 if a part failed, or 2 for what the user can fix."""
    failed: list[str] = []
    code = guarded(lambda: failed.extend(_run(_parser().parse_args(arguments))))
    return code or int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of train/<class>/*, test/<class>/*")
    parser.add_argument("--output", type=Path, required=True, help="folder that is made for the results")
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"), help="where (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="a part; repeatable")
    parser.add_argument("--tiny", action="store_true", help="as little as shows that it runs; numbers say nothing")
    return parser


def _run(options: argparse.Namespace) -> list[str]:
    """Run the parts, one after the other; return the names of those that failed."""
    if options.output.exists():
        raise ConfigError(f"--output: expected a folder that is yet to be made, got {options.output}; name another")
    if not options.data.exists():
        raise ConfigError(f"--data: expected a zip or folder of images, got {options.data}, which is not there")
    setting = Setting(options.data.resolve(), options.output.resolve(), options.device, options.tiny)
    setting.output.mkdir(parents=True)
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "tiny": setting.tiny}
    _write(setting, {"part": "machine", **facts, **provenance.collect(setting.device.type)})
    failed = []
    for name in options.only or PARTS:
        began = time.perf_counter()
        try:
            for one in PARTS[name](setting):
                _write(setting, {"part": name, **one})
        except Exception as error:  # it is written down, and the parts after it still run
            failed.append(name)
            _write(setting, {"part": name, "failed": "".join(traceback.format_exception(error))})
        _write(setting, {"part": name, "seconds_of_the_part": time.perf_counter() - began})
    return failed


def _write(setting: Setting, facts: Facts) -> None:
    """Print a result and add it to the file, so that it is there whatever happens next."""
    line = json.dumps(facts)
    print(line, flush=True)
    with (setting.output / "results.jsonl").open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
