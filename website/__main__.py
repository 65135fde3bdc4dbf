"""`python -m website --version 0.1.0`: build a version of the site into `site/0.1.0`, strictly, without network.

Versions are plain folders beside each other. `site/versions.json` lists them, in the form that the theme's version
menu reads, and `site/index.html` leads to the newest release, or to `dev` while there is none.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from packaging.version import Version

from website import ROOT

DEV = "dev"
_REDIRECT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>sharedlabel</title>
<meta http-equiv="refresh" content="0; url={0}/"><a href="{0}/">sharedlabel {0}</a></html>
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site and return the exit code."""
    parser = argparse.ArgumentParser("python -m website", description="Build the documentation site.")
    parser.add_argument("--version", type=_version, default=DEV, help="a release such as 0.1.0 (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder of all versions (default: site)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)  # what a strict build stops at
    folder = options.out.resolve() / options.version
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    try:
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    except Abort as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        config.plugins.on_shutdown()
    default = index(options.out)
    print(f"wrote {folder}; look at it: python -m http.server --bind 127.0.0.1 --directory {options.out}")
    print(f"{options.out / 'index.html'} leads to {default}")
    return 0


def index(out: Path) -> str:
    """Write the list of versions and the page that leads to one of them; return that one.

    Args:
        out: the folder with a folder for each version.
    """
    built = [path.name for path in out.iterdir() if (path / "index.html").is_file()]
    releases = sorted((name for name in built if name != DEV), key=Version, reverse=True)
    default = releases[0] if releases else DEV
    listed = [{"version": name, "title": name, "aliases": ["latest"] * (name == default)} for name in releases]
    listed += [{"version": DEV, "title": DEV, "aliases": []}] * (DEV in built)
    (out / "versions.json").write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    (out / "index.html").write_text(_REDIRECT.format(default), encoding="utf-8")
    return default


def _version(text: str) -> str:
    if text != DEV and not re.fullmatch(r"\d+(\.\d+)*", text):
        raise argparse.ArgumentTypeError(f"expected {DEV} or numbers such as 0.1.0, got {text!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())
