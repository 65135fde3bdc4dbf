"""Plugins to begin with: a file of each kind that works, and the command that writes one."""
