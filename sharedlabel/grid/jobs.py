"""What a stage call needs to be computed somewhere: itself, with keys in the place of what it reads, and its job."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharedlabel.config import canonical
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import SharedLabelError, WriteError, interrupted, printable
from sharedlabel.machine import provenance
from sharedlabel.scoring.data import Data
from sharedlabel.stages import STAGES
from sharedlabel.store import Artifact, Store
from sharedlabel.training import resume
from sharedlabel.training.devices import device, tuned

_REASON = 500  # letters of a reason; the traceback has them all


@dataclass(frozen=True)
class Call:
    """One call of a stage.

    Attributes:
        stage: its name.
        key: of the output.
        config: what it depends on.
        inputs: stage and key of what it reads, by name.
        data_key: of the data that it reads.
        code: digests of the code that computes it.
    """

    stage: str
    key: str
    config: Any
    inputs: Mapping[str, tuple[str, str]]
    data_key: str
    code: Mapping[str, str]

    @property
    def name(self) -> str:
        """What it is called among claims."""
        return f"{self.stage}-{self.key}"


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        seconds: that it took; None if it failed.
        reason: why it failed, in one line.
        details: the traceback.
        unwritable: the store takes nothing, which no later call could change.
    """

    seconds: float | None = None
    reason: str = ""
    details: str = ""
    unwritable: bool = False

    @staticmethod
    def of(error: Exception) -> Outcome:
        """Keep what an error says, and nothing that holds memory."""
        details = "".join(traceback.format_exception(error))
        return Outcome(None, reason(error), details, isinstance(error, WriteError))


@dataclass(frozen=True)
class Job:
    """What all calls of a run share.

    Attributes:
        data: what calls read, by key.
        runtime: where and how they train.
        logs: folder of the logs of trainings.
    """

    data: Mapping[str, Data] = field(repr=False)
    runtime: TrainerConfig
    logs: Path

    def compute(self, call: Call, store: Store) -> Artifact:
        """Compute a call whose inputs are stored, and store its output."""
        with contextlib.nullcontext() if STAGES[call.stage].last else tuned(self.runtime):
            return self._compute(call, store)

    def _compute(self, call: Call, store: Store) -> Artifact:
        inputs = {name: store.load(*place) for name, place in call.inputs.items()}
        stage, states = STAGES[call.stage], store.unfinished(call.stage, call.key)
        logs = self.logs / f"{call.stage}-{call.key[:12]}"
        with resume.at(resume.Workplace(states, self.runtime.checkpoint_seconds, logs)) as workplace:
            output = stage.run(call.config, self.data[call.data_key], inputs, self.runtime)
        record = {
            "version": stage.version,
            "config": json.loads(canonical(call.config)),
            "inputs": {name: key for name, (_, key) in call.inputs.items()} | {"data": call.data_key},
            "code": dict(call.code),
            "provenance": provenance.collect(str(device(self.runtime))),
        }
        return store.save(call.stage, call.key, output, record, workplace.started)

    def attempt(self, call: Call, store: Store) -> Outcome:
        """Compute a call that may fail.

        Raises:
            KeyboardInterrupt: the process was asked to stop meanwhile, whatever that has become on the way.
        """
        started = time.perf_counter()
        try:
            self.compute(call, store)
        except Exception as error:
            if interrupted():
                raise KeyboardInterrupt from error
            return Outcome.of(error)
        return Outcome(time.perf_counter() - started)


def reason(error: Exception) -> str:
    """Say in one line what went wrong; errors that are not written for the user come with their name.

    >>> reason(ValueError("a bug"))
    'ValueError: a bug'
    """
    text = printable(" ".join(str(error).split()), _REASON)
    if isinstance(error, SharedLabelError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
