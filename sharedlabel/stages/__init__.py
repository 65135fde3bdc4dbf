"""The stages of a grid, one file each: pure functions from a configuration and stored inputs to an output.

A stage's file name is its registry entry; files whose name starts with an underscore are helpers. The file owns all
that is said of the stage:

- `VERSION`, raised when something else than code or options changes what is computed, such as a library;
- `Config`, what a call depends on, and `run(config, data, inputs, runtime) -> Output`, which knows no path or store;
- `LEAF`, where nothing else of the grid reads the output: it is called once per `network`, `method` or `protocol` for
  which `configure(experiment, setting)` returns a `Config`; `INPUTS` names what it reads of the network or the method,
  and a leaf of a protocol, which reads the data alone, scores a posterior in a cell that bears the stage's name;
- `LAST`, where it measures the machine, so that it is called when nothing else of the grid is at work;
- `together(config, runtime)` and `run_together(configs, data, inputs, runtime) -> outputs`, where several calls can be
  computed at once: those of the same data for which `together` returns the same value, which is not None;
- `columns(facts)`, what the rows of a cell show of it; `TABLE` and `records(finished)`, the table that it fills: of
  leaves, and of `prune` and `aggregate`, whose calls a cell names;
- `MODULES`, files whose code `run` calls without naming it, as it calls all metrics;
- `work(config, data)`, how much a call has to do, in images, epochs and partitions, from which its time is estimated.

The keys of outputs hold a digest of the code that `run` and `run_together` reach (`code/digests.py`), so whoever edits
it need not think of stored artifacts; editing anything else in the file leaves them in use.
"""

from __future__ import annotations

import importlib
import pkgutil

from sharedlabel.stages._base import Finished, MethodSetting, NetworkSetting, ProtocolSetting, Setting, Stage

__all__ = ["STAGES", "Finished", "MethodSetting", "NetworkSetting", "ProtocolSetting", "Setting", "Stage", "leaves"]


def _stages() -> dict[str, Stage]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name: Stage.of(importlib.import_module(f"{__name__}.{name}")) for name in names}


STAGES: dict[str, Stage] = _stages()


def leaves(per: str) -> list[Stage]:
    """Return the stages that nothing else of a grid reads.

    Args:
        per: `network`, `method` or `protocol`.
    """
    return [stage for stage in STAGES.values() if stage.leaf == per]
