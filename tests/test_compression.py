"""Schedules: what is pruned when, and that nothing else differs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel import rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Experiment, Plugin, resolve
from sharedlabel.config.sections import Schedule, SplitConfig, TrainConfig, TrainerConfig
from sharedlabel.data import splits, tuples
from sharedlabel.errors import CompressionError, ConfigError, SharedLabelError
from sharedlabel.grid import prepare
from sharedlabel.measurements import counts
from sharedlabel.plugins import load
from sharedlabel.pruners import _methods
from sharedlabel.pruners._masks import masked, removed
from sharedlabel.records import NetworkCosts
from sharedlabel.scoring.data import Data, data_key
from sharedlabel.stages import dense, early, prune
from sharedlabel.stages._restore import stored_backbone
from sharedlabel.store import Artifact, Store
from sharedlabel.training import compression
from sharedlabel.training.modules import BackboneModule

SPLIT = SplitConfig(limit=40)
TRAIN = TrainConfig(epochs=2, batch_size=32)
RUNTIME = TrainerConfig(accelerator="cpu")
MLP = {"name": "mlp", "widths": [24, 16]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    digits = load("data", "digits")
    dataset = digits.load(digits.Config(), tmp_path_factory.mktemp("digits"))
    split = splits.split(dataset, SPLIT)
    prior = tuples.prior(dataset.labels, "uniform", dataset.num_classes)
    return Data(dataset, split, prior, data_key(dataset, split, {}))


@pytest.fixture
def training(data: Data) -> compression.BackboneTrainer:
    return compression.BackboneTrainer(data, RUNTIME, TRAIN, TRAIN, seed=3)


def backbone(data: Data) -> Backbone:
    with rng.seeded(0, "dense"):
        return compression.initial(resolve("backbones", MLP), data)


def pruner(schedule: Any, name: str = "magnitude") -> Plugin:
    return resolve("pruners", {"name": name, "schedule": schedule})


def weights(network: Backbone) -> Float[Tensor, "w"]:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def left(network: Backbone) -> int:
    return sum(parameter.numel() for parameter in network.parameters()) - removed(network)


def test_part_of_the_training_is_a_beginning_of_the_whole(data: Data) -> None:
    """The point that rewinding goes back to lies on the path of the dense training."""
    recipe = resolve("backbones", MLP)
    beginning = early.run(early.Config(recipe, TRAIN, "32-true", 0, 0.5), data, {}, RUNTIME)
    whole = TrainConfig(**{**vars(TRAIN), "schedule": "constant", "warmup": 0.0})
    half = TrainConfig(**{**vars(whole), "epochs": 1})
    networks = [backbone(data), backbone(data)]
    compression.train(networks[0], whole, data, RUNTIME, 7, (0.0, 0.5))
    compression.train(networks[1], half, data, RUNTIME, 7)
    assert torch.equal(weights(networks[0]), weights(networks[1]))
    trained = dense.run(dense.Config(recipe, TRAIN, "32-true", 0), data, {}, RUNTIME)
    assert beginning.meta["losses"] == trained.meta["losses"][:1]


def test_the_rest_of_the_training_starts_within_its_learning_rates(data: Data) -> None:
    network = backbone(data)
    module = BackboneModule.of(network, TRAIN, span=(0.5, 1.0))
    whole = BackboneModule.of(network, TRAIN)
    assert [module.scale(step, 20) for step in range(10)] == [whole.scale(step, 20) for step in range(10, 20)]


@pytest.mark.parametrize("span", [(0.0, 0.5), (0.25, 1.0), (0.3, 0.6), (0.0, 1.0)])
def test_a_part_of_the_training_ends_where_it_is_said_to(data: Data, span: tuple[float, float]) -> None:
    shares: list[float] = []

    class Watch:
        def __call__(self, network: Any, share: float) -> None:
            shares.append(share)

        def state(self, network: Any) -> dict[str, Any]:
            return {}

        def restore(self, network: Any, state: dict[str, Any]) -> None:
            pass

    compression.train(backbone(data), TRAIN, data, RUNTIME, 0, span, Watch())
    step = shares[1] - shares[0]
    assert shares[0] - step == pytest.approx(span[0], abs=step / 2)
    assert shares[-1] == pytest.approx(span[1], abs=step / 2)


def test_nothing_is_trained_where_nothing_requires_a_gradient(data: Data) -> None:
    network = backbone(data).requires_grad_(False)
    before = weights(network)
    assert compression.train(network, TRAIN, data, RUNTIME, 0) == []
    assert torch.equal(weights(network), before)
    assert compression.train(backbone(data), TRAIN, data, RUNTIME, 0, (0.0, 0.0)) == []


def test_pruned_after_training(training: compression.BackboneTrainer) -> None:
    start = backbone(training.data)
    pruned, trained, losses = compression.compress(start, 4.0, pruner("trained"), training, None)
    assert left(pruned) == left(trained) == round(left(start) / 4)
    assert len(losses) == TRAIN.epochs
    assert all(
        torch.equal(mask, other) for (_, _, mask), (_, _, other) in zip(masked(pruned), masked(trained), strict=True)
    )
    kept = torch.cat([(weight != 0).flatten() for _, weight, _ in masked(pruned)])
    assert torch.equal(weights(pruned)[weights(pruned) != 0], weights(start)[weights(pruned) != 0])
    assert not torch.equal(weights(pruned), weights(trained))
    assert int(kept.sum()) == left(pruned) - sum(
        p.numel() for n, p in start.named_parameters() if not n.startswith("body") or n.endswith("bias")
    )


def test_pruned_at_initialisation_gets_both_trainings(training: compression.BackboneTrainer) -> None:
    _, trained, losses = compression.compress(backbone(training.data), 4.0, pruner("initial"), training, None)
    assert len(losses) == 2 * TRAIN.epochs
    assert compression.epochs(pruner("initial"), TRAIN, TRAIN) == 2 * TRAIN.epochs
    assert all(not weight[mask == 0].any() for _, weight, mask in masked(trained))


def test_rewinding_sets_survivors_back_to_the_early_values(training: compression.BackboneTrainer) -> None:
    start, early = backbone(training.data), backbone(training.data)
    compression.train(start, TRAIN, training.data, RUNTIME, 0)
    plugin = pruner({"when": "iterative", "growth": 2.0, "rewind": 0.25})
    pruned, _, losses = compression.compress(start, 2.0, plugin, training, early.state_dict())
    reference, _, _ = compression.compress(start, 2.0, pruner("trained"), training, None)
    for (_, weight, mask), (name, _, chosen) in zip(masked(pruned), masked(reference), strict=True):
        assert torch.equal(mask, chosen)
        assert torch.equal(weight, early.get_submodule(name).weight * mask)
    assert len(losses) == TRAIN.epochs + 2  # the second epoch in full, the first one from a quarter of all steps on


@pytest.mark.parametrize("schedule", ["trained", "initial", "iterative"])
def test_what_a_pruner_trains_is_counted(training: compression.BackboneTrainer, schedule: str) -> None:
    """Edge-popup trains scores as the dense network is trained and retrained; nothing is left to train after it."""
    trained: list[int] = []
    count = compression.train

    def counting(network: Backbone, recipe: TrainConfig, *others: Any, **options: Any) -> list[float]:
        losses = count(network, recipe, *others, **options)
        trained.append(len(losses))
        return losses

    plugin = pruner(schedule, "edge_popup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "train", counting)
        compression.compress(backbone(training.data), 2.0, plugin, training, None)
    assert compression.epochs(plugin, training.dense, training.retrain) == sum(trained) == 2 * TRAIN.epochs


@pytest.mark.parametrize(
    ("ratio", "growth", "reached"), [(8.0, 2.0, (2.0, 4.0, 8.0)), (3.0, 2.0, (2.0, 3.0)), (1.2, 2.0, (1.2,))]
)
def test_rounds_grow_by_a_factor_and_end_at_the_ratio(ratio: float, growth: float, reached: tuple[float, ...]) -> None:
    assert compression.rounds(ratio, Schedule("iterative", growth=growth)) == reached
    assert compression.rounds(ratio, Schedule("gradual")) == (ratio,)


def test_rounds_are_shared_between_ratios(tmp_path: Path) -> None:
    """The network of 8x is pruned from that of 4x, which the grid has anyway."""
    experiment = Experiment(
        backbones=(MLP,),
        pruners=({"name": "lottery_ticket", "schedule": {"growth": 2.0}},),
        ratios=(1.0, 2.0, 4.0, 8.0),
        aggregators=("mean_vote",),
        output=str(tmp_path),
    )
    calls = {node.key: node for cell in prepare(experiment).cells for node in cell.pruned.chain()}
    assert sorted(node.config.ratio for node in calls.values() if node.stage == "prune") == [1.0, 2.0, 4.0, 8.0]
    assert sum(node.stage == "early" for node in calls.values()) == 1


def costs(recipe: Plugin, original: Artifact, pruned: Artifact) -> NetworkCosts:
    networks = (stored_backbone(recipe, (1, 8, 8), 10, artifact) for artifact in (original, pruned))
    return counts.costs(*networks, (1, 8, 8))


def test_iterative_rounds_reach_the_ratio_of_the_dense_network(data: Data, tmp_path: Path) -> None:
    """Also where every round leaves a physically smaller network."""
    store = Store(tmp_path)
    recipe = resolve("backbones", MLP)
    trained = dense.run(dense.Config(recipe, TRAIN, "32-true", 0), data, {}, RUNTIME)
    for name in ("magnitude", "unit"):
        plugin = pruner({"when": "iterative", "growth": 2.0}, name)
        original = store.save("dense", f"dense{name}", trained, {}, 0.0)
        inputs = {"dense": original}
        for ratio in (2.0, 4.0):
            config = prune.Config(recipe, plugin, ratio, TRAIN, TRAIN, "32-true", 0)
            pruned = prune.run(config, data, inputs, RUNTIME)
            previous = store.save("prune", f"{name}{ratio:g}", pruned, {}, 0.0)
            inputs = {"dense": original, "previous": previous}
        assert costs(recipe, original, previous).achieved_ratio == pytest.approx(
            4.0, rel=0.04 if name == "unit" else 1e-3
        )
        assert pruned.meta["training_epochs"] == 3 * TRAIN.epochs


def test_rounds_smaller_than_a_channel_only_retrain(data: Data, tmp_path: Path) -> None:
    """A round may end below its parameter count by a part of a channel, and so below the next round's."""
    store, short = Store(tmp_path), TrainConfig(epochs=0)
    recipe = resolve("backbones", {"name": "mlp", "widths": [6, 4]})
    plugin = pruner({"when": "iterative", "growth": 1.05}, "unit")
    trained = dense.run(dense.Config(recipe, short, "32-true", 0), data, {}, RUNTIME)
    inputs = {"dense": store.save("dense", "dense", trained, {}, 0.0)}
    network = stored_backbone(recipe, (1, 8, 8), 10, inputs["dense"])
    ceiling = _methods.ceiling(load("pruners", "unit"), network, plugin.config)
    left = []
    for ratio in compression.rounds(ceiling, plugin.schedule or Schedule()):
        config = prune.Config(recipe, plugin, ratio, short, short, "32-true", 0)
        pruned = prune.run(config, data, inputs, RUNTIME)
        inputs = {**inputs, "previous": store.save("prune", f"{ratio:.6g}", pruned, {}, 0.0)}
        left.append(costs(recipe, inputs["dense"], inputs["previous"]).parameters)
    assert any(after == before for before, after in itertools.pairwise(left))
    assert all(after <= before for before, after in itertools.pairwise(left))
    assert costs(recipe, inputs["dense"], inputs["previous"]).achieved_ratio == ceiling


def test_gradual_sparsity_follows_the_cubic_curve_and_ends_at_the_ratio(
    training: compression.BackboneTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = backbone(training.data)
    seen: list[tuple[float, int]] = []
    again = compression._GradualPruning.__call__

    def spy(self: Any, network: Backbone, share: float) -> None:
        again(self, network, share)
        seen.append((share, removed(network)))

    monkeypatch.setattr(compression._GradualPruning, "__call__", spy)
    plugin = pruner({"when": "gradual", "steps": 4, "until": 0.5})
    before, trained, _ = compression.compress(start, 4.0, plugin, training, None)
    total = left(start)
    assert removed(before) == 0
    assert left(trained) == round(total / 4)
    at = {due: max(count for share, count in seen if int(8 * share + 1e-9) == due) for due in (1, 2, 3)}
    for due, count in at.items():
        assert count == pytest.approx(0.75 * total * (1 - (1 - due / 4) ** 3), abs=1)
    assert all(less <= more for (_, less), (_, more) in itertools.pairwise(seen))
    assert {count for share, count in seen if share >= 0.5} == {removed(trained)}


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"when": "sometimes"}, "sometimes"),
        ("initial2", "initial2"),
        (3, "expected a word or a mapping, got 3"),
        ({"when": "iterative", "growth": 1.0}, "growth: expected a number of at least 1.01, got 1"),
        ({"when": "iterative", "rewind": 1.0}, "rewind"),
        ({"when": "gradual", "until": 0.0}, "until: expected a number above 0 and at most 1, got 0"),
        ({"when": "gradual", "steps": 0}, "steps"),
        ({"growth": 2.0}, "'growth' has no effect when the network is pruned 'trained'"),
        ({"when": "initial", "rewind": 0.1}, "'rewind' has no effect"),
        ({"when": "initial", "epochs": 3}, "epochs"),
    ],
)
def test_schedules_that_cannot_be_are_refused(schedule: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pruner(schedule)


@pytest.mark.parametrize(
    ("plugin", "retrain", "message"),
    [
        (("unit", "gradual"), 2, "got gradual, which needs weights"),
        (("unit", {"when": "iterative", "rewind": 0.0}), 2, "got iterative with rewinding"),
        (("magnitude", "gradual"), 0, "retrain.epochs=0"),
        (("butterfly", "iterative"), 2, "expected a schedule that prunes once, got iterative: this pruner cannot"),
        (("butterfly", "gradual"), 2, "expected a schedule that prunes once, got gradual: this pruner cannot"),
        (("edge_popup", "gradual"), 2, "expected a schedule for a pruner that trains, got gradual: it would"),
        (
            ("edge_popup", {"when": "iterative", "rewind": 0.5}),
            2,
            "that trains, got iterative with rewinding: it would",
        ),
    ],
)
def test_schedules_that_a_pruner_cannot_follow_are_refused_before_training(
    plugin: tuple[str, Any], retrain: int, message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        compression.check_schedule(pruner(plugin[1], plugin[0]), TrainConfig(epochs=retrain))
    experiment = Experiment(pruners=({"name": plugin[0], "schedule": plugin[1]},), retrain=TrainConfig(epochs=retrain))
    with pytest.raises(SharedLabelError, match=message):
        prepare(experiment)


def test_schedules_show_in_labels_and_keys() -> None:
    assert pruner("initial").label == "magnitude(when=initial)"
    assert pruner({"when": "trained"}).label == "magnitude"
    assert pruner("initial").payload() != pruner("trained").payload()
    ticket = pruner({"growth": 2.0}, "lottery_ticket")
    assert (ticket.schedule, ticket.label) == (Schedule("iterative", 2.0, 0.0), "lottery_ticket(growth=2.0)")
    assert pruner("trained", "lottery_ticket").schedule == Schedule()


@pytest.mark.parametrize("shape", [(300, 3, 5, 4), (7, 1, 1, 1), (1, 2, 1, 2), (1, 1, 1, 1)])
def test_statistics_of_bytes_are_those_of_all_pixels(shape):
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = compression._of_bytes(images.split(256))
    scaled = images.double() / 255
    torch.testing.assert_close(mean, scaled.mean((0, 2, 3)), rtol=1e-12, atol=0)
    pixels = scaled.transpose(0, 1).flatten(1)
    expected = pixels.std(1) if pixels.shape[1] > 1 else torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(std, expected, rtol=1e-12, atol=1e-15)
