"""What a module has to define to be a plugin of a kind, read from its text before it runs, and checked once it has.

| kind | `Config` and |
| --- | --- |
| data | `load(config, root)` |
| backbones | `build(config, image_shape, num_classes)` |
| pruners | `scores(backbone, config, context)` or `prune(backbone, ratio, config, context)`; three constants |
| aggregators | `build(config, shape)` |
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import inspect
from collections.abc import Iterable
from types import ModuleType

from sharedlabel.code import syntax
from sharedlabel.errors import ConfigError

KINDS = ("data", "backbones", "pruners", "aggregators")
CONFIG = "Config"
# By kind: the functions that it needs, each with its parameters; where there are several sets, one of them.
NEEDED: dict[str, tuple[dict[str, tuple[str, ...]], ...]] = {
    "data": ({"load": ("config", "root")},),
    "backbones": ({"build": ("config", "image_shape", "num_classes")},),
    "pruners": (
        {"scores": ("backbone", "config", "context")},
        {"prune": ("backbone", "ratio", "config", "context")},
    ),
    "aggregators": ({"build": ("config", "shape")},),
}
CONSTANTS: dict[str, tuple[str, ...]] = {"pruners": ("STRUCTURED", "NESTED", "NEEDS")}
_EVERYTHING = "*"


def needs(kind: str) -> str:
    """Say what a kind needs.

    >>> needs("aggregators")
    'Config and build(config, shape)'
    """
    sets = [" and ".join(map(_written, functions.items())) for functions in NEEDED[kind]]
    return f"{', '.join((CONFIG, *CONSTANTS.get(kind, ())))} and {' or '.join(sets)}"


def check_text(kind: str, source: str, where: str) -> None:
    """Refuse a module by its text, without running it: what defines no plugin of a kind, or more than one.

    Args:
        kind: one of `KINDS`.
        source: the text of the module.
        where: what to call the module in messages.

    Raises:
        ConfigError: it is no Python, lacks what its kind needs, or defines two plugins.
    """
    tree = _parsed(source, where)
    defined = [node.name for node in tree.body if isinstance(node, syntax.SCOPES)]
    for name, count in collections.Counter(defined).items():
        if count > 1 and name in {CONFIG, *_functions()}:
            raise ConfigError(f"expected one plugin in {where}, got {name} {count} times; make a file of each")
    _check_one_kind(reversed(defined), where)
    bound = syntax.bound(tree.body) | {local for node in tree.body for local, _, _ in syntax.imports(node)}
    always = (CONFIG, *CONSTANTS.get(kind, ()))
    complete = any({*always, *functions} <= bound for functions in NEEDED[kind])
    if not complete and _EVERYTHING not in bound:
        listed = ", ".join(name for name in (*always, *_functions()) if name in bound) or _nothing(tree)
        raise ConfigError(f"expected {needs(kind)} in {where}, got {listed}; define what is missing")


def check_module(kind: str, module: ModuleType, where: str) -> None:
    """Refuse a module that has run and is no plugin of a kind.

    Args:
        kind: one of `KINDS`.
        module: as it was imported.
        where: what to call the module in messages.

    Raises:
        ConfigError: its `Config` is no frozen dataclass with a default for every option, or its functions take other
            arguments.
    """
    config = getattr(module, CONFIG, None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config) and _is_frozen(config)):
        raise ConfigError(
            f"expected a frozen dataclass {CONFIG} in {where}, got {config!r}; write @dataclass(frozen=True) above it"
        )
    if required := [item.name for item in dataclasses.fields(config) if _is_required(item)]:
        raise ConfigError(f"expected a default of every option in {where}, got none of {required[0]!r}; give it one")
    functions = next((one for one in NEEDED[kind] if all(callable(getattr(module, name, None)) for name in one)), None)
    if functions is None:
        raise ConfigError(f"expected {needs(kind)} in {where}, got something else of these names; define functions")
    for name, parameters in functions.items():
        signature = inspect.signature(getattr(module, name))
        try:
            signature.bind(*parameters)
        except TypeError as error:
            raise ConfigError(
                f"expected {_written((name, parameters))} in {where}, got {name}{_bare(signature)}; take these "
                "arguments, in this order"
            ) from error


def kind_of(source: str, where: str) -> str:
    """Return the kind of plugin that a module's text defines.

    `build` makes a backbone if it takes three arguments, and an aggregator otherwise.

    Raises:
        ConfigError: the text is no Python, or defines no plugin, or plugins of several kinds.
    """
    tree = _parsed(source, where)
    kinds = _check_one_kind(sorted(syntax.bound(tree.body)), where)
    if not kinds:
        functions = ", ".join(sorted(_functions()))
        raise ConfigError(
            f"expected a plugin in {where}, which defines one of {functions}, got {_nothing(tree)}; `sharedlabel new` "
            "writes one that works"
        )
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "build":
            parameters = NEEDED["backbones"][0]["build"]
            return "backbones" if len(node.args.args) == len(parameters) else "aggregators"
    return next(iter(kinds))


def _check_one_kind(names: Iterable[str], where: str) -> dict[str, str]:
    """Return the kinds that names of functions make a plugin of, each with the name; refuse more than one kind."""
    kinds = {_functions()[name][0]: name for name in names if name in _functions()}
    if len(kinds) > 1:
        listed = " and ".join(kinds[kind] for kind in sorted(kinds))
        raise ConfigError(f"expected one plugin in {where}, got {listed}, of different kinds; make a file of each")
    return kinds


def _nothing(tree: ast.Module) -> str:
    """Say that a module defines nothing of a plugin, and where it raises an error instead."""
    outside = [part for node in tree.body if not isinstance(node, syntax.SCOPES) for part in ast.walk(node)]
    raised = next((part for part in outside if isinstance(part, ast.Raise)), None)
    return "none of it" if raised is None else f"`{ast.unparse(raised)[:200]}` in line {raised.lineno}"


def _parsed(source: str, where: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:  # null bytes are a ValueError in some versions
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigError(f"expected Python in {where}, got a syntax error{line}: {reason}; correct it") from error


def _functions() -> dict[str, tuple[str, ...]]:
    """Return the names of functions that make a plugin, each with the kinds that it makes one of."""
    kinds: dict[str, tuple[str, ...]] = {}
    for kind, sets in NEEDED.items():
        for name in {name for functions in sets for name in functions}:
            kinds[name] = (*kinds.get(name, ()), kind)
    return kinds


def _written(function: tuple[str, tuple[str, ...]]) -> str:
    return f"{function[0]}({', '.join(function[1])})"


def _bare(signature: inspect.Signature) -> str:
    return f"({', '.join(signature.parameters)})"


def _is_frozen(config: type) -> bool:
    return bool(getattr(config, "__dataclass_params__").frozen)  # noqa: B009


def _is_required(item: dataclasses.Field[object]) -> bool:
    return item.init and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
