"""What `import sharedlabel` offers beside `sharedlabel.metrics` and `sharedlabel.plot`; `docs/api.md` shows each."""
