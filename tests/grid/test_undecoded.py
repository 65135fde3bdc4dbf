"""A grid on images that stay in their files has the rows of one on a decoded copy, under the same keys."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from sharedlabel.config import parse
from sharedlabel.data._undecoded import Undecoded

GRID = (
    "--backbones=[{name: mlp, label: mlp, widths: [8]}]",
    "--pruners=[snip, sipp]",  # which look at training images, and at validation images
    "--ratios=[1, 2]",
    "--aggregators=[log_pool, deep_sets]",
    "--training=[frozen, joint]",
    "--dense.epochs=2",
    "--retrain.epochs=1",
    "--fit.epochs=1",
    "--joint.epochs=1",
    "--evaluation.n=[1, 2]",
    "--evaluation.partitions=2",
    "--sweet_spot.replicates=5",
    "--adaptive.rules=[]",
    "--margin.epsilons=[0.5]",
    "--latency.batches=[1]",
    "--latency.seconds=0.001",
    "--tracking=none",
)


def folder(place: Path) -> Path:
    """Two classes of noise, one brighter than the other, of several sizes."""
    generator = np.random.default_rng(0)
    for number in range(96):
        label, size = number % 2, 8 + number % 3
        pixels = generator.integers(60 * label, 196 + 60 * label, (size, size, 3), dtype=np.uint8)
        path = place / "images" / "ab"[label] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return place / "images"


def test_rows_are_those_of_a_grid_on_the_copy(run, tmp_path):
    images = folder(tmp_path)
    done = []
    for decoded in ("true", "false"):
        data = f"--data={{name: imagefolder, path: {images}, size: 8, decoded: {decoded}}}"
        places = (f"--output={tmp_path / decoded}", f"--data_root={tmp_path / decoded}")
        done.append(run(parse([*GRID, data, *places])[0]))
    whole, kept = done
    assert isinstance(kept.grid.data.dataset.images, Undecoded)
    assert not list((tmp_path / "false").rglob("*.npy"))
    keys = [sorted(node.key for cell in one.grid.cells for node in cell.calls()) for one in done]
    assert keys[0] == keys[1]
    assert len(kept.results.rows) == len(whole.results.rows) > 0
    rows = [[plain(row) for row in one.results.rows] for one in done]
    assert rows[0] == rows[1]
    assert [plain(one) for one in kept.results.margins] == [plain(one) for one in whole.results.margins]


def plain(record):
    """Return what was not measured by a clock."""
    return {name: value for name, value in dataclasses.asdict(record).items() if not name.startswith("measured_")}
