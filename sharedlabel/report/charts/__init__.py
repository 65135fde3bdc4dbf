"""Charts as SVG, written without a plotting library: a panel is a page's small multiple and a file's part alike.

A figure is plain data (`figure.py`): panels with axes (`axes.py`) and series, of which each has a mark (`marks.py`).
`svg.py` writes it, as panels that a page arranges or as one file. Every point says its value in words, which browsers
show, scripts read and screen readers hear.
"""
