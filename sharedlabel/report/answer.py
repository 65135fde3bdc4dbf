"""The answer that a report begins with: what to deploy, how sure that is, what it gives up, and how to export it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from sharedlabel.choose import text
from sharedlabel.choose.candidates import Option, Request, network_of
from sharedlabel.choose.exporting import command
from sharedlabel.choose.recommendation import Recommendation, recommend
from sharedlabel.config.names import DENSE
from sharedlabel.errors import DataError
from sharedlabel.records import TABLES, Identity, Results
from sharedlabel.records.measurements import quietest
from sharedlabel.records.written import number
from sharedlabel.report.sentences import advice, images
from sharedlabel.report.views import View, headline

# What `choose` calls its lines, in the order in which they are shown, and what they are called here.
_SHOWN = {
    "gives": "gives",
    "gives up": "gives up",
    "for less": "for less",
    "runner-up": "runner-up",
    "stands on": "how sure",
    "costs": "costs",
    "notes": "notes",
}
SOUND = 0.5  # RI on test below which a recommendation comes with a warning


@dataclass(frozen=True)
class Answer:
    """What is said of one data set, backbone and protocol.

    Attributes:
        limit: what was asked for, in words.
        lead: what to do, and what that gives; or why nothing can be recommended.
        cautions: sentences that go with it, such as that masks save no time.
        warning: that it is hardly better than nothing; empty where it is.
        facts: names, each with sentences.
        tests: what the differences among them are adjusted for, each in words.
        command: that exports it, in the folder of the run; empty where nothing is recommended.
    """

    limit: str
    lead: str
    cautions: tuple[str, ...] = ()
    warning: str = ""
    facts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tests: tuple[str, ...] = ()
    command: str = ""


def answer(results: Results, view: View) -> Answer:
    """Recommend a method within the budget of the headline, or within one dense pass.

    Args:
        results: what a grid found.
        view: the part of it that is looked at.
    """
    spot = headline(view)
    budget = 1.0 if spot is None or spot.value is None else spot.value
    own = dataclasses.replace(results, **{table: getattr(view, table) for table in TABLES})
    limit = f"At most {budget:g} dense pass{'' if budget == 1 else 'es'}"
    try:
        found = recommend(own, Request(budget=budget, protocol=view.protocol, backbone=view.backbone))
    except DataError as error:
        said = spot.asked if spot is not None else limit
        return Answer(limit, f"Nothing to recommend ({said}): {error}.")
    chosen = found.recommended
    return Answer(
        limit,
        advice(chosen),
        tuple(_cautions(own, chosen)),
        _warning(chosen),
        tuple(_facts(found, own)),
        tuple(_tests(found)),
        command(results, chosen, "."),
    )


def _cautions(results: Results, chosen: Option) -> Iterable[str]:
    """Say that a network whose weights are masked takes the time of the dense one."""
    own = [row for row in results.rows if Identity.of(row) == Identity.of(chosen)]
    if chosen.pruner != DENSE and own and all(row.macs_executed >= row.macs_dense for row in own):
        passes = f"about {chosen.n} pass{'es' * (chosen.n > 1)} of time"
        yield (
            "Masked weights save storage, not time on dense kernels: "
            f"{images(chosen.n)} take{'s' * (chosen.n == 1)} {passes}."
        )


def _warning(chosen: Option) -> str:
    """Warn of a recommendation that knows less than half of what there is to know."""
    if chosen.ri >= SOUND:
        return ""
    return (
        f"RI {number(chosen.ri)} on test is below {SOUND:g}: the best that was tried leaves more than half of the "
        "uncertainty about a label, and is nothing to deploy as it is"
    )


def _facts(found: Recommendation, results: Results) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Gather the lines of a recommendation by what they are about."""
    facts: dict[str, list[str]] = {}
    name = ""
    for label, said in text.lines(found, tests=False):
        name = label or name
        facts.setdefault(name, []).append(said)
    facts["costs"][2:2] = _dense_time(found, results)  # below the time of the recommended one
    return ((shown, tuple(facts[name])) for name, shown in _SHOWN.items() if name in facts)


def _dense_time(found: Recommendation, results: Results) -> Iterable[str]:
    """Give the dense network's time beside that of the recommended one, as the two took turns."""
    chosen, timing = found.recommended, found.recommended.timing
    if timing is None or chosen.pruner == DENSE:
        return
    own = [
        record
        for record in quietest(record for record in results.latencies if record.mode == "eager")
        if (network_of(record), record.device, record.batch) == (network_of(chosen), timing.device, timing.batch)
    ]
    dense = statistics.median(record.measured_dense_ms / record.batch for record in own)
    yield f"the dense network, which took turns with it: {dense:.3g} ms per image"


def _tests(found: Recommendation) -> Iterable[str]:
    """Say of each difference what its interval is adjusted for."""
    contrasts = {
        "against the dense network": found.dense,
        "against the highest RI of all options": found.best,
        "against what costs less": found.cheaper,
        "against the runner-up": found.runner_up,
    }
    return (f"{name}: {text.adjustment(contrast)}" for name, contrast in contrasts.items() if contrast is not None)
