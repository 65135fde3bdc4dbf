"""Aggregators that break their contract are refused where they are fitted, with the first wrong n and both numbers."""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap

import pytest
import torch
from torch import Tensor

from sharedlabel import rng, train
from sharedlabel.aggregators import _contract
from sharedlabel.aggregators._base import Aggregator, normalize
from sharedlabel.config import parse
from sharedlabel.errors import ContractError

TUPLES, N, WIDTH, CLASSES = 7, 6, 3, 4


class Honest(Aggregator):
    """The product of the instances' posteriors under a uniform prior."""

    permutation_invariant = True

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return normalize(normalize(logits).cumsum(1))


class LooksAhead(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return normalize(logits.sum(1, keepdim=True).expand_as(logits))


class LooksOneAheadFromThree(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        log_posterior = super().forward(embeddings, logits)
        log_posterior[:, 2:-1] = log_posterior[:, 3:].clone()
        return log_posterior


class CountsTheWholeTuple(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return normalize(logits.cumsum(1) / logits.shape[1])


class LooksAround(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return normalize(logits.cumsum(1) - logits.mean(0))


class LooksAtItsPlace(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        place = torch.arange(len(logits))[:, None, None] % 2
        return normalize(logits.cumsum(1) * (1 + place * (len(logits) > 1)))


class SumsToMore(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        log_posterior = super().forward(embeddings, logits)
        log_posterior[:, 1:] += torch.tensor(1.5).log()
        return log_posterior


class IsNotFinite(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        log_posterior = super().forward(embeddings, logits)
        log_posterior[0, 4, 2] = -torch.inf
        return log_posterior


class IsShort(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return super().forward(embeddings, logits)[:, -1]


class IsNarrow(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return super().forward(embeddings, logits).bfloat16()


class SaysTwoThings(Honest):
    def at(self, embeddings: Tensor, logits: Tensor, prefixes: list[int]) -> Tensor:
        log_posterior = super().at(embeddings, logits, prefixes)
        return normalize(log_posterior * (1 + (torch.tensor(prefixes)[:, None] == 4)))


class SaysTooLittle(Honest):
    def at(self, embeddings: Tensor, logits: Tensor, prefixes: list[int]) -> Tensor:
        return super().at(embeddings, logits, prefixes[:1])


def tuples(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = rng.generator(0, "contract")
    embeddings = torch.randn(TUPLES, N, WIDTH, generator=draw, dtype=dtype)
    return embeddings, torch.randn(TUPLES, N, CLASSES, generator=draw, dtype=dtype)


NUMBER = r"\d\.\d+(e-\d+)?"
BROKEN = {
    LooksAhead: rf"at n = 1, got {NUMBER} among 6 instances and {NUMBER} with 1 alone for class \d; use no later",
    LooksOneAheadFromThree: rf"at n = 3, got {NUMBER} among 6 instances and {NUMBER} with 3 alone for class \d; use no",
    CountsTheWholeTuple: rf"at n = 1, got {NUMBER} among 6 instances and {NUMBER} with 1 alone",
    LooksAround: rf"at n = 1, got {NUMBER} in a batch of 4 tuples and {NUMBER} with the tuple alone .*; use no other",
    LooksAtItsPlace: rf"at n = 1, got {NUMBER} in a batch of 4 tuples and {NUMBER} with the tuple alone",
    SumsToMore: r"expected posteriors that sum to 1 from SumsToMore, got a sum of 1\.5 at n = 2; return `normalize",
    IsNotFinite: r"expected finite log-posteriors from IsNotFinite, got -inf for class 2 at n = 5; check its arith",
    IsShort: r"expected a posterior of shape \[4, 6, 4\] from IsShort, got \[4, 4\]; return one for every prefix",
    IsNarrow: r"expected a posterior in float32 or wider from IsNarrow, got torch\.bfloat16; use `normalize`",
    SaysTwoThings: rf"at n = 4, got {NUMBER} from `at` and {NUMBER} from `forward` for class \d; let both return",
    SaysTooLittle: r"expected posteriors of shape \[4, 3, 4\] from `at` of SaysTooLittle, got \[4, 1, 4\]; return one",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.__name__)
def test_the_first_wrong_n_is_named_with_both_numbers(broken: type[Aggregator]) -> None:
    with pytest.raises(ContractError, match=BROKEN[broken]):
        _contract.check(broken(), *tuples())


class Wavers(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(embeddings, logits * (1 + 1e-6 * self.passes))


class WeighsTheLast(Honest):
    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return normalize(logits.cumsum(1) + logits)


class SaysNothing(Honest):
    permutation_invariant = None


class Hides(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1 + torch.rand(())  # no buffer

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return super().forward(embeddings, logits * self.scale)


@pytest.mark.parametrize(
    ("check", "broken", "said"),
    [
        (_contract.check_repeatable, Wavers, "expected the same posterior from the same tuples, got another the sec"),
        (
            _contract.check_order,
            WeighsTheLast,
            rf"at n = 6, got {NUMBER} with the instances turned round and {NUMBER} ",
        ),
        (_contract.check_order, SaysNothing, "expected a class constant permutation_invariant, True or False, got no"),
    ],
)
def test_what_wavers_or_minds_the_order_is_refused(check, broken: type[Aggregator], said: str) -> None:
    check(Honest(), *tuples(), tolerance=1e-3)
    with pytest.raises(ContractError, match=said):
        check(broken(), *tuples(), tolerance=1e-3)


def test_what_is_not_in_the_state_is_missed() -> None:
    _contract.check_state(Honest(), Honest(), *tuples(), tolerance=1e-3)
    with pytest.raises(ContractError, match=r"to follow from state_dict\(\) alone, got another; register buffers"):
        _contract.check_state(Hides(), Hides(), *tuples(), tolerance=1e-3)


def test_the_numbers_are_the_probabilities_of_the_class() -> None:
    """Two instances of two classes: the second turns .8 into .5, which the first must not know."""
    logits = torch.tensor([[[0.8, 0.2], [0.2, 0.8]]]).log()
    message = r"LooksAhead at n = 1, got 0\.5 among 2 instances and 0\.8 with 1 alone for class 0"
    with pytest.raises(ContractError, match=message):
        _contract.check(LooksAhead(), torch.zeros(1, 2, 1), logits)


def test_what_is_next_to_certain_still_shows_a_difference() -> None:
    """Posteriors of .9999 and more differ by less than the tolerance, but not in how sure they are."""
    logits = torch.zeros(5, 3, 2)
    logits[..., 0] = 10.0
    with pytest.raises(ContractError, match="LooksAhead at n = 1"):
        _contract.check(LooksAhead(), torch.zeros(5, 3, 1), logits)


@pytest.mark.parametrize("tuple_count", [1, 2, TUPLES])
def test_one_that_keeps_its_contract_passes_and_stays_as_it_was(tuple_count: int) -> None:
    aggregator = Honest().train()
    aggregator.dropout = torch.nn.Dropout(0.5)
    _contract.check(aggregator, *(values[:tuple_count] for values in tuples()))
    assert aggregator.training
    _contract.check(aggregator.eval(), *tuples())
    assert not aggregator.training


def test_one_that_breaks_it_stays_in_its_mode_too() -> None:
    aggregator = LooksAhead().train()
    with pytest.raises(ContractError):
        _contract.check(aggregator, *tuples())
    assert aggregator.training


def test_few_tuples_are_tried_spread_over_all_of_them() -> None:
    """Tuples may come sorted by label; a fault of the last one alone is seen."""
    seen = []

    class Watched(Honest):
        def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
            seen.append(embeddings[..., 0, 0].tolist())
            return super().forward(embeddings, logits)

    embeddings, logits = tuples()
    _contract.check(Watched(), embeddings, logits)
    assert seen[0] == embeddings[[0, 2, 4, 6], 0, 0].tolist()


PLUGIN = '''
"""{what}"""

from dataclasses import dataclass

import torch

from sharedlabel.aggregators._base import Aggregator, normalize

@dataclass(frozen=True)
class Config:
    """No options."""

class Cheat(Aggregator):
    permutation_invariant = True

    def __init__(self):
        super().__init__()
        self.leak = torch.nn.Parameter(torch.zeros(()))

    def fit(self, embeddings, logits, labels, weights):
        return True

    def forward(self, embeddings, logits):
        return {returned}

def build(config, shape):
    return Cheat()
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Drop an aggregator beside the shipped ones."""

    def write(returned: str) -> None:
        folder = tmp_path / "plugins"
        folder.mkdir()
        (folder / "cheat.py").write_text(textwrap.dedent(PLUGIN.format(what="A cheat.", returned=returned)))
        package = sys.modules["sharedlabel.aggregators"]
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])

    yield write
    sys.modules.pop("sharedlabel.aggregators.cheat", None)
    vars(sys.modules["sharedlabel.aggregators"]).pop("cheat", None)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("normalize(logits.sum(1, keepdim=True).expand_as(logits))", "same posterior from Cheat at n = 1, got 0."),
        ("logits.cumsum(1) + 1", "posteriors that sum to 1 from Cheat, got a sum of 2.71828 at n = 1; return"),
    ],
)
def test_a_cheat_fails_in_one_line_and_with_code_3(done, small, plugin, capsys, returned: str, message: str) -> None:
    plugin(returned)
    before = len(done.manifests("aggregate"))
    assert train.main([*small, "--aggregators=[cheat]"]) == 3
    told = capsys.readouterr()
    assert message in next(line for line in told.out.splitlines() if line.startswith("failed: aggregate "))
    assert "Traceback" not in told.out + told.err
    assert len(done.manifests("aggregate")) == before


def test_one_that_learns_to_look_ahead_with_its_backbone_is_refused(done, small, plugin, run) -> None:
    plugin("normalize(logits.cumsum(1) + 1000 * self.leak * logits.sum(1, keepdim=True))")
    experiment = parse([*small, "--aggregators=[cheat]", "--training=[joint]", "--ratios=[1]"])[0]
    joint = dataclasses.replace(experiment.joint, epochs=1, batch_size=8)
    reasons = {failure.reason for failure in run(dataclasses.replace(experiment, joint=joint)).results.failures}
    assert reasons
    for reason in reasons:
        assert re.search(rf"Cheat at n = 1, got {NUMBER} among 4 instances and {NUMBER} with 1", reason)
