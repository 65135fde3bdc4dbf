"""Pruners: one compression method per file."""
