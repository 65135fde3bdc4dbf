"""Networks rebuilt from stored outputs, and whether they fit into memory."""
