"""Instances that aggregators are fitted to: checked, and divided into those to learn from and those to watch."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from sharedlabel.config.sections import SplitConfig
from sharedlabel.data import splits, tuples
from sharedlabel.errors import DataError
from sharedlabel.metrics import _checks
from sharedlabel.training.search import Images


def instances(embeddings: Tensor, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Images:
    """Put together what belongs together, in 32 bits.

    Args:
        embeddings: `[m d]`.
        logits: `[m c]`.
        labels: class index of each.
        groups: group of each, or None.

    Raises:
        DataError: it does not belong together.
    """
    _checks.array("embeddings", embeddings, "m d")
    _checks.array("logits", logits, "m c", m=len(embeddings))
    _checks.labels(labels, len(logits), logits.shape[1])
    if groups is not None:
        _checks.tensor("groups", groups, "m")
        if groups.dtype != torch.int64 or groups.shape != labels.shape:
            kind = str(groups.dtype).removeprefix("torch.")
            raise DataError(f"expected groups as int64 [{len(labels)}], got {kind} {list(groups.shape)}; number them")
    return Images(embeddings.float(), logits.float(), labels, groups)


def frequencies(given: Images) -> Float64[Tensor, "c"]:
    """Return the share of each label; all that logits have scores of have to occur.

    Args:
        given: from `instances`.
    """
    classes = given.logits.shape[1]
    shares = tuples.prior(given.labels, "empirical", classes)
    if bool((shares == 0).any()):
        missing = int((shares == 0).nonzero()[0])
        raise DataError(
            f"expected instances of all {classes} labels that logits have scores of, got none of label {missing}; "
            "add some, or leave its scores out"
        )
    return shares


def divided(given: Images, validation: tuple[Tensor, ...] | None, seed: int) -> tuple[Images, Images]:
    """Return the instances to learn from and those to watch: the ones of validation, or a quarter of all.

    Args:
        given: from `instances`.
        validation: embeddings, logits, labels, and groups where there are some; None to hold some out.
        seed: of the division.

    Raises:
        DataError: validation is not like the others, or there are too few to hold some out.
    """
    if validation is None:
        watched = held_out(given.labels, given.groups, seed)
        return some(given, ~watched), some(given, watched)
    if len(validation) not in (3, 4):
        raise DataError(
            "validation: expected (embeddings, logits, labels), or these and groups, got "
            f"{len(validation)} tensors; pass them in this order"
        )
    watch = instances(*validation)
    _checks.array("validation embeddings", watch.embeddings, "m d", d=given.embeddings.shape[1])
    _checks.array("validation logits", watch.logits, "m c", c=given.logits.shape[1])
    if (given.groups is None) != (watch.groups is None):
        raise DataError("expected groups of validation where the others have some, got one without; pass both")
    return given, watch


def held_out(
    labels: Int64[Tensor, "m"], groups: Int64[Tensor, "m"] | None, seed: int, parts: int = 4
) -> Bool[Tensor, "m"]:
    """Mark one part in so many of the instances, each class in proportion, groups whole.

    Args:
        labels: class index of each; all of 0 to the largest occur.
        groups: group of each, or None.
        seed: of the division.
        parts: how many there are.

    Raises:
        DataError: a class has too few instances, or groups.
    """
    part = splits.folded(labels, groups, parts, SplitConfig(seed=seed))
    if lacking := splits.missing(labels, part, parts, int(labels.max()) + 1):
        own = labels == lacking[1]
        has = f"{int(own.sum())} instances" if groups is None else f"{len(groups[own].unique())} groups"
        raise DataError(
            f"validation: expected every label in each of {parts} parts{'' if groups is None else ', groups whole'}, "
            f"to hold one out, got a part without label {lacking[1]}, which has {has}; add some, or pass "
            "validation=(embeddings, logits, labels)"
        )
    return part == 0


def some(given: Images, rows: Tensor) -> Images:
    """Return some of the instances."""
    return Images(*(None if part is None else part[rows] for part in given))  # type: ignore[arg-type]


def distribution(name: str, given: Tensor | None, classes: int, usual: Tensor) -> Float64[Tensor, "c"]:
    """Return probabilities of the classes, each above 0.

    Args:
        name: what the message calls them.
        given: the probabilities, or None.
        classes: how many there are.
        usual: those in the place of None.
    """
    chosen = usual if given is None else given
    _checks.shape(name, chosen, "c", c=classes)
    _checks.positive(f"probabilities in {name}", chosen)
    _checks.distributions(name, chosen, axes=1)
    wide = chosen.double()
    return wide / wide.sum()
