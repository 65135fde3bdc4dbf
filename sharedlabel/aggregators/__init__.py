"""Set aggregators: one file each."""
