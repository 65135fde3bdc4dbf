"""Posteriors become scores: the data that stages read, what is scored, when to stop."""
