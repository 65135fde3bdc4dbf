"""Commands for whoever releases the package; they need the network, and their results are committed."""
