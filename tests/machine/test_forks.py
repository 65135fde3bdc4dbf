"""What workers warn of is shown where a person sees it."""

from __future__ import annotations

import dataclasses
import warnings

from sharedlabel.machine.forks import Warned


def test_what_several_workers_warn_of_in_the_same_words_is_shown_once(recwarn):
    warnings.simplefilter("default")
    one = Warned("it rains", RuntimeWarning, "weather.py", 7)
    for told in (one, one, dataclasses.replace(one, message="it snows"), one):
        told.warn()
    assert [str(shown.message) for shown in recwarn] == ["it rains", "it snows"]
