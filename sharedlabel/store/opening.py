"""Open a store, wherever it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sharedlabel.config import Experiment
from sharedlabel.errors import StoreError, home
from sharedlabel.store.local import Store

_FILE = "file://"


def of(experiment: Experiment, readonly: bool = False) -> Store:
    """Open the store of an experiment: at its option `store`, or beside its reports.

    Args:
        experiment: the configuration.
        readonly: read what is there, write and remove nothing.

    Raises:
        StoreError: it cannot be used; the message says why.
    """
    return opened(experiment.store or home(experiment.output) / "store", readonly)


def opened(place: str | os.PathLike[str], readonly: bool = False, sweep: bool = True) -> Store:
    """Open a store in a folder or at a URL.

    Args:
        place: path of the folder, or a URL that fsspec knows.
        readonly: read what is there, write and remove nothing.
        sweep: remove what processes have left that are gone.

    Raises:
        StoreError: it cannot be used; the message says why.
    """
    text = os.fspath(place)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/(?!/)", text):
        raise StoreError(f"expected a folder or a URL such as s3://bucket/prefix, got {text!r}; write {_two(text)}")
    if is_url(text):
        from sharedlabel.store.remote import RemoteStore

        return RemoteStore(text, readonly, sweep)
    return Store(home(text.removeprefix(_FILE)) if isinstance(place, str) else Path(place), readonly, sweep)


def _two(text: str) -> str:
    """Write a place with the two slashes of a URL, or as a folder of this name."""
    return f"{text.replace(':/', '://', 1)!r}, or {f'./{text}'!r} for a folder of that name"


def is_url(text: str) -> bool:
    """Tell whether a place is named by a URL, and is no folder of this machine.

    >>> is_url("s3://bucket/prefix"), is_url("runs/store"), is_url("file:///runs/store")
    (True, False, False)
    """
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*(::|://)", text) is not None and not text.startswith(_FILE)
