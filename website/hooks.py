"""What mkdocs calls while it builds the site: pages are added, and links and fences made those of the site."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website import blocks, methods, notebooks, outside, reference

_EVERY = "/*"
_LISTS = {"methods/index.md", "compression.md", "aggregation.md"}  # pages whose tables name methods first
_METHOD = re.compile(r"^\| `(\w+)`", re.MULTILINE)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made here, and list them in the navigation."""
    for place, content in (methods.pages() | reference.pages() | outside.pages() | notebooks.pages()).items():
        files.append(File.generated(config, place, content=content))
    config.nav = _expanded(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links and fences of a page those of the site, and names of methods in its tables links to their pages."""
    del config, files
    uri = page.file.src_uri
    if page.file.generated_by is None:
        markdown = outside.relinked(markdown, f"docs/{uri}", uri)

    if uri not in _LISTS:
        return blocks.bare(markdown)

    def linked(found: re.Match[str]) -> str:
        place = methods.place(found[1])
        if place is None:
            return found[0]
        return f"| [`{found[1]}`]({posixpath.relpath(place, posixpath.dirname(uri) or chr(46))})"

    return _METHOD.sub(linked, blocks.bare(markdown))


def _expanded(entries: Any, pages: list[str]) -> Any:
    """Put, in the place of `folder/*`, the pages of that folder."""
    if isinstance(entries, dict):
        return {title: _expanded(inner, pages) for title, inner in entries.items()}
    if isinstance(entries, list):
        return [one for inner in entries for one in _spliced(_expanded(inner, pages), inner)]
    if not entries.endswith(_EVERY):
        return entries
    folder = entries.removesuffix("*")
    return sorted(page for page in pages if page.startswith(folder) and "/" not in page.removeprefix(folder))


def _spliced(expanded: Any, given: Any) -> list[Any]:
    """Return what an entry of a list becomes: several entries, where it stood for a folder."""
    return expanded if isinstance(given, str) and isinstance(expanded, list) else [expanded]
