"""Pruners: one compression method per file. The names here are what a file of your own needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedlabel.lazily import attach

if TYPE_CHECKING:
    from sharedlabel.pruners._base import Context as Context
    from sharedlabel.pruners._masks import prunable as prunable
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "Context": "sharedlabel.pruners._base",
            "prunable": "sharedlabel.pruners._masks",
        },
    )
