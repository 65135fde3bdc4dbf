"""Layers whose masks hold: what writes to them, and what cannot work with them says so."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from sharedlabel import rng
from sharedlabel.backbones._holding import hold_masks, release_masks
from sharedlabel.backbones._masking import enforce, masked_weights
from sharedlabel.errors import CompressionError


def held(kind: Callable[[], nn.Module] = lambda: nn.Linear(6, 4)) -> Any:
    """Return a layer with a mask on every matrix."""
    with rng.seeded(0):
        layer = kind()
    for name, weight in list(layer.named_parameters(recurse=False)):
        if weight.ndim > 1:
            mask = torch.rand(weight.shape, generator=rng.generator(0, name)) < 0.5
            layer.register_buffer(f"{name}_mask", mask.float())
    hold_masks(layer)
    return layer


def write(layer: nn.Module) -> None:
    """Write to every parameter, behind the back of masks."""
    for parameter in layer.parameters():
        parameter.data += 0.5


def inputs() -> Tensor:
    return torch.rand(3, 6, generator=rng.generator(0, "inputs"))


def attention() -> nn.Module:
    return nn.MultiheadAttention(6, 2)


@pytest.mark.parametrize(
    ("kind", "reset"),
    [
        (lambda: nn.Linear(6, 4), "reset_parameters"),
        (lambda: nn.Conv1d(6, 4, 3), "reset_parameters"),
        (attention, "_reset_parameters"),
    ],
)
def test_resets_draw_what_is_left_anew_as_the_plain_layer_does(kind: Callable[[], nn.Module], reset: str) -> None:
    layer, plain = held(kind), held(kind)
    release_masks(plain)
    with torch.no_grad():
        for parameter in [*layer.parameters(), *plain.parameters()]:
            parameter.fill_(7)
    for one in (layer, plain):
        with rng.seeded(1):
            getattr(one, reset)()
    enforce(plain)
    assert type(layer) is not type(plain)
    for one, other in zip(layer.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    for place in masked_weights(layer):
        assert torch.equal(place.weight == 0, place.mask == 0)
        assert not (place.weight == 7).any()


def test_replicas_of_data_parallel_have_products_of_their_own_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas keep copies of parameters as attributes; here they are made without devices."""
    replicate = importlib.import_module("torch.nn.parallel.replicate")
    monkeypatch.setattr(replicate, "_get_device_index", lambda device, optional: device)
    monkeypatch.setattr(
        replicate,
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, detach=False: [[tensor * 1 for tensor in tensors] for _ in devices],
    )
    layer = held()
    write(layer)
    network = nn.Sequential(layer, nn.ReLU())
    for replica in replicate.replicate(network, [0, 1]):
        assert replica[0].weight is not layer.weight
        assert torch.equal(replica(inputs()), network(inputs()))
        replica(inputs()).sum().backward()
    gradient = dict(layer.named_parameters())["weight"].grad
    assert gradient.any()
    assert not gradient[layer.weight_mask == 0].any()


@pytest.mark.filterwarnings("ignore:`torch.*is deprecated")
@pytest.mark.parametrize(
    ("use", "what"),
    [
        (parametrizations.weight_norm, "got one to be computed"),
        (parametrizations.spectral_norm, "got one to be computed"),
        (weight_norm, "whose weight stays a parameter, got a tensor in its place"),
        (torch.jit.script, "that runs in Python, got one to be scripted"),
        (lambda layer: torch.jit.script(nn.Sequential(layer)), "that runs in Python, got one to be scripted"),
    ],
)
def test_what_puts_something_else_in_the_place_of_a_weight_is_refused(use: Callable[[Any], Any], what: str) -> None:
    layer = held()
    before = layer(inputs())
    with pytest.raises(CompressionError, match=f"expected a pruned Linear .*{what}.*: pass what sl.finalize returns"):
        use(layer)
    if use is weight_norm:  # it has taken the parameter away by now
        with pytest.raises(CompressionError, match="with a parameter 'weight', got none"):
            layer(inputs())
    else:
        assert torch.equal(layer(inputs()), before)
        del layer.bias  # what is not masked goes as from any layer


def test_sharded_weights_are_refused() -> None:
    class Sharded(Tensor):
        """As a DTensor, which multiplies by no plain tensor."""

        device_mesh = None

        def __mul__(self, other: object) -> Tensor:
            raise RuntimeError("got mixed torch.Tensor and DTensor")

    layer = held()
    layer._parameters["weight"] = torch.zeros(4, 6).as_subclass(Sharded)
    with pytest.raises(CompressionError, match="whose weights are whole, got one that is sharded"):
        layer(inputs())
    layer._parameters["weight"] = nn.Parameter(torch.zeros(3, 6))
    with pytest.raises(RuntimeError, match="must match the size"):
        layer(inputs())


def test_states_are_finite_whatever_is_behind_masks() -> None:
    layer = held()
    with torch.no_grad():
        for place in masked_weights(layer):
            place.weight[place.mask == 0] = torch.inf
    assert layer.state_dict()["weight"].isfinite().all()
    assert layer(inputs()).isfinite().all()
