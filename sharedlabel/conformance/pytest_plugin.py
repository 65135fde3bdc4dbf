"""A plugin of pytest that tries what plugins promise: `--sharedlabel-plugin=./my_pool.py`, as often as there are some.

Every promise is a test of its own, called `my_pool.py::causal`. In the project of a plugin:

    [tool.pytest.ini_options]
    addopts = "-p sharedlabel.conformance.pytest_plugin --sharedlabel-plugin=my_package.my_pool"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharedlabel import conformance
from sharedlabel.errors import SharedLabelError

_OPTION = "--sharedlabel-plugin"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("sharedlabel")
    group.addoption(
        _OPTION, action="append", default=[], help="file, module or entry point of a plugin; may be repeated"
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for every promise of every plugin."""
    for given in config.getoption(_OPTION):
        items.extend(_items(session, given))


def _items(session: pytest.Session, given: str) -> Iterator[pytest.Item]:
    try:
        plugin = conformance.named(given)
    except SharedLabelError as error:
        raise pytest.UsageError(str(error)) from error
    subject = conformance.subject(plugin)
    for promise in conformance.promises(plugin.kind):
        yield Kept.from_parent(session, name=f"{given}::{promise.__name__}", promise=promise, subject=subject)


class Kept(pytest.Item):
    """A promise as a test."""

    def __init__(self, *, promise: conformance.Promise, subject: Any, **options: Any) -> None:
        super().__init__(**options)
        self._promise, self._subject = promise, subject

    def runtest(self) -> None:
        """Try it."""
        try:
            self._promise(self._subject)
        except conformance.Inapplicable as reason:
            pytest.skip(str(reason))

    def reportinfo(self) -> tuple[Path, None, str]:
        """Say what is promised."""
        return self.path, None, f"{self.name}: {conformance.sentence(self._promise)}"
