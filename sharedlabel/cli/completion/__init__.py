"""Completion of the command `sharedlabel` in shells: words from the parsers of its commands, scripts made of them."""
