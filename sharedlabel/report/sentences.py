"""Sweet spots as sentences that a practitioner understands."""

from __future__ import annotations

from sharedlabel.records import MIN_SEEDS, SweetSpot
from sharedlabel.report.views import View, dense, method, place


def number(value: float) -> str:
    """Write a value with three decimals, without a minus sign where nothing is left of it.

    >>> number(-0.0001), number(-0.0123)
    ('0.000', '-0.012')
    """
    return f"{round(value, 3) + 0.0:.3f}"


def percent(share: float, sign: str = "%") -> str:
    """Write a share as a percentage that says 100 only for all.

    >>> percent(0.974), percent(0.9997), percent(1.0)
    ('97.4%', '99.97%', '100.0%')
    """
    text = f"{100 * share:.1f}"
    if text == "100.0" and share < 1:
        text = f"{min(100 * share, 99.99):.2f}"
    return text + sign


def title(spot: SweetSpot) -> str:
    """Name the rule of a sweet spot with its value and n."""
    value = spot.value if spot.value is not None else 0.0
    text = {
        "budget": f"{value:g} dense pass{'' if value == 1 else 'es'}",
        "retain": f"{100 * value:g}% of dense RI",
        "target": f"{100 * value:g}% right",
        "knee": "knee",
        "marginal": f"{value:g} RI per doubling",
    }[spot.rule]
    return text if spot.rule_n is None else f"{text}, n = {spot.rule_n}"


def sentence(spot: SweetSpot, view: View) -> str:
    """Say what a sweet spot means: what to do, what it gives, what it costs, and how far to trust it."""
    if spot.ratio is None or spot.n is None:
        return f"Nothing qualifies ({method(spot)} on {spot.pruner}): {spot.reason or 'no reason is recorded'}."
    action = "keep the dense network" if dense(spot) else f"compress {spot.ratio:g}x"
    how = method(spot) if dense(spot) else place(spot)
    images = "1 image" if spot.n == 1 else f"{spot.n} images"
    if spot.guessing:
        return (
            f"Nothing to recommend: with {images} per object, {spot.ratio:g}x ({how}) is no better than guessing "
            f"(RI {number(spot.ri or 0.0)} [{number(spot.ri_low or 0.0)}, {number(spot.ri_high or 0.0)}] on test)."
        )
    main = f"With {images} per object, {action} ({how}): {_outcome(spot)}"
    reference = _reference(spot, view)
    return f"{main}{'; ' + reference if reference else ''}.{_caution(spot, view)}"


def seeds(count: int) -> str:
    """Say what so few training seeds cannot tell; empty where they are enough for verdicts.

    >>> seeds(3)
    'Three training seeds: there are no verdicts on differences, which need five.'
    """
    if count >= MIN_SEEDS:
        return ""
    if count == 1:
        return (
            "One training seed: intervals are over images alone and say nothing about training, and there are no "
            "verdicts on differences, which need five seeds."
        )
    number = ("Two", "Three", "Four")[count - 2]
    return f"{number} training seeds: there are no verdicts on differences, which need five."


def edge(spot: SweetSpot, view: View) -> str:
    """Say where a sweet spot sits in the grid of ratios: `inside`, or which edge."""
    if spot.ratio is None:
        return ""
    if spot.interior:
        return "inside"
    ratios = view.ratios
    return {ratios[0]: "smallest", ratios[-1]: "largest"}.get(spot.ratio, "edge")


def _outcome(spot: SweetSpot) -> str:
    right, low, high = (share or 0.0 for share in (spot.n_accuracy, spot.n_accuracy_low, spot.n_accuracy_high))
    cost = spot.cost_dense_passes or 0.0
    interval = f"[{percent(low, '')}, {percent(high, '')}]"
    return f"{percent(right)} right {interval}, for the cost of {cost:.2f} dense pass{'' if cost == 1 else 'es'}"


def _reference(spot: SweetSpot, view: View) -> str:
    if spot.rule == "retain":
        if dense(spot) or spot.dense_n_accuracy is None or spot.n is None:
            return ""
        same = "image" if spot.n == 1 else f"{spot.n} images"
        return f"the dense network on the same {same} gets {percent(spot.dense_n_accuracy)}"
    if dense(spot) and spot.n == 1:
        return ""
    singles = [s for s in view.tests(n=1) if dense(s) and method(s) == method(spot)]
    return f"the dense network on one image gets {percent(singles[0].n_accuracy)}" if singles else ""


def _caution(spot: SweetSpot, view: View) -> str:
    where = edge(spot, view)
    below = "by this rule, compressing does not pay" if dense(spot) else "a smaller one may do better"
    texts = {
        "largest": "This is the largest ratio of the grid: a larger one may do better",
        "smallest": f"This is the smallest ratio of the grid: {below}",
        "edge": "This choice sits at the edge of the grid",
    }
    cautions = [texts[where]] if where in texts else []
    if spot.replicates > 1 and spot.modal_share < 0.5:
        cautions.append(f"Unstable: only {percent(spot.modal_share)} of {spot.replicates} replicates choose the same")
    if spot.reason:
        cautions.append(spot.reason[0].upper() + spot.reason[1:].rstrip("."))
    return "".join(f" {text}." for text in cautions)
