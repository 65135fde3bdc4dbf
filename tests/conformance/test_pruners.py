"""What every pruner has to do, over the pruners in the folder."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from sharedlabel import conformance, plugins
from sharedlabel.config import resolve

# Pruners of which a promise says nothing for a reason of their own; all others follow from their constants.
EXCEPTIONS = {"removes nothing": {"none"}, "rewrites layers instead of removing channels": {"butterfly"}}


@functools.cache
def subject(name: str) -> Any:
    return conformance.subject(resolve("pruners", name))


@pytest.mark.parametrize("promise", conformance.promises("pruners"), ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", plugins.available("pruners"))
def test_a_pruner_keeps_its_promises(name: str, promise: conformance.Promise) -> None:
    inapplicable = ""
    try:
        promise(subject(name))
    except conformance.Inapplicable as reason:
        inapplicable = str(reason)
    assert name in EXCEPTIONS.get(inapplicable, {name})
