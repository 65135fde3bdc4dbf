"""What every backbone has to do, over the backbones found in the folder."""

from __future__ import annotations

from typing import Any

import pytest

from sharedlabel import conformance, plugins
from sharedlabel.config import resolve


@pytest.fixture(params=plugins.available("backbones"), scope="module")
def subject(request: pytest.FixtureRequest) -> Any:
    return conformance.subject(resolve("backbones", request.param))


@pytest.mark.parametrize("promise", conformance.promises("backbones"), ids=lambda promise: promise.__name__)
def test_a_backbone_keeps_its_promises(subject: Any, promise: conformance.Promise) -> None:
    promise(subject)
