"""Which libraries a sandbox shows: torch, Lightning and what they need, and no others."""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sharedlabel.errors import ConfigError

# What is shown of the environment, with what these need: others bring data sets and their labels, or take seconds to
# import where an optional library is found.
_LIBRARIES = (
    "docstring-parser",
    "jaxtyping",
    "numpy",
    "pydantic",
    "pytorch-lightning",
    "pyyaml",
    "safetensors",
    "scipy",
    "torch",
)


def prefixes() -> tuple[str, ...]:
    """Return the folders of Python and of the environment."""
    return tuple(dict.fromkeys((sys.base_prefix, sys.prefix)))


def library_folders() -> list[Path]:
    """Return where libraries lie that Python finds, or would find, in what is shown."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    names = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    names += [f"{prefix}/lib/{version}/{kind}-packages" for prefix in prefixes() for kind in ("site", "dist")]
    names += ["/usr/lib/python3/dist-packages", f"/usr/local/lib/{version}/dist-packages"]
    return list(dict.fromkeys(Path(name).resolve() for name in names))


@functools.cache
def libraries() -> tuple[Path, ...]:
    """Return the files and folders of the libraries that are shown, those they need included.

    Raises:
        ConfigError: the environment does not know what belongs to one of them.
    """
    places: dict[str, None] = {}
    seen, rest = set[str](), list(_LIBRARIES)
    while rest:
        name = canonicalize_name(rest.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        if distribution.files is None:
            raise ConfigError(f"expected the list of files of {name} in its metadata, got none; install it with pip")
        tops = {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}
        places |= dict.fromkeys(str(distribution.locate_file(top)) for top in sorted(tops) if not top.endswith(".pth"))
        required = map(Requirement, distribution.requires or ())
        rest += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return tuple(path.resolve() for path in map(Path, places) if path.exists())
