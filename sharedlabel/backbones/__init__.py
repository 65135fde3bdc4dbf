"""Backbones: one file each. The names here are what a file of your own needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedlabel.lazily import attach

if TYPE_CHECKING:
    from sharedlabel.backbones._base import Backbone as Backbone
    from sharedlabel.backbones._base import initialize as initialize
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "Backbone": "sharedlabel.backbones._base",
            "initialize": "sharedlabel.backbones._base",
        },
    )
