"""A promise, and what came of trying it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sharedlabel.errors import ContractError, first_line

Promise: TypeAlias = Callable[[Any], None]


class Promises(list[Promise]):
    """What plugins of a kind promise, in the order of the file."""

    def add(self, promise: Promise) -> Promise:
        """List a promise: a decorator."""
        self.append(promise)
        return promise


class Inapplicable(Exception):  # noqa: N818  (no error: there is nothing to try)
    """A promise says nothing of this plugin; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What came of trying a promise.

    Attributes:
        promise: what was promised, a sentence.
        state: whether it was kept.
        reason: what happened instead, or why it was not tried; empty where it was kept.
    """

    promise: str
    state: Literal["kept", "broken", "not tried"]
    reason: str = ""


def sentence(promise: Promise) -> str:
    """Return what is promised, in words."""
    return (promise.__doc__ or promise.__name__).partition("\n")[0].rstrip(".")


def tried(promise: Promise, subject: Any) -> Outcome:
    """Try a promise; whatever is raised breaks it."""
    try:
        promise(subject)
    except Inapplicable as reason:
        return Outcome(sentence(promise), "not tried", str(reason))
    except Exception as error:  # of code that is examined
        named = "" if isinstance(error, ContractError | AssertionError) else f"{type(error).__name__}: "
        return Outcome(sentence(promise), "broken", f"{named}{first_line(error)}")
    return Outcome(sentence(promise), "kept")


def expect(kept: object, wanted: str) -> None:
    """Break a promise where something is not so.

    Raises:
        ContractError: says what was wanted, and what came.
    """
    if not kept:
        raise ContractError(wanted)


def refused(call: Callable[[], object], kind: type[Exception], *parts: str) -> None:
    """Break a promise where a call is not refused with a reason.

    Args:
        call: what should raise.
        kind: the error.
        parts: what its message has to say.

    Raises:
        ContractError: it raises nothing, or says something else.
    """
    try:
        call()
    except kind as error:
        expect(all(part in str(error) for part in parts), f"expected a reason with {parts}, got: {first_line(error)}")
        return
    raise ContractError(f"expected a refusal ({kind.__name__}), got none")
