"""A recommendation in plain English, for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from sharedlabel.choosing.candidates import DENSE, Option
from sharedlabel.choosing.differences import Contrast, Gap
from sharedlabel.choosing.recommendation import Recommendation, describe
from sharedlabel.report.costs import short
from sharedlabel.report.sentences import number, percent

_WIDTH = 100
_LABEL = 14


def render(found: Recommendation) -> str:
    """Write a recommendation as aligned lines of at most 100 columns.

    Args:
        found: the recommendation.
    """
    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    lines = [f"{found.data}, {found.protocol} tuples, {seeds}; asked for: {_asked(found)}", ""]
    indent = " " * _LABEL
    for label, text in _lines(found):
        lines += textwrap.wrap(text, _WIDTH, initial_indent=f"{label:{_LABEL}}", subsequent_indent=indent)
    return "\n".join(lines)


def _asked(found: Recommendation) -> str:
    request = found.request
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


def _lines(found: Recommendation) -> Iterator[tuple[str, str]]:
    best = found.recommended
    yield "recommended", describe(best)
    yield from zip(("costs", "", ""), _costs(found), strict=False)
    yield (
        "gives",
        (
            f"{percent(best.n_accuracy)} right {_ends(best.n_accuracy_low, best.n_accuracy_high)}, "
            f"RI {number(best.ri)} [{number(best.ri_low)}, {number(best.ri_high)}] on test; on validation, where it "
            f"was chosen, {percent(best.validation_n_accuracy)} and {number(best.validation_ri)}"
        ),
    )
    if found.target_on_test is not None:
        yield "", _target(found)
    yield "gives up", _dense(found)
    if found.best is None:
        yield "", "nothing against the highest RI of all options: it has that"
    else:
        yield "", f"against the highest RI of all options, {_other(found.best.option)}: {_contrast(found.best)}"
    yield "runner-up", _runner_up(found)
    yield "chosen among", f"{found.qualified} of {found.considered} options that qualify"
    yield from zip(("notes", "", ""), _notes(found), strict=False)


def _costs(found: Recommendation) -> Iterator[str]:
    best = found.recommended
    share = 100 * best.aggregator_macs / best.cost_macs
    yield (
        f"{best.cost_dense_passes:.3g} dense passes of {best.backbone} ({short(best.cost_macs)} MACs per tuple, the "
        f"aggregator {share:.1f}% of it)"
    )
    timing = best.timing
    if timing is None:
        yield f"latency not measured with batch {found.request.batch}"
    else:
        yield (
            f"{timing.ms_per_tuple:.3g} ms per tuple: {best.n} x {timing.ms_per_image:.3g} ms per image, eager, batch "
            f"{timing.batch}, {timing.device}, {timing.threads} thread{'s' * (timing.threads > 1)}, without the "
            "aggregator"
        )
    files = ""
    if best.file_bytes_dense is not None and best.file_bytes_sparse is not None:
        files = f"; file {short(best.file_bytes_dense)}B, stored sparsely {short(best.file_bytes_sparse)}B"
    yield f"{short(best.parameters)} parameters of {short(best.parameters_dense)}{files}"


def _ends(low: float, high: float) -> str:
    return f"[{percent(low, '')}, {percent(high, '')}]"


def _target(found: Recommendation) -> str:
    target = percent(found.request.target_accuracy or 0.0)
    return {
        "reached": f"the lower end of the interval on test reaches {target} too",
        "mean": f"on test the mean reaches {target}, the lower end of its interval does not",
        "missed": f"on test it stays below {target}: validation was luckier",
    }[found.target_on_test or "missed"]


def _dense(found: Recommendation) -> str:
    best = found.recommended
    if found.dense is not None:
        return f"against the dense network on the same {_images(best.n)}: {_contrast(found.dense)}"
    if best.pruner == DENSE:
        return "nothing against the dense network: it is the dense network"
    return "against the dense network: unknown, since it was not evaluated with this aggregator"


def _images(n: int) -> str:
    return "image" if n == 1 else f"{n} images"


def _other(option: Option) -> str:
    return f"{describe(option)}, {option.cost_dense_passes:.3g} dense passes"


def _contrast(found: Contrast) -> str:
    right, ri = found.n_accuracy, found.ri
    middle, low, high = (_signed(100 * value, 1) for value in (right.difference, right.low, right.high))
    return f"{middle} points right [{low}, {high}], RI {_gap(ri)} ({'paired' if ri.paired else 'not paired'})"


def _gap(gap: Gap) -> str:
    return f"{_signed(gap.difference, 3)} [{_signed(gap.low, 3)}, {_signed(gap.high, 3)}]"


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _runner_up(found: Recommendation) -> str:
    if found.runner_up is None:
        return "none: no other method qualifies"
    gap = found.runner_up.ri
    verdict = {"tied": "tied", "better": "worse", "worse": "better on test"}[gap.verdict]
    return f"{_other(found.runner_up.option)}: {verdict}; recommended minus runner-up {_contrast(found.runner_up)}"


def _notes(found: Recommendation) -> Iterator[str]:
    contrasts = [c for c in (found.dense, found.best, found.runner_up) if c is not None]
    if any(not c.ri.paired for c in contrasts):
        yield (
            "not paired: the run did not compare these two on the same tuples, so their intervals are combined as if "
            "independent, which is too wide as a rule"
        )
    if found.backbones > 1:
        yield (
            f"several backbones: budgets count passes of the largest dense network, {found.unit.backbone} "
            f"({short(found.unit.macs)} MACs), so that MACs are compared"
        )
