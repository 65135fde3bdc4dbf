"""Exact copies of an image in two splits, which would test what was learnt by heart, or in two classes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.types import Dataset, Role

_HASHED_BYTES = 1 << 30  # of images in memory; larger sets say themselves what is a copy


def copies(
    dataset: Dataset, splits: Mapping[Role, Int64[Tensor, "_"]], treatment: Literal["warn", "error"]
) -> tuple[str, ...]:
    """Count the images that stand in two splits, or in two classes.

    Args:
        dataset: says which of its instances are copies, or holds `uint8` images in memory.
        splits: instance indices of each role.
        treatment: whether such copies are an error.

    Returns:
        A sentence for each of both that there are.

    Raises:
        DataError: there are copies, and they are an error.
    """
    content = _content(dataset)
    if content is None:
        return ()
    pairs = (*_between_splits(dataset, content, splits), *_between_classes(dataset, content, splits))
    if pairs and treatment == "error":
        raise DataError(
            f"split.leaks: expected no image twice in {dataset.name!r}, got {' and '.join(pairs)}; remove the copies, "
            "or set split.leaks to warn"
        )
    return pairs


def _content(dataset: Dataset) -> Int64[Tensor, "N"] | None:
    """Number the contents of images; None if they are not known and too many to be compared."""
    images = dataset.images
    if dataset.content is not None or not isinstance(images, Tensor):
        return dataset.content
    if images.dtype != torch.uint8 or images.nbytes > _HASHED_BYTES:
        return None
    numbers: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy())
    return torch.tensor([numbers.setdefault(digest, len(numbers)) for digest in digests])


def _between_splits(
    dataset: Dataset, content: Int64[Tensor, "N"], splits: Mapping[Role, Int64[Tensor, "_"]]
) -> list[str]:
    held = {role: content[indices].unique() for role, indices in splits.items()}
    shared = {
        (one, other): held[one][torch.isin(held[one], held[other])]
        for one, other in itertools.combinations(sorted(held), 2)
    }
    shared = {roles: both for roles, both in shared.items() if len(both)}
    if not shared:
        return []
    (one, other), both = max(shared.items(), key=lambda item: len(item[1]))
    example = _named(dataset, [_first(content, splits[role], int(both[0])) for role in (one, other)])
    counts = ", ".join(f"{len(both):,} in {one} and {other}" for (one, other), both in shared.items())
    return [f"exact copies of images in two splits: {counts}, such as {example}"]


def _between_classes(
    dataset: Dataset, content: Int64[Tensor, "N"], splits: Mapping[Role, Int64[Tensor, "_"]]
) -> list[str]:
    used = torch.cat(list(splits.values()))
    ordered = content[used].argsort(stable=True)
    indices = used[ordered]
    same = content[indices][1:] == content[indices][:-1]
    wrong = (same & (dataset.labels[indices][1:] != dataset.labels[indices][:-1])).nonzero().flatten()
    if not len(wrong):
        return []
    count = len(content[indices][wrong].unique())
    example = _named(dataset, indices[wrong[0] : wrong[0] + 2].tolist())
    return [f"exact copies of images in two classes: {count:,}, such as {example}"]


def _first(content: Tensor, indices: Tensor, wanted: int) -> int:
    return int(indices[(content[indices] == wanted).nonzero()[0, 0]])


def _named(dataset: Dataset, instances: list[int]) -> str:
    names = dataset.instance_names
    return " and ".join(f"instance {index}" if names is None else repr(names[index]) for index in instances)
