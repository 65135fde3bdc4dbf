"""Sweet spots as sentences that a practitioner understands."""

from __future__ import annotations

from sharedlabel.choose.candidates import Option
from sharedlabel.config.names import EXACT, SEQUENCE
from sharedlabel.records import MIN_SEEDS, SweetSpot
from sharedlabel.records.written import number, percent
from sharedlabel.report.views import View, dense, method, place


def advice(chosen: SweetSpot | Option) -> str:
    """Say what to do and what that gives, where there is a ratio and an n."""
    action = "keep the dense network" if dense(chosen) else f"compress {chosen.ratio:g}x"
    how = method(chosen) if dense(chosen) else place(chosen)
    return f"With {images(chosen.n or 0)} per object, {action} ({how}): {_outcome(chosen)}."


def images(n: int) -> str:
    """Count images.

    >>> images(1), images(8)
    ('1 image', '8 images')
    """
    return "1 image" if n == 1 else f"{n} images"


def sentence(spot: SweetSpot, view: View) -> str:
    """Say what a sweet spot means: what to do, what it gives, what it costs, and how far to trust it."""
    if spot.ratio is None or spot.n is None:
        return _nothing(spot, view)
    how = method(spot) if dense(spot) else place(spot)
    if spot.guessing:
        score, low, high = (number(value or 0.0) for value in (spot.ri, spot.ri_low, spot.ri_high))
        return (
            f"Nothing to recommend: with {images(spot.n)} per object, {spot.ratio:g}x ({how}) is no better than "
            f"guessing (RI {score} [{low}, {high}] on test)."
        )
    main, reference = advice(spot).removesuffix("."), _reference(spot, view)
    return f"{main}{'; ' + reference if reference else ''}.{_caution(spot, view)}"


def _nothing(spot: SweetSpot, view: View) -> str:
    """Say why nothing qualifies; of a target, how near the best of all methods comes to it."""
    known = [s for s in view.summaries if s.split == "validation" and s.aggregator != EXACT]
    best = max(known, key=lambda s: s.n_accuracy, default=None)
    if spot.rule != "target" or best is None:
        return f"Nothing qualifies ({method(spot)} on {spot.pruner}): {spot.reason or 'no reason is recorded'}."
    where = f"{place(best)}{'' if dense(best) else f' {best.ratio:g}x'} with {images(best.n)}"
    return f"Nothing qualifies: the best, {where}, gets {percent(best.n_accuracy)} right on validation."


def order(view: View) -> str:
    """Say which aggregators do not see the order of a sequence; empty for other tuples."""
    own = {one.aggregator for one in view.summaries}
    free = [name for name in view.order_free if name in own]
    if view.protocol != SEQUENCE or not free:
        return ""
    others = sorted(own - {*free, EXACT})
    rest = f"; in their order read them {', '.join(others)}" if others else ""
    return f"The order of the instances makes no difference to {', '.join(free)}{rest}."


def seeds(count: int) -> str:
    """Say what so few training seeds cannot tell; empty where they are enough for verdicts.

    >>> seeds(3).partition(", ")[2]
    "which need five, and intervals that cover training are wide (Student's t with 2 degrees of freedom)."
    """
    if count >= MIN_SEEDS:
        return ""
    if count == 1:
        return (
            "One training seed: intervals are over images alone and say nothing about training, and there are no "
            "verdicts on differences, which need five seeds."
        )
    number = ("Two", "Three", "Four")[count - 2]
    freedom = f"{count - 1} degree{'s' * (count > 2)} of freedom"
    return (
        f"{number} training seeds: there are no verdicts on differences, which need five, and intervals that cover "
        f"training are wide (Student's t with {freedom})."
    )


def edge(spot: SweetSpot, view: View) -> str:
    """Say where a sweet spot sits in the grid of ratios: `inside`, or which edge."""
    if spot.ratio is None:
        return ""
    if spot.interior:
        return "inside"
    ratios = view.ratios
    return {ratios[0]: "smallest", ratios[-1]: "largest"}.get(spot.ratio, "edge")


def _outcome(spot: SweetSpot | Option) -> str:
    right, low, high = (share or 0.0 for share in (spot.n_accuracy, spot.n_accuracy_low, spot.n_accuracy_high))
    cost = spot.cost_dense_passes or 0.0
    interval = f"[{percent(low, '')}, {percent(high, '')}]"
    return f"{percent(right)} right {interval}, for the cost of {cost:.2f} dense pass{'' if cost == 1 else 'es'}"


def _reference(spot: SweetSpot, view: View) -> str:
    if spot.rule == "retain":
        if dense(spot) or spot.dense_n_accuracy is None or spot.n is None:
            return ""
        return (
            f"the dense network on the same {images(spot.n).removeprefix('1 ')} gets {percent(spot.dense_n_accuracy)}"
        )
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
