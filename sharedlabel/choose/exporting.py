"""The command that exports what was chosen."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from sharedlabel import plugins
from sharedlabel.choose.candidates import Option
from sharedlabel.records import Identity, Results


def command(results: Results, chosen: Option, run: str) -> str:
    """Return the command that exports an option, as its first seed has it.

    Args:
        results: that it was chosen from.
        chosen: the option.
        run: folder of the run, as the command is to name it.
    """
    cell = next(row.cell for row in results.rows if Identity.of(row) == Identity.of(chosen))
    taken = [part for name in dict.fromkeys(_outside(results.config)) for part in ("--plugin", name)]
    return shlex.join(["sharedlabel", "export", cell, "--run", run, *taken])


def _outside(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the plugins from outside that a run was given, whose code the export has to be given, too."""
    for kind in plugins.KINDS:
        given = config.get(kind, [])
        for spec in given if isinstance(given, list) else [given]:
            name = spec.get("name") if isinstance(spec, Mapping) else spec
            if isinstance(name, str) and name not in plugins.available(kind):
                yield f"./{name}" if name.endswith(".py") else name
