"""What to deploy, recommended from the rows of a run; imports no torch."""
