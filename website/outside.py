"""Files outside `docs/` that pages link to: each is a page of the site, so that every link has a target."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from website import DOCS, ROOT

# Where Markdown files outside `docs/` stand in the site. All but the first are shown even if nothing links to them.
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "leaderboard/README.md": "leaderboard.md",
    "examples/plugin/README.md": "plugin-repository.md",
}
SHOWN = tuple(PLACES)[1:]
_SOURCE, _NOTEBOOKS = "source", "examples/notebooks/"
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".json": "json", ".sbatch": "sh", ".csv": "text"}


def pages() -> dict[str, str]:
    """Return the text of every page that is a file outside `docs/`, by its place in the site.

    Links in the texts are those of the site already.
    """
    origins = [f"docs/{path.relative_to(DOCS).as_posix()}" for path in sorted(DOCS.rglob("*.md"))]
    waiting, made = [*SHOWN, *_targets(origins)], {}
    while waiting:
        origin = waiting.pop()
        place = PLACES.get(origin, _place(origin))
        if place in made or origin.startswith(("docs/", _NOTEBOOKS)) or origin == "README.md":
            continue
        text = (ROOT / origin).read_text(encoding="utf-8")
        if origin.endswith(".md"):
            made[place] = relinked(text, origin, place)
            waiting += _targets([origin])
        else:
            language = _LANGUAGES.get(posixpath.splitext(origin)[1], "text")
            made[place] = f"# {posixpath.basename(origin)}\n\n`{origin}`\n\n````{language}\n{text.rstrip()}\n````\n"
    return made


def relinked(markdown: str, origin: str, place: str) -> str:
    """Return a page whose links to files of the repository are links of the site.

    Args:
        markdown: the page.
        origin: its path in the repository.
        place: its path in the site.
    """

    def changed(found: re.Match[str]) -> str:
        target = _target(origin, found[1])
        if target is None:
            return found[1]
        anchor = "".join(found[1].partition("#")[1:])
        return posixpath.relpath(_place(target), posixpath.dirname(place) or ".") + anchor

    return _LINK.sub(changed, markdown)


def _targets(origins: Iterable[str]) -> Iterator[str]:
    """Yield what pages link to in the repository."""
    for origin in origins:
        for link in _LINK.findall((ROOT / origin).read_text(encoding="utf-8")):
            target = _target(origin, link)
            if target is not None:
                yield target


def _target(origin: str, link: str) -> str | None:
    """Return the file that a link of a page leads to, in the repository; None for what the site finds by itself."""
    url = link.partition("#")[0]
    if not url or ":" in url:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), url))
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    inside = origin.startswith("docs/") and path.startswith("docs/")
    return None if inside or path.startswith("..") or not (ROOT / path).is_file() else path


def _place(path: str) -> str:
    """Return where a file of the repository stands in the site."""
    if path in PLACES:
        return PLACES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(_NOTEBOOKS) and path.endswith(".ipynb"):
        return f"notebooks/{posixpath.basename(path).removesuffix('.ipynb')}.md"
    return f"{_SOURCE}/{path}" if path.endswith(".md") else f"{_SOURCE}/{path}.md"
