"""The search of settings: its budget, what it keeps, how it is stored, read back and shown."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from sharedlabel import config, export, grid, rng, train
from sharedlabel.aggregators import _space, lstm
from sharedlabel.aggregators._base import prefix_loss
from sharedlabel.aggregators._space import LogRange
from sharedlabel.config import resolve
from sharedlabel.config.sections import FitConfig, TrainerConfig
from sharedlabel.data.tuples import partition
from sharedlabel.deployment import cells, selection
from sharedlabel.errors import ConfigError
from sharedlabel.grid import plan
from sharedlabel.records import read, write
from sharedlabel.running.collect import collect
from sharedlabel.stages import _restore as restore
from sharedlabel.training import search
from sharedlabel.training.base import TrainedModule
from sharedlabel.training.loaders import TupleLoader
from sharedlabel.types import SetShape

CLASSES, WIDTH, N = 3, 4, 3
SMALL = {"name": "lstm", "hidden": 16}
SLOW = FitConfig(epochs=8, learning_rate=1e-5)


def task(seed: int = 0) -> search.Task:
    """Instances around the corners of a simplex, whose logits say nothing: the embeddings must be learnt."""
    draw = rng.generator(0, "search")
    labels = torch.arange(180) % CLASSES
    corners = torch.nn.functional.one_hot(labels, WIDTH).float()
    sources = corners + 0.7 * torch.randn(180, WIDTH, generator=draw), torch.zeros(180, CLASSES)
    prior = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)

    def tuples(salt: str):
        drawn = partition(labels, N, 1, prior, rng.generator(0, salt))
        index = drawn.indices[0]
        return sources[0][index], sources[1][index], drawn.labels[0], torch.ones(len(index))

    return search.Task(
        shape=SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), prior.log().float()),
        direct=tuples("fit"),
        loader=lambda: TupleLoader(sources, labels, N, 6, prior, seed, None),
        stopping=lambda: tuples("stopping"),
        gradient_clip=1.0,
        seed=seed,
        runtime=TrainerConfig(accelerator="cpu"),
    )


def stopping_loss(aggregator) -> float:
    embeddings, logits, labels, _ = task().stopping()
    with torch.no_grad():
        return float(prefix_loss(aggregator(embeddings, logits), labels).mean())


def without_seconds(meta):
    trials = [{k: v for k, v in trial.items() if k != "seconds"} for trial in meta["search"]["trials"]]
    return {**meta, "search": {**meta["search"], "trials": trials}}


def test_a_better_setting_than_a_bad_given_one_is_found_and_kept():
    recipe = dataclasses.replace(SLOW, trials=6)
    fitted = search.fit(resolve("aggregators", SMALL), recipe, task())
    trials, chosen = fitted.meta["search"]["trials"], fitted.meta["search"]["chosen"]
    losses = [trial["loss"] for trial in trials]
    assert len(trials) == 6
    assert losses[0] > 1.05
    assert losses[chosen] == min(losses) == fitted.meta["validation_loss"] < 0.9
    assert stopping_loss(fitted.aggregator) == pytest.approx(min(losses), rel=1e-5)
    options = trials[chosen]["options"]
    assert (
        fitted.meta["options"]
        == fitted.plugin.payload()
        == {
            "name": "lstm",
            "layers": 1,
            **{name: options[name] for name in ("hidden", "dropout")},
        }
    )
    assert fitted.aggregator.lstm.hidden_size == options["hidden"]
    assert all(trial["epochs"] == 8 for trial in trials)


def test_the_same_seed_makes_the_same_choice_and_another_one_other_trials():
    plugin, recipe = resolve("aggregators", SMALL), FitConfig(epochs=1, trials=3)
    first, again, other = (search.fit(plugin, recipe, task(seed)) for seed in (0, 0, 1))
    assert without_seconds(first.meta) == without_seconds(again.meta)
    for name, value in first.aggregator.state_dict().items():
        assert torch.equal(again.aggregator.state_dict()[name], value)
    assert [t["options"] for t in other.meta["search"]["trials"]][1:] != [
        t["options"] for t in first.meta["search"]["trials"]
    ][1:]


def test_the_first_trial_is_the_given_setting_so_that_nothing_is_lost():
    """Values outside the space are tried as they are given."""
    plugin = resolve("aggregators", {"name": "lstm", "hidden": 9, "dropout": 0.05})
    recipe = FitConfig(epochs=2, learning_rate=0.1, weight_decay=0.03)
    alone = search.fit(plugin, recipe, task())
    assert alone.meta.keys() == {"losses", "best_epoch", "validation_loss"}
    one = search.fit(plugin, dataclasses.replace(recipe, trials=1), task())
    assert one.meta["validation_loss"] == alone.meta["validation_loss"]
    for name, value in alone.aggregator.state_dict().items():
        assert torch.equal(one.aggregator.state_dict()[name], value)
    trial = one.meta["search"]["trials"][0]
    given = {"hidden": 9, "dropout": 0.05, "fit.learning_rate": pytest.approx(0.1), "fit.weight_decay": 0.03}
    assert trial["options"] == given
    more = search.fit(plugin, dataclasses.replace(recipe, trials=3), task())
    assert more.meta["search"]["trials"][0]["loss"] == alone.meta["validation_loss"] >= more.meta["validation_loss"]


@pytest.mark.parametrize("name", ["log_pool", "tempered_log_pool"])
def test_without_gradient_descent_there_is_nothing_to_search(name, monkeypatch):
    calls = []
    trained = search.train
    monkeypatch.setattr(search, "train", lambda *a: calls.append(a) or trained(*a))
    assert search.fit(resolve("aggregators", name), FitConfig(trials=7), task()).meta == {}
    assert len(calls) == 1


def test_a_setting_that_diverges_is_ruled_out_and_ends_no_search(monkeypatch):
    recipe, record = FitConfig(epochs=3, trials=4), TrainedModule.record

    def diverging(self: TrainedModule, loss: torch.Tensor) -> torch.Tensor:
        return record(self, loss if self.learning_rate == recipe.learning_rate else loss * math.inf)

    monkeypatch.setattr(search, "RECIPE", {"learning_rate": LogRange(0.001, 0.1)})
    monkeypatch.setattr(TrainedModule, "record", diverging)
    fitted = search.fit(resolve("aggregators", {"name": "deep_sets", "hidden": 32}), recipe, task())
    trials = fitted.meta["search"]["trials"]
    assert fitted.meta["search"]["chosen"] == 0
    assert trials[0]["loss"] == fitted.meta["validation_loss"]
    assert any(trial["loss"] is None and trial["epochs"] is None for trial in trials[1:])


def test_janossy_searches_its_base():
    plugin = resolve("aggregators", {"name": "janossy", "base": {"name": "gru", "hidden": 48}, "orders": 2})
    space = _space.space_of(plugin)
    assert space.keys() == {"base.hidden", "base.dropout"}
    assert _space.option(plugin, "base.hidden") == 48
    changed = _space.with_options(plugin, {"base.hidden": 16})
    assert (changed.config.base["hidden"], changed.config.base["dropout"], changed.config.orders) == (16, 0.2, 2)
    assert changed.label == plugin.label
    assert plugin.config.base["hidden"] == 48


def test_an_option_that_there_is_not_is_named():
    with pytest.raises(ConfigError, match=r"unknown option 'hiden'; did you mean 'hidden'\?"):
        _space.with_options(resolve("aggregators", "lstm"), {"hiden": 3})


def with_fit(experiment, **values):
    return dataclasses.replace(experiment, fit=dataclasses.replace(experiment.fit, **values))


def test_a_search_without_optuna_is_refused_before_any_training(experiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    grid.prepare(experiment)
    with pytest.raises(ConfigError, match=r'fit.trials: .*optuna.*pip install "sharedlabel\[search\]"'):
        grid.prepare(with_fit(experiment, trials=2))


def test_a_space_that_contradicts_a_given_option_is_refused(experiment):
    odd = {"name": "set_transformer", "width": 35, "heads": 7, "label": "odd"}
    experiment = dataclasses.replace(experiment, aggregators=(odd,))
    grid.prepare(experiment)
    message = (
        "fit.trials: the search would try width = 16 of odd, but .*width must be a multiple of heads, got 16 and 7"
    )
    with pytest.raises(ConfigError, match=message):
        grid.prepare(with_fit(experiment, trials=2))


def test_a_range_is_searched_on_a_logarithmic_scale_from_the_given_value(experiment, monkeypatch):
    monkeypatch.setattr(lstm, "SPACE", {"dropout": LogRange(0.1, 0.4)})
    fitted = search.fit(resolve("aggregators", {**SMALL, "dropout": 0.2}), FitConfig(epochs=1, trials=3), task())
    tried = [trial["options"]["dropout"] for trial in fitted.meta["search"]["trials"]]
    assert tried[0] == 0.2
    assert len(set(tried)) == 3
    assert all(0.1 <= value <= 0.4 for value in tried)
    with pytest.raises(ConfigError, match=r"the search of lstm needs dropout above 0, got 0\.0"):
        search.check([resolve("aggregators", "lstm")])
    monkeypatch.setattr(lstm, "SPACE", {"hidden": LogRange(16.0, 64.0)})
    with pytest.raises(
        ConfigError, match=r"the search would try hidden = 16\.0 of lstm, but .*expected a whole number"
    ):
        search.check([resolve("aggregators", "lstm")])


@pytest.mark.parametrize("change", [{"trials": 2}, {"tuples": "fixed"}])
def test_the_new_options_change_keys_only_when_they_are_used(experiment, change):
    def keys(**values):
        prepared = grid.prepare(with_fit(experiment, **values))
        return {cell.aggregate.key for cell in prepared.cells}

    unchanged = keys(tuples="fresh", trials=0)
    assert unchanged == keys()
    assert keys(**change).isdisjoint(unchanged)
    assert not {"tuples", "trials"} & json.loads(config.canonical(experiment))["fit"].keys()


def test_fixed_tuples_train_another_aggregator(done, experiment):
    losses = {}
    for drawn in ("fresh", "fixed"):
        prepared = grid.prepare(with_fit(experiment, tuples=drawn))
        node = next(cell.aggregate for cell in prepared.cells if cell.aggregator == "lstm")
        output = grid.run_node(node, prepared, done, lambda *_: None)
        losses[drawn] = output.meta["losses"]
    assert len(losses["fresh"]) == len(losses["fixed"]) == 2
    assert losses["fresh"] != losses["fixed"]


def test_a_searched_aggregator_is_rebuilt_evaluated_exported_and_shown(done, experiment, tmp_path, monkeypatch):
    """The given recipe learns nothing, so a trial with the only width of the space wins."""
    monkeypatch.setattr(lstm, "SPACE", {"hidden": (8,)})
    joint = dataclasses.replace(experiment.joint, epochs=1, batch_size=8)
    searched = dataclasses.replace(
        with_fit(experiment, trials=4, learning_rate=1e-6),
        aggregators=("log_pool", {"name": "lstm", "hidden": 16}),
        training=("frozen", "joint"),
        joint=joint,
        ratios=(1.0,),
    )
    prepared = grid.prepare(searched)
    line = "search: 4 trials for each of 1 aggregators, 4 trained networks in all"
    assert plan.search_budget(prepared) == line
    for call in itertools.chain.from_iterable(cell.calls() for cell in prepared.cells):
        grid.run_node(call, prepared, done, lambda *_: None)
    results = collect(prepared, done, seconds=0.0)
    (row,) = results.searches
    assert (row.aggregator, row.ratio, row.protocol, row.seed, row.trials) == ("lstm(hidden=16)", 1.0, "iid", 0, 4)
    assert (row.diverged, row.loss < row.loss_given) == (0, True)
    options = json.loads(row.options)
    assert options["hidden"] == 8
    assert options["fit.learning_rate"] > 1e-6
    folder = tmp_path / "runs" / searched.name
    write(results, folder)
    assert read(folder).searches == (row,)
    assert "lstm(hidden=16),iid,0,frozen,4,0," in (folder / "searches.csv").read_text()
    for training in ("frozen", "joint"):
        rows = selection.choose(results, "", {"aggregator": "lstm(hidden=16)", "training": training})
        trained = cells.restore(rows[0].cell, results.dataset, done)
        assert trained.aggregator.lstm.hidden_size == 8
        assert trained.artifacts["aggregator"]["options"]["hidden"] == 8
        last = next(row for row in rows if row.n == 4)
        assert last.aggregator_macs == 4 * (4 * 8 * (16 + 10 + 8)) + 4 * 8 * 10  # embedding, logits and state
    output = tmp_path / "model"
    arguments = [f"--run={folder}", "--aggregator=lstm(hidden=16)", "--training=frozen", "--format=torch"]
    assert export.main([*arguments, f"--output={output}"]) == 0
    card = json.loads((output / "card.json").read_text())
    assert card["provenance"]["artifacts"]["aggregator"]["options"]["hidden"] == 8


def test_the_budget_is_printed_before_a_plan_and_a_run(small, done, capsys, monkeypatch):
    arguments = [*small, "--ratios=[1]", "--fit.trials=2", "--fit.epochs=1"]
    line = "search: 2 trials for each of 1 aggregators, 2 trained networks in all"
    assert train.main([*arguments, "--plan"]) == 0
    assert line in capsys.readouterr().out
    monkeypatch.setattr(train, "run", lambda *_, **__: print("it runs") or SimpleNamespace(failures=()))
    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.index(line) < out.index("it runs")
    assert train.main([*small, "--plan"]) == 0
    assert "search:" not in capsys.readouterr().out


def test_the_plan_counts_the_time_of_every_trial(done, experiment):
    once, many = (grid.prepare(with_fit(experiment, trials=trials)) for trials in (0, 5))
    calls = [cell.aggregate for cell in once.cells]
    spent = plan._stored_seconds("aggregate", calls, once, done)
    assert plan._stored_seconds("aggregate", calls, many, done) == pytest.approx(5 * spent)
    scored = [cell.evaluate for cell in once.cells]
    once_scored, many_scored = (plan._stored_seconds("evaluate", scored, one, done) for one in (once, many))
    assert many_scored == once_scored


def test_an_output_without_a_search_keeps_the_given_options(finished):
    node = next(cell.aggregate for cell in finished.grid.cells if cell.aggregator == "lstm")
    assert restore.searched(finished.store.load(node.stage, node.key)) == {}
    assert finished.results.searches == ()
