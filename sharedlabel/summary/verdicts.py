"""From paired differences to verdicts: better, worse, equivalent or undecided, read off one simultaneous interval.

A family has as many tests as it has lines, and its intervals hold all at once (Bonferroni). A line is `equivalent`
where its interval lies inside plus or minus the margin, `better` or `worse` where it holds only values on one side of
zero, and `undecided` else. With fewer than `MIN_SEEDS` training seeds there is `no verdict`: the variance over training
rests on too little.

A line that is only looked at when a pooled difference was shown (closed testing behind a gate) is `undecided` while
the gate is closed; its interval is then drawn out to hold zero, which is what such a procedure can promise.

Reference:
    Marcus, Peritz & Gabriel, "On closed testing procedures" (1976); Goeman, Solari & Stijnen, "Three-sided hypothesis
    testing" (2010), for one interval that shows difference and equivalence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.metrics.behrens_fisher import Spread, p_value
from sharedlabel.metrics.intervals import LEVEL, bonferroni, interval, rule_of_three
from sharedlabel.records import MIN_SEEDS, Verdict

ALPHA = 1 - LEVEL
ROUNDING = 1e-6  # stored scores are float32: smaller mean differences, in bits or shares, are none


class Numbers(NamedTuple):
    """A paired difference with its own 95% interval and the one that holds together with its family's."""

    difference: float
    low: float
    high: float
    low_adjusted: float
    high_adjusted: float
    p_value: float
    p_adjusted: float
    verdict: Verdict


@dataclass(frozen=True)
class Differences:
    """Paired differences of pairs of methods, and what is needed to judge them.

    Attributes:
        value: mean difference, bits or shares.
        spread: of it.
        unit: what one unit of RI or n-accuracy is in bits or shares, by column.
        independent: how many disjoint tuples (or groups) stand behind a column.
        seeds: training seeds.
    """

    value: Float[Tensor, "r k"]
    spread: Spread
    unit: Float[Tensor, "k"]
    independent: Float[Tensor, "k"]
    seeds: int

    def p_value(self) -> Float[Tensor, "r k"]:
        """Two-sided, of no difference; 1 for differences that rounding can explain."""
        unseen = (-self.independent * (self.value / self.unit).abs()).exp()  # the rule of three, solved for its level
        p = p_value(self.value, self.spread)
        return torch.where(self._none(), 1.0, torch.where(self._alike(), torch.maximum(p, unseen), p))

    def ends(self, missed: float | Tensor) -> tuple[Float[Tensor, "r k"], Float[Tensor, "r k"]]:
        """Return the ends of intervals in RI or n-accuracy.

        Where all tuples differ alike but for rounding, the spread says nothing of differences that were not seen, also
        after it was moderated: the intervals reach as far as the rule of three, at least.

        Args:
            missed: chance that an interval does not hold the truth, by row.
        """
        level = 1 - torch.as_tensor(missed, dtype=torch.float64).expand(self.value.shape)
        low, high = (end / self.unit for end in interval(self.value, self.spread, level))
        middle, unseen, alike = self.value / self.unit, rule_of_three(level, self.independent), self._alike()
        low = torch.where(alike, torch.minimum(low, middle - unseen), low)
        high = torch.where(alike, torch.maximum(high, middle + unseen), high)
        return self._held(low, high, self._none())

    def _alike(self) -> Tensor:
        return self.spread.of_images.sqrt() < ROUNDING

    def _none(self) -> Tensor:
        return self.value.abs() < ROUNDING

    @staticmethod
    def _held(low: Tensor, high: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Draw intervals out to hold zero."""
        return torch.where(where, low.clamp(max=0), low), torch.where(where, high.clamp(min=0), high)

    def judged(
        self, tests: Float[Tensor, "r 1"], margin: float, gate: Float[Tensor, "r 1"] | None = None
    ) -> list[list[Numbers]]:
        """Judge every difference.

        Args:
            tests: number of tests in the family of each row.
            margin: differences within plus or minus this are equivalent.
            gate: adjusted p-values that have to be below ALPHA before a row is looked at; None for no gate.

        Returns:
            By row, then by column.
        """
        p = self.p_value()
        adjusted, closed = bonferroni(p, tests), torch.zeros_like(p, dtype=torch.bool)
        if gate is not None:
            adjusted, closed = torch.maximum(adjusted, gate), (gate >= ALPHA).expand_as(p)
        low_adjusted, high_adjusted = self._held(*self.ends(ALPHA / tests), closed)
        low, high = self.ends(ALPHA)
        columns = (self.value / self.unit, low, high, low_adjusted, high_adjusted, p, adjusted)
        numbers = torch.stack([column.expand_as(p) for column in columns], dim=-1).tolist()
        return [
            [Numbers(d, a, b, c, e, p, q, self._verdict(c, e, margin, shut)) for (d, a, b, c, e, p, q), shut in line]
            for line in (list(zip(*both, strict=True)) for both in zip(numbers, closed.tolist(), strict=True))
        ]

    def _verdict(self, low: float, high: float, margin: float, closed: bool) -> Verdict:
        if self.seeds < MIN_SEEDS:
            return "no verdict"
        if closed:
            return "undecided"
        if -margin < low and high < margin:
            return "equivalent"
        return "better" if low > 0 else "worse" if high < 0 else "undecided"
