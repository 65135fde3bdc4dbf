"""Time and memory of the summary of a large grid: means, all paired comparisons, ranks and sweet spots."""

from __future__ import annotations

import json

from benchmarks._measure import ROOT, Result, python, summarize

SECONDS, MEBIBYTES = 180.0, 2048.0


def run(quick: bool) -> list[Result]:
    """Summarise synthetic scores of a grid in a fresh process."""
    images, aggregators, pruners, ratios, seeds, rounds = (800, 3, 2, 2, 2, 1) if quick else (10_000, 21, 5, 5, 3, 1)
    sizes = [images, aggregators, pruners, ratios, seeds]
    costs = []
    for _ in range(rounds):
        _, output = python(["-m", "benchmarks._summary_child", *map(str, sizes)], ROOT)
        costs.append(json.loads(output.splitlines()[-1]))
    networks = pruners * ratios + 1
    note = (
        f"{aggregators} aggregators on {networks} networks, {seeds} seeds, five n, 10 partitions of {images} images, "
        f"1,000 replicates: {costs[0]['comparisons']} comparisons, "
        f"{costs[0]['processor_seconds']:.0f} s of processor time"
    )
    return [
        summarize("summary of a grid", "s", [one["seconds"] for one in costs], bound=SECONDS, note=note),
        summarize(
            "summary of a grid: peak of resident memory, stored scores included",
            "MiB",
            [one["mebibytes"] for one in costs],
            bound=MEBIBYTES,
        ),
    ]
