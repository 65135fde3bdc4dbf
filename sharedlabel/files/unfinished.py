"""States of trainings under way, kept for the run that goes on when this one is killed.

They lie in `unfinished/<stage>/<key>` of a store until the artifact of the stage call is there. They need no owner:
whoever computes the same call makes the same states, and each is replaced as a whole, so one that is read is intact
whoever else writes. What nobody has touched for a month is removed: a configuration or code of
the past has left it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sharedlabel.files import leases, together

KEPT = 30 * 86_400.0  # seconds, by the clock of the file system


class Unfinished:
    """The states of the trainings of one stage call, by number.

    Args:
        folder: where they lie; made by the first write.
        partial: where files are written before they are moved there.
    """

    def __init__(self, folder: Path, partial: Path) -> None:
        self._folder, self._partial = folder, partial

    def path(self, number: int) -> Path:
        """Return where the state of a training lies, if it has one."""
        return self._folder / f"{number:05d}.ckpt"

    def write(self, number: int, save: Callable[[Path], None]) -> None:
        """Replace the state of a training.

        Args:
            number: of the training within the stage call.
            save: writes the state to a path that it is given.

        Raises:
            OSError: it cannot be written; the state before is as it was.
        """
        with leases.claimed(self._partial) as made:
            path = made / self.path(number).name
            save(path)
            together.flush(path)
            self._folder.mkdir(parents=True, exist_ok=True)
            path.replace(self.path(number))

    def remove(self) -> None:
        """Remove all states; harmless where others do the same."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the folder of the stage, if nothing else is in it
            self._folder.parent.rmdir()


def sweep(root: Path) -> None:
    """Remove the states below a folder that nobody has touched for a month."""
    if not root.is_dir():
        return
    with tempfile.TemporaryFile(dir=root) as probe:
        now = os.fstat(probe.fileno()).st_mtime
    for folder in root.glob("*/*"):
        with contextlib.suppress(OSError):  # another one removes it
            if now - folder.stat().st_mtime > KEPT:
                shutil.rmtree(folder)
