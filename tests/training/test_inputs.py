"""What real images need: normalisation, augmentation by name, balanced classes, mixed images, averaged weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone, Normalize
from sharedlabel.config import Experiment
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.errors import ConfigError
from sharedlabel.files.unfinished import Unfinished
from sharedlabel.grid import checks
from sharedlabel.scoring.data import Data
from sharedlabel.stages import dense
from sharedlabel.training import augmenting, batched, compression, resume
from sharedlabel.training.averaging import Average
from sharedlabel.training.loaders import ImageLoader
from sharedlabel.training.modules import BackboneModule
from sharedlabel.types import Dataset

CPU = TrainerConfig(accelerator="cpu")
SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def data() -> Data:
    """Noise, with one class six times as large as the other."""
    labels = (torch.arange(140) % 7 == 0).long()
    images = torch.randint(0, 150, (140, *SHAPE), generator=rng.generator(0, "images"), dtype=torch.uint8)
    images[labels == 1, 0] += 60
    dataset = Dataset("noise", images, labels, ("a", "b"), None, None, "")
    parts = torch.arange(140).split([98, 14, 14, 14])
    split = dict(zip(("backbone", "aggregator", "validation", "test"), parts, strict=True))
    return Data(dataset, split, tuples.prior(labels, "uniform", 2), "key")


def trained(data: Data, build: Any = None, **options: Any) -> tuple[Backbone, list[float]]:
    with rng.seeded(0, "network"):
        network = (build or (lambda: mlp.build(mlp.Config(widths=(16,)), SHAPE, 2)))()
        losses = compression.train(network, TrainConfig(epochs=3, batch_size=14, **options), data, CPU, 1)
    return network, losses


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def test_an_image_normalised_by_itself_has_no_brightness_and_no_contrast() -> None:
    images = torch.rand(5, *SHAPE, generator=rng.generator(1))
    normalize = Normalize(3, "image")
    made = normalize(images)
    torch.testing.assert_close(made.mean((1, 2, 3)), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(made.std((1, 2, 3), correction=0), torch.ones(5))
    torch.testing.assert_close(normalize(0.3 * images + 0.2), made, atol=1e-4, rtol=1e-4)
    assert torch.equal(normalize(torch.full((1, *SHAPE), 0.7)), torch.zeros(1, *SHAPE))  # of one value only
    whole = (images * 255).to(torch.uint8)
    torch.testing.assert_close(normalize(whole), normalize(whole / 255))


def test_statistics_of_the_data_are_not_asked_for_where_images_have_their_own(data: Data) -> None:
    from sharedlabel.config import resolve

    spec = {"name": "resnet_cifar", "depth": 8, "width": 4}
    both = (resolve("backbones", {**spec, **more}) for more in ({}, {"normalize": "image"}))
    usual, own = (compression.initial(one, data) for one in both)
    assert not torch.equal(usual.normalize.mean, torch.zeros(3))
    assert torch.equal(own.normalize.mean, torch.zeros(3))
    assert own.normalize.by == "image"


def test_each_image_of_a_batch_is_augmented_on_its_own() -> None:
    image = torch.randint(0, 256, SHAPE, generator=rng.generator(2), dtype=torch.uint8)
    augment = augmenting.transform(
        [{"name": "RandomAffine", "degrees": 40, "translate": [0.2, 0.2]}, "RandomHorizontalFlip"]
    )
    assert augment is not None
    with rng.seeded(0, "augment"):
        first = augment(image.expand(6, *SHAPE))
    with rng.seeded(0, "augment"):
        again = augment(image.expand(6, *SHAPE))
    assert torch.equal(first, again)
    assert len({tuple(one.flatten().tolist()) for one in first}) == 6
    assert augmenting.transform([]) is None


def test_transforms_hold_others_and_interpolate_by_name() -> None:
    inner = [{"name": "RandomRotation", "degrees": [90, 90], "interpolation": "bilinear"}]
    augment = augmenting.transform([{"name": "RandomApply", "transforms": inner, "p": 1.0}])
    assert augment is not None
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    assert torch.equal(augment(image), image.rot90(1, (2, 3)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "RandomHorisontalFlip",
            r"dense.augment\[0\]: unknown .* 'RandomHorisontalFlip' .* 'RandomHorizontalFlip'",
        ),
        ({"name": "ColorJitter", "brigthness": 1}, r"ColorJitter: unknown option 'brigthness'; .*'brightness'"),
        ({"name": "ColorJitter", "brightness": -1}, r"ColorJitter: .*; see torchvision.transforms.v2.ColorJitter"),
        ({"name": "Resize", "size": 4}, r"from Resize, got torch.uint8 \[3, 4, 4\]; choose options that keep size"),
        ({"name": "ToDtype", "dtype": "float32"}, r"dense.augment\[0\]: "),
        ({"name": "RandomRotation", "degrees": 30, "expand": True}, "keep size and type"),
        ("MixUp", "transforms of one image, got MixUp, which mixes those of a batch; use mixup"),
        ({"name": "RandomRotation", "degrees": 3, "interpolation": "linear"}, "unknown interpolation 'linear'"),
        ({"name": ["a"]}, "expected a transform by its name"),
        (
            {"name": "RandomApply", "transforms": "RandomCrop"},
            "a list of transforms, got 'RandomCrop'; write",
        ),
        ({"degrees": 3}, "expected a transform by its name, or a mapping with 'name', got"),
    ],
)
def test_transforms_that_do_not_work_are_refused_before_a_training(spec: Any, message: str, data: Data) -> None:
    experiment = Experiment(dense=TrainConfig(augment=(spec,)))
    before = torch.get_rng_state()
    with pytest.raises(ConfigError, match=message):
        checks.check_augmentation(experiment, data.dataset)
    assert torch.equal(before, torch.get_rng_state())


def test_balanced_batches_hold_every_class_as_often(data: Data) -> None:
    rows = data.splits["backbone"]
    loader = ImageLoader(data.dataset.images, data.dataset.labels, rows, 14, 0, balanced=True)
    drawn = torch.cat([labels for _ in range(40) for _, labels in loader])
    assert len(loader) == len(rows) // 14
    assert float(drawn.float().mean()) == pytest.approx(0.5, abs=0.03)
    usual = torch.cat([labels for _, labels in ImageLoader(data.dataset.images, data.dataset.labels, rows, 14, 0)])
    assert float(usual.float().mean()) == pytest.approx(1 / 7, abs=0.01)


@pytest.mark.parametrize(
    "options", [{"augment": ("RandomHorizontalFlip",)}, {"mixup": 0.4}, {"ema": 0.9}, {"balanced": True}]
)
def test_each_option_changes_what_is_learned_and_a_seed_repeats_it(data: Data, options: dict[str, Any]) -> None:
    usual, (first, losses), (again, _) = trained(data)[0], trained(data, **options), trained(data, **options)
    assert all(torch.equal(one, state(again)[name]) for name, one in state(first).items())
    assert any(not torch.equal(one, state(first)[name]) for name, one in state(usual).items())
    assert losses[-1] < losses[0]


def test_averaged_weights_are_the_moving_average_of_all_steps(data: Data) -> None:
    def build() -> Backbone:
        return resnet_cifar.build(resnet_cifar.Config(depth=8, width=4), SHAPE, 2)

    seen: list[dict[str, Tensor]] = []

    class Watch:
        def __call__(self, backbone: nn.Module, share: float) -> None:
            seen.append({name: value.clone() for name, value in state(backbone).items()})

        def state(self, backbone: nn.Module) -> dict[str, Any]:
            return {}

        def restore(self, backbone: nn.Module, state: dict[str, Any]) -> None:
            return None

    decay, recipe = 0.8, TrainConfig(epochs=2, batch_size=14, ema=0.8)
    with rng.seeded(0, "network"):
        network = build()
        compression.train(network, recipe, data, CPU, 1, after_step=Watch())
    averaged = seen[0]
    for at, step in enumerate(seen[1:], start=1):
        kept = min(decay, (1 + at) / (10 + at))
        averaged = {name: kept * averaged[name] + (1 - kept) * value for name, value in step.items()}
    for name, value in state(network).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, averaged[name].to(value.dtype), atol=1e-5, rtol=1e-5)


def test_masks_are_not_averaged_and_what_is_pruned_meanwhile_stays_pruned(data: Data) -> None:
    from sharedlabel.config import resolve

    plugin = resolve("pruners", {"name": "magnitude", "schedule": {"when": "gradual", "steps": 4}})
    recipe = TrainConfig(epochs=4, batch_size=14, ema=0.9)
    with rng.seeded(0, "network"):
        dense_network = compression.initial(resolve("backbones", {"name": "mlp", "widths": [32, 16]}), data)
        training = compression.BackboneTrainer(data, CPU, recipe, recipe, 0)
        _, pruned, _ = compression.compress(dense_network, 4.0, plugin, training, None)
    masks = {name: value for name, value in state(pruned).items() if name.endswith("_mask")}
    assert masks
    for name, mask in masks.items():
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        weights = state(pruned)[name.removesuffix("_mask")]
        assert bool((weights[mask == 0] == 0).all())


def test_an_average_moves_in_half_precision() -> None:
    layer = nn.Linear(2, 2).to(torch.bfloat16)
    average = Average(0.999)
    nn.init.constant_(layer.weight, 1.0)
    average.add(layer)
    nn.init.constant_(layer.weight, 1.5)
    for _ in range(3_000):
        average.add(layer)
    average.give(layer)
    assert layer.weight.dtype == torch.bfloat16
    assert float(layer.weight.detach().min()) > 1.45


def test_an_averaged_training_goes_on_where_it_was_killed(data: Data, tmp_path: Any, monkeypatch: Any) -> None:
    whole, losses = trained(data, ema=0.9, mixup=0.3, augment=("RandomHorizontalFlip",))
    steps = BackboneModule.on_train_epoch_end
    count = 0

    def dies(module: Any) -> None:
        nonlocal count
        steps(module)
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    unfinished = Unfinished(tmp_path / "unfinished", tmp_path / "partial")
    (tmp_path / "partial").mkdir()
    from sharedlabel.training.backbone import BackboneTraining

    monkeypatch.setattr(BackboneTraining, "on_train_epoch_end", dies)
    with resume.at(resume.Workplace(unfinished, 0.0, tmp_path)), pytest.raises(KeyboardInterrupt):
        trained(data, ema=0.9, mixup=0.3, augment=("RandomHorizontalFlip",))
    monkeypatch.undo()
    with resume.at(resume.Workplace(unfinished, 0.0, tmp_path)):
        again, told = trained(data, ema=0.9, mixup=0.3, augment=("RandomHorizontalFlip",))
    assert told == losses
    assert all(torch.equal(value, state(again)[name]) for name, value in state(whole).items())


def test_mixed_images_and_losses_are_mixed_in_one_share(data: Data) -> None:
    class Seen(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            self.images = images
            return torch.zeros(len(images), 2, requires_grad=True) + images.mean((1, 2, 3))[:, None]

    network = Seen()
    module = BackboneModule(network, mixup=0.5)
    images = torch.randint(0, 256, (6, *SHAPE), generator=rng.generator(3), dtype=torch.uint8)
    with rng.seeded(0, "mix"):
        module.training_step((images, torch.tensor([0, 1, 0, 1, 0, 1])))
    with rng.seeded(0, "mix"):
        share = float(torch.distributions.Beta(0.5, 0.5).sample())
        others = torch.randperm(6)
    torch.testing.assert_close(network.images, share * images / 255 + (1 - share) * images[others] / 255)


def test_networks_whose_recipe_draws_on_its_own_are_trained_one_at_a_time() -> None:
    runtime = TrainerConfig(accelerator="cpu", networks=4)
    for options, alone in (({}, False), ({"balanced": True}, False), ({"mixup": 0.1}, True), ({"ema": 0.9}, True)):
        recipe = TrainConfig(**options)  # type: ignore[arg-type]
        assert batched.alone(recipe) == alone
        from sharedlabel.config import resolve

        config = dense.Config(resolve("backbones", "mlp"), recipe, "32-true", 0)
        assert (dense.together(config, runtime) is None) == alone
    assert copy.copy(recipe) == recipe
