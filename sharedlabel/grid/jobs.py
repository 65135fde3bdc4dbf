"""What a stage call needs to be computed somewhere: itself, with keys in the place of what it reads, and its job."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sharedlabel.config import canonical, digest
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import SharedLabelError, TrainingError, WriteError, interrupted, printable
from sharedlabel.grid import watching
from sharedlabel.machine import provenance
from sharedlabel.scoring.data import Data
from sharedlabel.stages import STAGES
from sharedlabel.store import Artifact, Output, Store
from sharedlabel.tracking.places import Place
from sharedlabel.training import resume
from sharedlabel.training.devices import device, tuned
from sharedlabel.training.watchers import anybody, telling

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
        place: where runs of W&B of trainings go; None where there are none.
    """

    data: Mapping[str, Data] = field(repr=False)
    runtime: TrainerConfig
    logs: Path
    place: Place | None = None

    def compute(self, call: Call, store: Store) -> Artifact:
        """Compute a call whose inputs are stored, and store its output."""
        with self._working(call, call.key, store) as workplace:
            inputs = _inputs(call, store)
            output = STAGES[call.stage].run(call.config, self.data[call.data_key], inputs, self.runtime)
        return self._save(call, output, store, workplace.started)

    def attempt(self, calls: Sequence[Call], store: Store) -> tuple[Outcome, ...]:
        """Compute a call that may fail, or several that can be computed together.

        Where several fail together, they are computed one after the other, so that each ends as it does alone.

        Returns:
            How each call ended; calls that were computed together have taken equal shares of the time.

        Raises:
            KeyboardInterrupt: the process was asked to stop meanwhile, whatever that has become on the way.
        """
        made = self._together(calls, store) if len(calls) > 1 else None
        if made is None:
            return tuple(_attempted(functools.partial(self.compute, call, store)) for call in calls)
        outputs, share = made
        ended = []
        for call, output in zip(calls, outputs, strict=True):
            save = functools.partial(self._save, call, output, store, time.perf_counter() - share)
            ended.append(_attempted(save, share))
        store.unfinished(calls[0].stage, _name(calls)).remove()
        return tuple(ended)

    def _together(self, calls: Sequence[Call], store: Store) -> tuple[Sequence[Output], float] | None:
        """Return what calls compute together, and the seconds of each; None, with a warning, where that fails."""
        first = calls[0]
        run = STAGES[first.stage].run_together
        assert run is not None
        try:
            with self._working(first, _name(calls), store) as workplace:
                inputs = [_inputs(call, store) for call in calls]
                outputs = run([call.config for call in calls], self.data[first.data_key], inputs, self.runtime)
                return outputs, (time.perf_counter() - workplace.started) / len(calls)
        except Exception as error:
            if interrupted():
                raise KeyboardInterrupt from error
            message = (
                f"{len(calls)} calls of {first.stage} are computed one after the other, not together: {reason(error)}"
            )
        release()
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None

    @contextlib.contextmanager
    def _working(self, call: Call, key: str, store: Store) -> Iterator[resume.Workplace]:
        """Surround what is trained for a call, or for several that are called by one key."""
        logs = self.logs / f"{call.stage}-{key[:12]}"
        workplace = resume.Workplace(store.unfinished(call.stage, key), self.runtime.checkpoint_seconds, logs)
        timed = STAGES[call.stage].last  # what is measured is measured as others have it
        seen = anybody(self.runtime)
        about = watching.watched(call.stage, key, call.config, self.data[call.data_key], self.place) if seen else None
        with contextlib.nullcontext() if timed else tuned(self.runtime), resume.at(workplace), telling(about):
            yield workplace

    def _save(self, call: Call, output: Output, store: Store, started: float) -> Artifact:
        record = {
            "version": STAGES[call.stage].version,
            "config": json.loads(canonical(call.config)),
            "inputs": {name: key for name, (_, key) in call.inputs.items()} | {"data": call.data_key},
            "code": dict(call.code),
            "provenance": provenance.collect(str(device(self.runtime))),
        }
        return store.save(call.stage, call.key, output, record, started)


def release() -> None:
    """Give back the memory of a call that failed: a network that was too large must not make the next one fail, too."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _inputs(call: Call, store: Store) -> dict[str, Artifact]:
    return {name: store.load(*place) for name, place in call.inputs.items()}


def _name(calls: Sequence[Call]) -> str:
    """Return what several calls that are computed together are called among unfinished trainings."""
    return digest([call.key for call in calls])


def _attempted(work: Callable[[], object], before: float = 0.0) -> Outcome:
    """Return how a piece of work ends, on which so many seconds have been spent already."""
    started = time.perf_counter() - before
    try:
        work()
    except (Exception, SystemExit) as error:
        if interrupted():
            raise KeyboardInterrupt from error
        if isinstance(error, SystemExit):  # of a plugin: it ends no run
            error = TrainingError(f"expected a plugin that returns or raises an error, got sys.exit({error})")
        return Outcome.of(error)
    return Outcome(time.perf_counter() - started)


def reason(error: Exception) -> str:
    """Say in one line what went wrong; errors that are not written for the user come with their name.

    >>> reason(ValueError("a bug"))
    'ValueError: a bug'
    """
    try:
        said = str(error)
    except Exception:  # an error of a plugin whose words are an error
        said = ""
    text = printable(" ".join(said.split()), _REASON)
    if isinstance(error, SharedLabelError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
