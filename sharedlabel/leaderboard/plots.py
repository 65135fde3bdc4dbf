"""The figure of a leaderboard: quality against cost."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.style
from matplotlib.figure import Figure

from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.leaderboard.standings import Standing
from sharedlabel.report._panels import heading
from sharedlabel.report._theme import INK, MUTED, SERIES, STYLE, to_svg


def against_cost(rows: Sequence[Standing], protocol: Protocol) -> str:
    """Draw the primary score with its interval against the MACs of a tuple, ranked entries filled, with the front.

    Args:
        rows: of the table, at least one.
        protocol: that they are of.

    Returns:
        SVG text.
    """
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        panel = figure.subplots()
        heading(figure, "Mean RI against cost", f"{protocol.id}, n = {max(protocol.n)}, filled: verified")
        panel.set_xscale("symlog", linthresh=1000)
        for row in rows:
            face = SERIES[0] if row.best is not None else "none"
            bars = [[row.ri - row.low], [row.high - row.ri]]
            panel.errorbar(row.macs, row.ri, yerr=bars, fmt="o", color=SERIES[0], mfc=face, ms=5, lw=0.8)
        front = sorted((row for row in rows if row.front), key=lambda row: row.macs)
        panel.plot([r.macs for r in front], [r.ri for r in front], color=INK, lw=1, drawstyle="steps-post", zorder=1)
        for row in front:
            name = row.entry.result.name
            panel.annotate(name, (row.macs, row.ri), (5, 6), textcoords="offset points", fontsize=8, color=MUTED)
        panel.set(xlabel="MACs of the aggregator for one tuple (log scale from 1,000)", ylabel="mean RI [95%]")
        label = f"Mean relative information against cost of {len(rows)} entries on {protocol.id}"
        return to_svg(figure, f"against-cost-{protocol.id}", label)
