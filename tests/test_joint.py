"""Joint training of networks whose embedding units hardly vary: what the aggregator reads must not jump."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators import deep_sets
from sharedlabel.aggregators._base import Aggregator, Standardize, statistics
from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import JointConfig, TrainerConfig
from sharedlabel.logs import log_normalize
from sharedlabel.training import fit, modules
from sharedlabel.training.loaders import TupleLoader
from sharedlabel.types import SetShape

CLASSES, PIXELS, UNITS, LIVE, N = 4, 8, 12, 3, 4
EACH = 60


def images_of() -> tuple[Tensor, Tensor]:
    """Noisy images of classes that lie apart."""
    stream = rng.generator(0, "joint")
    labels = torch.arange(EACH * CLASSES) % CLASSES
    means = 100 + 40 * torch.randn(CLASSES, PIXELS, generator=stream)
    noisy = means[labels] + 40 * torch.randn(len(labels), PIXELS, generator=stream)
    return noisy.clamp(0, 255).to(torch.uint8).view(-1, 1, 1, PIXELS), labels


def network() -> Backbone:
    """A perceptron of which pruning left three embedding units; the others are constant, but have a gradient."""
    hidden = nn.Linear(PIXELS, UNITS)
    with torch.no_grad():
        hidden.weight[LIVE:] = 0
        hidden.bias.fill_(0.5)
    return Backbone(nn.Sequential(nn.Flatten(), hidden, nn.ReLU()), nn.Linear(UNITS, CLASSES), (1, 1, PIXELS))


def tuples_of(images: Tensor, labels: Tensor, batch: int = 8) -> TupleLoader:
    return TupleLoader((images,), labels, N, batch, torch.full((CLASSES,), 1 / CLASSES), 0, None)


def accuracy(module: modules.SharedLabelModule, images: Tensor, labels: Tensor) -> float:
    index = labels.argsort(stable=True).view(-1, N)
    with torch.no_grad():
        return float((module.eval()(images[index])[:, -1].argmax(1) == labels[index[:, 0]]).double().mean())


def trained(backbone: Backbone, images: Tensor, labels: Tensor) -> Aggregator:
    """Fit an aggregator to the frozen network, standardised as the stage `calibrate` does it."""
    with torch.no_grad():
        embeddings = backbone.embed(images)
        logits = backbone.classify(embeddings)
    shape = SetShape(*statistics(embeddings), torch.full((CLASSES,), 1 / CLASSES).log())
    aggregator = deep_sets.build(deep_sets.Config(), shape)
    optimizer = torch.optim.Adam(aggregator.parameters(), 0.01)
    for _ in range(10):
        for indices, targets, _ in tuples_of(torch.arange(len(labels)), labels):
            posterior = aggregator(embeddings[indices], log_normalize(logits)[indices])
            loss = nn.functional.nll_loss(posterior.flatten(0, 1), targets.repeat_interleave(N))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return aggregator


def test_joint_training_keeps_what_an_aggregator_knows_of_a_network_with_dead_units() -> None:
    """With a scale of 1e-6 for constant units, the first steps moved each by more than ten deviations."""
    images, labels = images_of()
    with rng.seeded(0, "joint"):
        backbone = network()
        aggregator = trained(backbone, images, labels)
        module = modules.SharedLabelModule.of(backbone, aggregator, JointConfig(epochs=1), 1.0, torch.zeros(CLASSES))
        before = accuracy(module, images, labels)
        fit.fit(module, tuples_of(images, labels, 16), TrainerConfig(accelerator="cpu"), 1)
    assert before > 0.6
    assert accuracy(module, images, labels) > before - 0.05


def test_units_that_hardly_vary_get_the_scale_of_the_layer() -> None:
    stream = rng.generator(0, "units")
    sizes = torch.tensor([2.0, 2.0, 0.1, 1e-3, 0.0, 0.0, 0.0, 0.0])
    embeddings = 3 + sizes * torch.randn(500, len(sizes), generator=stream)
    mean, scale = statistics(embeddings)
    deviation = embeddings.std(dim=0)
    assert mean.tolist() == pytest.approx([3] * len(sizes), abs=0.3)
    assert torch.equal(scale[:3], deviation[:3])
    assert scale[3:].tolist() == pytest.approx([2] * 5, rel=0.1)  # as many dead units as there may be
    for factor in (1e-3, 1e3):
        torch.testing.assert_close(statistics(factor * embeddings)[1], factor * scale)
    _, nothing = statistics(torch.full((5, 3), 7.0))
    assert nothing.tolist() == [1, 1, 1]
    moved = Standardize(SetShape(mean, scale, torch.zeros(2)))((embeddings + 0.003)[None])
    still = Standardize(SetShape(mean, scale, torch.zeros(2)))(embeddings[None])
    assert float((moved - still).abs().max()) < 0.04
