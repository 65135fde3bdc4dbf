"""Makes the documentation site: pages that come from code, pictures, and the build (`make docs`).

`hooks.py` is what mkdocs calls; it adds pages of methods (`methods.py`), of the Python API and the commands
(`reference.py`), of notebooks (`notebooks.py`) and of files outside `docs/` (`outside.py`). `blocks.py` reads code
blocks, for the site and for the tests that run them. `pictures.py` draws the pictures that are committed.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
