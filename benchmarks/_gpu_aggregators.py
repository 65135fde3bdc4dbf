"""Aggregators trained and asked on a GPU, against the CPU of the same machine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import torch

from benchmarks._gpu import Facts, Setting, quickest, seconds
from benchmarks._synthetic import CLASSES, N, TestSet, test_set
from sharedlabel import rng
from sharedlabel.config import Plugin, resolve
from sharedlabel.config.sections import FitConfig, TrainerConfig
from sharedlabel.data.tuples import partition
from sharedlabel.scoring.scores import posterior_over
from sharedlabel.training import search
from sharedlabel.training.devices import device

NAMES = ("crafted_lstm", "lstm", "attention", "deep_sets", "set_transformer")


def beside_the_cpu(setting: Setting) -> Iterator[Facts]:
    """Yield the seconds of every aggregator on the device and on the CPU, one thread of it and all."""
    images, epochs = (400, 2) if setting.tiny else (10_000, 20)
    known, threads = test_set(images, 2 if setting.tiny else 10), torch.get_num_threads()
    recipe = FitConfig(epochs=epochs, patience=epochs)
    places = {"device": (setting.accelerator, threads), "one thread": ("cpu", 1), "all threads": ("cpu", threads)}
    for name in NAMES[:2] if setting.tiny else NAMES:
        plugin = resolve("aggregators", name)
        for place, (accelerator, count) in places.items():
            torch.set_num_threads(count)
            yield {"aggregator": name, "on": place, "threads": count, **_taken(plugin, recipe, known, accelerator)}
    torch.set_num_threads(threads)


def _taken(plugin: Plugin, recipe: FitConfig, known: TestSet, accelerator: str) -> Facts:
    """Return the seconds of a training, and of the posteriors of all tuples, after an epoch that is not counted."""
    runtime = TrainerConfig(accelerator=accelerator)
    target, tasks = device(runtime), [_task(known, recipe, runtime) for _ in range(2)]
    search.train(plugin, dataclasses.replace(recipe, epochs=1), tasks[0])
    made: list[search.Fitted] = []
    trained = seconds(lambda: made.append(search.train(plugin, recipe, tasks[1])), target)
    aggregator = made[0].aggregator.eval()
    ask = functools.partial(posterior_over, aggregator, known.sources, known.drawn, range(1, N + 1), target)
    posteriors = quickest(ask, target, 1)
    loss = made[0].meta["validation_loss"]
    return {"seconds_of_training": trained, "seconds_of_posteriors": posteriors, "validation_loss": loss}


def _task(known: TestSet, recipe: FitConfig, runtime: TrainerConfig) -> search.Task:
    """Return the training on one half of the images, watched on the other."""
    labels = torch.arange(len(known.logits)) % CLASSES
    half = len(labels) // (2 * CLASSES) * CLASSES
    learn, watch = (
        search.Images(known.embeddings[part], known.logits[part], labels[part])
        for part in (slice(None, half), slice(half, None))
    )
    return search.task(
        known.shape,
        learn,
        watch,
        lambda: partition(watch.labels, N, 4, known.prior, rng.generator(0, "watched")),
        n=N,
        prior=known.prior,
        recipe=recipe,
        gradient_clip=1.0,
        seed=0,
        runtime=runtime,
    )
