"""Tables, figures and the HTML report, from stored rows only."""

PLOTS = "plots/"  # folder of the figures, in that of a run
