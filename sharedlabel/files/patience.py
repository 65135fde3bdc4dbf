"""Places that are full, read-only or out of reach for a while are tried again, before that becomes an error.

A network, a server or a colleague who frees space may need some minutes; what was computed until then is worth them.
"""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

from sharedlabel.errors import ConfigError, first_line

VARIABLE = "SHAREDLABEL_PATIENCE"
SECONDS = 300.0  # that are waited in all
_FIRST, _LONGEST = 1.0, 30.0  # seconds of a wait; each is twice as long as the one before
_PASSING = {
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EIO", "ENETDOWN", "ENETUNREACH", "ENOSPC"),
        *("EREMOTEIO", "EROFS", "ESTALE", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}
_Value = TypeVar("_Value")
_wait = time.sleep  # tests pretend to


def patiently(action: Callable[[], _Value], what: str) -> _Value:
    """Do something that may fail for a while, and wait longer and longer between tries.

    Args:
        action: does it; may be called again after it has failed.
        what: it does, for the warning that each wait is told in.

    Raises:
        OSError: it fails for a reason that does not pass, or has failed for as long as SHAREDLABEL_PATIENCE says.
    """
    wait, left = _FIRST, seconds()
    while True:
        try:
            return action()
        except OSError as error:
            if not passes(error) or left <= 0:
                raise
            warnings.warn(
                f"could not {what}: {error.strerror or first_line(error)}; tried again for {seconds():g} s",
                RuntimeWarning,
                stacklevel=2,
            )
        _wait(min(wait, left))
        left -= wait
        wait = min(2 * wait, _LONGEST)


def passes(error: OSError) -> bool:
    """Tell whether an error may be over in a while."""
    return isinstance(error, TimeoutError | ConnectionError) or error.errno in _PASSING


def seconds() -> float:
    """Return how long places are waited for.

    Raises:
        ConfigError: the environment variable holds no number of seconds.
    """
    said = os.environ.get(VARIABLE, "")
    try:
        waited = float(said or SECONDS)
    except ValueError:
        waited = -1.0
    if not 0 <= waited < float("inf"):
        raise ConfigError(f"expected seconds to wait in the environment variable {VARIABLE}, got {said!r}; correct it")
    return waited
