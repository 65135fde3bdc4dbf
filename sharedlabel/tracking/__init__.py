"""Weights & Biases: a view on what is trained and found, never the source of a number.

`runs.py` and `methods.py` say as plain data what each run holds, `tracker.py` hands it to W&B, `publishing.py` does so
in another process, `dashboards/` builds what shows all of them. Nothing here imports wandb before there is something to
publish; `training/live.py` begins the runs of trainings.
"""
