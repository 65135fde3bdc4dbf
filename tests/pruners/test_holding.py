"""Pruned networks stay pruned: under any optimiser, loop, loaded state or copy, compiled or exported."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import masked_weights
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _masks, _methods, magnitude
from sharedlabel.pruners._base import Context

OPTIMISERS: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.05, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.05),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.05),
}


def dense(seed: int = 0) -> Backbone:
    with rng.seeded(seed):
        config = resnet_cifar.Config(depth=8, width=4, shortcut="projection")
        return resnet_cifar.build(config, (3, 8, 8), 3).train()


def pruned(ratio: float = 4.0) -> Backbone:
    return _methods.prune(magnitude, dense(), ratio, magnitude.Config(), Context(torch.Generator()))


def images() -> Tensor:
    return torch.rand(8, 3, 8, 8, generator=rng.generator(0, "images"))


def loss(network: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(network(images()), torch.arange(8) % 3)


def train(network: Backbone, optimiser: torch.optim.Optimizer, steps: int = 4) -> None:
    """A bare loop, which knows nothing of masks."""
    for _ in range(steps):
        optimiser.zero_grad()
        loss(network).backward()
        optimiser.step()


def revived(network: nn.Module) -> int:
    """Count the removed weights that are not zero."""
    return sum(int((weight[mask == 0] != 0).sum()) for _, weight, mask in _masks.masked(network))


def write(network: nn.Module) -> nn.Module:
    """Write to every parameter, behind the back of masks and of autograd."""
    for parameter in network.parameters():
        parameter.data += 0.5
    return network


def held(network: Backbone) -> Backbone:
    """Return what a network has to be: a copy whose removed weights are zero for good."""
    plain = copy.deepcopy(network)
    _masks.bake(plain)
    return plain


def state_is_clean(state: dict[str, Tensor]) -> bool:
    names = [name for name in state if name.endswith("weight_mask")]
    return bool(names) and all(not state[name.removesuffix("_mask")][state[name] == 0].any() for name in names)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_bare_loop_revives_nothing_and_trains_what_is_left(name: str) -> None:
    """Against a loop that knows the masks: gradients and weights are set to zero by hand at every step."""
    network = pruned()
    left = counts.parameters(network)
    by_hand, masks = held(network), [mask for _, _, mask in _masks.masked(network)]
    weights = [by_hand.get_submodule(layer).get_parameter("weight") for layer, _, _ in _masks.masked(network)]
    train(network, OPTIMISERS[name](network.parameters()))
    assert revived(network) == 0
    assert state_is_clean(network.state_dict())
    assert counts.parameters(network) == left
    optimiser = OPTIMISERS[name](by_hand.parameters())
    for _ in range(4):
        optimiser.zero_grad()
        loss(by_hand).backward()
        for weight, mask in zip(weights, masks, strict=True):
            assert weight.grad is not None
            weight.grad.mul_(mask)
        optimiser.step()
        for weight, mask in zip(weights, masks, strict=True):
            weight.data.mul_(mask)
    assert all(torch.equal(value, network.get_parameter(key)) for key, value in by_hand.named_parameters())


def test_momentum_from_before_pruning_has_no_effect() -> None:
    """As in gradual pruning: the optimiser still moves the parameter, but no pass and no state sees it."""
    network = dense()
    optimiser = OPTIMISERS["sgd"](network.parameters())
    train(network, optimiser)
    _masks.apply_masks(network, _masks.kept(pruned()))
    train(network, optimiser)
    assert revived(network) > 0
    assert torch.equal(network(images()), held(network)(images()))
    assert state_is_clean(network.state_dict())
    assert revived(network) == 0


def test_masks_hold_in_a_body_that_another_network_takes_over() -> None:
    network = pruned().eval()
    expected = network(images())
    for _, weight, mask in _masks.masked(network):
        weight.data[mask == 0] = 0.5
    other = Backbone(network.body, network.classifier, network.image_shape).eval()
    assert torch.equal(other(images()), expected)


def test_passes_of_several_threads_do_not_meet() -> None:
    """A pass puts products in the place of parameters: another one must not take them for the parameters."""
    network = pruned().eval().requires_grad_(False)
    expected, before = network(images()), dict(network.named_parameters())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            outputs = list(threads.map(lambda _: network(images()), range(100)))
    finally:
        sys.setswitchinterval(interval)
    assert all(network.get_parameter(name) is value for name, value in before.items())
    assert all(torch.equal(one, expected) for one in outputs)


@pytest.mark.parametrize("through", ["forward", "embed"])
def test_what_is_written_behind_the_masks_is_in_no_pass_and_in_no_gradient(through: str) -> None:
    network = pruned()
    write(network)
    assert revived(network) > 0
    expected = held(network)
    assert torch.equal(getattr(network, through)(images()), getattr(expected, through)(images()))
    getattr(network, through)(images()).square().sum().backward()
    for _, weight, mask in _masks.masked(network):
        assert weight.grad is not None
        assert not weight.grad[mask == 0].any()


def test_counting_refuses_what_is_written_behind_the_masks() -> None:
    network = pruned()
    left = counts.parameters(network)
    name, layer = "body.5.residual.3", network.get_submodule("body.5.residual.3")
    with torch.no_grad():
        layer.weight += 1
    back = int((layer.weight_mask == 0).sum())
    assert back > 0
    with pytest.raises(CompressionError, match=f"zero, got {back} of layer '{name}' that are not: .*call enforce"):
        counts.costs(dense(), network, (3, 8, 8))
    network.state_dict()
    assert counts.parameters(network) == left


@pytest.mark.parametrize("whole", [True, False])
def test_a_dense_state_loaded_into_a_pruned_network(whole: bool) -> None:
    network, other = pruned(), dense(1)
    state = {**network.state_dict(), **other.state_dict()} if whole else other.state_dict()
    network.load_state_dict(state, strict=whole)
    assert revived(network) == 0
    _masks.apply_masks(other, _masks.kept(network))
    assert torch.equal(network(images()), other(images()))


def test_as_a_part_of_another_module() -> None:
    """Training modules hold a backbone: their state, read or loaded, is clean too."""
    whole = nn.Sequential(pruned(), nn.Flatten())
    write(whole)
    assert state_is_clean(whole.state_dict())
    whole.load_state_dict({f"0.{name}": value for name, value in dense(1).state_dict().items()}, strict=False)
    assert revived(whole) == 0


@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_and_pickles_stay_pruned(again: Callable[[Backbone], Backbone]) -> None:
    network = pruned()
    copied = again(network)
    assert torch.equal(copied(images()), network(images()))
    train(copied, OPTIMISERS["sgd"](copied.parameters()))
    assert revived(copied) == 0
    write(copied)
    twice = again(copied)
    assert torch.equal(twice(images()), held(twice)(images()))


def test_two_passes_before_one_step() -> None:
    """What a pass does to weights must not invalidate the graph of the pass before."""
    network = pruned().eval()
    first, second = (torch.rand(4, 3, 8, 8, generator=rng.generator(seed)) for seed in (1, 2))
    (network(first).sum() + network(second).sum()).backward()
    together = network.body[0].weight.grad.clone()
    network.zero_grad()
    network(torch.cat([first, second])).sum().backward()
    torch.testing.assert_close(network.body[0].weight.grad, together)


def test_second_derivatives_and_clipped_norms_see_what_is_left_alone() -> None:
    network, plain = pruned().eval(), held(pruned()).eval()
    names = [f"{name}.weight" for name, _, _ in _masks.masked(network)]
    masks = [mask for _, _, mask in _masks.masked(network)]
    parameters, expected = ([one.get_parameter(name) for name in names] for one in (network, plain))
    gradients = [
        torch.autograd.grad(loss(one), weights, create_graph=True)
        for one, weights in ((network, parameters), (plain, expected))
    ]
    for got, want, mask in zip(*gradients, masks, strict=True):
        torch.testing.assert_close(got, want * mask)
    products = [
        torch.autograd.grad(sum((g * mask).square().sum() for g, mask in zip(one, masks, strict=True)), weights)  # type: ignore[arg-type]
        for one, weights in zip(gradients, (parameters, expected), strict=True)
    ]
    for got, want, mask in zip(*products, masks, strict=True):
        torch.testing.assert_close(got, want * mask)


def test_a_pass_that_fails_leaves_the_parameters_in_their_places() -> None:
    network = pruned()
    before = dict(network.named_parameters())
    network.body[-1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(images())
    assert all(network.get_parameter(name) is value for name, value in before.items())


def test_channels_last_keeps_its_format() -> None:
    network = pruned().to(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    handle = network.body[0].register_forward_hook(lambda module, *_: seen.append(module.weight))
    torch.testing.assert_close(network(images()), pruned()(images()))
    handle.remove()
    assert seen[0] is not network.body[0].weight
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore")
def test_compiled_training_is_that_of_the_eager_network() -> None:
    torch.compiler.reset()
    network, eager = pruned(), pruned()
    compiled = torch.compile(network, backend="aot_eager")
    for one, called in ((network, compiled), (eager, eager)):
        optimiser = OPTIMISERS["sgd"](one.parameters())
        for _ in range(3):
            optimiser.zero_grad()
            loss(called).backward()
            optimiser.step()
    assert revived(network) == 0
    for name, value in eager.named_parameters():
        torch.testing.assert_close(network.get_parameter(name), value)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore")
def test_a_network_is_exported_as_its_masks_say() -> None:
    network = pruned().eval().requires_grad_(False)
    write(network)
    program = torch.export.export(network, (images(),)).module()
    torch.testing.assert_close(program(images()), held(network)(images()))


def test_plain_networks_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither dense nor baked ones, whose time is measured."""
    monkeypatch.setattr("sharedlabel.backbones._base.masked_call", pytest.fail)
    for network in (dense(), held(pruned())):
        assert not network.has_masks
        assert not list(masked_weights(network))
        network(images())
