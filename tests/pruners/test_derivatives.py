"""Networks with something that torch cannot differentiate: every pruner that needs a derivative says what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sharedlabel import plugins, rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _gradients, _masks, _methods
from sharedlabel.pruners._base import Context

SHAPE = (1, 3, 3)
ONCE = ("snip", "synflow", "obd", "greedy_forward", "edge_popup")


class Step(torch.autograd.Function):
    """An operation with no way back."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clamp(min=0)


class Hinge(torch.autograd.Function):
    """An operation with a first derivative only."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.clamp(min=0)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return gradient * (inputs > 0)


OPERATIONS = {
    "step": Step.apply,
    "hinge": Hinge.apply,
    "gamma": lambda inputs: torch.igamma(inputs.relu() + 1, inputs.relu()),  # 0 at 0
    "aten": torch.ops.aten.hardsigmoid.default,
    "detached": lambda inputs: inputs.relu().detach(),
}


class Body(nn.Module):
    def __init__(self, operation: str) -> None:
        super().__init__()
        self.first, self.second, self.operation = nn.Linear(9, 6), nn.Linear(6, 5), operation

    def forward(self, images: Tensor) -> Tensor:
        apply = OPERATIONS[self.operation]
        return apply(self.second(apply(self.first(images.flatten(1)))))  # type: ignore[no-untyped-call]


def network(operation: str) -> Backbone:
    with rng.seeded(0):
        return Backbone(Body(operation), nn.Linear(5, 3), SHAPE)


def train(network: Backbone) -> None:
    nn.functional.cross_entropy(network(images()), torch.arange(6) % 3).backward()


def images() -> Tensor:
    return torch.rand(6, *SHAPE, generator=rng.generator(0, "images"))


def prune(name: str, dense: Backbone) -> Backbone:
    pruner = plugins.load("pruners", name)
    context = Context(rng.generator(0), images(), torch.arange(6) % 3, images(), train)
    pruned: Backbone = _methods.prune(pruner, dense, 1.6, pruner.Config(), context)
    return pruned


@pytest.mark.parametrize("name", ONCE)
def test_an_operation_without_a_derivative_is_named(name: str) -> None:
    message = "expected operations that torch can differentiate, got igamma, which has no derivative; use a pruner that"
    with pytest.raises(CompressionError, match=message):
        prune(name, network("gamma"))


@pytest.mark.parametrize("name", sorted({*ONCE, "grasp"} - {"greedy_forward"}))  # that cannot trace it
def test_a_function_without_a_way_back_is_named(name: str) -> None:
    with pytest.raises(CompressionError, match=r"can differentiate( twice)?, got Step, which has no (second )?deriv"):
        prune(name, network("step"))


@pytest.mark.parametrize(("operation", "said"), [("hinge", "Hinge"), ("aten", "hardsigmoid_backward")])
def test_an_operation_without_a_second_derivative_is_named(operation: str, said: str) -> None:
    message = f"can differentiate twice, got {said}, which has no second derivative; use a pruner .* such as magnitude"
    with pytest.raises(CompressionError, match=message):
        prune("grasp", network(operation))
    pruned = prune("snip", network(operation))
    assert _masks.removed(pruned) == _masks.weights_to_remove(network(operation), 1.6)


@pytest.mark.parametrize("name", ["snip", "grasp", "obd", "synflow"])
def test_layers_that_the_network_detaches_are_named(name: str) -> None:
    message = (
        "(prunable weight, got none for 'body.first', which the network leaves out or|got one that detaches its re)"
    )
    with pytest.raises(CompressionError, match=message):
        prune(name, network("detached"))


class Frozen(Body):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


@pytest.mark.parametrize("name", ["snip", "grasp", "obd", "synflow"])
def test_a_body_without_any_derivative(name: str) -> None:
    with pytest.raises(CompressionError, match=r"expected .*got .*(body.first|detaches its res).*such as magnitude"):
        prune(name, Backbone(Frozen("gamma"), nn.Linear(5, 3), SHAPE))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else") as raised, _gradients.derivatives(network("step")):
        raise RuntimeError("something else")
    assert not isinstance(raised.value, CompressionError)
