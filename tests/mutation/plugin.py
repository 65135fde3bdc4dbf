"""A plugin of pytest that runs the collected tests on every mutant, each in a fork of one process."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SLACK = 10  # times the processor time of the tests, after which a mutant has lost its way; and seconds on top
_failed: list[str] = []


def pytest_configure() -> None:
    """Let property tests try the same examples every time, and mutmut read its options while we are in their folder."""
    from hypothesis import settings
    from mutmut.configuration import config

    config()
    settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
    settings.load_profile("mutants")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a failure."""
    if report.failed:
        _failed.append(report.nodeid)


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run all tests once to see what they call, then those that call a mutated function on each of its mutants."""
    job = json.loads(Path(os.environ["MUTANTS"]).read_text())
    items = [item for item in session.items if item.get_closest_marker("slow") is None]
    calls, seconds = _observed(session, items)
    if _failed:
        raise pytest.UsageError(f"expected tests that pass on the code as it is, got failures: {_failed[0]}")
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all that is shared
    results = {}
    for number, mutant in enumerate(job["mutants"]):
        function = mutant.rpartition("__mutmut_")[0]
        chosen = sorted((item for item in items if function in calls[item]), key=seconds.__getitem__)
        results[mutant] = _tried(session, mutant, chosen, sum(seconds[item] for item in chosen))
        if number % 25 == 0:
            print(f"\r{number} of {len(job['mutants'])}", end="", file=sys.stderr, flush=True)
    Path(job["results"]).write_text(json.dumps(results))
    return True


def _run(session: pytest.Session, items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Run tests in turn; what they share stays for the next call."""
    session._setupstate.teardown_exact(items[0])
    for item, following in zip(items, [*items[1:], items[-1]], strict=True):
        _forget()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        yield item


def _forget() -> None:
    """Empty the caches of functions: what an earlier test left there would be used in place of a changed function."""
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "sharedlabel"]
    for value in [value for module in ours for value in vars(module).values()]:
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def _observed(session: pytest.Session, items: list[pytest.Item]) -> tuple[dict[Any, set[str]], dict[Any, float]]:
    from mutmut.configuration import config
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.state import state

    config()  # read from this folder, once: a test may go to another
    calls, seconds, started = {}, {}, time.process_time()
    set_mutant_under_test("stats")
    for item in _run(session, items):
        calls[item], seconds[item] = set(state()._stats), time.process_time() - started
        state()._stats.clear()
        started = time.process_time()
    return calls, seconds


def _tried(session: pytest.Session, mutant: str, items: list[pytest.Item], seconds: float) -> dict[str, str]:
    """Return whether a mutant survives, and what killed it."""
    if not items:
        return {"status": "survived", "by": "no test calls it"}
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _try(session, mutant, items, seconds, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told == "survived":
        return {"status": "survived", "by": f"{len(items)} tests call it"}
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM):
        return {"status": "lost", "by": "took too long"}
    return {"status": "killed", "by": told or "it ended the process"}


def _try(session: pytest.Session, mutant: str, items: list[pytest.Item], seconds: float, writing: int) -> None:
    from mutmut.mutation.trampoline import set_mutant_under_test

    limit = int(SLACK * seconds) + SLACK
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    signal.alarm(60 + 10 * limit)
    session.config.pluginmanager.unregister(name="terminalreporter")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    set_mutant_under_test(mutant)
    told = "survived"
    try:
        for item in _run(session, items):
            if _failed:
                told = item.nodeid
                break
    except BaseException as error:
        told = f"{type(error).__name__} outside of a test"
    os.write(writing, told.encode())
    os._exit(0)
