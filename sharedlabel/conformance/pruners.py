"""What every pruner promises: see `pruners/_base.py`."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math

import torch

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import count_parameters
from sharedlabel.config.sections import Schedule
from sharedlabel.conformance._networks import (
    NETWORKS,
    SHAPE,
    Subject,
    build,
    descend,
    equal,
    images,
    kept,
    largest_channel,
    only,
    removals,
)
from sharedlabel.conformance._promise import Promises, expect, refused
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _channels, _masks
from sharedlabel.pruners._base import REQUIREMENTS, rounded_down

PROMISES = Promises()
_MASKS = "says nothing of pruners that remove"
_REMOVED = "says nothing of pruners that mask"
_NOT_NESTED = "NESTED is False"


@PROMISES.add
def constants(subject: Subject) -> None:
    """Its constants say what it is, and its options are frozen."""
    module = subject.module
    for name in ("STRUCTURED", "NESTED"):
        expect(isinstance(getattr(module, name), bool), f"expected {name} to be True or False")
    expect(
        module.NEEDS.issubset(REQUIREMENTS), f"expected NEEDS among {', '.join(REQUIREMENTS)}, got {set(module.NEEDS)}"
    )
    expect(isinstance(getattr(module, "SCHEDULE", Schedule()), Schedule), "expected SCHEDULE to be a Schedule")
    expect(isinstance(subject.repeatable, bool), "expected REPEATABLE to be True or False")
    expect(hasattr(module, "scores") != hasattr(module, "prune"), "expected scores or prune, got both or none")
    expect(dataclasses.is_dataclass(module.Config), "expected Config to be a dataclass")
    expect(module.Config() == module.Config(), "expected equal options to be equal")
    refused(lambda: setattr(module.Config(), "anything", 1), dataclasses.FrozenInstanceError)


@PROMISES.add
def takes_or_refuses(subject: Subject) -> None:
    """It takes one of the networks that are tried, and refuses the others with a reason."""
    reasons = {name: subject.refusal(build(name)) for name in NETWORKS}
    expect("" in reasons.values(), f"expected a network that it takes, got: {'; '.join(reasons.values())}")
    for name, reason in reasons.items():
        if reason:
            expect("expected" in reason and "got" in reason, f"expected 'expected ..., got ...', got {reason}")
            refused(lambda name=name: subject.prune(build(name), 2.0), CompressionError, "expected")  # type: ignore[misc]


@PROMISES.add
def exact_ratio(subject: Subject) -> None:
    """It meets the ratio within one weight; where it removes, within what the largest channel takes along."""
    for dense in subject.networks():
        step = largest_channel(dense) if subject.structured else 1
        total = counts.parameters(dense)
        for ratio in subject.reachable(dense):
            left = counts.parameters(subject.prune(dense, ratio))
            expect(
                abs(left - total / ratio) <= step, f"expected {total / ratio:.1f} parameters at {ratio}x, got {left}"
            )


@PROMISES.add
def ratio_one(subject: Subject) -> None:
    """A ratio of 1 changes nothing."""
    for dense in subject.networks():
        same = torch.equal(subject.prune(dense, 1.0)(images()), dense(images()))
        expect(same, "expected the outputs of the dense network at 1x, got others")


@PROMISES.add
def untouched(subject: Subject) -> None:
    """The network that it is given stays as it was."""
    for dense in subject.networks():
        before = copy.deepcopy(dense)
        pruned = subject.most(dense)
        with torch.no_grad():
            for parameter in pruned.parameters():
                parameter.fill_(9)
        expect(equal(before, dense), "expected the network passed in as it was, got another; copy it first")


@PROMISES.add
def deterministic(subject: Subject) -> None:
    """The same generator leads to the same network."""
    for dense in subject.networks():
        expect(
            equal(subject.most(dense), subject.most(dense)),
            "expected the same network twice, got two; use the generator",
        )


@PROMISES.add
def body_alone(subject: Subject) -> None:
    """The classifier, biases and normalisation stay."""
    only(not subject.structured, _MASKS)
    for dense in subject.networks():
        pruned = subject.most(dense)
        weights = {f"{name}.weight" for name in _masks.prunable(dense)}
        parameters = dict(pruned.named_parameters())
        moved = [
            key
            for key, value in dense.named_parameters()
            if key not in weights and not torch.equal(value, parameters[key])
        ]
        expect(not moved, f"expected all but prunable weights as before, got others in {', '.join(moved)}")


@PROMISES.add
def own_result(subject: Subject) -> None:
    """It prunes its own result, unless it says that it does not."""
    for dense in subject.networks():
        reachable = subject.reachable(dense)
        first, ratio = reachable[:3][-2:] if len(reachable) > 1 else (1.0, 1.0)
        once = subject.prune(dense, first)
        # Masked weights count as parameters of the network that is pruned, channels that are gone do not.
        left = count_parameters(once) / counts.parameters(dense)
        if not subject.repeatable:
            refused(lambda: subject.prune(once, ratio * left), CompressionError, "start from the dense one")  # noqa: B023
            continue
        twice = counts.parameters(subject.prune(once, max(1.0, ratio * left)))
        step = largest_channel(dense) if subject.structured else 1
        wanted = counts.parameters(dense) / ratio
        expect(abs(twice - wanted) <= step, f"expected {wanted:.1f} parameters after two rounds, got {twice}")


@PROMISES.add
def nothing_left_to_train(subject: Subject) -> None:
    """Where it trains by itself, nothing in its result requires a gradient; everywhere else, something does."""
    for dense in subject.networks():
        ratio = subject.reachable(dense)[-1]
        trainable = any(parameter.requires_grad for parameter in subject.prune(dense, ratio).parameters())
        trains = "trainer" in subject.module.NEEDS and ratio > 1
        expect(trainable != trains, f"expected requires_grad to be {not trains}, got {trainable}")


@PROMISES.add
def refuses_nan(subject: Subject) -> None:
    """Weights that are not finite are refused."""
    for dense in subject.networks():
        ratio = subject.reachable(dense)[-1]
        only(ratio > 1, "removes nothing")
        with torch.no_grad():
            next(iter(_masks.prunable(dense).values())).weight.view(-1)[3] = torch.nan
        parts = ("expected ", "finite ", ", got ", " NaN or infinite")
        refused(lambda: subject.prune(dense, ratio), CompressionError, *parts)  # noqa: B023


@PROMISES.add
def masks_nest(subject: Subject) -> None:
    """Weights that are kept at a ratio are kept at every smaller one, where it says so."""
    only(subject.module.NESTED, _NOT_NESTED)
    only(not subject.structured, _MASKS)
    for dense in subject.networks():
        for options in subject.scopes():
            masks = [kept(subject.prune(dense, ratio, **options)) for ratio in _ratios(subject, dense, 9)]
            nested = all(not (more & ~less).any() for less, more in itertools.pairwise(masks))
            expect(nested, "expected fewer weights at every larger ratio, got others; set NESTED = False")


@PROMISES.add
def channels_nest(subject: Subject) -> None:
    """Channels that are kept at a ratio are kept at every smaller one, where it says so."""
    only(subject.module.NESTED, _NOT_NESTED)
    only(subject.structured, _REMOVED)
    for dense in subject.networks():
        ratios = _ratios(subject, dense, 5)
        for options in subject.scopes():
            with removals() as seen:
                for ratio in ratios:
                    subject.prune(dense, ratio, **options)
            masks = [torch.cat(list(removal.keep.values())) for removal in seen]
            expect(len(masks) == len(ratios), "expected channels to be removed by pruners/_channels.py, once a ratio")
            nested = all(not (more & ~less).any() for less, more in itertools.pairwise(masks))
            expect(nested, "expected fewer channels at every larger ratio, got others; set NESTED = False")
            expect(masks[0].all(), "expected all channels at 1x")
            expect(
                masks[-1].sum() < 0.75 * masks[0].sum(), "expected a quarter of the channels to go at the largest ratio"
            )


def _ratios(subject: Subject, dense: Backbone, count: int) -> list[float]:
    ceiling = subject.ceiling(dense)
    ratios: list[float] = torch.linspace(1, min(ceiling, 12), count, dtype=torch.float64).clamp(max=ceiling).tolist()
    return ratios


@PROMISES.add
def impossible_ratios(subject: Subject) -> None:
    """Ratios that are no ratios are refused."""
    for dense in subject.networks():
        for ratio in (0.0, 0.99, -1.0, math.nan, math.inf):
            parts = ("expected a compression ratio from 1 to ", f", got {ratio:g}")
            refused(lambda ratio=ratio: subject.prune(dense, ratio), CompressionError, *parts)  # type: ignore[misc]  # noqa: B023


@PROMISES.add
def ceiling(subject: Subject) -> None:
    """It reaches its ceiling, and refuses what lies above."""
    for dense in subject.networks():
        top = subject.ceiling(dense)
        pruned = subject.prune(dense, top)
        reached = counts.parameters(dense) / counts.parameters(pruned)
        expect(math.isclose(reached, top, rel_tol=1e-6), f"expected the ceiling of {top:g}x, got {reached:g}x")
        expect(pruned(images()).isfinite().all(), "expected finite outputs at the ceiling, got others")
        expect(float(rounded_down(top)) <= top, f"expected {rounded_down(top)} below the ceiling")
        parts = (f"from 1 to {rounded_down(top)}, got {top * 1.01:g}",)
        refused(lambda top=top: subject.prune(dense, top * 1.01), CompressionError, *parts)  # type: ignore[misc]  # noqa: B023


@PROMISES.add
def stays_pruned(subject: Subject) -> None:
    """Training brings nothing back."""
    for dense in subject.networks():
        pruned = subject.most(dense).train().requires_grad_()  # also what came back frozen
        parameters = counts.parameters(pruned)
        descend(pruned, torch.optim.SGD(pruned.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01))
        stayed = all(not weight[mask == 0].any() for _, weight, mask in _masks.masked(pruned))
        expect(stayed, "expected masked weights to stay at zero, got others; use the masks of pruners/_masks.py")
        left = counts.parameters(pruned)
        expect(left == parameters, f"expected {parameters} parameters after training, got {left}")


@PROMISES.add
def bakes(subject: Subject) -> None:
    """Baking leaves plain modules that answer the same."""
    for dense in subject.networks():
        pruned = subject.most(dense).eval()
        expected = pruned(images())
        _masks.bake(pruned)
        expect(torch.equal(pruned(images()), expected), "expected the same outputs once baked, got others")
        state = pruned.state_dict()
        expect(not any(key.endswith("_mask") for key in state), "expected no masks once baked, got some")
        expect(subject.structured or state.keys() == dense.state_dict().keys(), "expected the dense network's state")
        hooked = [m for m in pruned.modules() if m._forward_pre_hooks or hasattr(m, "parametrizations")]
        expect(not hooked, f"expected plain modules once baked, got hooks on {len(hooked)}")


@PROMISES.add
def counted(subject: Subject) -> None:
    """Where it removes, the network is physically smaller; where it masks, masked weights count as free."""
    for dense in subject.networks():
        ratio = subject.reachable(dense)[-1]
        before, after = counts.macs(dense, SHAPE), counts.macs(subject.prune(dense, ratio), SHAPE)
        if subject.structured:
            smaller = after.executed == after.effective < before.executed
            expect(smaller, f"expected fewer MACs than {before.executed:,}, got {after.executed:,}")
        else:
            expect(after.executed == before.executed, "expected as many MACs to be executed, got others")
            expect((after.effective < before.effective) == (ratio > 1), "expected fewer MACs to be effective above 1x")


@PROMISES.add
def removal_is_zero(subject: Subject) -> None:
    """Channels that it removes might as well be zero."""
    only(subject.structured, _REMOVED)
    for dense in subject.networks():
        with removals() as seen:
            pruned = subject.most(dense).eval()
        only(seen, "rewrites layers instead of removing channels")
        (removal,) = [removal for removal in seen if removal.small is pruned]
        expect(not all(keep.all() for keep in removal.keep.values()), "expected channels to go, got all kept")
        masked = _channels.mask_channels(removal.before, removal.keep).eval()
        torch.testing.assert_close(pruned(images()), masked(images()), rtol=1e-5, atol=1e-5)
        expect(counts.parameters(masked) == counts.parameters(dense), "expected masked channels to count as parameters")
