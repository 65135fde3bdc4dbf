"""Time and size of the report of a large grid, and how soon its page can be used."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._measure import ROOT, Result, python, summarize
from sharedlabel import records
from sharedlabel.report import html

SECONDS, MEBIBYTES, INTERACTIVE = 5.0, 3.0, 1.0
_ROUNDS = 5
_GRID = (
    "--name=large",
    "--data={name: gaussian, classes: 6, dim: 64, instances_per_class: 160}",
    "--backbones=[{name: mlp, label: mlp, widths: [64, 32]}]",
    "--dense.epochs=2",
    "--retrain.epochs=1",
    "--fit.epochs=2",
    "--evaluation={n: [1, 2, 4, 8], partitions: 2}",
    "--sweet_spot.replicates=20",
    "--latency={batches: [1], repeats: 3, seconds: 0.01}",
    "--margin.epsilons=[]",
    "--tracking=none",
)
_AXES = (
    "--pruners=[magnitude, unit, random, filter_l1, synflow, obd]",
    "--ratios=[1, 1.5, 2, 3, 4]",
    "--aggregators=[mean_vote, majority_vote, max_vote, mean_logit, log_pool, tempered_log_pool, confusion_vote, "
    "refit_pool, vector_log_pool, matrix_log_pool]",
    "--seeds=[0, 1]",
)
_SMALL = ("--pruners=[magnitude]", "--ratios=[1, 2]", "--aggregators=[mean_vote, log_pool]", "--seeds=[0]")


def run(quick: bool) -> list[Result]:
    """Compute a grid of 500 cells and write its report several times; open it in Chromium, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        options = [*_GRID, *(_SMALL if quick else _AXES), f"--output={folder}", f"--data_root={folder}/data"]
        python(["-m", "sharedlabel.train", *options], ROOT)
        home = Path(folder) / "large"
        results = records.read(home)
        seconds = []
        for _ in range(1 if quick else _ROUNDS):
            started = time.perf_counter()
            page = html.write_report(results, home)
            seconds.append(time.perf_counter() - started)
        size = page.stat().st_size / 2**20
        note = f"{results.cells} cells, {len(list((home / 'plots').iterdir()))} figures, written to plots/ as well"
        return [
            summarize("report of a large grid", "s", seconds, bound=SECONDS, note=note),
            summarize("report of a large grid: size of the page", "MiB", [size], bound=MEBIBYTES),
            *_opened(page, 1 if quick else _ROUNDS),
        ]


def _opened(page: Path, rounds: int) -> list[Result]:
    """Measure how long Chromium takes from asking for the page until all of its script has run."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the other benchmarks run without it

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no Chromium found: the page is not opened", file=sys.stderr)
        return []
    asked = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        seconds = []
        for _ in range(rounds):
            tab.goto(page.as_uri(), wait_until="load")
            seconds.append(float(tab.evaluate(asked)))
        browser.close()
    return [summarize("report of a large grid: the page can be used", "s", seconds, bound=INTERACTIVE)]
