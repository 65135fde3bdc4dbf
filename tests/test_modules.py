"""Loaders, augmentation, schedule, early stopping and the joint module, against plain PyTorch."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import signal
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from sharedlabel import rng
from sharedlabel.aggregators import log_pool, lstm
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import FitConfig, JointConfig, TrainConfig, TrainerConfig
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.pruners._masks import apply_masks, prunable
from sharedlabel.training import fit, loaders, trainer
from sharedlabel.training.base import options_of
from sharedlabel.training.joint import divergence
from sharedlabel.training.loaders import ImageLoader, TupleLoader, augment
from sharedlabel.training.modules import AggregatorModule, BackboneModule, SharedLabelModule
from sharedlabel.training.ranks import Ranks
from sharedlabel.types import SetShape

CPU = TrainerConfig(accelerator="cpu")
CLASSES = 3


@pytest.fixture(autouse=True)
def _fixed_start():
    with rng.seeded(0, "tests"):
        yield


def images_of(count: int, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose first pixel is their index, and labels in turn."""
    images = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=rng.generator(0, "images"))
    images[:, 0, 0, 0] = torch.arange(count, dtype=torch.uint8)
    return images, torch.arange(count) % CLASSES


def network() -> Backbone:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return Backbone(body, nn.Linear(4, CLASSES), (1, 4, 4))


def shape(width: int = 4) -> SetShape:
    return SetShape(torch.zeros(width), torch.ones(width), torch.full((CLASSES,), 1 / CLASSES).log())


def seen(loader: ImageLoader) -> list[int]:
    return [int(index) for images, _ in loader for index in images[:, 0, 0, 0]]


def test_every_image_comes_once_per_epoch_with_its_label():
    images, labels = images_of(40)
    indices = torch.arange(4, 36)
    loader = ImageLoader(images, labels, indices, batch_size=8, seed=0)
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    ids = torch.cat([batch[0][:, 0, 0, 0] for batch in batches]).long()
    assert sorted(ids.tolist()) == indices.tolist()
    assert torch.equal(torch.cat([batch[1] for batch in batches]), labels[ids])


def test_an_incomplete_batch_is_left_out_but_a_small_split_is_one_batch():
    images, labels = images_of(21)
    assert [len(batch) for batch, _ in ImageLoader(images, labels, torch.arange(21), 8, 0)] == [8, 8]
    assert [len(batch) for batch, _ in ImageLoader(images, labels, torch.arange(5), 8, 0)] == [5]


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    images, labels = images_of(64)

    def loader(seed: int) -> ImageLoader:
        return ImageLoader(images, labels, torch.arange(64), 16, seed)

    first, again, other = loader(0), loader(0), loader(1)
    one, two = seen(first), seen(first)
    torch.manual_seed(99)
    assert (seen(again), seen(again)) == (one, two)
    assert one != two
    assert seen(other) != one


@pytest.fixture
def rank(monkeypatch):
    """Pretend to be one of several processes."""

    def become(index: int, world: int) -> None:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: index)

    return become


def test_ranks_share_each_batch_without_overlap(rank):
    images, labels = images_of(32)
    alone = [set(batch[:, 0, 0, 0].tolist()) for batch, _ in ImageLoader(images, labels, torch.arange(32), 8, 0)]
    shares = []
    for index in range(4):
        rank(index, 4)
        loader = ImageLoader(images, labels, torch.arange(32), 8, 0)
        shares.append([batch[:, 0, 0, 0].tolist() for batch, _ in loader])
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]
        assert [len(part) for part in parts] == [2, 2, 2, 2]
        assert set().union(*parts) == whole


def test_ranks_take_equally_many_when_a_batch_does_not_divide(rank):
    taken = []
    for index in range(3):
        rank(index, 3)
        taken += loaders.share_of_rank(torch.arange(8)).tolist()
    assert sorted(taken) == [0, 1, 2, 3, 4, 5]


def test_tuples_share_a_label_and_are_formed_anew(rank):
    labels = torch.arange(48) % CLASSES
    ids = torch.arange(48)
    prior = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    loader = TupleLoader((ids, ids * 10), labels, 4, 6, prior, 0, None)
    assert (loader.tuples, len(loader)) == (12, 2)
    epochs = [list(loader) for _ in range(2)]
    for batches in epochs:
        index = torch.cat([batch[0] for batch in batches])
        assert sorted(index.flatten().tolist()) == ids.tolist()
        assert torch.equal(torch.cat([batch[1] for batch in batches]), index * 10)
        assert torch.equal(labels[index], torch.cat([batch[2] for batch in batches])[:, None].expand(-1, 4))
        weights = torch.cat([batch[3] for batch in batches])
        assert float(weights.mean()) == pytest.approx(1)
        assert {round(float(w), 4) for w in weights} == {1.5, 0.75}
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])
    rank(1, 2)
    half = list(TupleLoader((ids,), labels, 4, 6, prior, 0, None))
    assert torch.equal(half[0][0], epochs[0][0][0][1::2])


@pytest.mark.parametrize("fresh", [True, False])
def test_fixed_tuples_are_those_of_the_first_epoch_in_another_order(fresh):
    labels, ids = torch.arange(96) % CLASSES, torch.arange(96)
    loader = TupleLoader((ids,), labels, 4, 6, torch.full((CLASSES,), 1 / CLASSES), 0, None, fresh=fresh)
    epochs = [torch.cat([batch[0] for batch in loader]) for _ in range(3)]
    whole = [{tuple(row) for row in epoch.tolist()} for epoch in epochs]
    assert all(len(drawn) == len(loader) * 6 == 24 for drawn in whole)
    assert (whole[0] == whole[1] == whole[2]) is not fresh
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])
    again = TupleLoader((ids,), labels, 4, 6, torch.full((CLASSES,), 1 / CLASSES), 0, None, fresh=fresh)
    assert [torch.cat([batch[0] for batch in again]).tolist() for _ in range(3)] == [e.tolist() for e in epochs]


def test_grouped_tuples_stay_within_a_group():
    labels, groups = torch.arange(48) % CLASSES, torch.arange(48) // 12
    loader = TupleLoader((groups,), labels, 2, 8, torch.full((CLASSES,), 1 / CLASSES), 0, groups)
    for members, _, _ in loader:
        assert torch.equal(members, members[:, :1].expand_as(members))


def class_counts(loader: TupleLoader) -> list[tuple[int, ...]]:
    return [tuple(torch.bincount(labels, minlength=CLASSES).tolist()) for _, labels, _ in loader]


@pytest.mark.parametrize("sizes", [(24, 24, 24), (30, 18, 9), (3, 60, 12)])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 7])
def test_diverse_batches_hold_each_class_equally_often(sizes, batch_size):
    """No class is once more in one batch than once in another, and each has the tuples of the shuffled batches."""
    labels = torch.arange(CLASSES).repeat_interleave(torch.tensor(sizes))
    given = (torch.arange(len(labels)),), labels, 3, batch_size, torch.tensor([0.2, 0.3, 0.5]), 0, None
    loaders_of = {kind: TupleLoader(*given, batches=kind) for kind in ("shuffled", "diverse")}
    for _ in range(3):
        counts = class_counts(loaders_of["diverse"])
        assert {sum(batch) for batch in counts} == {batch_size}
        assert all(max(times) - min(times) <= 1 for times in zip(*counts, strict=True))
        shuffled = class_counts(loaders_of["shuffled"])
        assert [sum(times) for times in zip(*counts, strict=True)] == [
            sum(times) for times in zip(*shuffled, strict=True)
        ]


def test_diverse_batches_are_the_most_even_of_all():
    """Against every way to deal 2 + 3 + 1 tuples into three batches."""
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    counts = class_counts(TupleLoader((labels,), labels, 1, 2, torch.full((3,), 1 / 3), 0, None, batches="diverse"))

    def unevenness(batches) -> int:
        return sum(count**2 for batch in batches for count in batch)

    possible = set(itertools.permutations(labels.tolist()))
    dealt = ([[order[i : i + 2].count(c) for c in range(3)] for i in (0, 2, 4)] for order in possible)
    assert unevenness(counts) == min(unevenness(batches) for batches in dealt)


def test_diverse_batches_hold_the_tuples_and_weights_of_the_shuffled_ones():
    labels, ids = torch.arange(48) % CLASSES, torch.arange(48)
    given = (ids,), labels, 4, 5, torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), 0, None
    shuffled, diverse, again = (TupleLoader(*given, batches=kind) for kind in ("shuffled", "diverse", "diverse"))
    orders = set()
    for _ in range(4):
        drawn = [(tuple(i.tolist()), int(y), float(w)) for batch in diverse for i, y, w in zip(*batch, strict=True)]
        usual = [(tuple(i.tolist()), int(y), float(w)) for batch in shuffled for i, y, w in zip(*batch, strict=True)]
        assert sorted(drawn) == sorted(usual)
        assert drawn == [(tuple(i.tolist()), int(y), float(w)) for b in again for i, y, w in zip(*b, strict=True)]
        orders.add(tuple(label for _, label, _ in drawn))
    assert len(orders) > 1  # classes come in another order every epoch


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_is_a_window_of_the_padded_image_chosen_for_each_image(dtype, channels):
    images = torch.randint(1, 256, (64, channels, 5, 7)).to(dtype)
    cropped = augment(images, 2, False)
    assert (cropped.dtype, cropped.shape) == (dtype, images.shape)
    padded = nn.functional.pad(images, [2] * 4)
    places = set()
    for image, crop in zip(padded, cropped, strict=True):
        windows = {(top, left): image[:, top : top + 5, left : left + 7] for top in range(5) for left in range(5)}
        fits = [place for place, window in windows.items() if torch.equal(window, crop)]
        assert len(fits) == 1
        places.add(fits[0])
    assert {top for top, _ in places} == {left for _, left in places} == {0, 1, 2, 3, 4}
    assert len(places) > 15


def test_flips_mirror_about_half_of_the_images():
    images = torch.randint(0, 256, (200, 3, 4, 5), dtype=torch.uint8)
    flipped = augment(images, 0, True)
    kept = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert torch.all(kept ^ mirrored)
    assert 60 < int(mirrored.sum()) < 140
    assert flipped.dtype == torch.uint8


def test_without_augmentation_images_are_untouched():
    images, _ = images_of(4)
    assert augment(images, 0, False) is images


def test_the_schedule_warms_up_then_falls_to_zero():
    module = BackboneModule.of(network(), TrainConfig(warmup=0.1))
    scale = [module.scale(step, 100) for step in range(101)]
    assert scale[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert scale[10] == pytest.approx(1)
    assert scale[55] == pytest.approx(0.5)
    assert scale[100] == pytest.approx(0, abs=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(scale[10:]))
    lasting = BackboneModule.of(network(), TrainConfig(warmup=0.1, final_rate=0.2))
    assert lasting.scale(4, 100) == module.scale(4, 100)
    assert lasting.scale(100, 100) == pytest.approx(0.2)
    assert lasting.scale(55, 100) == pytest.approx(0.2 + 0.8 * module.scale(55, 100))
    constant = BackboneModule.of(network(), TrainConfig(warmup=0.1, schedule="constant"))
    assert [constant.scale(step, 100) for step in (0, 9, 10, 99)] == pytest.approx([0.1, 1, 1, 1])
    assert BackboneModule.of(network(), TrainConfig(warmup=0.0)).scale(0, 100) == 1


def test_the_optimizer_follows_the_schedule_at_every_step(monkeypatch):
    rates = []
    monkeypatch.setattr(
        BackboneModule,
        "on_before_optimizer_step",
        lambda self, optimizer: rates.append(optimizer.param_groups[0]["lr"]),
    )
    images, labels = images_of(32)
    config = TrainConfig(epochs=2, batch_size=8, learning_rate=0.01, warmup=0.25)
    module = BackboneModule.of(network(), config)
    fit.fit(module, ImageLoader(images, labels, torch.arange(32), 8, 0), CPU, 2)
    assert rates == pytest.approx([0.01 * module.scale(step, 8) for step in range(8)])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_only_matrices_decay(optimizer):
    module = BackboneModule.of(network(), TrainConfig(optimizer=optimizer, weight_decay=0.3, momentum=0.8))
    module._trainer = SimpleNamespace(estimated_stepping_batches=10, precision="32-true")
    made = module.configure_optimizers()["optimizer"]
    assert isinstance(made, torch.optim.AdamW if optimizer == "adamw" else torch.optim.SGD)
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    expected = {name: 0.3 if parameter.ndim > 1 else 0.0 for name, parameter in module.named_parameters()}
    assert {name: decays[id(parameter)] for name, parameter in module.named_parameters()} == expected
    assert sorted(expected.values()) == [0, 0, 0, 0, 0.3, 0.3]
    if optimizer == "sgd":
        assert (made.defaults["nesterov"], made.defaults["momentum"]) == (True, 0.8)


def test_training_equals_a_plain_loop():
    images, labels = images_of(32)
    config = TrainConfig(
        epochs=2, batch_size=8, learning_rate=0.01, label_smoothing=0.1, schedule="constant", warmup=0.0
    )
    ours = network()
    plain = network()
    plain.load_state_dict(ours.state_dict())
    module = BackboneModule.of(ours, config)
    fit.fit(module, ImageLoader(images, labels, torch.arange(32), 8, 0), CPU, 2)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in plain.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.01,
        fused=True,
    )
    losses = []
    loader = ImageLoader(images, labels, torch.arange(32), 8, 0)
    for _ in range(2):
        steps = []
        for batch, targets in loader:
            loss = nn.functional.cross_entropy(plain(batch), targets, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(loss.item())
        losses.append(sum(steps) / len(steps))
    assert module.losses() == pytest.approx(losses)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)


def test_masked_weights_stay_zero_under_momentum_and_decay():
    images, labels = images_of(32)
    backbone = network()
    name, layer = next(iter(prunable(backbone).items()))
    mask = (torch.rand_like(layer.weight) < 0.5).float()
    apply_masks(backbone, {name: mask})
    before = layer.weight.detach().clone()
    module = BackboneModule.of(backbone, TrainConfig(optimizer="sgd", learning_rate=0.1, weight_decay=0.1))
    fit.fit(module, ImageLoader(images, labels, torch.arange(32), 8, 0), CPU, 2)
    assert torch.all(layer.weight[mask == 0] == 0)
    assert torch.all(layer.weight[mask == 1] != before[mask == 1])


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_epoch():
    images, labels = images_of(32)
    module = BackboneModule.of(network(), TrainConfig(optimizer="sgd"))
    module.learning_rate = 1e30
    with pytest.raises(TrainingError, match=r"expected a finite loss, got (nan|inf) in epoch 1; lower learning_rate"):
        fit.fit(module, ImageLoader(images, labels, torch.arange(32), 8, 0), CPU, 3)


def test_ctrl_c_during_training_is_passed_on_and_can_come_again():
    images, labels = images_of(32)

    class Interrupted(BackboneModule):
        def training_step(self, batch):
            os.kill(os.getpid(), signal.SIGINT)
            return super().training_step(batch)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(Interrupted(network()), ImageLoader(images, labels, torch.arange(32), 8, 0), CPU, 1)
    assert signal.getsignal(signal.SIGINT) is handler


class Bias(Aggregator):
    """One parameter vector that tuples of label 0 pull in one direction."""

    permutation_invariant = True

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, embeddings, logits):
        return (torch.zeros_like(logits) + self.bias).log_softmax(-1)


class Batches:
    """The same batch of tuples of label 0, twice per epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 2

    def __iter__(self):
        self.epoch += 1
        batch = (torch.zeros(5, 2, 4), torch.zeros(5, 2, CLASSES), torch.zeros(5, dtype=torch.int64), torch.ones(5))
        yield from [batch] * 2


def fit_bias(labels: list[int], patience: int, epochs: int = 12) -> tuple[AggregatorModule, list[float]]:
    """Train a bias towards label 0; return the module and the validation loss at the start and after every epoch."""
    batches, losses = Batches(), []
    config = FitConfig(epochs=epochs, patience=patience, batch_size=4, learning_rate=0.1, weight_decay=0.0)
    count = len(labels)
    stopping = (torch.zeros(count, 2, 4), torch.zeros(count, 2, CLASSES), torch.tensor(labels), torch.ones(count))

    class Watched(AggregatorModule):
        def _validation_loss(self, validation) -> float:
            losses.append(super()._validation_loss(validation))
            return losses[-1]

    module = Watched.of(Bias(), config, stopping)
    fit.fit(module, batches, CPU, epochs, small=True)
    assert batches.epoch == len(module.losses()) == len(losses) - 1
    return module, losses


def test_the_last_epoch_is_kept_while_validation_improves():
    module, losses = fit_bias([0] * 6, patience=3)
    assert module.best_epoch == len(module.losses()) == 12
    assert module.best == losses[-1] == module._validation_loss(module.validation) < math.log(CLASSES)


def test_training_that_only_hurts_stops_after_the_patience_and_keeps_the_start():
    module, _ = fit_bias([1] * 6, patience=3)
    assert (module.best_epoch, len(module.losses())) == (0, 3)
    assert module.best == pytest.approx(math.log(CLASSES))
    assert torch.all(module.aggregator.bias == 0)


def test_the_best_epoch_in_the_middle_is_restored():
    """Validation improves until label 0 gets its three fifths, then falls as training goes on to give it everything."""
    module, losses = fit_bias([0, 0, 0, 1, 2], patience=4, epochs=40)
    assert 0 < module.best_epoch < len(module.losses()) == module.best_epoch + 4 < 40
    assert min(losses) == losses[module.best_epoch] == module.best == module._validation_loss(module.validation)


def joint(batch_norm: str = "frozen", **options) -> tuple[SharedLabelModule, TupleLoader]:
    backbone, config = network(), JointConfig(epochs=12, batch_size=4, learning_rate=0.01, batch_norm=batch_norm)
    config = dataclasses.replace(config, **options)
    aggregator = lstm.build(lstm.Config(), shape())
    module = SharedLabelModule.of(backbone, aggregator, config, 1.7, torch.tensor([0.1, -0.2, 0.0]))
    images, labels = images_of(36)
    return module, TupleLoader((images,), labels, 3, 4, torch.full((CLASSES,), 1 / CLASSES), 0, None)


@pytest.mark.parametrize(
    "make", [lambda: lstm.build(lstm.Config(), shape()), lambda: log_pool.build(log_pool.Config(), shape())]
)
def test_the_joint_module_gives_what_the_features_path_gives(make):
    backbone, aggregator = network().eval(), make().eval()
    correction = torch.tensor([0.3, -0.1, 0.2])
    module = SharedLabelModule.of(backbone, aggregator, JointConfig(), 1.7, correction).eval()
    images, _ = images_of(12)
    index = torch.arange(12).view(4, 3)
    with torch.no_grad():
        posterior = module(images[index])
        embeddings = backbone.embed(images)
        logits = ((backbone.classify(embeddings) + correction) / 1.7).log_softmax(-1)
        expected = aggregator(embeddings[index], logits[index])
    torch.testing.assert_close(posterior, expected)
    torch.testing.assert_close(posterior.exp().sum(-1), torch.ones(4, 3))


def test_joint_training_moves_backbone_and_aggregator_and_lowers_the_loss():
    module, loader = joint()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    fit.fit(module, loader, CPU, 12)
    assert module.losses()[-1] < module.losses()[0]
    unmoved = [name for name, value in module.named_parameters() if torch.equal(value, before[name])]
    assert unmoved == []


@pytest.mark.parametrize("batch_norm", ["frozen", "running"])
def test_batch_norm_statistics_move_only_when_asked(batch_norm):
    module, loader = joint(batch_norm)
    norm = module.backbone.body[1]
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    fit.fit(module, loader, CPU, 12)
    assert torch.equal(norm.running_mean, mean) is (batch_norm == "frozen")
    assert torch.equal(norm.running_var, variance) is (batch_norm == "frozen")


def test_the_joint_loss_is_the_tuple_loss_plus_the_weighted_instance_loss():
    module, loader = joint(instance_loss=0.25)
    module.eval()
    images, labels, weights = next(iter(loader))
    with torch.no_grad():
        _, logits = module.instances(images)
        posterior = module(images)
        expected = 0.0
        for row in range(len(labels)):
            whole = -sum(float(posterior[row, k, labels[row]]) for k in range(3)) / 3
            single = float(nn.functional.cross_entropy(logits[row], labels[row].repeat(3)))
            expected += float(weights[row]) * (whole + 0.25 * single) / len(labels)
        assert float(module.training_step((images, labels, weights))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("set_loss", "distill"), [(1.0, 0.7), (0.4, 0.0), (0.0, 0.7)])
def test_the_weights_of_the_joint_losses(set_loss, distill):
    module, loader = joint(instance_loss=0.25, set_loss=set_loss, distill=distill)
    module.eval()
    images, labels, weights = next(iter(loader))
    teacher = torch.randn(4, 3, CLASSES).log_softmax(-1)
    with torch.no_grad():
        posterior = module(images)
        single = nn.functional.cross_entropy(
            module.instances(images)[1].flatten(0, 1), labels.repeat_interleave(3), reduction="none"
        )
        whole = nn.functional.nll_loss(posterior.flatten(0, 1), labels.repeat_interleave(3), reduction="none")
        apart = torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=teacher), torch.distributions.Categorical(logits=posterior)
        )
        losses = set_loss * whole.view(4, 3) + 0.25 * single.view(4, 3) + distill * apart
        loss = module.training_step((images, *([teacher] if distill else []), labels, weights))
    torch.testing.assert_close(loss, (losses.mean(1) * weights).mean())


def test_a_teacher_that_is_certain_gives_the_likelihood_of_its_label():
    student = torch.randn(5, 2, CLASSES).log_softmax(-1)
    certain = torch.full((5, 2, CLASSES), -math.inf)
    certain[..., 1] = 0
    torch.testing.assert_close(divergence(certain, student), -student[..., 1])
    assert float(divergence(student, student).abs().max()) < 1e-6


def test_without_the_set_loss_the_backbone_learns_from_single_instances_and_the_aggregator_follows():
    module, loader = joint()
    images, labels, weights = next(iter(loader))

    def gradients(loss) -> dict[str, torch.Tensor]:
        slopes = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, materialize_grads=True)
        return dict(zip(dict(module.named_parameters()), slopes, strict=True))

    def of_recipe(set_loss: float) -> dict[str, torch.Tensor]:
        module.instance_loss, module.set_loss = 1.0, set_loss
        return gradients(module.training_step((images, labels, weights)))

    module.eval()
    alone, both = of_recipe(set_loss=0.0), of_recipe(set_loss=1.0)
    logits = module.instances(images)[1].flatten(0, 1)
    losses = nn.functional.cross_entropy(logits, labels.repeat_interleave(3), reduction="none").view(4, 3)
    single = gradients((losses.mean(1) * weights).mean())
    for name in both:
        of_backbone = name.startswith("backbone.")
        torch.testing.assert_close(alone[name], single[name] if of_backbone else both[name])
        assert torch.allclose(alone[name], both[name]) is not of_backbone


def test_no_epochs_train_nothing_and_leave_evaluation_mode():
    images, labels = images_of(8)
    module = BackboneModule.of(network(), TrainConfig(epochs=0))
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    fit.fit(module, ImageLoader(images, labels, torch.arange(8), 8, 0), CPU, 0)
    assert module.losses() == []
    assert not module.backbone.training
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())


def test_options_that_lightning_does_not_know_are_the_users_to_fix():
    with pytest.raises(ConfigError, match="not_an_option"):
        trainer.trainer(TrainerConfig(options={"not_an_option": 1}), 1)


@pytest.mark.parametrize(
    ("module", "recipe", "left"),
    [
        (BackboneModule, TrainConfig(), {"epochs", "batch_size", "balanced"}),
        (AggregatorModule, FitConfig(), {"epochs", "batch_size", "steps", "tuples", "trials"}),
        (SharedLabelModule, JointConfig(), {"epochs", "batch_size", "batches"}),
    ],
)
def test_a_module_takes_what_its_constructor_names_and_leaves_the_rest_to_loaders_and_the_trainer(module, recipe, left):
    recipe = dataclasses.replace(recipe, learning_rate=0.123)
    options = options_of(module, recipe)
    assert vars(recipe).keys() - options.keys() == left
    assert options["learning_rate"] == 0.123


def test_a_module_of_your_own_gets_the_options_of_the_module_that_it_extends():
    class Own(BackboneModule):
        def __init__(self, *parts, **options):
            super().__init__(*parts, **options)

    assert Own.of(network(), TrainConfig(momentum=0.7, final_rate=0.2)).hparams["momentum"] == 0.7


@pytest.mark.filterwarnings("ignore")
def test_a_module_of_your_own_is_loaded_with_its_own_options(tmp_path):
    class Own(BackboneModule):
        def __init__(self, backbone, extra, **options):
            super().__init__(backbone, **options)
            self.extra = extra

    images, labels = images_of(32)
    module = Own(network(), extra=3, momentum=0.7)
    made = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    made.fit(module, ImageLoader(images, labels, torch.arange(32), 8, 0))
    made.save_checkpoint(tmp_path / "own.ckpt")
    again = Own.load_from_checkpoint(tmp_path / "own.ckpt", backbone=network(), weights_only=True)
    assert (again.extra, again.hparams["momentum"]) == (3, 0.7)


@pytest.mark.parametrize(
    ("accelerator", "given"), [("cpu", ("cpu", 1)), ("cuda", ("cuda", 1)), ("cuda:1", ("cuda", "1,"))]
)
def test_what_is_small_is_trained_on_one_device_perhaps_of_a_number(monkeypatch, accelerator, given) -> None:
    asked = {}

    class Asked(trainer.pl.Trainer):
        def __init__(self, **options: object) -> None:
            asked.update(options)

    monkeypatch.setattr(trainer.pl, "Trainer", Asked)
    trainer.trainer(TrainerConfig(accelerator=accelerator, devices=4), 1, small=True)
    assert (asked["accelerator"], asked["devices"], asked["strategy"]) == (*given, "auto")
    trainer.trainer(TrainerConfig(accelerator=accelerator, devices=4), 1)
    assert (asked["accelerator"], asked["devices"], type(asked["strategy"])) == (accelerator, 4, Ranks)
    trainer.trainer(TrainerConfig(accelerator=accelerator, devices=4, strategy="ddp_spawn"), 1)
    assert asked["strategy"] == "ddp_spawn"
