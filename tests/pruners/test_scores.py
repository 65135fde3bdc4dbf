"""What holds for every pruner that scores single weights, on networks with all kinds of layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import plugins, rng
from sharedlabel.backbones import mlp
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _examples, _gradients, _masks, _methods
from sharedlabel.pruners._base import Context

NAMES = ("edge_popup", "grasp", "lottery_ticket", "magnitude", "obd", "random", "sipp", "snip", "synflow")
SHAPE, CLASSES = (3, 8, 8), 4


class Mixed(nn.Module):
    """Convolutions with groups, odd paddings and a shortcut, then attention, a batch-first LSTM and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular", groups=8)
        self.line = nn.Conv1d(8, 6, 3, dilation=2, padding=2)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.memory = nn.LSTM(6, 5, batch_first=True)
        self.last = nn.Linear(5, 7)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.stem(images)).relu_()
        features = (features + self.depthwise(self.grouped(features))).relu()
        steps = self.line(features.flatten(2)).transpose(1, 2)
        steps = steps + self.attention(steps, steps, steps, need_weights=False)[0]
        return self.last(self.memory(steps)[0][:, -1]).relu()


def mixed() -> Backbone:
    with rng.seeded(0):
        backbone = Backbone(Mixed(), nn.Linear(7, CLASSES), SHAPE)
        backbone.body.norm.running_mean.normal_(0, 0.1)
        backbone.body.norm.running_var.uniform_(0.5, 2)
    return backbone


def small() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config((6, 5)), (1, 3, 3), CLASSES)


@torch.enable_grad()
def train(network: Backbone) -> None:
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    images, labels = data(network)
    network.train()
    nn.functional.cross_entropy(network(images), labels).backward()
    optimiser.step()


def data(network: Backbone, count: int = 12) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, *network.image_shape, generator=rng.generator(0, "images"))
    return images, torch.arange(count) % CLASSES


def context(network: Backbone) -> Context:
    images, labels = data(network)
    return Context(rng.generator(0, "prune"), images, labels, images, train)


@pytest.fixture(params=NAMES)
def pruner(request: pytest.FixtureRequest) -> ModuleType:
    return plugins.load("pruners", request.param)


def quick(pruner: ModuleType) -> object:
    return pruner.Config(rounds=5) if pruner.__name__.endswith("synflow") else pruner.Config()


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_groups_recurrence_and_attention_are_handled(pruner: ModuleType) -> None:
    dense = mixed()
    attention = ["body.attention.in_proj", "body.attention.out_proj"]
    layers = ["body.stem", "body.grouped", "body.depthwise", "body.line", *attention, "body.last"]
    assert list(_masks.prunable(dense)) == layers
    pruned = _methods.prune(pruner, dense, 1.6, quick(pruner), context(dense))
    total = sum(parameter.numel() for parameter in dense.parameters())
    assert counts.parameters(pruned) == round(total / 1.6)
    assert {name for name, _, _ in _masks.masked(pruned)} == set(layers)
    weights = {_masks.parameter_name(name, place) for name, place in _masks.prunable(dense).items()}
    assert "body.attention.in_proj_weight" in weights
    for name, parameter in pruned.named_parameters():
        assert name in weights or torch.equal(parameter, dense.get_parameter(name))
    assert torch.isfinite(pruned(data(dense)[0])).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_network_passed_in_stays_as_it_was(pruner: ModuleType, training: bool) -> None:
    dense = mixed().train(training)
    dense(data(dense)[0]).sum().backward()
    dense.body.grouped.weight.requires_grad_(False)
    before, gradients = state(dense), {name: p.grad.clone() for name, p in dense.named_parameters()}
    _methods.prune(pruner, dense, 1.6, quick(pruner), context(dense))
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert all(torch.equal(p.grad, gradients[name]) for name, p in dense.named_parameters())
    assert all(module.training is training for module in dense.modules())
    assert [name for name, p in dense.named_parameters() if not p.requires_grad] == ["body.grouped.weight"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in dense.modules())


def test_global_random_numbers_do_not_matter_and_stay(pruner: ModuleType) -> None:
    dense = mixed()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = _methods.prune(pruner, dense, 1.6, quick(pruner), context(dense))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    other = _methods.prune(pruner, dense, 1.6, quick(pruner), context(dense))
    assert all(torch.equal(tensor, state(other)[name]) for name, tensor in one.state_dict().items())


def test_frozen_networks_can_be_scored(pruner: ModuleType) -> None:
    free, frozen = mixed(), mixed().requires_grad_(False)
    expected = _methods.prune(pruner, free, 1.6, quick(pruner), context(free))
    with torch.no_grad():
        pruned = _methods.prune(pruner, frozen, 1.6, quick(pruner), context(frozen))
    assert all(torch.equal(tensor, state(expected)[name]) for name, tensor in pruned.state_dict().items())


def test_removed_weights_stay_removed(pruner: ModuleType) -> None:
    random = plugins.load("pruners", "random")
    once = _methods.prune(random, mixed(), 1.3, random.Config(), context(mixed()))
    twice = _methods.prune(pruner, once, 1.6, quick(pruner), context(once))
    before, after = _masks.kept(once), _masks.kept(twice)
    assert all(not (after[name] & ~before[name]).any() for name in after)
    assert _masks.removed(twice) == _masks.weights_to_remove(mixed(), 1.6)
    again = _methods.prune(pruner, once, 1.3, quick(pruner), context(once))
    assert all(torch.equal(mask, before[name]) for name, mask in _masks.kept(again).items())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random", "edge_popup"}))  # these do not look at the weights
def test_weights_that_are_not_finite_name_the_layer(name: str) -> None:
    pruner, dense = plugins.load("pruners", name), small()
    with torch.no_grad():
        dense.body[3].weight[2, 1] = torch.nan
    with pytest.raises(CompressionError, match=r"NaN or infinite of (54 in layer 'body.1'|30 in layer 'body.3')"):
        _methods.prune(pruner, dense, 1.6, quick(pruner), context(dense))


def test_channels_last_and_double_precision(pruner: ModuleType) -> None:
    dense = mixed().to(memory_format=torch.channels_last)
    pruned = _methods.prune(pruner, dense, 1.6, quick(pruner), context(dense))
    same = _methods.prune(pruner, mixed(), 1.6, quick(pruner), context(dense))
    different = [(_masks.kept(pruned)[name] != mask).sum() for name, mask in _masks.kept(same).items()]
    assert sum(int(count) for count in different) <= 2  # other kernels round otherwise
    double = mixed().double()
    assert counts.parameters(_methods.prune(pruner, double, 1.6, quick(pruner), context(double))) == counts.parameters(
        pruned
    )


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("snip", {}, "expected images to compute scores from, got none"),
        ("snip", {"images": torch.rand(4, 1, 3, 3)}, "expected labels of the images, got none"),
        ("grasp", {}, "expected images to compute scores from, got none"),
        ("grasp", {"images": torch.rand(4, 1, 3, 3)}, "expected labels of the images, got none"),
        ("obd", {}, "expected images to compute scores from, got none"),
        ("obd", {"images": torch.rand(0, 1, 3, 3)}, "expected images to compute scores from, got an empty set"),
        ("sipp", {}, "expected validation images to measure sensitivities on, got none"),
        ("sipp", {"validation": torch.rand(0, 1, 3, 3)}, "sensitivities on, got an empty set; pass some"),
        ("edge_popup", {}, "expected a way to train the network, got none"),
    ],
)
def test_what_is_missing_is_said(name: str, given: dict[str, Tensor], message: str) -> None:
    pruner = plugins.load("pruners", name)
    with pytest.raises(CompressionError, match=message):
        _methods.prune(pruner, small(), 2.0, pruner.Config(), Context(rng.generator(0), **given))


def test_nothing_is_looked_at_when_nothing_is_to_be_removed(pruner: ModuleType) -> None:
    with rng.seeded(0):
        linear = mlp.build(mlp.Config(()), (1, 3, 3), CLASSES)  # no layer can be pruned
    for dense in (small(), linear):
        same = _methods.prune(pruner, dense, 1.0, pruner.Config(), Context(rng.generator(0)))
        assert _masks.removed(same) == 0
        assert torch.equal(same(data(dense)[0]), dense(data(dense)[0]))


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_batch_statistics_of_one_image_are_refused(name: str) -> None:
    pruner, dense = plugins.load("pruners", name), mixed()
    given = context(dense)
    one = Context(given.generator, given.examples(1), given.labelled(1)[1])
    with pytest.raises(
        CompressionError, match=r"expected at least 2 images .*, got 1; pass more images or use the run"
    ):
        _methods.prune(pruner, dense, 1.6, pruner.Config(), one)
    _methods.prune(pruner, dense, 1.6, pruner.Config(statistics="running"), one)


class Aside(nn.Module):
    """A linear layer of which only the weight is read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(9, 6), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(self.first(images.flatten(1)).relu(), self.second.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("obd", "expected every prunable layer to be called, got 'body.second', which the network leaves out"),
        ("sipp", "expected every prunable layer to be called, got 'body.second', which the network leaves out"),
    ],
)
def test_layers_that_are_not_called_are_refused(name: str, message: str) -> None:
    pruner, dense = plugins.load("pruners", name), Backbone(Aside(), nn.Linear(5, CLASSES), (1, 3, 3))
    with pytest.raises(CompressionError, match=message):
        _methods.prune(pruner, dense, 1.6, quick(pruner), context(dense))


@pytest.mark.parametrize("name", ["snip", "grasp", "edge_popup", "synflow"])
def test_layers_whose_weight_is_read_directly(name: str) -> None:
    pruner, dense = plugins.load("pruners", name), Backbone(Aside(), nn.Linear(5, CLASSES), (1, 3, 3))
    assert len(list(_masks.masked(_methods.prune(pruner, dense, 1.6, pruner.Config(), context(dense))))) == 2


def loss_gradient(network: Backbone, layer: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(network(image[None]), label[None])
    return torch.autograd.grad(loss, layer.weight)[0]


@pytest.mark.parametrize("values", [1, 300, 2**25])
def test_gradients_by_example_are_those_of_one_example_at_a_time(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    monkeypatch.setattr(_gradients, "_VALUES", values)
    twin, dense = mixed().double(), mixed().double().eval()
    images, labels = data(dense)
    images = images.double().requires_grad_()
    for name, layer in _masks.called_layers(dense).items():
        seen: dict[str, Tensor] = {}
        handles = [
            layer.register_forward_hook(lambda _, given, __, seen=seen: seen.update(given=given[0].detach())),
            layer.register_full_backward_hook(lambda _, __, given, seen=seen: seen.update(back=given[0].detach())),
        ]
        nn.functional.cross_entropy(dense(images), labels, reduction="sum").backward()
        parts = _gradients.gradients_by_example(_masks.called_layers(twin)[name], seen["given"], seen["back"])
        gradients = torch.cat(list(parts))
        for handle in handles:
            handle.remove()
        expected = torch.stack([loss_gradient(dense, layer, *pair) for pair in zip(images, labels, strict=True)])
        torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300])
def test_batches_are_of_about_equal_size(count: int) -> None:
    network = small()
    images, given = torch.rand(count, 1, 3, 3), torch.arange(count) % CLASSES
    batches = list(_examples.batches(network, images, given))
    assert torch.equal(torch.cat([some for some, _ in batches]), images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), given)
    sizes = [len(some) for some, _ in batches]
    assert max(sizes) <= 128
    assert max(sizes) - min(sizes) <= 1


def test_large_images_come_in_small_batches() -> None:
    backbone = Backbone(nn.Flatten(), nn.Linear(512 * 512, 2), (1, 512, 512))
    sizes = [len(some) for some, _ in _examples.batches(backbone, torch.zeros(5, 1, 512, 512))]
    assert sizes == [2, 2, 1]


def untouched(make: Callable[[], Backbone]) -> None:
    """A replaced network shares nothing with the one it was copied from."""
    dense = make()
    copied = _gradients.replaced(dense, {"body.1": nn.Linear(9, 6)})
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.fill_(3)
    assert all(torch.equal(p, q) for p, q in zip(dense.parameters(), make().parameters(), strict=True))


def test_replaced_layers_leave_the_network_alone() -> None:
    untouched(small)
    body_is_the_layer = Backbone(nn.Linear(3, 3), nn.Linear(3, 2), (1, 1, 3))
    new = nn.Linear(3, 3)
    assert _gradients.replaced(body_is_the_layer, {"body": new}).body is new
    assert copy.deepcopy(body_is_the_layer).body is not new
