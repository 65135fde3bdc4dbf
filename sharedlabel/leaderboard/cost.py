"""What an aggregator costs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from sharedlabel.leaderboard.schema import Strict

Whole = Annotated[int, Field(ge=0, lt=10**15)]


class Cost(Strict):
    """What an aggregator costs on one network, counted by the harness.

    Attributes:
        macs: of one tuple, by n.
        parameters: trained or not.
    """

    macs: dict[PositiveInt, Whole]
    parameters: Whole
