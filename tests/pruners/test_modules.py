"""Any module can be pruned, and its masks hold: in every pass of all or a part of it, under any optimiser and loop."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import plugins, rng
from sharedlabel.backbones._holding import hold_masks, release_masks
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _masks, magnitude, snip
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._modules import as_backbone, as_module, prune_module

CLASSES = 4


class Small(nn.Module):
    """Convolutions, attention whose projection is read without a call, and a classifier two levels down."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.aside = nn.Linear(8, 8)
        self.heads = nn.ModuleDict({"logits": nn.Linear(8, CLASSES)})

    def encode(self, images: Tensor) -> Tensor:
        """Embed without a call of the whole."""
        steps = self.encoder(self.features(images).flatten(2).transpose(1, 2)).mean(1)
        return nn.functional.linear(steps, self.aside.weight).relu()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.heads["logits"](self.encode(images))
        return logits


class Perceptron(nn.Sequential):
    """A network of plain vectors."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES))


class Words(nn.Module):
    """Takes tokens, and returns what a loss wants instead of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.line, self.out = nn.Embedding(9, 6), nn.Linear(6, 5), nn.Linear(5, CLASSES)

    def forward(self, tokens: Tensor, log: bool = True) -> Tensor:
        logits: Tensor = self.out(self.line(self.embedding(tokens).mean(1)).relu())
        return logits.log_softmax(1) if log else logits


class Boxed(nn.Module):
    """Returns its logits in a mapping and takes keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.out = nn.Linear(6, 5), nn.Linear(5, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"logits": self.out(self.line(left + right).relu())}


class Twice(nn.Module):
    """Knows its classifier by another way, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.others = [self.out]

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.others[0](self.first(inputs).relu())
        return logits


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    with rng.seeded(0):
        return kind()


def images() -> Tensor:
    return torch.rand(8, 3, 6, 6, generator=rng.generator(0, "images"))


def vectors() -> Tensor:
    return torch.rand(8, 6, generator=rng.generator(0, "vectors"))


def context(inputs: Tensor) -> Context:
    labels = torch.arange(len(inputs)) % CLASSES

    def train(network: nn.Module) -> None:
        nn.functional.cross_entropy(network(inputs), labels).backward()

    return Context(rng.generator(0, "prune"), inputs, labels, inputs, train)


def pruned(ratio: float = 1.6) -> Any:
    return prune_module(magnitude, made(Small), ratio, magnitude.Config(), context(images()), images())


def plain(network: nn.Module) -> Any:
    """Return what a network has to be: a copy of plain layers whose removed weights are zero for good."""
    baked = copy.deepcopy(network)
    _masks.bake(baked)
    return baked


def write(network: nn.Module) -> None:
    """Write to every parameter, behind the back of masks."""
    for parameter in network.parameters():
        parameter.data += 0.5


def revived(network: nn.Module) -> int:
    return sum(int((weight[mask == 0] != 0).sum()) for _, weight, mask in _masks.masked(network))


def test_ratio_is_exact_and_the_classifier_stays() -> None:
    network, result = made(Small), pruned()
    total = sum(parameter.numel() for parameter in network.parameters())
    assert counts.parameters(result) == round(total / 1.6)
    names = [name for name, _, _ in _masks.masked(result)]
    assert names == [
        *("features.0", "features.3", "encoder.self_attn.in_proj", "encoder.self_attn.out_proj"),
        *("encoder.linear1", "encoder.linear2", "aside"),
    ]
    assert type(result) is Small
    assert [name for name, _ in result.named_parameters()] == [name for name, _ in network.named_parameters()]


def test_the_network_that_is_passed_in_is_left_as_it_was() -> None:
    network = made(Small)
    before = copy.deepcopy(network.state_dict())
    result = prune_module(magnitude, network, 1.6, magnitude.Config(), context(images()), images())
    write(result)
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("part", [lambda n: n(images()), lambda n: n.encode(images()), lambda n: n.features(images())])
def test_what_is_written_behind_masks_is_in_no_pass(part: Callable[[Any], Tensor], training: bool) -> None:
    result = pruned().train(training)
    write(result)
    expected = plain(result)
    assert revived(result) > 0
    for enabled in (True, False):  # fused attention runs without gradients
        with torch.set_grad_enabled(enabled):
            torch.testing.assert_close(part(result), part(expected))
    part(result).sum().backward()
    for name, weight, mask in _masks.masked(result):
        assert weight.grad is None or not weight.grad[mask == 0].any(), name
    assert result.features[0]._parameters["weight"].grad.any()


@pytest.mark.parametrize(
    "optimiser",
    [
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.05),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.05),
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.05),
    ],
)
def test_a_plain_loop_leaves_zeros(optimiser: Callable[[Any], torch.optim.Optimizer]) -> None:
    result = pruned()
    left, steps = counts.parameters(result), optimiser(result.parameters())
    before = copy.deepcopy(result.state_dict())
    for _ in range(3):
        steps.zero_grad()
        nn.functional.cross_entropy(result(images()), torch.arange(8) % CLASSES).backward()
        steps.step()
    assert revived(result) == 0
    assert counts.parameters(result) == left
    assert not torch.equal(result.state_dict()["features.0.weight"], before["features.0.weight"])


def test_states_read_and_loaded_have_zeros() -> None:
    result, dense = pruned(), made(Small)
    write(result)
    state = result.state_dict()
    assert revived(result) == 0
    assert state["aside.weight"][state["aside.weight_mask"] == 0].numel()
    write(dense)
    result.load_state_dict(dense.state_dict(), strict=False)
    assert revived(result) == 0
    result.features.load_state_dict(dense.features.state_dict(), strict=False)  # type: ignore[union-attr]
    assert revived(result) == 0


def saved(network: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(network, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n)), saved])
def test_copies_and_pickles_stay_pruned(again: Callable[[nn.Module], nn.Module]) -> None:
    result = pruned().eval()
    copied = again(again(result))
    write(copied)
    torch.testing.assert_close(copied(images()), plain(copied)(images()))
    assert isinstance(copied.aside, nn.Linear)
    assert type(copied.aside) is type(result.aside)
    assert type(copied.aside).__name__ == "Linear"
    copied.state_dict()
    assert revived(copied) == 0


@pytest.mark.filterwarnings("ignore")
def test_compiled_and_exported_as_its_masks_say() -> None:
    torch.compiler.reset()
    result = pruned().eval().requires_grad_(False)
    write(result)
    expected = plain(result)(images())
    torch.testing.assert_close(torch.compile(result, backend="aot_eager")(images()), expected)
    torch.testing.assert_close(torch.export.export(result, (images(),)).module()(images()), expected)
    torch.compiler.reset()


def test_pruned_again_masks_stay_and_classes_are_those_of_the_first_time() -> None:
    once = pruned(1.3)
    twice = prune_module(magnitude, once, 1.9, magnitude.Config(), context(images()), images())
    first, second = ({name: mask for name, _, mask in _masks.masked(network)} for network in (once, twice))
    assert all(not (second[name] > first[name]).any() for name in first)
    assert type(twice.aside) is type(once.aside)  # type: ignore[union-attr]
    assert counts.parameters(twice) == round(sum(p.numel() for p in once.parameters()) / 1.9)
    with pytest.raises(CompressionError, match=r"expected a network compressed at most 1\.2 times, got masks at 1\.3"):
        prune_module(magnitude, once, 1.2, magnitude.Config(), context(images()), images())


def test_baked_and_released_layers_are_plain_ones() -> None:
    result = pruned()
    baked = plain(result)
    assert type(baked.aside) is nn.Linear
    assert baked.state_dict().keys() == made(Small).state_dict().keys()
    assert not baked.aside._state_dict_pre_hooks
    assert isinstance(baked.aside.weight, nn.Parameter)
    hold_masks(result)  # once more changes nothing
    assert len(result.aside._state_dict_pre_hooks) == 1
    release_masks(result)
    write(result)
    assert type(result.aside) is nn.Linear
    assert result.aside.weight[result.aside.weight_mask == 0].any()


REFUSED = {
    "butterfly": "got no linear layer among 7 layers",
    "greedy_forward": "got 'encoder.linear2' inside a module of torch that is run as a whole",
    "obd": "got 'aside', which the network leaves out or whose weight it reads directly",
    "sipp": "got 'aside', which the network leaves out or whose weight it reads directly",
}


@pytest.mark.parametrize("name", REFUSED)
def test_names_in_refusals_are_those_of_the_module(name: str) -> None:
    method = plugins.load("pruners", name)
    with pytest.raises(CompressionError, match=REFUSED[name]) as refused:
        prune_module(method, made(Small), 1.3, method.Config(), context(images()), images())
    assert "body." not in str(refused.value)


@pytest.mark.parametrize(("kind", "make"), [(Small, images), (Perceptron, vectors)])
@pytest.mark.parametrize("name", plugins.available("pruners"))
def test_every_pruner_takes_a_module(name: str, kind: Callable[[], nn.Module], make: Callable[[], Tensor]) -> None:
    if kind is Small and name in REFUSED:
        return
    method, network, ratio = plugins.load("pruners", name), made(kind), 1.0 if name == "none" else 1.3
    options = {"rounds": 3} if name == "synflow" else {}
    result = prune_module(method, network, ratio, method.Config(**options), context(make()), make())
    assert type(result) is kind
    assert result(make()).shape == (8, CLASSES)
    assert counts.parameters(result) == pytest.approx(sum(p.numel() for p in network.parameters()) / ratio, rel=0.05)


def test_weights_alone_are_pruned_whatever_a_module_takes_and_returns() -> None:
    tokens, pair = torch.arange(18).view(2, 9) % 9, {"left": vectors(), "right": vectors()}
    for network, inputs, layers in (
        (made(Words), tokens, ["line"]),  # its logits are returned through log_softmax
        (made(Words), (tokens, False), ["line"]),
        (made(Boxed), pair, ["line"]),
        (made(lambda: nn.Linear(6, 9)), vectors(), [""]),
    ):
        result = prune_module(magnitude, network, 1.1, magnitude.Config(), context(vectors()), inputs)
        assert [name for name, _, _ in _masks.masked(result)] == layers


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("network", "inputs", "message"),
    [
        (
            lambda: made(Words),
            torch.arange(18).view(2, 9) % 9,
            "expected, for snip, a module from one tensor to the out",
        ),
        (lambda: made(Boxed), {"left": vectors(), "right": vectors()}, "return the logits alone and leave softmax"),
        (lambda: made(Twice), vectors(), "expected, for snip, a module from one tensor"),
        (
            lambda: made(Perceptron),
            torch.ones(2, 5),
            "expected a module that runs on example_inputs, got RuntimeError: .*mat1",
        ),
        (lambda: made(Boxed), vectors(), r"example_inputs, got TypeError: .*missing 1 required positional argument"),
        (nn.ReLU, vectors(), "expected a module with weights, got ReLU without any parameter"),
        (
            lambda: torch.jit.script(nn.Linear(6, 3)),
            vectors(),
            "got one of TorchScript; prune it before it is scripted",
        ),
        (lambda: nn.Sequential(nn.LazyLinear(3)), vectors(), "got lazy layers without any; call it once before"),
    ],
)
def test_what_cannot_be_pruned_is_said(network: Callable[[], Any], inputs: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        prune_module(snip, network(), 1.5, snip.Config(), context(vectors()), inputs)


def test_a_module_that_cannot_be_copied_or_differentiated_is_said() -> None:
    network = made(Perceptron)
    network.seen = network(vectors())
    with pytest.raises(CompressionError, match="expected a module that can be copied, got RuntimeError: Only Tensors"):
        as_backbone(network, vectors())
    obd = plugins.load("pruners", "obd")
    tokens = torch.arange(18).view(2, 9) % 9
    words = nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(54, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    with pytest.raises(
        CompressionError, match=r"that obd .*, got inputs of torch\.int64, without gradients: only Tens"
    ):
        prune_module(obd, words, 1.5, obd.Config(), context(tokens), tokens)


class Fork(Perceptron):
    """Does with inputs what their values say."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = super().forward(inputs if inputs.mean() > 0 else -inputs)
        return logits


def test_units_of_networks_of_tokens_go_and_forwards_that_look_at_values_are_refused() -> None:
    unit = plugins.load("pruners", "unit")
    tokens = torch.arange(18).view(2, 9) % 9
    words = nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    result = prune_module(unit, words, 1.5, unit.Config(), context(tokens), tokens)
    assert result(tokens).shape == (2, CLASSES)
    assert cast("nn.Linear", result.get_submodule("2")).out_features < 8
    with pytest.raises(
        CompressionError, match=r"got one that depends on values, .*: Tensor\.item\(\) cannot be called"
    ):
        prune_module(unit, made(Fork), 1.5, unit.Config(), context(vectors()), vectors())


def test_there_and_back_changes_nothing() -> None:
    network = made(Small).eval()
    backbone = as_backbone(network, images())
    assert torch.equal(backbone(images()), network(images()))
    assert torch.equal(backbone.embed(images()), network.encode(images()))
    assert backbone.embedding_dim == 8
    whole = as_module(backbone)
    assert whole.state_dict().keys() == network.state_dict().keys()
    assert torch.equal(whole(images()), network(images()))
