"""The machine that a process runs on: its memory, commit, versions and device."""
