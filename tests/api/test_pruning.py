"""`sl.prune` for networks of all kinds: they stay pruned, and what cannot be pruned is a sentence."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune as masks

import sharedlabel as sl
from sharedlabel.errors import CompressionError, ConfigError
from sharedlabel.rng import generator, seeded


class Own(nn.Module):
    """A network as users write them, with a buffer and two branches."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.5))
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x * self.scale)
        x = torch.relu(self.second(x)) + self.shortcut(x)
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class Tokens(nn.Module):
    """A small transformer whose output layer is tied to its embedding; it returns logits of every token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.output = nn.Linear(8, 30)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.encoder(self.embedding(tokens)))
        return logits


X = torch.randn(16, 1, 6, 6, generator=generator(0, "prune"))
Y = torch.arange(16) % 4


@pytest.fixture
def own() -> Own:
    with seeded(0, "prune"):
        return Own()


def _steps(network: nn.Module, optimiser: torch.optim.Optimizer, count: int = 3) -> None:
    for _ in range(count):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(X), Y).backward()
        optimiser.step()


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_pruned_four_times_it_stays_so_in_a_plain_loop(own, optimiser) -> None:
    options = {"momentum": 0.9} if optimiser is torch.optim.SGD else {}
    pruned = sl.prune(own, ratio=4, example_inputs=X)
    assert type(pruned) is Own
    assert sl.compression_ratio(own) == 1
    before = pruned(X).detach()
    _steps(pruned, optimiser(pruned.parameters(), lr=0.1, weight_decay=0.1, **options))
    assert not torch.equal(pruned(X), before)
    assert sl.compression_ratio(pruned) == pytest.approx(4, rel=0.01)
    zeros = sum(int((weight == 0).sum()) for weight in sl.finalize(pruned).parameters() if weight.ndim > 1)
    total = sum(parameter.numel() for parameter in own.parameters())
    assert total / (total - zeros) == pytest.approx(4, rel=0.01)


def test_copies_pickles_and_states_stay_pruned(own, tmp_path) -> None:
    pruned = sl.prune(own, 4, example_inputs=X).eval()
    file = io.BytesIO()
    torch.save(pruned, file)
    file.seek(0)
    for again in (
        copy.deepcopy(pruned),
        pickle.loads(pickle.dumps(pruned)),
        torch.load(file, weights_only=False),
        pruned.to(torch.float64).to(torch.float32),
    ):
        assert sl.compression_ratio(again) == pytest.approx(4, rel=0.01)
        torch.testing.assert_close(again(X), pruned(X))
    pruned.load_state_dict(own.state_dict(), strict=False)  # the dense weights: the masks stay
    assert sl.compression_ratio(pruned) == pytest.approx(4, rel=0.01)
    other = sl.prune(Own(), 4, "random", example_inputs=X).eval()
    other.load_state_dict(pruned.state_dict())  # the masks are part of the state
    torch.testing.assert_close(other(X), pruned(X))


def test_finalized_modules_are_plain_and_the_one_passed_in_is_left(own) -> None:
    pruned = sl.prune(own, 4, example_inputs=X).eval()
    final = sl.finalize(pruned)
    assert list(final.state_dict()) == list(own.state_dict())
    assert type(final.second) is nn.Conv2d
    assert sl.compression_ratio(sl.prune(final, 2, example_inputs=X)) == sl.compression_ratio(pruned)
    assert sl.compression_ratio(sl.prune(final, 8, example_inputs=X)) == pytest.approx(8, rel=0.02)
    torch.testing.assert_close(final(X), pruned(X))
    assert sl.compression_ratio(final) == sl.compression_ratio(pruned) == sl.compression_ratio(final, dense=own)
    own.load_state_dict(final.state_dict())
    inside = nn.Sequential(pruned, nn.Softmax(-1))
    assert all("mask" not in name for name in sl.finalize(inside).state_dict())
    assert "second.weight_mask" in pruned.state_dict()


def test_rounds_count_from_the_first_network(own) -> None:
    twice = sl.prune(sl.prune(own, 2, example_inputs=X), 4, example_inputs=X)
    assert sl.compression_ratio(twice) == pytest.approx(4, rel=0.01)
    smaller = sl.prune(own, 2, "unit", example_inputs=X)
    assert sl.compression_ratio(smaller) == pytest.approx(2, rel=0.1)
    assert sl.compression_ratio(smaller, dense=own) == sl.compression_ratio(smaller)
    both = sl.prune(smaller, 4, {"name": "magnitude", "scope": "layer"}, example_inputs=X)
    assert sl.compression_ratio(both) == pytest.approx(4, rel=0.01)
    assert both(X).shape == (16, 4)


@pytest.mark.parametrize("method", ["magnitude", "unit"])
def test_parts_remember_what_they_were_at_first(own, method) -> None:
    part = sl.prune(own, np.float32(3), method, example_inputs=X)  # any real number
    alone = sl.compression_ratio(part)
    assert alone == pytest.approx(3, rel=0.15)
    assert sl.compression_ratio(nn.Sequential(part)) == alone
    assert sl.compression_ratio(nn.ModuleDict({"a": part, "b": nn.Sequential(part)})) == alone  # one part, used twice
    after = nn.Linear(4, 4)
    dense = nn.Sequential(own, after)
    joined = nn.Sequential(part, after)
    assert sl.compression_ratio(joined) == pytest.approx(sl.compression_ratio(joined, dense=dense))
    assert 1 < sl.compression_ratio(joined) < alone
    assert sl.compression_ratio(sl.finalize(joined)) == sl.compression_ratio(joined)
    again = sl.prune(joined, 4, {"name": "magnitude", "scope": "layer"}, example_inputs=X)  # counts from the first
    assert sl.compression_ratio(again, dense=dense) == pytest.approx(4, rel=0.02)
    assert sl.compression_ratio(nn.Sequential(again)) == sl.compression_ratio(again) == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("method", ["snip", "pfp", "edge_popup"])
def test_methods_get_what_they_need_and_say_what_they_lack(own, method) -> None:
    trained = []

    def train(network: nn.Module) -> None:
        trained.append(network)
        _steps(network, torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=0.1))

    pruned = sl.prune(own, 1.5, method, data=(X, Y), validation=X, train=train, seed=1)
    assert sl.compression_ratio(pruned) == pytest.approx(1.5, rel=0.1)
    assert bool(trained) == (method == "edge_popup")
    if method == "pfp":  # draws random numbers where it is told to; the same seed gives the same network
        again = sl.prune(own, 1.5, method, data=(X, Y), validation=X, seed=1)
        torch.testing.assert_close(again(X), pruned(X))
    lacking = {"snip": "data", "pfp": "validation", "edge_popup": "train"}[method]
    given = {
        name: value for name, value in {"data": (X, Y), "validation": X, "train": train}.items() if name != lacking
    }
    with pytest.raises(CompressionError, match=f"{lacking}: expected .* for {method}, got none; pass {lacking}="):
        sl.prune(own, 1.5, method, example_inputs=X, **given)


def test_resnet_18_of_torchvision() -> None:
    with seeded(0, "resnet"):
        network = torchvision.models.resnet18(num_classes=10)
    images = torch.randn(1, 3, 32, 32, generator=generator(0, "resnet"))
    pruned = sl.prune(network, 4, example_inputs=images)
    assert sl.compression_ratio(pruned) == pytest.approx(4, rel=0.001)
    assert not hasattr(pruned.fc, "weight_mask")


def test_transformers_tied_weights_and_named_classifiers() -> None:
    with seeded(0, "tokens"):
        network = Tokens()
    tokens = torch.arange(10).view(2, 5)
    with pytest.raises(CompressionError, match="'output', which shares its weight with embedding"):
        sl.prune(network, 1.5, example_inputs=tokens, classifier=None)
    pruned = sl.prune(network, 1.5, example_inputs=tokens).eval()  # the layer that returns the logits stays whole
    assert sl.compression_ratio(pruned) == pytest.approx(1.5, rel=0.01)
    assert pruned.output.weight is pruned.embedding.weight
    in_projection = pruned.encoder.layers[0].self_attn
    mask = in_projection.in_proj_weight_mask
    assert 0 < mask.mean() < 1
    before = pruned(tokens)
    with torch.no_grad():
        dict(in_projection.named_parameters())["in_proj_weight"].add_(10 * (1 - mask))
    torch.testing.assert_close(pruned(tokens), before)
    with pytest.raises(
        CompressionError, match=r"classifier: expected the name of a linear layer, got 'outptu'; did you mean 'output'"
    ):
        sl.prune(network, 1.5, example_inputs=tokens, classifier="outptu")


def test_frozen_parameters_half_precision_and_modes_are_kept(own) -> None:
    own.first.requires_grad_(False)
    own.eval()
    pruned = sl.prune(own.bfloat16(), 3, example_inputs=X.bfloat16())
    assert [each.requires_grad for each in pruned.parameters()] == [each.requires_grad for each in own.parameters()]
    assert pruned(X.bfloat16()).dtype == torch.bfloat16
    assert not pruned.training
    assert sl.compression_ratio(pruned) == pytest.approx(3, rel=0.01)
    half = sl.prune(own.bfloat16().train(), 3, example_inputs=X.bfloat16())
    assert half.training


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratio": 1000}, CompressionError, "expected a compression ratio from 1 to .* got 1000"),
        ({"ratio": 0.5}, CompressionError, r"expected a compression ratio from 1 to .* got 0\.5"),
        ({"method": "magntude"}, ConfigError, "unknown pruner 'magntude'; did you mean 'magnitude'"),
        ({"scop": "layer"}, ConfigError, r"unknown option 'scop'; did you mean 'scope'"),
        ({"schedule": "gradual"}, ConfigError, "schedule: expected none for magnitude"),
        ({"method": {"name": "random", "schedule": "gradual"}}, ConfigError, "schedule: expected none for random"),
        ({"method": "snip", "data": (X, Y.float())}, CompressionError, r"int64 \[b\], .*, got float32 \[16\]; .*long"),
        (
            {"method": "obd", "data": (X, Y[:, None])},
            CompressionError,
            r"a class index of each input, got int64 \[16, 1",
        ),
        ({"example_inputs": None}, CompressionError, "expected example_inputs that the module can be called with"),
        (
            {"example_inputs": X[0, 0, 0]},
            CompressionError,
            "expected a module that runs on example_inputs, got RuntimeE",
        ),
    ],
)
def test_mistakes_are_a_sentence(own, options, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        sl.prune(own, **{"ratio": 2, "example_inputs": X, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "ratio", "method", "error", "message"),
    [
        ("net", 4, "magnitude", CompressionError, "expected a torch module and a number, got a str and 4"),
        (
            nn.Linear(3, 2),
            "4",
            "magnitude",
            CompressionError,
            "expected a torch module and a number, got a Linear and '4'",
        ),
        (nn.Linear(3, 2), 4, None, ConfigError, "expected a plugin name or a mapping with 'name', got"),
    ],
)
def test_arguments_of_other_types_are_a_sentence(monkeypatch, module, ratio, method, error, message) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        sl.prune(module, ratio, method, example_inputs=torch.zeros(1, 3))


class Several(nn.Module):
    """Returns a dict or tuple of some of its layers' outputs."""

    def __init__(self, *returned: str, apart: bool = False) -> None:
        super().__init__()
        self.line, self.out, self.aside = nn.Linear(6, 20), nn.Linear(20, 5), nn.Linear(20, 5)
        self.returned, self.apart = returned, apart

    def forward(self, x: torch.Tensor) -> object:
        hidden = self.line(x).relu()
        made = {"out": self.out(hidden), "aside": self.aside(hidden), "hidden": hidden}
        return (
            tuple(made[name] for name in self.returned) if self.apart else {name: made[name] for name in self.returned}
        )


@pytest.mark.parametrize(
    "call",
    [
        sl.finalize,
        sl.compression_ratio,
        lambda given: sl.compression_ratio(nn.Linear(3, 2), given),
        lambda given: sl.backbone(given, torch.zeros(2, 3)),
    ],
)
def test_what_is_no_module_is_a_sentence(monkeypatch, call) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(CompressionError, match=r"^expected a torch module, got a str; pass the network itself$"):
        call("mlp")


def test_a_finalised_state_is_loaded_into_a_module_that_was_never_pruned() -> None:
    pruned = sl.prune(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)), 3, example_inputs=torch.zeros(1, 8))
    plain = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"0\.weight_mask\""):
        plain.load_state_dict(pruned.state_dict())
    plain.load_state_dict(sl.finalize(pruned).state_dict())
    torch.testing.assert_close(plain(torch.ones(1, 8)), pruned(torch.ones(1, 8)))
    assert sl.compression_ratio(plain) == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("apart", [False, True])
def test_the_classifier_in_a_dict_or_tuple_stays_whole_or_is_asked_for(apart) -> None:
    def masked(module, **options):
        pruned = sl.prune(module, 1.3, example_inputs=torch.zeros(2, 6), **options)
        return [name.removesuffix(".weight_mask") for name in pruned.state_dict() if name.endswith("weight_mask")]

    assert masked(Several("hidden", "out", apart=apart)) == ["line", "aside"]
    two = Several("out", "aside", apart=apart)
    with pytest.raises(CompressionError, match=r"expected one linear layer .*, got 'out' and 'aside'; pass"):
        masked(two)
    assert masked(two, classifier="out") == ["line", "aside"]
    assert masked(two, classifier=None) == ["line", "out", "aside"]
    with pytest.raises(CompressionError, match=r"the module returns, got none; pass sl.prune classifier=NAME of"):
        masked(Several("hidden", apart=apart))


class Ended(nn.Module):
    """Does something with the output of its last linear layer."""

    def __init__(self, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(6, 20), nn.ReLU())
        self.out, self.end = nn.Linear(20, 4), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.out(self.hidden(x)))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "end",
    [
        lambda logits: logits,
        lambda logits: logits.softmax(-1),
        nn.LogSoftmax(-1),
        nn.Flatten(),
        lambda logits: logits[:, 0].sigmoid(),
        lambda logits: logits.view(-1, 4, 1).squeeze(-1).double(),
    ],
)
def test_the_classifier_stays_whole_before_a_softmax_or_a_reshape(end, frozen) -> None:
    module = Ended(end).requires_grad_(not frozen)
    for inputs in (torch.ones(2, 6), torch.ones(1, 6)):
        pruned = sl.prune(module, 1.3, example_inputs=inputs)
        assert [name for name in pruned.state_dict() if name.endswith("mask")] == ["hidden.0.weight_mask"]
        assert [each.requires_grad for each in pruned.parameters()] == [not frozen] * 4
        assert pruned(inputs).shape == module(inputs).shape


@pytest.mark.parametrize(
    "end",
    [
        torch.relu,
        lambda logits: logits + logits.flip(1),
        torch.no_grad()(lambda logits: logits.exp()),
        lambda logits: torch.from_numpy(logits.numpy()) + 1,  # runs without gradients alone
    ],
)
def test_where_it_cannot_be_told_the_classifier_is_asked_for(end) -> None:
    inputs = torch.ones(2, 6)
    with pytest.raises(CompressionError, match=r"classifier: expected one linear .*, got none; pass .*classifier=None"):
        sl.prune(Ended(end), 1.3, example_inputs=inputs)
    names = {"out": ["hidden.0"], None: ["hidden.0", "out"]}
    for name, layers in names.items():
        pruned = sl.prune(Ended(end), 1.3, example_inputs=inputs, classifier=name)
        masks = [key.removesuffix(".weight_mask") for key in pruned.state_dict() if key.endswith("mask")]
        assert masks == layers
    with pytest.raises(CompressionError, match="expected, for unit, a module from one tensor to the output"):
        sl.prune(Ended(end), 1.3, "unit", example_inputs=inputs)


def test_modules_without_linear_layers_have_no_classifier() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pruned = sl.prune(network, 1.3, example_inputs=X)
    assert [name for name in pruned.state_dict() if name.endswith("mask")] == ["0.weight_mask", "2.weight_mask"]


def test_masks_of_torch_and_empty_modules_are_refused() -> None:
    layer = nn.Linear(4, 2)
    masks.random_unstructured(layer, "weight", 0.5)
    for look in (sl.finalize, sl.compression_ratio):
        with pytest.raises(CompressionError, match="expected layers whose weight is a parameter"):
            look(nn.Sequential(layer))
    with pytest.raises(CompressionError, match="expected a module with parameters, got none that is not 0"):
        sl.compression_ratio(nn.ReLU())
