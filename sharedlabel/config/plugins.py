"""Plugins with their options: loaded by name, checked, called by a label, and made again from what is stored."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sharedlabel import plugins
from sharedlabel.config import schema
from sharedlabel.config.fields import KIND, before
from sharedlabel.config.sections import Schedule
from sharedlabel.errors import ConfigError

PluginSpec: TypeAlias = str | dict[str, Any]
_LABEL = 100  # letters
_going_on: list[None] = []  # one for each context `anew`
_TIMING = {"iterative": ("growth", "rewind"), "gradual": ("steps", "until")}


@dataclass(frozen=True)
class Plugin:
    """A plugin with its checked options.

    Attributes:
        kind: plugin folder.
        name: what `plugins.load` finds it by; of a file from outside, its stem.
        label: what tables call it; not part of any key.
        config: an instance of the plugin's own `Config`.
        schedule: when a pruner prunes; None for other kinds.
    """

    kind: str
    name: str
    label: str
    config: Any
    schedule: Schedule | None = None

    def payload(self) -> dict[str, Any]:
        """Return what it can be made from again: the name, every option and the schedule."""
        timing = {} if self.schedule is None else {"schedule": dataclasses.asdict(self.schedule)}
        return {"name": self.name, **dataclasses.asdict(self.config), **timing}

    def key(self) -> dict[str, Any]:
        """Return what artifacts depend on: the payload without the options `added` that change nothing."""
        timing = {} if self.schedule is None else {"schedule": key_options(self.schedule)}
        return {"name": self.name, **key_options(self.config), **timing}


@plugins.blamed()
def resolve(kind: str, spec: PluginSpec) -> Plugin:
    """Load a plugin and check its options.

    Args:
        kind: plugin folder.
        spec: its name, or a mapping with `name`, an optional `label`, the plugin's options and a pruner's `schedule`.
            In the place of the name, a plugin from outside is given as `./file.py`, `package.module` or the name of an
            entry point; it is code, and runs.

    Raises:
        ConfigError: unknown plugin or option (the nearest valid one is named), or a value of the wrong type.
        ContractError: code of a plugin from outside raises.
    """
    options = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name, label = options.pop("name", None), given_label(options.pop("label", None), kind)
    if not isinstance(name, str):
        raise ConfigError(
            f"{kind}: expected a plugin name or a mapping with 'name', got {schema.shown(spec)}; "
            f"available: {', '.join(plugins.available(kind))}"
        )
    name = plugins.take(kind, name)
    module, where = plugins.load(kind, name), f"{kind.removesuffix('s')} {name!r}"
    schedule = usual = None
    if kind == "pruners":
        usual = getattr(module, "SCHEDULE", Schedule())
        schedule = _schedule(usual, options.pop("schedule", {}), where)
    config = build(module.Config, _taken(module.Config, options, where), where)
    shown = label if label is not None else _label(name.rpartition(".")[2], config, schedule, usual)
    return Plugin(kind, name, shown, config, schedule)


def remade(kind: str, stored: Mapping[str, Any]) -> Plugin:
    """Make a plugin again from what an artifact says it was; options `added` since are as if they did not exist.

    Args:
        kind: plugin folder.
        stored: its key or payload.

    Raises:
        ConfigError: no plugin of today is like it.
    """
    config = plugins.load(kind, stored["name"]).Config
    options = before(config) | dict(stored)
    if "schedule" in options:
        options["schedule"] = before(Schedule) | dict(options["schedule"])
    for option, inner in _nested(config, options):
        if isinstance(options[option], str):
            plugins.load(inner, options[option])  # never a file or module that only what is stored names
        else:
            options[option] = remade(inner, options[option]).payload()
    return resolve(kind, options)


def public(kind: str, spec: PluginSpec) -> PluginSpec:
    """Return how a user has given a plugin, without the folders of this machine.

    >>> public("aggregators", "/home/me/my_pool.py")
    'my_pool.py'
    """
    if isinstance(spec, str):
        return plugins.shown(spec)
    config = plugins.load(kind, plugins.take(kind, spec["name"])).Config
    held = {option: public(inner, spec[option]) for option, inner in _nested(config, spec)}
    return {**spec, **held, "name": plugins.shown(spec["name"])}


def _taken(config: type[Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return options in which the plugins that they hold are called by their names, wherever they come from."""
    named = dict(options)
    for option, kind in _nested(config, options):
        try:
            named[option] = _called(kind, options[option])
        except ConfigError as error:
            raise ConfigError(f"{where}: {option}: {error}") from error
    return named


def _called(kind: str, spec: PluginSpec) -> PluginSpec:
    """Return how a plugin is given, by its name; as it is where no plugin is given."""
    given = spec if isinstance(spec, str) else spec.get("name")
    if not isinstance(given, str):
        return spec
    name = plugins.take(kind, given)
    if isinstance(spec, str):
        return name
    return {**_taken(plugins.load(kind, name).Config, spec, f"{kind.removesuffix('s')} {name!r}"), "name": name}


def _nested(config: type[Any], options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the options that hold plugins, each with the kind; those that are left out, or hold none, excepted."""
    held = [(entry.name, entry.metadata[KIND]) for entry in dataclasses.fields(config) if KIND in entry.metadata]
    return [(option, kind) for option, kind in held if isinstance(options.get(option), str | Mapping)]


def given_label(label: Any, where: str) -> str | None:
    """Return a label as text; numbers such as 16 stand for themselves in YAML."""
    text = str(label) if isinstance(label, int | float) and not isinstance(label, bool) else label
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{where}: expected a label in words, got {schema.shown(label)}; put it in quotes")
    if text is not None and not (text.strip() and len(text) <= _LABEL and text.isprintable()):
        raise ConfigError(
            f"{where}: expected a label of 1 to {_LABEL} letters in one line, got {schema.shown(text)}; shorten it"
        )
    return text


def _schedule(usual: Schedule, given: Any, where: str) -> Schedule:
    """Override a pruner's usual schedule; options that would have no effect are refused."""
    options = {"when": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}: schedule: expected a word or a mapping, got {given!r}; --help explains `Schedule`")
    base = dataclasses.asdict(usual if options.get("when", usual.when) == usual.when else Schedule())
    chosen: Schedule = build(Schedule, {**base, **options}, f"{where}: schedule")
    allowed = ("when", *_TIMING.get(chosen.when, ()))
    for option in options:
        if option not in allowed and getattr(chosen, option) != getattr(Schedule(), option):
            raise ConfigError(
                f"{where}: schedule: {option!r} has no effect when the network is pruned {chosen.when!r}; "
                f"remove it, or choose a schedule that uses it (iterative: growth, rewind; gradual: steps, until)"
            )
    return chosen


def build(config_class: type[Any], given: Mapping[str, Any], where: str) -> Any:
    """Build a frozen dataclass from a mapping, strictly.

    Raises:
        ConfigError: unknown key, wrong type or value out of bounds; `where` starts the message.
    """
    try:
        return schema.read(config_class, given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def key_options(config: Any) -> dict[str, Any]:
    """Return the options of a configuration by name, without those `added` that change nothing."""
    kind: Any = type(config)
    kept, absent = {}, before(kind)
    for entry in _fields(kind):
        value = getattr(config, entry.name)
        if entry.name not in absent or value != absent[entry.name]:
            kept[entry.name] = _held(entry, value).key() if KIND in entry.metadata else value
    return kept


@functools.cache  # keys of a large grid ask for those of a few classes a million times
def _fields(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a dataclass; none of another class."""
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _held(entry: dataclasses.Field[Any], value: PluginSpec) -> Plugin:
    """Return the plugin that a `nested` option holds."""
    return _resolved(entry.metadata[KIND], json.dumps(value))


@functools.cache
def _resolved(kind: str, spec: str) -> Plugin:
    return resolve(kind, json.loads(spec))


def refresh() -> None:
    """Read changed code of plugins from outside anew, for the next grid of this process."""
    plugins.refresh()
    _resolved.cache_clear()


@contextlib.contextmanager
def anew() -> Iterator[None]:
    """Read changed code of plugins from outside anew, as the next grid would, before what is done in this context.

    For functions that take plugins: in a notebook files are edited between two calls. One that goes on keeps the code
    that it has begun with: inside another such context, of any thread, nothing is read anew.
    """
    if not _going_on:
        refresh()
    _going_on.append(None)
    try:
        yield
    finally:
        _going_on.pop()


def plugins_in(config: Any) -> set[tuple[str, str]]:
    """Return the plugins that a configuration names, by kind and name; those that options of plugins hold, too."""
    if isinstance(config, Plugin):
        return {(config.kind, config.name)} | plugins_in(config.config)
    named: set[tuple[str, str]] = set()
    kind: Any = type(config)
    for entry in _fields(kind):
        value = getattr(config, entry.name)
        inner: Any = type(value)
        if KIND in entry.metadata:
            named |= plugins_in(_held(entry, value))
        elif _fields(inner):
            named |= plugins_in(value)
    return named


def _label(name: str, config: Any, schedule: Schedule | None, usual: Schedule | None) -> str:
    """Name a plugin by what differs from its defaults: `magnitude(scope=layer, when=initial)`."""
    return described(name, ((config, type(config)()), (schedule, usual)))


def described(name: str, against: Sequence[tuple[Any, Any]]) -> str:
    """Name something by the options in which it differs from others."""
    changed = [
        f"{item.name}={getattr(given, item.name)}"
        for given, default in against
        if given is not None
        for item in dataclasses.fields(given)
        if getattr(given, item.name) != getattr(default, item.name)
    ]
    return f"{name}({', '.join(changed)})" if changed else name
