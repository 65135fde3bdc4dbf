"""`sharedlabel train` with a stopwatch at its steps; the last line that it prints has the processor seconds of each."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

_taken: defaultdict[str, float] = defaultdict(float)
_found: list[Any] = []  # the grid


def main(arguments: list[str]) -> int:
    """Run the command and print what its steps took, and `in all` with the start of Python."""
    began = time.process_time()
    import torch  # noqa: F401, PLC0415 -- alone, before all else

    _taken["import torch"] = time.process_time() - began
    from sharedlabel import grid, train  # noqa: PLC0415
    from sharedlabel.running import unchanged  # noqa: PLC0415

    _watch(train, "open_grid", "laying out")
    _watch(grid, "missing", "looking")
    _watch(unchanged, "made_of", "collecting")
    _watch(unchanged, "results", "collecting")
    code = train.main(arguments)
    print(json.dumps({**_taken, "in all": time.process_time(), "cells": len(_found[0].cells)}))
    return code


def _watch(owner: Any, name: str, step: str) -> None:
    function: Callable[..., Any] = getattr(owner, name)

    def watched(*given: Any, **named: Any) -> Any:
        began = time.process_time()
        made = function(*given, **named)
        _taken[step] += time.process_time() - began
        if step == "laying out":
            _found.append(made[0])
        return made

    setattr(owner, name, watched)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
