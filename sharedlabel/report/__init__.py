"""Tables, plots and the HTML report, from stored rows only."""
