"""What a submitted aggregator must do, tried on random tuples; the properties are those of `tests/conformance`.

Fitted aggregators go through the same code: it says whether one is normalised, causal and looks at one tuple at a time.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sharedlabel import cost, rng
from sharedlabel.aggregators import _contract
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._contract import TOLERANCE
from sharedlabel.config import resolve
from sharedlabel.errors import SharedLabelError, printable
from sharedlabel.leaderboard import child
from sharedlabel.plugins import load
from sharedlabel.types import SetShape

TUPLES, INSTANCES = 6, 5
TOLD = 300  # characters of a problem: what submitted code says of itself is no message of ours
ELEMENTWISE = 8  # products of elements for each value of a tuple that no count of MACs has to show
POINTWISE = 16  # elements that elementwise work may write and reductions read, likewise; the zoo needs 6 at most
_PRODUCTS = {"mul", "div", "addcmul", "addcdiv", "lerp"}  # with their forms in place
_ALONG = {"prod", "cumprod", "scatter_reduce", "index_reduce", "segment_reduce"}  # they may multiply along a dimension
_COPIES = {"clone", "_to_copy"}  # torch writes expanded operands of products out; as work they count
# What multiplies or squares within one operation that neither a count of MACs nor a tag of torch shows.
_UNCOUNTED = re.compile(
    r"_fft_.*|_foreach_.*|.*_loss(_forward)?|binary_cross_entropy.*|dist|_pdist_forward|renorm|_?embedding_bag.*"
    r"|.*grid_sampler.*"
)
_LEAVES = {"_local_scalar_dense", "equal", "is_nonzero"}
_LEAVING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
Build = Callable[[], Any]  # an aggregator, it claims


class Violation(Exception):  # noqa: N818 - says what it is
    """A property that does not hold."""


def examine(folder: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Try a submission on every width that the protocols have, and count what it costs.

    Args:
        folder: holds the submission.
        job: `shapes`, a list of the embedding width, the number of classes and the numbers of instances.

    Returns:
        `problems`, one line for each, and `costs`: `macs` and `parameters` of every shape in turn, none if there are
        problems.
    """
    problems: list[str] = []
    costs = []
    try:
        child.mount(folder)
        module = load("aggregators", child.MODULE)
        _check_file(module)
        config = resolve("aggregators", child.MODULE).config
        for width, classes, sizes in job["shapes"]:
            shape = SetShape(torch.zeros(width), torch.ones(width), torch.full((classes,), -math.log(classes)))

            def build(shape: SetShape = shape) -> Any:
                return module.build(config, shape)

            found, counted = _examined(build, shape, sizes)
            problems += found
            costs.append(counted)
    except Exception as error:  # whatever submitted code raises is a finding, not a crash
        problems.append(_told(error))
    return {"problems": list(dict.fromkeys(problems)), "costs": [] if problems else costs}


def _examined(build: Build, shape: SetShape, sizes: list[int]) -> tuple[list[str], dict[str, Any]]:
    """Try one width: the problems, and what it costs if there are none.

    Raises:
        Violation: it cannot be built.
    """
    try:
        with torch.no_grad(), rng.seeded(0, "conformance", "build"):
            _shaken(build)
    except Exception as error:  # whatever submitted code raises is a finding, not a crash
        raise Violation(_told(error, "build")) from error
    problems = list(_violations(build, shape.embedding_dim, shape.num_classes))
    if problems:
        return problems, {}
    try:
        built = build()
        macs = cost.aggregator_macs(built, shape, sizes)
        with rng.seeded(0, "conformance", "counted"):
            _check_counted(built, shape, macs)
    except Exception as error:  # whatever submitted code raises is a finding, not a crash
        return [_told(error, "counted")], {}
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return [], {"macs": {str(n): value for n, value in macs.items()}, "parameters": parameters}


def _told(error: Exception, name: str = "") -> str:
    """Say in one short line what was raised, and by which property."""
    kind = "" if isinstance(error, Violation | SharedLabelError) else f"{type(error).__name__}: "
    where = f"{name}: " if name else ""
    return printable(where + kind + " ".join(str(error).split()), TOLD)[:TOLD]  # escapes are longer


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
    config = getattr(module, "Config", None)
    kind = getattr(config, "__dataclass_params__", None) if inspect.isclass(config) else None
    if kind is None or not kind.frozen:
        shown = "none" if config is None else f"a {type(config).__name__}" if kind is None else "one that is not"
        raise Violation(f"expected a frozen dataclass Config in the file, got {shown}; it holds the options")


def _violations(build: Build, width: int, classes: int) -> Iterator[str]:
    """Yield the properties that do not hold, each with what was found; what several find is said once."""
    seen = set()
    for name, check in _PROPERTIES.items():
        try:
            with torch.no_grad(), rng.seeded(0, "conformance", name):
                check(_shaken(build), width, classes)
        except Exception as problem:  # whatever submitted code raises is a finding, not a crash
            if _told(problem) not in seen:
                yield _told(problem, name)
            seen.add(_told(problem))


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


def _normalised(aggregator: Aggregator, width: int, classes: int) -> None:
    for instances in (1, 2, INSTANCES, 64):
        _contract.posterior(aggregator, *_inputs(width, classes, instances), TOLERANCE)


def _extreme(aggregator: Aggregator, width: int, classes: int) -> None:
    for instances in (1, 64):
        embeddings, logits = _inputs(width, classes, instances)
        _contract.posterior(aggregator, 1e6 * embeddings, (1e4 * logits).clamp(-1e4, 1e4), TOLERANCE)


def _causal(aggregator: Aggregator, width: int, classes: int) -> None:
    _contract.check_causal(aggregator, *_inputs(width, classes), TOLERANCE)


def _anytime(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes, 17)
    _contract.check_causal(aggregator, embeddings, logits, TOLERANCE)
    for k in (1, 2, 9, 17):
        _contract.check_some(aggregator, embeddings[:, :k], logits[:, :k], TOLERANCE)


def _separate(aggregator: Aggregator, width: int, classes: int) -> None:
    _contract.check_separate(aggregator, *_inputs(width, classes), TOLERANCE)


def _repeatable(aggregator: Aggregator, width: int, classes: int) -> None:
    inputs = _inputs(width, classes)
    first, second = (_contract.posterior(aggregator, *inputs, TOLERANCE) for _ in range(2))
    if not torch.equal(first, second):
        raise Violation("expected the same posterior from the same tuples, got another the second time")


def _stored(aggregator: Aggregator, width: int, classes: int) -> None:
    inputs = _inputs(width, classes)
    before = _contract.posterior(aggregator, *inputs, TOLERANCE)
    aggregator.load_state_dict({name: value.clone() for name, value in aggregator.state_dict().items()})
    after = _contract.posterior(aggregator, *inputs, TOLERANCE)
    texts = "after loading its own state", "before"
    _contract.check_same(aggregator, (after, texts[0]), (before, texts[1]), TOLERANCE, "keep all of it in the state")


def _ordered(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = _inputs(width, classes)
    if not isinstance(getattr(aggregator, "permutation_invariant", None), bool):
        raise Violation("expected a class constant permutation_invariant, True or False, got none")
    if aggregator.permutation_invariant:
        turned = _contract.posterior(aggregator, embeddings.flip(1), logits.flip(1), TOLERANCE)[:, -1:]
        given = _contract.posterior(aggregator, embeddings, logits, TOLERANCE)[:, -1:]
        texts, advice = ("with the instances turned round", "as given"), "declare permutation_invariant = False"
        _contract.check_same(aggregator, (turned, texts[0]), (given, texts[1]), TOLERANCE, advice, [INSTANCES])


_PROPERTIES: dict[str, Callable[[Aggregator, int, int], None]] = {
    "normalised": _normalised,
    "extreme values": _extreme,
    "causal": _causal,
    "anytime": _anytime,
    "independent of the batch": _separate,
    "deterministic": _repeatable,
    "state": _stored,
    "order": _ordered,
}


class _OneHot(TorchFunctionMode):
    """Knows when `one_hot` runs, which reads the least and the largest class to check them; nothing else may."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function."""
        del types
        before, self.runs = self.runs, self.runs or func is torch.nn.functional.one_hot
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.runs = before


class _Elementwise(cost.Eager):
    """Counts work on elements, and refuses what writes more than came in: a matrix product, not summed.

    What writes no more than the tuples or an operand hold, or one element for each pair of instances, is elementwise
    work like any other; how much of it there may be in all is for the caller to say. It goes by torch's tags, not by
    names, wherever they tell.

    Args:
        values: of embeddings and logits.
        pairs: of instances of one tuple, over all tuples.
        one_hot: says when values may be read.
    """

    def __init__(self, values: int, pairs: int, one_hot: _OneHot) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = values
        self.most = max(values, pairs)
        self.one_hot = one_hot
        self.products = 0
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at its result."""
        del types
        operands = _tensors((args, kwargs))
        name = func.overloadpacket.__name__.removesuffix("_")
        self._check_leaving(func, name, operands)
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket not in flop_registry:
            self._look(func.tags, name, operands, sum(tensor.numel() for tensor in _tensors(out)))
        return out

    def _check_leaving(self, func: Any, name: str, operands: list[Tensor]) -> None:
        """Refuse what makes numbers or shapes of values; indices are no values, masks are."""
        masks = name != "index" or any(tensor.dtype in (torch.bool, torch.uint8) for tensor in operands[1:])
        if not self.one_hot.runs and (name in _LEAVES or (masks and _LEAVING & set(func.tags))):
            raise Violation(f"expected values that stay in tensors, got {name}: values leave the tensors; use torch")

    def _look(self, tags: Any, name: str, operands: list[Tensor], written: int) -> None:
        """Count what an operation does, and refuse it if that is too much for one."""
        read = max((tensor.numel() for tensor in operands), default=0)
        if _UNCOUNTED.fullmatch(name) or (name in _ALONG and read > self.values):
            raise Violation(f"expected work whose MACs count, got {name}, which hides MACs; use a matrix product")
        if torch.Tag.pointwise in tags:
            if name not in _COPIES:
                self._check_size(name, operands, written)
            self.total += written
        elif torch.Tag.reduction in tags or name in _ALONG:
            self.total += read
        self.products += written if name in _PRODUCTS else 0

    def _check_size(self, name: str, operands: list[Tensor], written: int) -> None:
        most = max(self.values if name in _PRODUCTS else self.most, *(_held(operand) for operand in operands), 0)
        if written > most:
            raise Violation(
                f"expected at most {most:,} elements from {name}, got {written:,}: work that is broadcast hides MACs; "
                "use a matrix product"
            )


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _held(tensor: Tensor) -> int:
    """Count the elements of a tensor that were not made by expanding it."""
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


def _check_counted(aggregator: Aggregator, shape: SetShape, macs: Mapping[int, int]) -> None:
    """Count again on tensors that hold values: code that only spares work where there are none is found out.

    Code that tells the two apart in another way, or this call from one that is scored, is not. Work that is done once
    per batch may make several tuples cheaper, but never dearer. Fused kernels have no formula, so they are off.

    Raises:
        Violation: another number of MACs, values that leave the tensors, or more work on elements than is honest.
    """
    real = copy.deepcopy(aggregator).float().eval().requires_grad_(True)
    for n, expected in macs.items():
        for tuples in (1, TUPLES):
            inputs = _inputs(shape.embedding_dim, shape.num_classes, n, tuples)
            found, work = _counted(real, inputs)
            if found > tuples * expected or (tuples == 1 and found < expected):
                raise Violation(
                    f"expected {tuples * expected:,} MACs for {tuples} tuples of {n}, as without values, got "
                    f"{found:,}; compute the same whatever the tensors hold"
                )
            _check_work(found, work, f"{tuples} tuples of {n}")


def _counted(aggregator: Aggregator, inputs: tuple[Tensor, Tensor]) -> tuple[int, _Elementwise]:
    """Count the MACs and the work on elements of one call."""
    tuples, n, _ = inputs[0].shape
    one_hot = _OneHot()
    work = _Elementwise(sum(tensor.numel() for tensor in inputs), tuples * n * n, one_hot)
    with cost.plain_kernels(), one_hot, work:
        return cost.call_macs(aggregator.last, *inputs), work


def _check_work(macs: int, work: _Elementwise, where: str) -> None:
    """Refuse more work on elements than the MACs and values explain."""
    kinds = (("products of elements", work.products, ELEMENTWISE), ("elements of other work", work.total, POINTWISE))
    for kind, found, free in kinds:
        most = macs + free * work.values
        if found > most:
            raise Violation(
                f"expected at most {most:,} {kind} for {where}, got {found:,}, which hides MACs; use a matrix product"
            )
