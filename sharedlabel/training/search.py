"""Train an aggregator with the given options, or with the best of a budget of settings tried by Optuna.

A search changes the recipe, alike for all, and what the aggregator's file declares (`aggregators/_space.py`). Every
aggregator trained by gradient descent gets as many trials, each with the epochs and the patience of the recipe; no
trial is cut short for looking bad. An aggregator that needs no gradient descent has nothing to search.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import _contract
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._space import Choices, LogRange, Space, option, samples, space_of, with_options
from sharedlabel.config import Plugin
from sharedlabel.config.sections import FitConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.plugins import load
from sharedlabel.training.aggregator import AggregatorTraining
from sharedlabel.training.devices import device
from sharedlabel.training.fit import fit as descend
from sharedlabel.training.fit import kind
from sharedlabel.training.loaders import SharedTuples, TupleBatch, TupleLoader, weighed
from sharedlabel.types import SetShape, Tuples

# What is searched of the recipe: a factor of ten around the default learning rate; given values are added.
RECIPE: Space = {"learning_rate": LogRange(0.0003, 0.03), "weight_decay": (0.0, 0.01, 0.1)}
STOPPING_PARTITIONS = 4
_PREFIX = "fit."


class Images(NamedTuple):
    """Images of a split as aggregators see them: embeddings `[m d]`, calibrated logits `[m c]`, labels and groups."""

    embeddings: Tensor
    logits: Tensor
    labels: Tensor
    groups: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """What an aggregator is trained on, alike in every trial.

    Attributes:
        shape: what it is built for.
        direct: training tuples for what is fitted in closed form; weights of ragged ones are `[t n]`.
        loader: makes the batches of training tuples, from the first epoch on, where they are trained on.
        stopping: returns the tuples of validation that early stopping and the search look at, there, too.
        gradient_clip: largest gradient norm; 0 is off.
        seed: of the initialisation, dropout and the search.
        runtime: where to train.
    """

    shape: SetShape
    direct: TupleBatch
    loader: Callable[[], TupleLoader]
    stopping: Callable[[], TupleBatch | SharedTuples]
    gradient_clip: float
    seed: int
    runtime: TrainerConfig


@dataclass(frozen=True)
class Fitted:
    """A trained aggregator.

    Attributes:
        aggregator: with the best weights, on the CPU.
        plugin: the options it was built with.
        meta: facts of the training by gradient descent, and of the search; empty where there was none.
    """

    aggregator: Aggregator
    plugin: Plugin
    meta: dict[str, Any]


def task(
    shape: SetShape,
    learn: Images,
    watch: Images,
    watched: Callable[[], Tuples],
    *,
    n: int,
    prior: Tensor,
    recipe: FitConfig,
    gradient_clip: float,
    seed: int,
    runtime: TrainerConfig,
    form: tuples.Form = tuples.partition,
) -> Task:
    """Return what an aggregator is trained on: tuples of two sets of images that the backbone did not see.

    Args:
        shape: what it is built for.
        learn: images of the training tuples.
        watch: other images, whose tuples early stopping looks at.
        watched: draws these tuples.
        n: instances per tuple.
        prior: `[c]`, of the labels of tuples.
        recipe: says how tuples are batched.
        gradient_clip: largest gradient norm; 0 is off.
        seed: of everything random.
        runtime: where to train.
        form: forms the training tuples.
    """
    home = device(runtime)
    drawn = form(learn.labels, n, STOPPING_PARTITIONS, prior, rng.generator(seed, "fit"), learn.groups)

    def loader() -> TupleLoader:
        sources, fresh = (learn.embeddings.to(home), learn.logits.to(home)), recipe.tuples == "fresh"
        given = learn.labels, n, recipe.batch_size, prior, seed, learn.groups
        return TupleLoader(sources, *given, fresh=fresh, form=form)

    stopping = functools.cache(lambda: shared(watch, watched()).to(home))
    return Task(shape, gathered(learn, drawn), loader, stopping, gradient_clip, seed, runtime)


def gathered(images: Images, drawn: Tuples) -> TupleBatch:
    """Gather the tuples of all partitions: embeddings, logits, labels `[t]` and weights `[t]` of mean one."""
    embeddings, logits, index, labels, weights = shared(images, drawn)
    return embeddings[index], logits[index], labels, weights


def shared(images: Images, drawn: Tuples) -> SharedTuples:
    """Return the tuples of all partitions and the images that they share; weights have a mean of one (`weighed`)."""
    return SharedTuples(*images[:2], drawn.indices.flatten(0, 1), drawn.labels.flatten(), weighed(drawn))


def check(aggregators: Iterable[Plugin]) -> None:
    """Refuse what cannot be searched, before anything is trained.

    Raises:
        ConfigError: Optuna is not installed, a value that would be tried contradicts a given option, or one that is
            not above 0 is to be searched on a logarithmic scale.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "fit.trials: a search needs optuna, which is not installed; "
            'pip install "sharedlabel[search]", or leave fit.trials at 0'
        )
    for plugin in aggregators:
        for name, choices in space_of(plugin).items():
            given = option(plugin, name)
            if isinstance(choices, LogRange) and not given > 0:
                raise ConfigError(
                    f"fit.trials: the search of {plugin.label} needs {name} above 0, got {given}; "
                    "give it a value to start from, or leave fit.trials at 0"
                )
            for value in samples(choices):
                _check_value(plugin, name, value)


def _check_value(plugin: Plugin, name: str, value: Any) -> None:
    try:
        with_options(plugin, {name: value})
    except ConfigError as error:
        raise ConfigError(
            f"fit.trials: the search would try {name} = {value!r} of {plugin.label}, but {error} "
            "(leave the other option out, or leave fit.trials at 0)"
        ) from error


def descends(plugin: Plugin) -> bool:
    """Tell whether an aggregator is trained by gradient descent, by fitting it to a few random tuples."""
    shape = SetShape(torch.zeros(2), torch.ones(2), torch.full((2,), 0.5).log())
    draw = rng.generator(0, "descends")
    embeddings, logits = torch.randn(2, 8, 2, 2, generator=draw)
    with rng.seeded(0, "descends"):
        aggregator: Aggregator = load("aggregators", plugin.name).build(plugin.config, shape)
        return _left(aggregator, (embeddings, logits, torch.arange(8) % 2, torch.ones(8)))


def fit(plugin: Plugin, recipe: FitConfig, task: Task) -> Fitted:
    """Return the `best` aggregator, once it has kept its contract on a few of the training tuples.

    Raises:
        ContractError: it looks ahead or at other tuples, or returns no posteriors.
    """
    fitted = best(plugin, recipe, task)
    _contract.check(fitted.aggregator, *task.direct[:2])
    return fitted


def best(plugin: Plugin, recipe: FitConfig, task: Task) -> Fitted:
    """Train an aggregator; with `trials`, that with the least loss on the stopping tuples of all settings tried.

    The first trial is the given setting, so a search never ends with a larger loss than no search.
    """
    started = time.perf_counter()
    given = train(plugin, recipe, task)
    if not recipe.trials or not given.meta:
        return given
    return _search(plugin, recipe, task, given, started)


def train(plugin: Plugin, recipe: FitConfig, task: Task) -> Fitted:
    """Train an aggregator with one setting."""
    with rng.seeded(task.seed, "aggregate", plugin.name):
        aggregator: Aggregator = load("aggregators", plugin.name).build(plugin.config, task.shape)
        if not _left(aggregator, task.direct):
            return Fitted(aggregator, plugin, {})
        loader = task.loader()
        recipe = lasting(recipe, len(loader))
        trained = kind(AggregatorTraining, task.runtime, small=True)
        module = trained.of(aggregator.to(device(task.runtime)), recipe, task.stopping())
        descend(module, loader, task.runtime, recipe.epochs, task.gradient_clip, small=True)
    facts = {"losses": module.losses(), "best_epoch": module.best_epoch, "validation_loss": module.best}
    return Fitted(aggregator, plugin, facts)


def lasting(recipe: FitConfig, steps_per_epoch: int) -> FitConfig:
    """Return the recipe with the epochs and the patience that `steps` asks for.

    >>> lasting(FitConfig(epochs=60, patience=15, steps=600), 2).epochs
    300
    """
    epochs = max(recipe.epochs, -(-recipe.steps // steps_per_epoch))
    return dataclasses.replace(recipe, epochs=epochs, patience=-(-recipe.patience * epochs // recipe.epochs))


def _left(aggregator: Aggregator, direct: TupleBatch) -> bool:
    """Fit in closed form what can be; tell whether anything is left for gradient descent."""
    embeddings, logits, labels, weights = direct
    if weights.ndim == 2 and not aggregator.fits_ragged:
        whole = weights[:, -1] > 0
        direct = embeddings[whole], logits[whole], labels[whole], weights[whole, -1]
    return not aggregator.fit(*direct) and any(parameter.requires_grad for parameter in aggregator.parameters())


def _search(plugin: Plugin, recipe: FitConfig, task: Task, given: Fitted, started: float) -> Fitted:
    best, trials, chosen = given, [], 0
    for number, (options, tell) in enumerate(_proposals(plugin, recipe, task.seed)):
        tried = given if number == 0 else _tried(plugin, recipe, options, task)
        loss = None if tried is None else tried.meta["validation_loss"]
        tell(loss)
        seconds, started = time.perf_counter() - started, time.perf_counter()
        epochs = None if tried is None else len(tried.meta["losses"])
        trials.append({"options": options, "loss": loss, "epochs": epochs, "seconds": round(seconds, 3)})
        if tried is not None and tried.meta["validation_loss"] < best.meta["validation_loss"]:
            best, chosen = tried, number
    facts = {"trials": trials, "chosen": chosen}
    return dataclasses.replace(best, meta={**best.meta, "options": best.plugin.payload(), "search": facts})


def _tried(plugin: Plugin, recipe: FitConfig, options: Mapping[str, Any], task: Task) -> Fitted | None:
    """Train with other options; None where that diverges, which rules out a setting but ends no search."""
    own = {name: value for name, value in options.items() if not name.startswith(_PREFIX)}
    shared = {name.removeprefix(_PREFIX): value for name, value in options.items() if name.startswith(_PREFIX)}
    try:
        return train(with_options(plugin, own), dataclasses.replace(recipe, **shared), task)
    except TrainingError:
        return None


def _proposals(
    plugin: Plugin, recipe: FitConfig, seed: int
) -> Iterator[tuple[dict[str, Any], Callable[[float | None], None]]]:
    """Yield the options of every trial, the given ones first, each with the function that its loss is told to."""
    import optuna

    space = {name: (option(plugin, name), choices) for name, choices in space_of(plugin).items()}
    space |= {f"{_PREFIX}{name}": (getattr(recipe, name), choices) for name, choices in RECIPE.items()}
    categorical, real = optuna.distributions.CategoricalDistribution, optuna.distributions.FloatDistribution

    def distribution(given: Any, choices: Choices) -> optuna.distributions.BaseDistribution:
        if isinstance(choices, LogRange):
            return real(min(choices.low, given), max(choices.high, given), log=True)
        return categorical(choices if given in choices else (given, *choices))

    distributions = {name: distribution(*entry) for name, entry in space.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study and trial
    sampler = optuna.samplers.TPESampler(seed=rng.derive(seed, "search", plugin.name) % 2**32)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({name: given for name, (given, _) in space.items()})
    for _ in range(recipe.trials):
        trial = study.ask(distributions)

        def tell(loss: float | None, trial: optuna.Trial = trial) -> None:
            state = optuna.trial.TrialState.FAIL if loss is None else optuna.trial.TrialState.COMPLETE
            study.tell(trial, loss, state)

        yield dict(trial.params), tell
