"""`python -m website.pictures`: draw the pictures of the pages, light and dark, from committed numbers.

python -m website.pictures                       # docs/pictures/why-*.svg
python -m website.pictures --run runs/digits     # also screenshots of that run's report; needs Chromium
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from sklearn.datasets import load_digits

from website import DOCS, tables

FOLDER = DOCS / "pictures"
_NUMBERS = DOCS / "results" / "cifar10-small" / "summaries.csv"
_PRUNER, _AGGREGATOR = "random", "residual_lstm"
_SHOWN_RATIOS = (1, 4, 16)
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_SIZES = {"wide": (1280, 800), "phone": (390, 844)}


@dataclass(frozen=True)
class Theme:
    """Colours of a picture.

    Attributes:
        ink: of text and lines.
        faint: of frames and the grid.
        surface: of boxes.
        lines: of curves, the dense network's first.
        mark: of what the reader shall see.
    """

    ink: str
    faint: str
    surface: str
    lines: tuple[str, ...]
    mark: str


THEMES = {
    "light": Theme("#1f2328", "#c9ced6", "#f3f4f8", ("#5c6370", "#7986cb", "#303f9f"), "#b3261e"),
    "dark": Theme("#e6e8ee", "#4a4f5c", "#2a2e38", ("#a6acb9", "#7986cb", "#aab6fe"), "#ffb4ab"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures and return the exit code."""
    parser = argparse.ArgumentParser("python -m website.pictures", description="Draw the pictures of the pages.")
    parser.add_argument("--run", type=Path, help="folder of a run whose report is to be photographed")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pictures (default: docs/pictures)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, theme in THEMES.items():
        with mpl.rc_context({"svg.hashsalt": "why", "font.size": 9}):
            figure = why(theme)
            figure.savefig(options.out / f"why-{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    if options.run is not None:
        photograph(options.run / "report.html", options.out)
    return 0


def why(theme: Theme) -> Figure:
    """Draw what shared labels are, and what they buy."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.6, 3.7), width_ratios=(1, 1.15), layout="constrained", facecolor="none"
    )
    _schematic(left, theme)
    _curves(right, theme)
    return figure


def _schematic(axes: Axes, theme: Theme) -> None:
    """Draw four images of one digit, the network that looks at each, and the aggregator."""
    axes.set_axis_off()
    axes.set_xlim(0, 10)
    axes.set_ylim(-0.4, 8.6)
    digits = load_digits()
    images = digits.images[digits.target == 8][[3, 11, 25, 40]]
    axes.set_title("Several looks, one label", color=theme.ink, fontsize=11, loc="left")
    for place, image in enumerate(images):
        low = 6.2 - 2.05 * place
        axes.imshow(image, cmap="gray_r", extent=(0.1, 1.9, low, low + 1.8), aspect="auto", zorder=2)
        axes.add_patch(Rectangle((0.1, low), 1.8, 1.8, fill=False, edgecolor=theme.faint, zorder=3))
        _box(axes, (3.1, low + 0.35), (2.1, 1.1), "network\n16x smaller", theme, 7.5)
        _arrow(axes, (2.0, low + 0.9), (3.0, low + 0.9), theme)
        _arrow(axes, (5.3, low + 0.9), (6.35, 4.05 + 0.28 * (1.5 - place)), theme)
    _box(axes, (6.4, 3.2), (2.0, 1.7), "aggregator", theme, 9)
    _arrow(axes, (8.45, 4.05), (9.1, 4.05), theme)
    axes.text(9.5, 4.05, "8", color=theme.mark, fontsize=24, fontweight="bold", ha="center", va="center")


def _box(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], text: str, theme: Theme, font: float
) -> None:
    style = "round,pad=0,rounding_size=0.18"
    box = FancyBboxPatch(corner, *size, boxstyle=style, facecolor=theme.surface, edgecolor=theme.lines[1], zorder=2)
    axes.add_patch(box)
    middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
    axes.text(*middle, text, color=theme.ink, fontsize=font, ha="center", va="center", zorder=3)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], theme: Theme) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": theme.ink, "lw": 0.9})


def _curves(axes: Axes, theme: Theme) -> None:
    """Draw n-accuracy against cost, a curve for each ratio, from the committed summaries."""
    points = _points()
    for ratio, color in zip(_SHOWN_RATIOS, theme.lines, strict=True):
        cost, accuracy, sizes = points[ratio]
        axes.plot(cost, accuracy, "o-", color=color, lw=1.8, ms=4)
        name = "dense" if ratio == 1 else f"{ratio}x"
        at = -1 if ratio == 1 else 0
        axes.annotate(
            name, (cost[at], accuracy[at]), (0, -13 if ratio == 1 else -12), textcoords="offset points",
            color=color, ha="center", fontweight="bold",
        )  # fmt: skip
        for x, y, n in zip(cost, accuracy, sizes, strict=True):
            if ratio == _SHOWN_RATIOS[-1] or n == 1:
                axes.annotate(
                    f"n = {n}", (x, y), (-5, 5), textcoords="offset points", color=color, fontsize=7, ha="right"
                )
    _mark(axes, points, theme)
    axes.set_xscale("log", base=2)
    axes.set_xticks([2.0**k for k in range(-4, 5)], ["1/16", "1/8", "1/4", "1/2", "1", "2", "4", "8", "16"])
    axes.set_xlabel("cost of a tuple, passes of the dense network", color=theme.ink)
    axes.set_ylabel("right, %", color=theme.ink)
    axes.set_title("The same compute, spent on more looks", color=theme.ink, fontsize=11, loc="left")
    axes.set_xlim(0.039, 22)
    axes.set_ylim(42, 104)
    axes.set_facecolor("none")
    axes.grid(color=theme.faint, lw=0.4)
    axes.tick_params(colors=theme.ink, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(theme.faint)


def _mark(axes: Axes, points: dict[float, tuple[np.ndarray, np.ndarray, list[int]]], theme: Theme) -> None:
    """Mark one dense look, and what the same compute buys at the highest ratio."""
    cost, accuracy, sizes = points[_SHOWN_RATIOS[-1]]
    within = max(place for place, one in enumerate(cost) if one <= 1)
    dense = float(points[1][1][0])
    axes.annotate(
        f"{dense:.1f}% from one\nlook of the dense network", (1.0, dense), (1.5, dense - 13), color=theme.mark,
        fontsize=8.5, arrowprops={"arrowstyle": "-", "color": theme.mark, "lw": 0.8},
    )  # fmt: skip
    axes.annotate(
        f"{float(accuracy[within]):.1f}% from {sizes[within]} looks,\n{float(cost[within]):.2f} dense passes",
        (float(cost[within]), float(accuracy[within])), (0.043, 97), color=theme.mark, fontsize=8.5,
        arrowprops={"arrowstyle": "-", "color": theme.mark, "lw": 0.8},
    )  # fmt: skip


def _points() -> dict[float, tuple[np.ndarray, np.ndarray, list[int]]]:
    """Return cost in dense passes, n-accuracy in percent and n, by ratio."""
    rows = [
        one
        for one in tables.records(_NUMBERS)
        if (one["aggregator"], one["split"], one["protocol"]) == (_AGGREGATOR, "test", "iid")
        and one["pruner"] in {_PRUNER, "none"}
    ]
    found: dict[float, tuple[np.ndarray, np.ndarray, list[int]]] = {}
    for ratio in _SHOWN_RATIOS:
        line = sorted((one for one in rows if float(one["ratio"]) == ratio), key=lambda one: int(one["n"]))
        cost = np.array([float(one["cost_dense_passes"]) for one in line])
        accuracy = np.array([100 * float(one["n_accuracy"]) for one in line])
        found[ratio] = cost, accuracy, [int(one["n"]) for one in line]
    return found


def photograph(report: Path, out: Path) -> None:
    """Write screenshots of the top of a report, light and dark, on a wide and on a narrow screen.

    Args:
        report: the page.
        out: folder of the pictures.
    """
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in _SCHEMES:
            for name, (width, height) in _SIZES.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(report.resolve().as_uri())
                page.screenshot(path=out / f"report-{name}-{scheme}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
