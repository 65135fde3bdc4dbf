"""Tables, plots and the HTML report, from stored rows only."""

PLOTS = "plots/"  # folder of the figures, in that of a run
DRAW = "sharedlabel.report.plots:work"  # what a process runs that is to draw figures
