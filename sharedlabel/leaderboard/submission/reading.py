"""Read the folder of a submission: plain files of text, and nothing else."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sharedlabel.errors import DataError, printable
from sharedlabel.leaderboard.schema import NAMES, is_name, parse_toml
from sharedlabel.leaderboard.submission.metadata import Metadata, unprinted
from sharedlabel.leaderboard.submission.stripped import normal

SOURCE, METADATA, README = "aggregator.py", "submission.toml", "README.md"
FILES = (SOURCE, METADATA, README)
LIMITS = {SOURCE: 64_000, METADATA: 16_000, README: 64_000}  # bytes


@dataclass(frozen=True)
class Submission:
    """A submission as it was read.

    Attributes:
        name: of its folder.
        metadata: what it says of itself.
        source: the code as it was written.
        code: the code as it runs: without comments and docstrings.
        readme: Markdown.
        sha256: of all files.
    """

    name: str
    metadata: Metadata
    source: str
    code: str
    readme: str
    sha256: str


def named(root: Path, name: str) -> Submission:
    """Read the submission of a name from a board's folder.

    Raises:
        DataError: the name cannot be one, or what `read` refuses.
    """
    check_name(name)
    return read(root / "submissions" / name)


def read(folder: Path) -> Submission:
    """Read a submission.

    Raises:
        DataError: the folder, a name, a file, the metadata or the code is not as it has to be; the message says which.
    """
    if folder.is_symlink() or not folder.is_dir():
        got = "a link" if folder.is_symlink() else "none"
        raise DataError(f"expected the folder of a submission at {folder}, got {got}; make one with `new`")
    check_name(folder.name)
    content = {name: _file(folder / name, LIMITS[name]) for name in FILES}
    extra = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    if extra:
        raise DataError(
            f"expected only {', '.join(FILES)} in {folder}, got {printable(', '.join(extra), 200)}; remove the others"
        )
    digest = hashlib.sha256(b"".join(hashlib.sha256(content[name].encode()).digest() for name in FILES)).hexdigest()
    metadata = parse_toml(content[METADATA], folder / METADATA, Metadata)
    if metadata.external_data != bool(metadata.external_data_note):
        raise DataError(
            f"{folder / METADATA}: external_data_note goes with external_data = true; say there what was used"
        )
    code = normal(content[SOURCE], str(folder / SOURCE))
    return Submission(folder.name, metadata, content[SOURCE], code, content[README], digest)


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a submission.

    Raises:
        DataError: says what a name looks like.
    """
    if not is_name(name):
        raise DataError(f"expected {NAMES}, got {name!r}; rename the folder")


def _file(path: Path, limit: int) -> str:
    """Read a regular file of text, never through a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise DataError(f"expected the file {path}, found none; add it") from error
    except OSError as error:
        raise DataError(
            f"expected a plain file at {path}, got a link or something else ({error.strerror}); replace it"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"expected a plain file at {path}, got something else; replace it")
        content = os.read(descriptor, limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise DataError(f"expected at most {limit:,} bytes in {path}, got more; submissions hold code, no weights")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected text in UTF-8 in {path}, got other bytes at {error.start}; save it as UTF-8"
        ) from error
    hidden = unprinted(text, "\n\t")
    if hidden:
        raise DataError(f"expected printable text, \\n and \\t in {path}, got {hidden}; remove it")
    return text
