"""What a submitted aggregator must do, tried on random tuples; the properties are those of `tests/conformance`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sharedlabel import cost, rng
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.errors import SharedLabelError
from sharedlabel.leaderboard import child
from sharedlabel.plugins import load
from sharedlabel.types import SetShape

TUPLES, INSTANCES = 6, 5
CLOSE = 1e-4  # of log-posteriors in float32
Build = Callable[[], Aggregator]


class Violation(Exception):  # noqa: N818 - says what it is
    """A property that does not hold."""


def examine(folder: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Try a submission on every width that the protocols have, and count what it costs.

    Args:
        folder: holds the submission.
        job: `shapes`, a list of the embedding width, the number of classes and the numbers of instances.

    Returns:
        `problems`, one line for each, and `macs` and `parameters` for every shape.
    """
    problems: list[str] = []
    costs = []
    try:
        plugin = child.plugin(folder)
        module = load("aggregators", child.MODULE)
        _check_file(module)
        for width, classes, sizes in job["shapes"]:
            shape = SetShape(
                torch.zeros(width), torch.ones(width), torch.full((classes,), -float(torch.tensor(classes).log()))
            )

            def build(shape: SetShape = shape) -> Aggregator:
                return module.build(plugin.config, shape)  # type: ignore[no-any-return]

            problems += [f"{name}: {problem}" for name, problem in _violations(build, width, classes)]
            if not problems:
                built = build()
                macs = cost.aggregator_macs(built, shape, sizes)
                count = sum(parameter.numel() for parameter in built.parameters())
                costs.append({"macs": {str(n): value for n, value in macs.items()}, "parameters": count})
    except (SharedLabelError, Violation) as error:
        problems.append(" ".join(str(error).split()))
    except Exception as error:  # whatever submitted code raises is a finding, not a crash
        problems.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return {"problems": list(dict.fromkeys(problems)), "costs": costs}


def _check_file(module: Any) -> None:
    """Refuse a file that does not hold exactly one aggregator and the function that builds it."""
    found = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Aggregator)
        and value is not Aggregator
        and not name.startswith("_")
    ]
    own = [value for value in found if value.__module__ == module.__name__] or found
    if len(own) != 1:
        names = ", ".join(sorted(value.__name__ for value in own)) or "none"
        raise Violation(
            f"expected one class that derives from Aggregator, got {names}; leave one, helpers start with _"
        )
    parameters = list(inspect.signature(module.build).parameters) if callable(getattr(module, "build", None)) else None
    if parameters != ["config", "shape"]:
        shown = "none" if parameters is None else f"build({', '.join(parameters)})"
        raise Violation(f"expected a function build(config, shape), got {shown}; see leaderboard/README.md")


def _violations(build: Build, width: int, classes: int) -> Iterator[tuple[str, str]]:
    """Yield the properties that do not hold, each with what was found."""
    for name, check in _PROPERTIES.items():
        try:
            with torch.no_grad(), rng.seeded(0, "conformance", name):
                check(_shaken(build), width, classes)
        except (Violation, SharedLabelError) as problem:
            yield name, str(problem)
        except Exception as problem:  # whatever submitted code raises is a finding, not a crash
            yield name, f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"


def _shaken(build: Build) -> Aggregator:
    """Build it and move every parameter off its start, so that no zero hides anything."""
    built = build()
    if not isinstance(built, Aggregator):
        raise Violation(f"expected build to return an Aggregator, got {type(built).__name__}")
    for parameter in built.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return built.eval()


def _inputs(width: int, classes: int, instances: int = INSTANCES, tuples: int = TUPLES) -> tuple[Tensor, Tensor]:
    return torch.randn(tuples, instances, width), (2 * torch.randn(tuples, instances, classes)).log_softmax(-1)


def _posterior(aggregator: Aggregator, embeddings: Tensor, logits: Tensor) -> Tensor:
    found = aggregator(embeddings, logits)
    if not isinstance(found, Tensor) or found.shape != logits.shape:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise Violation(f"expected a posterior of shape {list(logits.shape)}, got {shape}")
    return found


def _same(found: Tensor, expected: Tensor, what: str) -> None:
    apart = float((found.exp() - expected.exp()).abs().max())
    if not apart <= CLOSE:
        raise Violation(f"expected the same posterior {what}, got one that differs by {apart:.2g}")


def _normalised(aggregator: Aggregator, width: int, classes: int) -> None:
    for instances in (1, 2, INSTANCES, 64):
        found = _posterior(aggregator, *_inputs(width, classes, instances))
        if not bool(found.isfinite().all()) or found.dtype not in (torch.float32, torch.float64):
            raise Violation(f"expected finite values in float32 with n = {instances}, got NaN, Inf or {found.dtype}")
        apart = float(found.logsumexp(-1).abs().max())
        if not apart <= CLOSE:
            raise Violation(
                f"expected posteriors that sum to 1 with n = {instances}, got a log of their sum of {apart:.2g}"
            )


def _extreme(aggregator: Aggregator, width: int, classes: int) -> None:
    for instances in (1, 64):
        embeddings, logits = _inputs(width, classes, instances)
        found = _posterior(aggregator, 1e6 * embeddings, (1e4 * logits).clamp(-1e4, 1e4))
        if not bool(found.isfinite().all()):
            raise Violation("expected finite values for logits of 10,000 and embeddings of a million, got NaN or Inf")


def _causal(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes)
    before = _posterior(aggregator, embeddings, logits)
    for k in range(1, INSTANCES):
        later_embeddings, later_logits = embeddings.clone(), logits.clone()
        later_embeddings[:, k:], later_logits[:, k:] = -3 * embeddings[:, k:] + 1, logits[:, k:].flip(-1)
        after = _posterior(aggregator, later_embeddings, later_logits)
        _same(after[:, :k], before[:, :k], f"after {k} instances whatever comes later")


def _anytime(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes, 17)
    every = _posterior(aggregator, embeddings, logits)
    for k in (1, 2, 9, 17):
        alone = _posterior(aggregator, embeddings[:, :k], logits[:, :k])
        _same(every[:, :k], alone, f"of {k} instances within 17 and alone")
        _same(aggregator.last(embeddings[:, :k], logits[:, :k]), alone[:, -1], f"from `last` with {k} instances")


def _apart(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes)
    every = _posterior(aggregator, embeddings, logits)
    alone = [_posterior(aggregator, e[None], z[None]) for e, z in zip(embeddings, logits, strict=True)]
    _same(torch.cat(alone), every, "of a tuple in a batch and alone")
    order = torch.randperm(TUPLES)
    _same(_posterior(aggregator, embeddings[order], logits[order]), every[order], "in another order of the batch")


def _repeatable(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes)
    first, second = (_posterior(aggregator, embeddings, logits) for _ in range(2))
    if not torch.equal(first, second):
        raise Violation("expected the same posterior from the same tuples, got another the second time")


def _stored(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes)
    before = _posterior(aggregator, embeddings, logits)
    state = {name: value.clone() for name, value in aggregator.state_dict().items()}
    aggregator.load_state_dict(state)
    _same(_posterior(aggregator, embeddings, logits), before, "after loading its own state")


def _ordered(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes)
    if not isinstance(getattr(aggregator, "permutation_invariant", None), bool):
        raise Violation("expected a class constant permutation_invariant, True or False, got none")
    if aggregator.permutation_invariant:
        turned = _posterior(aggregator, embeddings.flip(1), logits.flip(1))
        _same(turned[:, -1], _posterior(aggregator, embeddings, logits)[:, -1], "in any order of the instances")


_PROPERTIES: dict[str, Callable[[Aggregator, int, int], None]] = {
    "normalised": _normalised,
    "extreme values": _extreme,
    "causal": _causal,
    "anytime": _anytime,
    "independent of the batch": _apart,
    "deterministic": _repeatable,
    "state": _stored,
    "order": _ordered,
}
