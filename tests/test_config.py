"""Configuration: strict parsing, overrides, keys."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from sharedlabel import config, plugins, stages
from sharedlabel.config import Experiment
from sharedlabel.errors import ConfigError

CONFIGS = sorted(Path(__file__).parent.parent.joinpath("configs").glob("*.yaml"))


def parse(*arguments: str) -> Experiment:
    return config.parse(arguments)[0]


def test_without_arguments_the_defaults_are_used():
    assert parse() == Experiment()


def test_digits_yaml_states_the_defaults():
    path = next(path for path in CONFIGS if path.stem == "digits")
    assert config.from_yaml(path) == Experiment()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path):
    experiment = config.from_yaml(path)
    assert experiment.name == path.stem
    for kind, specs in (
        ("backbones", experiment.backbones),
        ("pruners", experiment.pruners),
        ("aggregators", experiment.aggregators),
    ):
        assert all(config.resolve(kind, spec).name in plugins.available(kind) for spec in specs)
    assert config.resolve("data", experiment.data).name in plugins.available("data")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_open_with_command_time_and_expectation(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert "sharedlabel train" in text
    assert "Time:" in text
    assert "Expected:" in text


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "lstm", "label": True}, "aggregators: expected a label in words, got true; put it in quotes"),
        ({"name": "lstm", "label": {"base": "pool"}}, "aggregators: expected a label in words, got .*'base'"),
        ({"name": "lstm", "hidden": 0}, "aggregator 'lstm': hidden: expected a whole number from 1 to 65536, got 0"),
    ],
)
def test_what_is_wrong_with_an_entry_names_it(spec, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve("aggregators", spec)


def test_a_number_is_a_label():
    assert config.resolve("aggregators", {"name": "lstm", "label": 16}).label == "16"


def test_dotted_names_override_the_file(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump({"dense": {"epochs": 7, "flip": True}, "data": {"name": "imagefolder", "size": 8}}))
    experiment = parse(f"--config={file}", "--dense.epochs=3", "--data.path=somewhere")
    assert (experiment.dense.epochs, experiment.dense.flip) == (3, True)
    assert experiment.data == {"name": "imagefolder", "size": 8, "path": "somewhere"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dense.epochss=3"], r"unknown option 'dense.epochss'; did you mean 'dense.epochs'\?"),
        (["--sedes=[1]"], r"unknown option 'sedes'; did you mean 'seeds'\?"),
        (
            ["--dense.epochs=ten"],
            "dense.epochs: expected a whole number from 0 to 1000000, got 'ten'; the default",
        ),
        (["--dense.epochs=-1"], "dense.epochs: expected a whole number from 0 to 1000000, got -1; the default is 20"),
        (["--dense.warmup=1.5"], "dense.warmup: expected a number from 0 to 1, got 1.5; the default is 0.1"),
        (
            ["--evaluation.n=[2,0]"],
            "evaluation.n.1: expected a whole number from 1 to 1000000, got 0; correct",
        ),
        (["--ratios=[1,0.5]"], "ratios.1: expected a number of at least 1, got 0.5"),
        (["--ratios=[.nan]"], "ratios.0: expected a finite number, got nan"),
        (["--seeds=[1,1]"], "seeds: expected each value once, got 1 twice"),
        (["--aggregators=[]"], "aggregators: expected at least one value, got none"),
        (["--name=../up"], "name: expected at most 100 letters, digits"),
        (
            ["--tracking=maybe"],
            "tracking: expected one of 'auto', 'online', 'offline', 'none', got 'maybe'",
        ),
        (["--config=absent.yaml"], "config: .*absent.yaml"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(*arguments)


def test_a_misspelt_key_in_a_file_is_named(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("retrain: {epoch: 3}\n")
    with pytest.raises(ConfigError, match=r"unknown option 'retrain.epoch'; did you mean 'retrain.epochs'\?"):
        parse(f"--config={file}")


def test_broken_yaml_is_an_error(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("dense: {epochs: 3\n")
    with pytest.raises(ConfigError, match=r"grid\.yaml: expected YAML, got: .*line 1, column 8"):
        parse(f"--config={file}")


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("pruners", "magnitud", r"unknown pruner 'magnitud'; did you mean 'magnitude'\?"),
        (
            "pruners",
            {"name": "magnitude", "scop": "layer"},
            r"pruner 'magnitude': unknown option 'scop'; did you mean 'scope'\?",
        ),
        ("pruners", {"name": "magnitude", "scope": "all"}, "pruner 'magnitude': scope: .*all"),
        ("backbones", {"widths": [8]}, "expected a plugin name or a mapping with 'name'"),
    ],
)
def test_plugin_mistakes_are_named(kind, spec, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve(kind, spec)


def test_labels_say_what_differs_from_the_defaults():
    assert config.resolve("pruners", "magnitude").label == "magnitude"
    assert config.resolve("pruners", {"name": "magnitude", "scope": "layer"}).label == "magnitude(scope=layer)"
    assert config.resolve("pruners", {"name": "magnitude", "label": "mine"}).label == "mine"


def test_the_key_depends_on_every_value_including_defaults_but_not_on_labels():
    plain = config.resolve("pruners", "magnitude")
    assert config.digest(plain) == config.digest(config.resolve("pruners", {"name": "magnitude", "label": "mine"}))
    assert config.digest(plain) != config.digest(config.resolve("pruners", {"name": "magnitude", "scope": "layer"}))
    train = Experiment().dense
    for item in dataclasses.fields(train):
        value = getattr(train, item.name)
        changed = {"sgd": "adamw", "adamw": "sgd", "cosine": "constant"}.get(
            value, not value if isinstance(value, bool) else None
        )
        other = changed if changed is not None else ("Resize",) if value == () else value + 1
        assert config.digest(dataclasses.replace(train, **{item.name: other})) != config.digest(train), item.name


def test_unknown_kinds_are_refused():
    with pytest.raises(
        ConfigError, match="unknown plugin kind 'prunners'; available: data, backbones, pruners, aggregators"
    ):
        plugins.available("prunners")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dense.learning_rate=.inf"], "dense.learning_rate: expected a finite number, got inf"),
        (["--sweet_spot.budgets=[1,.inf]"], "sweet_spot.budgets.1: expected a finite number, got inf"),
        (["--pruners=[{name: grasp, temperature: .inf}]"], "pruners.0.temperature: expected a finite number, got inf"),
        (["--backbones=[{name: mlp, widths: [8, .nan]}]"], "backbones.0.widths.1: expected a finite number, got nan"),
        (["--sweet_spot.retain=0"], "sweet_spot.retain: expected a number above 0 and at most 1, got 0"),
        (
            ["--trainer.options={limit_train_batches: 1}"],
            "trainer.options: unknown option 'limit_train_batches', which can change what is computed",
        ),
        (
            ["--trainer.options={max_epochs: 1}"],
            "trainer.options: unknown option 'max_epochs', which can change what is computed",
        ),
        (["--pruners=[none]", "--ratios=[1,4]"], "ratios: got 4 but pruners lists none that compresses"),
        (["--name=store"], "not 'store'"),
        (["--crossfit.folds=1"], "crossfit.folds: expected a whole number from 2 to 1000, got 1"),
        (["--crossfit.ridge=[0.1,0]"], "crossfit.ridge.1: expected a number of at least 1e-09, got 0"),
        (["--crossfit.ridge=[]"], "crossfit.ridge: expected at least one value, got none"),
        (
            ["--training=[{name: joint, epochs: 0}]"],
            "training 'joint': epochs: expected a whole number .*, got 0; the default is 3",
        ),
        (["--training=[{name: joint, label: [1]}]"], "training: expected a label in words, got .1.; put it in quotes"),
        (
            ["--training=[crossfitted]"],
            "training: unknown kind .crossfitted.; did you mean .crossfit.. available: crossfit, frozen",
        ),
    ],
)
def test_what_would_go_wrong_later_is_refused_at_once(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(*arguments)


def test_the_entries_of_training_are_recipes_with_labels():
    given = [
        "frozen",
        "joint",
        {"name": "joint", "distill": 1},
        {"name": "joint", "label": "alone", "set_loss": 0, "instance_loss": 1.0},
    ]
    experiment = parse(f"--training={given}", "--joint.epochs=7")
    frozen, joint, distilled, alone = config.trainings(experiment)
    assert [entry.label for entry in (frozen, joint, distilled, alone)] == [
        "frozen",
        "joint",
        "joint(distill=1.0)",
        "alone",
    ]
    assert frozen.joint is None
    assert joint.joint == experiment.joint
    assert distilled.joint == dataclasses.replace(experiment.joint, distill=1.0)
    assert alone.joint == dataclasses.replace(experiment.joint, set_loss=0.0, instance_loss=1.0)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (["jont"], r"training: unknown kind 'jont'; did you mean 'joint'\?"),
        ([{"label": "x"}], "training: unknown kind None; available: .*frozen.*joint"),
        ([{"name": "joint", "distil": 1}], r"training 'joint': unknown option 'distil'; did you mean 'distill'\?"),
        (
            [{"name": "joint", "distill": -1}],
            "distill: expected a number from 0 to 1000000, got -1",
        ),
        ([{"name": "joint", "batches": "even"}], "training 'joint': batches: .*even"),
        ([{"name": "joint", "label": "frozen"}], "the label 'frozen' has a meaning of its own"),
        ([{"name": "frozen", "epochs": 3}], "'frozen' takes no options and no other label, got .*epochs.*3"),
        ([{"name": "frozen", "label": "x"}], "'frozen' takes no options and no other label, got .*label.*x"),
        (["joint", {"name": "joint", "label": "x"}], "'joint' and 'x' are the same recipe; remove one"),
        (
            [{"name": "joint", "label": "x"}, {"name": "joint", "label": "x", "epochs": 9}],
            "two entries are called 'x' in tables",
        ),
        (
            [{"name": "joint", "set_loss": 0, "instance_loss": 0}],
            "set_loss, instance_loss and distill are all 0, which trains nothing",
        ),
    ],
)
def test_mistakes_in_training_are_named(training, message):
    with pytest.raises(ConfigError, match=message):
        parse(f"--training={training}")


def test_evaluate_has_no_plan():
    with pytest.raises(ConfigError, match="unknown option 'plan'"):
        config.parse(["--plan"], "evaluate")


def test_an_added_option_is_in_the_key_only_when_it_changes_something():
    @dataclasses.dataclass(frozen=True)
    class Before:
        width: int = 3

    @dataclasses.dataclass(frozen=True)
    class After(Before):
        loss: str = config.added("all")

    @dataclasses.dataclass(frozen=True)
    class AnotherDefault(Before):
        loss: str = config.added("all", default="last")

    assert config.digest(After()) == config.digest(Before())
    assert config.digest(After(loss="last")) == config.digest(AnotherDefault()) != config.digest(Before())
    assert config.digest(AnotherDefault(loss="all")) == config.digest(Before())


def with_added(config_class: type) -> type:
    """Return a configuration class that has got one more option since."""
    option = ("later", str, config.added("no"))
    return dataclasses.make_dataclass("Later", [option], bases=(config_class,), frozen=True)


SECTIONS = [item.name for item in dataclasses.fields(Experiment) if dataclasses.is_dataclass(item.default)]
STAGE_CONFIGS = [stage.module.Config for stage in stages.STAGES.values()]


@pytest.mark.parametrize("section", SECTIONS)
def test_an_option_can_be_added_to_every_section(section):
    experiment = Experiment()
    options = vars(getattr(experiment, section))
    same, other = (
        dataclasses.replace(experiment, **{section: with_added(type(getattr(experiment, section)))(**options, **more)})
        for more in ({}, {"later": "yes"})
    )
    assert config.digest(same) == config.digest(experiment) != config.digest(other)


@pytest.mark.parametrize("config_class", STAGE_CONFIGS)
def test_an_option_can_be_added_to_what_a_stage_depends_on(config_class):
    names, later = [item.name for item in dataclasses.fields(config_class)], with_added(config_class)
    before = object.__new__(config_class)  # its options stand for themselves here, whatever their type
    for name in names:
        object.__setattr__(before, name, name)
    same, other = (later(**dict(zip(names, names, strict=True)), **more) for more in ({}, {"later": "yes"}))
    assert config.digest(same) == config.digest(before) != config.digest(other)


def test_an_option_can_be_added_to_a_schedule_and_to_a_plugin():
    plugin = config.resolve("pruners", {"name": "magnitude", "schedule": {"when": "gradual"}})
    for part in ("schedule", "config"):
        later, options = with_added(type(getattr(plugin, part))), vars(getattr(plugin, part))
        same, other = (dataclasses.replace(plugin, **{part: later(**options, **more)}) for more in ({}, {"later": "x"}))
        assert config.digest(same) == config.digest(plugin) != config.digest(other)


def test_an_option_added_to_a_plugin_that_an_option_holds_is_in_the_key_only_when_it_changes_something():
    """Janossy pooling holds another aggregator, whose options are among its own."""

    def key(**options):
        return config.resolve("aggregators", {"name": "janossy", "base": {"name": "crafted_lstm", **options}}).key()

    assert "refit_hidden" not in key(refit_hidden=0)["base"]
    assert key(refit_hidden=8)["base"]["refit_hidden"] == 8
    assert (
        key(refit_hidden=0)["base"] == config.resolve("aggregators", {"name": "crafted_lstm", "refit_hidden": 0}).key()
    )


@pytest.mark.parametrize("spec", ["magnitude", "lottery_ticket", {"name": "magnitude", "schedule": "gradual"}])
def test_a_pruner_is_made_again_with_its_schedule(spec):
    plugin = config.resolve("pruners", spec)
    for stored in (plugin.key(), plugin.payload()):
        again = config.remade("pruners", json.loads(json.dumps(stored)))
        assert (again.config, again.schedule) == (plugin.config, plugin.schedule)


@pytest.mark.parametrize("hidden", [0, 32, 64])
def test_a_plugin_is_made_again_from_its_payload_and_from_its_key(hidden):
    """The crafted LSTM had no `refit_hidden` when artifacts were first stored: without it the head is linear."""
    plugin = config.resolve("aggregators", {"name": "crafted_lstm", "refit_hidden": hidden})
    assert ("refit_hidden" in plugin.key()) == (hidden != 0)
    for stored in (plugin.key(), plugin.payload()):
        again = config.remade("aggregators", json.loads(json.dumps(stored)))
        assert again.config == plugin.config
        assert config.digest(again) == config.digest(plugin)
    base = {"name": "crafted_lstm", "refit_hidden": hidden}
    janossy = config.resolve("aggregators", {"name": "janossy", "base": base})
    assert config.remade("aggregators", janossy.key()).config == janossy.config
    assert config.digest(config.remade("aggregators", janossy.key())) == config.digest(janossy)
