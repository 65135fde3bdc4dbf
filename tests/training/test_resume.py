"""A training that is killed goes on from its last epoch, with the numbers that it would have had, bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators import lstm
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Plugin, resolve
from sharedlabel.config.sections import FitConfig, JointConfig, Schedule, TrainConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.files import together
from sharedlabel.files.unfinished import KEPT, Unfinished
from sharedlabel.pruners import _methods, magnitude
from sharedlabel.pruners._base import Context
from sharedlabel.scoring.data import Data
from sharedlabel.store import Output, Store
from sharedlabel.training import base, compression, fit, keeping, resume, search, trainer
from sharedlabel.training.loaders import TupleLoader
from sharedlabel.training.modules import SharedLabelModule
from sharedlabel.training.resume import Workplace
from sharedlabel.types import Dataset, SetShape

CPU = TrainerConfig(accelerator="cpu")
WATCHED = dataclasses.replace(CPU, logger="csv")
CLASSES, WIDTH, N = 3, 4, 3
RECIPE = TrainConfig(epochs=4, batch_size=8, crop=1, flip=True)
Numbers = tuple[dict[str, Tensor], Any]


class Killed(BaseException):
    """What no code catches."""


def data() -> Data:
    """Images whose class shows in their brightness."""
    labels = torch.arange(72) % CLASSES
    noise = torch.randint(0, 120, (72, 1, 4, 4), generator=rng.generator(0, "images"))
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    dataset = Dataset("noise", images, labels, ("a", "b", "c"), None, None, "")
    parts = torch.arange(72).split([36, 12, 12, 12])
    split = dict(zip(("backbone", "aggregator", "validation", "test"), parts, strict=True))
    return Data(dataset, split, tuples.prior(labels, "uniform", CLASSES), "key")


def network() -> Backbone:
    """A network with statistics and dropout, which draws from the global stream."""
    body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1))
    return Backbone(body, nn.Linear(6, CLASSES), (1, 4, 4))


def dense(runtime: TrainerConfig = CPU) -> Numbers:
    recipe = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=0.05)
    with rng.seeded(0, "dense"):
        backbone = network()
        losses = compression.train(backbone, recipe, data(), runtime, 5)
    return backbone.state_dict(), losses


def wide() -> Numbers:
    """Weights of 64 bits, of which a state that was rounded on the way would lose some."""
    with rng.seeded(0, "dense"):
        backbone = network()
        losses = compression.train(backbone, RECIPE, data(), dataclasses.replace(CPU, precision="64-true"), 5)
    return backbone.state_dict(), losses


def pruned(pruner: Plugin) -> Numbers:
    training = compression.BackboneTrainer(data(), CPU, RECIPE, RECIPE, seed=3)
    with rng.seeded(0, "dense"):
        start = network()
        _, trained, losses = compression.compress(start, 2.0, pruner, training, None)
    return trained.state_dict(), losses


def gradual() -> Numbers:
    return pruned(resolve("pruners", {"name": "magnitude", "schedule": {"when": "gradual", "steps": 6, "until": 0.8}}))


def twice() -> Numbers:
    return pruned(resolve("pruners", {"name": "magnitude", "schedule": "initial"}))


def scores() -> Numbers:
    """Three trainings: edge-popup trains scores twice, then there is nothing left to train."""
    return pruned(resolve("pruners", "edge_popup"))


def searched() -> Numbers:
    """Two trials of an aggregator with dropout, each stopped early and set back to its best epoch."""
    draw, labels = rng.generator(0, "features"), torch.arange(90) % CLASSES
    features = nn.functional.one_hot(labels, WIDTH).float() + torch.randn(90, WIDTH, generator=draw)
    logits, prior = torch.randn(90, CLASSES, generator=draw), torch.full((CLASSES,), 1 / CLASSES)

    def drawn(salt: str) -> Any:
        parts = tuples.partition(labels, N, 1, prior, rng.generator(0, salt))
        index = parts.indices[0]
        return features[index], logits[index], parts.labels[0], torch.ones(len(index))

    task = search.Task(
        shape=SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), prior.log()),
        direct=drawn("fit"),
        loader=lambda: TupleLoader((features, logits), labels, N, 6, prior, 0, None),
        stopping=lambda: drawn("stopping"),
        gradient_clip=1.0,
        seed=0,
        runtime=CPU,
    )
    plugin = resolve("aggregators", {"name": "lstm", "hidden": 8, "dropout": 0.3})
    fitted = search.best(plugin, FitConfig(epochs=9, patience=1, learning_rate=0.3, trials=2), task)
    trials = [{**trial, "seconds": 0} for trial in fitted.meta.pop("search")["trials"]]
    return fitted.aggregator.state_dict(), (fitted.meta, trials)


def joint() -> Numbers:
    known = data()
    with rng.seeded(0, "joint"):
        aggregator: Aggregator = lstm.build(
            lstm.Config(hidden=8), SetShape(torch.zeros(6), torch.ones(6), torch.full((CLASSES,), 1 / CLASSES).log())
        )
        recipe = JointConfig(epochs=4, batch_norm="running", learning_rate=0.01)
        module = SharedLabelModule.of(network(), aggregator, recipe, 1.3, torch.tensor([0.1, -0.2, 0.1]))
        loader = TupleLoader((known.dataset.images,), known.dataset.labels, N, 6, known.prior.float(), 0, None)
        fit.fit(module, loader, CPU, 4, 1.0)
    return dict(module.state_dict()), module.losses()


@contextlib.contextmanager
def steps(monkeypatch: pytest.MonkeyPatch, last: int | None = None) -> Iterator[list[int]]:
    """Count the steps of training in the block, and die in one of them."""
    taken, record = [0], base.TrainedModule.record

    def counted(self: Any, loss: Tensor) -> Tensor:
        taken[0] += 1
        if taken[0] == last:
            raise Killed
        return record(self, loss)

    with monkeypatch.context() as patch:
        patch.setattr(base.TrainedModule, "record", counted)
        yield taken


@pytest.fixture
def states(tmp_path: Path) -> Unfinished:
    (tmp_path / "partial").mkdir()
    return Unfinished(tmp_path / "unfinished" / "stage" / "key", tmp_path / "partial")


def run(compute: Callable[[], Numbers], states: Unfinished, seconds: float | None = 0.0) -> Numbers:
    with resume.at(Workplace(states, seconds, Path("logs"))):
        return compute()


def same(one: Numbers, other: Numbers) -> None:
    assert one[0].keys() == other[0].keys()
    assert [name for name, tensor in one[0].items() if not torch.equal(tensor, other[0][name])] == []
    assert one[1] == other[1]


# Steps in all, and where it dies: within the first training, and within a later one where there are several.
COMPUTATIONS = [
    (dense, 16, [7]),
    (wide, 16, [7]),
    (gradual, 16, [10]),
    (twice, 32, [7, 26]),
    (scores, 32, [14, 22]),
    (searched, None, [9, 44]),
    (joint, 16, [11]),
]


@pytest.mark.parametrize(("compute", "total", "moments"), COMPUTATIONS)
def test_killed_at_any_step_a_training_ends_as_if_it_had_not_been(compute, total, moments, states, monkeypatch):
    torch.manual_seed(1)
    with steps(monkeypatch) as taken:
        expected = compute()
    assert total in (None, taken[0])
    for moment in moments:
        with steps(monkeypatch, moment), pytest.raises(Killed):
            run(compute, states)
        assert states.path(1).exists()
        torch.manual_seed(moment)  # a new process has other global streams
        with steps(monkeypatch) as left:
            same(run(compute, states), expected)
        assert 0 < left[0] <= taken[0] - moment + 6  # at most an epoch is repeated
        states.remove()


def test_killed_again_and_again_it_goes_on(states, monkeypatch):
    expected = gradual()
    for _ in range(3):  # each gets through an epoch more and dies in the next
        with steps(monkeypatch, 6), pytest.raises(Killed):
            run(gradual, states)
    with steps(monkeypatch) as left:
        same(run(gradual, states), expected)
    assert left[0] == 4


def test_killed_after_its_last_epoch_a_training_that_was_stopped_early_gets_no_further_one(states, monkeypatch):
    def die(*_: Any) -> None:
        raise Killed

    expected = searched()
    assert len(expected[1][0]["losses"]) < 9
    with monkeypatch.context() as patch:
        patch.setattr(resume, "end", die)
        with pytest.raises(Killed):
            run(searched, states)
    same(run(searched, states), expected)


@pytest.mark.parametrize("first", [CPU, WATCHED])
def test_watched_or_not_a_training_takes_the_same_steps(first, states, monkeypatch, tmp_path):
    """Nobody watches the plain loop; it cannot read what Lightning leaves, nor Lightning what it leaves."""
    expected = dense()
    monkeypatch.chdir(tmp_path)
    with steps(monkeypatch, 7), pytest.raises(Killed):
        run(lambda: dense(first), states)
    with steps(monkeypatch) as taken:
        same(run(lambda: dense(WATCHED if first is CPU else CPU), states), expected)
    assert taken[0] == 16


def test_nobody_who_watches_asks_for_no_trainer(states, monkeypatch):
    monkeypatch.setattr(trainer.pl, "Trainer", None)
    for compute in (dense, joint, searched):
        run(compute, states, None)


@pytest.mark.parametrize("other", ["goes on", "finishes"])
def test_what_another_run_does_to_a_state_that_was_read_changes_nothing(other, states, monkeypatch):
    """Both runs compute the same call: after this one has read, the other replaces the state, or removes it."""
    expected = dense()
    with steps(monkeypatch, 14), pytest.raises(Killed):
        run(dense, states)
    later = states.path(1).read_bytes()
    states.remove()
    with steps(monkeypatch, 7), pytest.raises(Killed):
        run(dense, states)
    earlier, left = states.path(1).read_bytes(), Workplace.left
    assert earlier != later

    def read_before_the_other(workplace: Workplace, number: int) -> Any:
        state = left(workplace, number)
        if other == "goes on":
            states.write(number, lambda path: path.write_bytes(later))
        else:
            states.remove()
        return state

    monkeypatch.setattr(Workplace, "left", read_before_the_other)
    with steps(monkeypatch) as taken:
        same(run(dense, states), expected)
    assert taken[0] == 12


def test_a_trainer_that_holds_a_state_reads_other_files_as_usual(tmp_path):
    """As it does for the weights that spawned processes return."""
    torch.save({"weight": torch.ones(1)}, tmp_path / "returned.ckpt")
    held = {"optimizer_states": torch.zeros(1)}
    made = trainer.trainer(CPU, 1, plugins=[keeping.Held(held)])
    made.strategy.load_checkpoint(keeping.HELD, weights_only=True)["optimizer_states"].add_(1)
    assert held == {"optimizer_states": torch.zeros(1)}  # each process has its own
    assert made.strategy.load_checkpoint(tmp_path / "returned.ckpt", weights_only=True) == {"weight": torch.ones(1)}


def test_a_state_that_another_run_removes_before_it_is_read_is_none(states, monkeypatch):
    expected, load = dense(), torch.load
    with steps(monkeypatch, 7), pytest.raises(Killed):
        run(dense, states)

    def removed_before(path: Path, **options: Any) -> Any:
        states.remove()
        return load(path, **options)

    monkeypatch.setattr(resume.torch, "load", removed_before)
    with steps(monkeypatch) as taken:
        same(run(dense, states), expected)
    assert taken[0] == 16


def test_gradual_pruning_does_not_repeat_a_step_that_is_done():
    pruned_to: list[float] = []

    def apply(network: Backbone, ratio: float) -> Backbone:
        pruned_to.append(ratio)
        return _methods.prune(magnitude, network, ratio, magnitude.Config(), Context(generator=torch.Generator()))

    schedule = Schedule(when="gradual", steps=2, until=1.0)
    first, start = compression._GradualPruning(apply, 2.0, schedule), network()
    first(start, 0.5)
    second, other = compression._GradualPruning(apply, 2.0, schedule), network()
    second.restore(other, first.state(start))
    other.load_state_dict(start.state_dict())
    second(other, 0.6)
    assert len(pruned_to) == 1
    second(other, 1.0)
    assert pruned_to[1:] == [2.0]


def test_numbers_do_not_depend_on_states_being_written(states):
    for seconds in (0.0, None, 3600.0):
        same(run(gradual, states, seconds), gradual())
        assert states.path(1).exists() == (seconds == 0)
        states.remove()


def test_a_training_of_seconds_writes_nothing_and_a_long_one_all_that_is_before_it(states, monkeypatch):
    """A write takes along the finished trainings before it, or they would be repeated for it."""
    clock = [0.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: clock[0])
    end = base.TrainedModule.on_train_epoch_end

    def slow(self: Any) -> None:
        end(self)
        clock[0] += 9.0

    monkeypatch.setattr(base.TrainedModule, "on_train_epoch_end", slow)
    with steps(monkeypatch, 27), pytest.raises(Killed):
        run(twice, states, 60.0)  # dies in the third epoch of the second training, after 6 of 9 seconds
    assert not states.path(1).exists()
    with steps(monkeypatch, 31), pytest.raises(Killed):
        run(twice, states, 40.0)  # written after 45 seconds
    assert resume.finished(torch.load(states.path(1), weights_only=True))
    assert not resume.finished(torch.load(states.path(2), weights_only=True))
    with steps(monkeypatch) as left:
        run(twice, states, 60.0)
    assert left[0] == 12


def test_writing_takes_at_most_a_fiftieth_of_the_time(states, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: clock[0])
    workplace = Workplace(states, 10.0, Path("logs"))

    def slowly(path: Path) -> None:
        path.write_bytes(b"")
        clock[0] += 3.0

    clock[0] = 10.0
    assert workplace.due()
    workplace.write(1, slowly)
    clock[0] += 149.0
    assert not workplace.due()
    clock[0] += 1.0
    assert workplace.due()


@pytest.mark.parametrize("damage", ["cut", "other", "bomb", "torch", "code"])
def test_a_state_that_cannot_be_used_is_told_and_the_training_begins_anew(damage, states, monkeypatch, tmp_path):
    with steps(monkeypatch, 7), pytest.raises(Killed):
        run(dense, states)
    path, touched = states.path(1), tmp_path / "touched"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "other":
        torch.save([1, 2], path)
    elif damage == "bomb":

        class Bomb:
            def __reduce__(self) -> Any:
                return (os.mkdir, (str(touched),))

        path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    else:
        monkeypatch.setitem(resume.VERSIONS, damage, "0.4")  # torch, or the code that writes states
    with pytest.warns(RuntimeWarning, match="expected the state of a training at .*; it is trained from its start"):
        same(run(dense, states), dense())
    assert not touched.exists()


def test_a_full_disk_is_told_once_and_training_goes_on(states, tmp_path):
    (tmp_path / "unfinished").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="could not write the state of a training: .*; training goes on") as told:
        same(run(dense, states), dense())
    assert len(told) == 1
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_disk_that_is_full_for_a_while_costs_a_state_and_no_more(states, monkeypatch):
    flush, left = together.flush, [1]

    def full(path):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(together, "flush", full)
    with pytest.warns(
        RuntimeWarning, match="could not write the state of a training: No space left on device; training"
    ):
        same(run(dense, states), dense())
    assert states.path(1).exists()


def test_the_end_of_a_training_that_cannot_be_written_is_told_and_kept(tmp_path):
    def fails(path, content):
        raise OSError(errno.EFBIG, "File too large")

    states = Unfinished(tmp_path / "unfinished", tmp_path)
    workplace = Workplace(states, 0.0, tmp_path)
    with pytest.MonkeyPatch.context() as full:
        full.setattr(Path, "write_bytes", fails)
        with pytest.warns(RuntimeWarning, match="could not write the state of a training: File too large"):
            workplace.finish(1, {"x": torch.zeros(1)})
    assert not states.path(1).exists()


def test_the_seconds_of_killed_runs_count(states, monkeypatch):
    """What a training took is what its manifest says, however often it was killed."""
    clock = [100.0]
    monkeypatch.setattr(resume.time, "perf_counter", lambda: clock[0])
    with resume.at(Workplace(states, 0.0, Path("logs"))):
        clock[0] += 50.0
        with steps(monkeypatch, 7), pytest.raises(Killed):
            dense()
    clock[0] = 1000.0
    with resume.at(Workplace(states, 0.0, Path("logs"))) as workplace:
        clock[0] += 1.0
        dense()
    assert workplace.started == 951.0


def test_states_are_there_until_the_artifact_is(tmp_path, monkeypatch):
    store = Store(tmp_path)
    with steps(monkeypatch, 7), pytest.raises(Killed):
        run(dense, store.unfinished("dense", "abc"))
    assert Store(tmp_path).unfinished("dense", "abc").path(1).exists()
    store.save("dense", "abc", Output({}), {}, time.perf_counter())
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_states_that_nobody_has_touched_for_a_month_are_removed(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for key in ("old", "new"):
        with steps(monkeypatch, 7), pytest.raises(Killed):
            run(dense, store.unfinished("dense", key))
    past = time.time() - KEPT - 60
    os.utime(tmp_path / "unfinished" / "dense" / "old", (past, past))
    Store(tmp_path, readonly=True)
    assert store.unfinished("dense", "old").path(1).exists()
    Store(tmp_path)
    assert not store.unfinished("dense", "old").path(1).exists()
    assert store.unfinished("dense", "new").path(1).exists()
