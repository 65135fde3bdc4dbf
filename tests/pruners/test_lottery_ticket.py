from __future__ import annotations

import torch

from sharedlabel import rng
from sharedlabel.backbones import mlp
from sharedlabel.pruners import _masks, _methods, lottery_ticket, magnitude
from sharedlabel.pruners._base import Context

CONTEXT = Context(torch.Generator())


def test_each_round_takes_the_smallest_of_what_is_left() -> None:
    """Weights that moved between the rounds are compared as they are; those removed stay removed."""
    with rng.seeded(0):
        current = mlp.build(mlp.Config((10, 6)), (1, 4, 4), 3)
    gone = torch.zeros(220, dtype=torch.bool)
    for round_ in range(1, 6):
        with torch.no_grad():
            for parameter in current.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng.generator(round_)))
        _masks.enforce(current)
        weights = torch.cat([layer.weight.detach().flatten() for layer in _masks.prunable(current).values()])
        current = _methods.prune(lottery_ticket, current, 1.25**round_, lottery_ticket.Config(), CONTEXT)
        kept = torch.cat([mask.flatten() for mask in _masks.kept(current).values()])
        assert not (kept & gone).any()
        assert int(kept.sum()) == 220 - 257 + round(257 / 1.25**round_)
        assert weights[kept].abs().min() >= weights[~kept & ~gone].abs().max()
        gone = ~kept


def test_one_round_is_magnitude_pruning() -> None:
    with rng.seeded(0):
        dense = mlp.build(mlp.Config((10, 6)), (1, 4, 4), 3)
    for scope in ("global", "layer"):
        ticket = _methods.prune(lottery_ticket, dense, 3.0, lottery_ticket.Config(scope), CONTEXT)
        expected = _methods.prune(magnitude, dense, 3.0, magnitude.Config(scope), CONTEXT)
        assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in ticket.state_dict().items())


def test_rounds_leave_four_fifths_of_the_parameters_and_start_again() -> None:
    schedule = lottery_ticket.SCHEDULE
    assert (schedule.when, schedule.growth, schedule.rewind) == ("iterative", 1.25, 0.0)
