"""A recommendation in plain English, for the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator

from sharedlabel.choose.candidates import Option
from sharedlabel.choose.differences import Contrast, Gap, Shift
from sharedlabel.choose.recommendation import Recommendation, describe, intervals
from sharedlabel.config.names import DENSE
from sharedlabel.errors import printable
from sharedlabel.records import MIN_SEEDS, shown
from sharedlabel.records.written import number, percent, short

_WIDTH = 100
_LABEL = 14
_DIGITS = 8  # at most


def render(advice: Recommendation) -> str:
    """Write a recommendation as aligned lines of at most 100 columns.

    Args:
        advice: the recommendation.
    """
    seeds = f"{advice.seeds} seed{'s' * (advice.seeds > 1)}"
    written = [f"{shown.name(advice.data)}, {advice.protocol} tuples, {seeds}; asked for: {_asked(advice)}", ""]
    indent = " " * _LABEL
    for label, text in lines(advice):
        first = f"{label:{_LABEL}}"
        written += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(map(printable, written))


def _asked(advice: Recommendation) -> str:
    request = advice.request
    texts = []
    if request.n is not None:
        texts.append(f"n = {request.n}")
    if request.budget is not None:
        texts.append(f"at most {request.budget:g} dense pass{'' if request.budget == 1 else 'es'}")
    if request.latency_ms is not None:
        texts.append(f"at most {request.latency_ms:g} ms")
    if request.target_accuracy is not None:
        texts.append(f"the cheapest with {percent(request.target_accuracy)} right")
    return ", ".join(texts)


def lines(advice: Recommendation, *, tests: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the lines of a recommendation: what each is about, or nothing where that is as before, and a sentence.

    Args:
        advice: the recommendation.
        tests: say of every difference what its interval is adjusted for.
    """
    best = advice.recommended
    yield "recommended", describe(best)
    yield from zip(("costs", "", ""), _costs(advice), strict=False)
    yield (
        "gives",
        (
            f"{percent(best.n_accuracy)} right {_ends(best.n_accuracy_low, best.n_accuracy_high)}, "
            f"RI {number(best.ri)} [{number(best.ri_low)}, {number(best.ri_high)}] on test; on validation, where it "
            f"was chosen, {percent(best.validation_n_accuracy)} and {number(best.validation_ri)}"
        ),
    )
    if advice.target_on_test is not None:
        yield "", _target(advice)
    yield from zip(("stands on", "", "", ""), _evidence(advice), strict=False)
    yield "gives up", _dense(advice, tests)
    if advice.best is None:
        yield "", "nothing against the highest RI of all options: it has that"
    else:
        yield (
            "",
            f"against the highest RI of all options, {_other(advice.best.option)}: {_contrast(advice.best, tests)}",
        )
    if advice.cheaper is not None:
        yield (
            "for less",
            f"{_other(advice.cheaper.option)}: within {advice.margin:g} RI of it on validation, the margin of "
            f"equivalence; recommended minus this one {_contrast(advice.cheaper, tests)}",
        )
    yield "runner-up", _runner_up(advice, tests)
    yield "chosen among", f"{advice.qualified} of {advice.considered} options that qualify"
    yield from zip(("notes", "", "", "", ""), _notes(advice), strict=False)


def _costs(advice: Recommendation) -> Iterator[str]:
    best = advice.recommended
    share = 100 * best.aggregator_macs / best.cost_macs
    yield (
        f"{_passes(best)} of {best.backbone} ({short(best.cost_macs)} MACs per tuple, the "
        f"aggregator {share:.1f}% of it)"
    )
    yield _timing(advice)
    files = ""
    if best.file_bytes_dense is not None and best.file_bytes_sparse is not None:
        files = f"; file {short(best.file_bytes_dense)}B, stored sparsely {short(best.file_bytes_sparse)}B"
    yield f"{short(best.parameters)} parameters of {short(best.parameters_dense)}{files}"


def _timing(advice: Recommendation) -> str:
    timing = advice.recommended.timing
    if timing is None:
        return f"latency not measured with batch {advice.request.batch}"
    text = (
        f"{timing.ms_per_tuple:.3g} ms per tuple: {advice.recommended.n} x {timing.ms_per_image:.3g} ms per image, "
        f"eager, batch {timing.batch}, {timing.device}, {timing.threads} thread{'s' * (timing.threads > 1)}, without "
        "the aggregator"
    )
    if not timing.contended:
        return text
    return (
        f"{text}; measured on a busy machine ({timing.contention or 0.0:.2f} times as long on the wall as on the "
        "processor): do not plan by it"
    )


def _evidence(advice: Recommendation) -> Iterator[str]:
    """Say how many images, groups and seeds there are, how stable the choice is, and where it is in the grid."""
    seeds = advice.recommended.seeds
    counts = [
        f"{images:,} {split} images" + (f" of {advice.groups[split]:,} groups" if split in advice.groups else "")
        for split, images in advice.images.items()
    ]
    alone = "; with one seed, intervals are over images alone and say nothing of training anew" if seeds == 1 else ""
    yield ", ".join([*counts, f"{seeds} training seed{'s' * (seeds > 1)}"]) + alone
    if advice.agreement is None:
        yield "how stable the choice is: unknown, since the run has no sweet spot of this method by these limits"
    else:
        share = percent(advice.agreement.share)
        yield f"{share} of {advice.agreement.replicates} replicates of images and seeds choose the same ratio and n"
    yield from _edges(advice)


def _edges(advice: Recommendation) -> Iterator[str]:
    best, edges = advice.recommended, []
    if advice.ratio_edge == "largest":
        edges.append(f"{best.ratio:g}x is the largest ratio of the grid: a larger one may do better")
    elif advice.ratio_edge == "smallest":
        below = (
            "within these limits compressing does not pay" if best.pruner == DENSE else "a smaller one may do better"
        )
        edges.append(f"{best.ratio:g}x is the smallest ratio of the grid: {below}")
    if advice.n_edge == "largest":
        edges.append(f"n = {best.n} is the largest of the grid: more images may do better")
    if edges:
        yield "; ".join(edges)


def _ends(low: float, high: float) -> str:
    return f"[{percent(low, '')}, {percent(high, '')}]"


def _target(advice: Recommendation) -> str:
    target = percent(advice.request.target_accuracy or 0.0)
    return {
        "reached": f"the lower end of the interval on test reaches {target} too",
        "mean": f"on test the mean reaches {target}, the lower end of its interval does not",
        "missed": f"on test it stays below {target}: validation was luckier",
    }[advice.target_on_test or "missed"]


def _dense(advice: Recommendation, tests: bool) -> str:
    best = advice.recommended
    if advice.dense is not None:
        return f"against the dense network on the same {_images(best.n)}: {_contrast(advice.dense, tests)}"
    if best.pruner == DENSE:
        return "nothing against the dense network: it is the dense network"
    return "against the dense network: unknown, since it was not evaluated with this aggregator"


def _images(n: int) -> str:
    return "image" if n == 1 else f"{n} images"


def _other(option: Option) -> str:
    return f"{describe(option)}, {_passes(option)}"


def _passes(option: Option) -> str:
    count = f"{option.cost_dense_passes:.3g}"
    return f"{count} dense pass{'' if count == '1' else 'es'}"


def adjustment(contrast: Contrast) -> str:
    """Say what the intervals of a contrast are adjusted for.

    Args:
        contrast: of the recommended option and another.
    """
    return f"{'paired' if contrast.ri.paired else 'not paired'}; {contrast.ri.correction}"


def _contrast(contrast: Contrast, tests: bool) -> str:
    said = f"{_points(contrast.n_accuracy)}, RI {_ri(contrast.ri)}"
    return f"{said} ({adjustment(contrast)})" if tests else said


def _points(gap: Gap | Shift) -> str:
    middle, low, high = _apart((100 * value for value in (gap.difference, gap.low, gap.high)), 1)
    return f"{middle} points right [{low}, {high}]"


def _ri(gap: Gap | Shift) -> str:
    middle, low, high = _apart((gap.difference, gap.low, gap.high), 3)
    return f"{middle} [{low}, {high}]"


def _apart(values: Iterable[float], digits: int) -> Iterator[str]:
    """Write an estimate and the ends of its interval with so many digits, or as many as show the ends apart."""
    middle, low, high = values
    needed = 1 - math.floor(math.log10(high - low)) if high > low else digits
    if needed <= _DIGITS:  # else they differ by rounding alone
        digits = max(digits, needed)
    return (_signed(value, digits) for value in (middle, low, high))


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _runner_up(advice: Recommendation, tests: bool) -> str:
    if advice.runner_up is None:
        return "none: no other method qualifies"
    seeds = min(advice.recommended.seeds, advice.runner_up.option.seeds)
    verdict = {
        "better": "worse on test",
        "worse": "better on test",
        "equivalent": "equivalent on test",
        "undecided": "not shown to differ on test",
        "no verdict": f"no verdict with {seeds} seed{'s' * (seeds > 1)}, {MIN_SEEDS} are needed",
    }[advice.runner_up.ri.verdict]
    minus = f"recommended minus runner-up {_contrast(advice.runner_up, tests)}"
    return f"{_other(advice.runner_up.option)}: {verdict}; {minus}"


def _notes(advice: Recommendation) -> Iterator[str]:
    if advice.passed_over is not None:
        yield (
            f"passed over: {describe(advice.passed_over)}, which is no better than guessing as far as these images and "
            f"seeds show: RI {intervals(advice.passed_over)}"
        )
    yield from _shift(advice)
    contrasts = [c for c in (advice.dense, advice.best, advice.runner_up) if c is not None]
    if any(not c.ri.paired for c in contrasts):
        yield (
            "not paired: the run did not compare these two on the same tuples, so their intervals are combined as if "
            "independent, which is too wide as a rule"
        )
    if advice.backbones > 1:
        yield (
            f"several backbones: budgets count passes of the largest dense network, {advice.unit.backbone} "
            f"({short(advice.unit.macs)} MACs), so that MACs are compared"
        )


def _shift(advice: Recommendation) -> Iterator[str]:
    """Warn where validation and test differ by more than chance; a choice is the luckiest of many on validation."""
    ri, right = advice.shift_ri, advice.shift_n_accuracy
    if not (ri.beyond_chance or right.beyond_chance):
        return
    yield (
        f"validation and test differ by more than chance: validation minus test {_points(right)}, "
        f"RI {_ri(ri)} (95%, independent images); go by test, and ask whether both are drawn alike"
    )
