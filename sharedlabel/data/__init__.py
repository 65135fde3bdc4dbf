"""Data sets, splits and tuples: one file each. The names here are what a file of your own needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedlabel.lazily import attach

if TYPE_CHECKING:
    from sharedlabel.data._checks import fingerprint as fingerprint
    from sharedlabel.data._checks import validate as validate
    from sharedlabel.types import Dataset as Dataset
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "Dataset": "sharedlabel.types",
            "fingerprint": "sharedlabel.data._checks",
            "validate": "sharedlabel.data._checks",
        },
    )
