"""The answer that a report begins with: what to deploy, how sure that is, what it gives up, and how to export it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from sharedlabel.choose import text
from sharedlabel.choose.candidates import Option, Request
from sharedlabel.choose.recommendation import Recommendation, recommend
from sharedlabel.errors import DataError
from sharedlabel.records import AXES, TABLES, Results
from sharedlabel.report.sentences import advice, title
from sharedlabel.report.views import View, headline

# What `choose` calls its lines, in the order in which they are shown, and what they are called here.
_SHOWN = {
    "gives": "gives",
    "gives up": "gives up",
    "runner-up": "runner-up",
    "stands on": "how sure",
    "costs": "costs",
    "notes": "notes",
}


@dataclass(frozen=True)
class Answer:
    """What is said of one data set, backbone and protocol.

    Attributes:
        limit: what was asked for, in words.
        lead: what to do, and what that gives; or why nothing can be recommended.
        facts: names, each with sentences.
        command: that exports it; empty where nothing is recommended.
    """

    limit: str
    lead: str
    facts: tuple[tuple[str, tuple[str, ...]], ...] = ()
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
        said = title(spot) if spot is not None else limit
        return Answer(limit, f"Nothing to recommend ({said}): {error}.")
    return Answer(limit, advice(found.recommended), tuple(_facts(found)), _command(results, found.recommended))


def _facts(found: Recommendation) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Gather the lines of a recommendation by what they are about."""
    facts: dict[str, list[str]] = {}
    name = ""
    for label, said in text.lines(found):
        name = label or name
        facts.setdefault(name, []).append(said)
    return ((shown, tuple(facts[name])) for name, shown in _SHOWN.items() if name in facts)


def _command(results: Results, chosen: Option) -> str:
    """Write the command that exports the option, as its first seed has it."""
    labels = [axis for axis in AXES if axis != "seed"]
    cell = next(r.cell for r in results.rows if all(getattr(r, axis) == getattr(chosen, axis) for axis in labels))
    return f"sharedlabel export {cell} --run {shlex.quote(f'runs/{results.experiment}')}"
