"""Dashboards as code: `panels.py` says what is shown, `views.py` makes W&B's workspace and report of it."""
