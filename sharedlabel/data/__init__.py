"""Data sets, splits and tuples: one file each."""
