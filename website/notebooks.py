"""Notebooks of `examples/notebooks` as pages: they are executed, and their outputs shown."""

from __future__ import annotations

import tempfile
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

from website import ROOT

FOLDER = ROOT / "examples" / "notebooks"
_SECONDS = 120  # that a cell may take
_FORGET = "%reset -f"


def pages() -> dict[str, str | bytes]:
    """Return the pages of all notebooks, and the pictures on them, by their place in the site."""
    made: dict[str, str | bytes] = {}
    for stem, notebook in executed().items():
        made |= page(stem, notebook)
    return made


def executed() -> dict[str, Any]:
    """Execute all notebooks in an empty folder and return them with their outputs, by their names.

    One kernel runs them all, since importing torch takes longer than most cells; it forgets all names in between.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises.
    """
    done = {}
    with tempfile.TemporaryDirectory() as folder:
        # Sockets are files in a folder that this user alone can open: no ports.
        kernel = KernelManager(transport="ipc", ip=f"{folder}/socket")
        kernel.start_kernel(cwd=folder)
        try:
            for path in sorted(FOLDER.glob("*.ipynb")):
                notebook = nbformat.read(path, as_version=4)
                notebook.cells.insert(0, nbformat.v4.new_code_cell(_FORGET))
                client = NotebookClient(notebook, km=kernel, timeout=_SECONDS)
                client.execute()
                assert client.kc is not None
                client.kc.stop_channels()  # which a client of a kernel that others go on using leaves open
                del notebook.cells[0]
                done[path.stem] = notebook
        finally:
            kernel.shutdown_kernel(now=True)
    return done


def page(stem: str, notebook: Any) -> dict[str, str | bytes]:
    """Return the page of a notebook that has been executed, and the pictures on it, by their place in the site."""
    resources = {"output_files_dir": f"{stem}-files", "unique_key": stem}
    text, found = MarkdownExporter().from_notebook_node(notebook, resources)
    pictures = {f"notebooks/{name}": content for name, content in found["outputs"].items()}
    return {f"notebooks/{stem}.md": text, **pictures}
