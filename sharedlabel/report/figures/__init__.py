"""The figures of the report, one file each; a file's name is the beginning of its figures' names.

A file says where its figures stand: in which `SECTION` of the page and in which `ORDER`, under which `HEADING` and
`CAPTION`, whether the page shows them behind a click (`ASIDE`), and for what one is drawn (`PER`: `view`, `pruner` or
`training` of a view, or `network`). It has `draw(view, palette)`, or `draw(view, name, palette)` per pruner or
training, which returns a `charts.figure.Figure`, or None where there is nothing to draw. Files whose name starts with
an underscore are helpers.
"""
