"""Options of aggregators outside of their range: one sentence each, made from the annotation."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sharedlabel.config import resolve
from sharedlabel.errors import ConfigError

DROPOUT = "expected a number of at least 0 and below 1"
WIDTH = "expected a whole number from 1 to 65536"
POSITIVE = "expected a number above 0 and at most 1000000"


@pytest.mark.parametrize(
    ("name", "option", "value", "expected", "default"),
    [
        ("accumulator", "hidden", -3, WIDTH, 64),
        ("accumulator", "dropout", -0.1, DROPOUT, 0.2),
        ("attention", "attention", 0, WIDTH, 128),
        ("attention", "dropout", 1.0, DROPOUT, 0.0),
        ("causal_transformer", "expansion", 0, "expected a whole number from 1 to 1000", 2),
        ("causal_transformer", "dropout", -1.0, DROPOUT, 0.2),
        ("confusion_vote", "alpha", 0.0, POSITIVE, 1.0),
        ("crafted_lstm", "hidden", 0, WIDTH, 64),
        ("crafted_lstm", "bound", -8.0, POSITIVE, 8.0),
        ("crafted_lstm", "refit_dropout", 1.0, DROPOUT, 0.2),
        ("crafted_lstm", "refit_hidden", -1, "expected a whole number from 0 to 65536", 64),
        ("deep_sets", "dropout", 1.0, DROPOUT, 0.2),
        ("gru", "layers", 0, "expected a whole number from 1 to 1000", 1),
        ("gru", "dropout", 1.0, DROPOUT, 0.2),
        ("instance_temperature", "bound", 1.0, "expected a number above 1 and at most 1000000", 10.0),
        ("lstm", "dropout", 1.0, DROPOUT, 0.0),
        ("majority_vote", "alpha", -1.0, POSITIVE, 1.0),
        ("matrix_log_pool", "bias", -0.5, "expected a number from 0 to 1000000", 0.1),
        ("matrix_log_pool", "off_diagonal", -0.5, "expected a number from 0 to 1000000", 0.1),
        ("refit_pool", "hidden", -1, "expected a whole number from 0 to 65536", 64),
        ("refit_pool", "dropout", 1.0, DROPOUT, 0.2),
        ("residual_lstm", "bound", 0.0, POSITIVE, 8.0),
        ("residual_lstm", "dropout", 1.5, DROPOUT, 0.2),
        ("set_transformer", "blocks", 0, "expected a whole number from 1 to 1000", 2),
        ("set_transformer", "dropout", 1.0, DROPOUT, 0.2),
    ],
)
def test_options_outside_their_range_are_refused(
    name: str, option: str, value: float, expected: str, default: float
) -> None:
    said = f"aggregator '{name}': {option}: {expected}, got {value}; the default is {default}"
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        resolve("aggregators", {"name": name, option: value})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("set_transformer", {"width": 30}, "width must be a multiple of heads, got 30 and 4; change one of them"),
        ("causal_transformer", {"heads": 3}, "width must be a multiple of heads, got 32 and 3; change one of them"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("aggregators", {"name": name, **options})
