"""What every aggregator must do; it runs over the folder's listing, so a new file is tested without being named."""

from __future__ import annotations

import pytest

from sharedlabel import conformance, plugins
from sharedlabel.config import resolve


@pytest.mark.parametrize("promise", conformance.promises("aggregators"), ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", plugins.available("aggregators"))
def test_an_aggregator_keeps_its_promises(name: str, promise: conformance.Promise) -> None:
    promise(conformance.subject(resolve("aggregators", name)))
