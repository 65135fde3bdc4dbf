"""The configurations that come with the package, by name: `--config mnist`, wherever it is installed."""

from __future__ import annotations

import os
from pathlib import Path

from sharedlabel.errors import ConfigError, nearest, printable

FOLDER = Path(__file__).resolve().parents[1] / "configs"


def names() -> tuple[str, ...]:
    """List the configurations that come with the package.

    >>> "digits" in names()
    True
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def file_of(given: Path) -> Path:
    """Return the file that a user means by what stands after `--config`.

    A word without a folder and without an ending names a configuration of the package, unless there is a file of that
    name; all else is a path.

    Args:
        given: a path, or a name.

    Raises:
        ConfigError: a word that is neither a file nor a name.

    >>> file_of(Path("mnist")).name, file_of(Path("mine/grid.yaml")).name
    ('mnist.yaml', 'grid.yaml')
    """
    word = str(given)
    if given.name != word or given.suffix or os.path.isfile(given):
        return given
    if word in names():
        return FOLDER / f"{word}.yaml"
    if os.path.exists(given):
        return given
    raise ConfigError(
        f"config: expected a YAML file, or a configuration of the package, got '{printable(word)}'; "
        f"{nearest(word, names())}"
    )


def own(missing: Path) -> str:
    """Say which configuration of the package is called like a file that there is not; nothing where there is none.

    >>> own(Path("configs/mnist.yaml"))
    ', or take the one of the package with --config mnist'
    >>> own(Path("grid.yaml"))
    ''
    """
    return f", or take the one of the package with --config {missing.stem}" if missing.stem in names() else ""
