"""Batches for training: `ImageLoader` of single images, `TupleLoader` of tuples.

Both know the rank of their process, so that any number of devices sees disjoint shares of every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.data.tuples import Form, partition
from sharedlabel.metrics._weights import weights_at
from sharedlabel.types import Images, Tuples

ImageBatch = tuple[Tensor, Tensor]
TupleBatch = tuple[Tensor, Tensor, Tensor, Tensor]


class SharedTuples(NamedTuple):
    """Tuples of the same instances, which are not gathered.

    Attributes:
        embeddings: of the instances.
        logits: of the instances, calibrated.
        tuples: positions of the instances of each tuple.
        labels: of the tuples.
        weights: of the tuples; at every n, where they are ragged.
    """

    embeddings: Float[Tensor, "m d"]
    logits: Float[Tensor, "m c"]
    tuples: Int64[Tensor, "t n"]
    labels: Int64[Tensor, "t"]
    weights: Float[Tensor, "t"] | Float[Tensor, "t n"]

    @classmethod
    def of(cls, batch: TupleBatch | SharedTuples) -> SharedTuples:
        """Return tuples as they are, or such that share no instance."""
        if isinstance(batch, SharedTuples):
            return batch
        embeddings, logits, labels, weights = batch
        tuples = torch.arange(labels.numel() * logits.shape[1], device=labels.device).view(labels.numel(), -1)
        return cls(embeddings.flatten(0, 1), logits.flatten(0, 1), tuples, labels, weights)

    def to(self, device: torch.device) -> SharedTuples:
        """Return them on a device."""
        return SharedTuples(*(part.to(device) for part in self))


@runtime_checkable
class Lookup(Protocol):
    """Anything that an index tensor looks instances up in: a tensor, or images that stay on disk."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Return the instances `[..., *]` at `index [...]`."""


def place(source: Lookup) -> torch.device:
    """Return where the index has to be, and where what is looked up will be."""
    device: torch.device = getattr(source, "device", torch.device("cpu"))
    return device


def looked_up(source: Lookup, indices: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the instances at each index in turn; images that stay in files are decoded ahead."""
    ahead: Callable[[Iterable[Tensor]], Iterator[Tensor]] | None = getattr(source, "ahead", None)
    return (source[index] for index in indices) if ahead is None else ahead(indices)


class Chosen:
    """Some of the instances of a source, looked up on demand so that images on disk stay there.

    Args:
        source: of the instances.
        chosen: which; position k here is `chosen[k]` there.
    """

    def __init__(self, source: Lookup, chosen: Int64[Tensor, "m"]) -> None:
        self.source, self.device = source, place(source)
        self.chosen = chosen.to(self.device)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.source[self.chosen[index]]

    def ahead(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the instances at each index in turn."""
        return looked_up(self.source, (self.chosen[index] for index in indices))


class ImageLoader:
    """Batches of images and labels in a fresh random order every epoch; an incomplete last batch is left out.

    Args:
        images: `[N C H W]`, in memory, memory-mapped or on a device; batches are where they are. Or in files, which are
            decoded on the CPU.
        labels: `[N]`.
        indices: the images to use.
        batch_size: images per step over all devices.
        seed: seed of the order.
        balanced: draw images with replacement, every class as often as any other.
    """

    def __init__(
        self,
        images: Images,
        labels: Int64[Tensor, "N"],
        indices: Int64[Tensor, "m"],
        batch_size: int,
        seed: int,
        balanced: bool = False,
    ) -> None:
        self.images, self.labels, self.indices = images, labels.to(images.device), indices
        self._mass = 1 / torch.bincount(labels[indices]).double()[labels[indices]] if balanced else None
        self.batch_size, self.seed, self.epoch = min(batch_size, len(indices)), seed, 0

    def __len__(self) -> int:
        return len(self.indices) // self.batch_size

    def __iter__(self) -> Iterator[ImageBatch]:
        batches = self.chosen()
        for batch, images in zip(batches, looked_up(self.images, batches), strict=True):
            yield images, self.labels[batch]

    def chosen(self) -> list[Int64[Tensor, "b"]]:
        """Return the images of every batch of the epoch that begins, and count it."""
        generator, count = rng.generator(self.seed, "images", self.epoch), len(self.indices)
        if self._mass is None:
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.multinomial(self._mass, count, replacement=True, generator=generator)
        order, indices = order.to(self.images.device), self.indices.to(self.images.device)
        self.epoch += 1
        order = order[: len(self) * self.batch_size]
        return [indices[share_of_rank(batch)] for batch in order.split(self.batch_size)]


class TupleLoader:
    """Batches of tuples in a random order: instances `[t n ...]` of each source, labels and weights.

    Args:
        sources: what is looked up by instance, such as embeddings and logits, or images; batches are where they are.
        labels: `[m]`.
        n: instances per tuple.
        batch_size: tuples per step over all devices.
        prior: `[c]`, class prior; a tuple's weight is scaled to a mean of one.
        seed: seed of the tuples.
        groups: `[m]` group ids for protocols whose tuples stay within a group.
        fresh: form the tuples anew every epoch; otherwise those of the first epoch come in a new order.
        batches: `shuffled`, or `diverse`: every batch holds each class as equally often as its tuples allow.
        form: forms the tuples. Where they are ragged, weights are `[t n]`, 0 where a tuple has not that many instances.
    """

    def __init__(
        self,
        sources: tuple[Lookup, ...],
        labels: Int64[Tensor, "m"],
        n: int,
        batch_size: int,
        prior: Float[Tensor, "c"],
        seed: int,
        groups: Int64[Tensor, "m"] | None,
        *,
        fresh: bool = True,
        batches: Literal["shuffled", "diverse"] = "shuffled",
        form: Form = partition,
    ) -> None:
        self.sources, self.labels, self.n, self.prior, self.seed, self.groups = sources, labels, n, prior, seed, groups
        self.form = form
        self.fresh, self.batches, self.epoch = fresh, batches, 0
        self.tuples = self._drawn(0).labels.shape[1]
        self.batch_size = min(batch_size, self.tuples)

    def __len__(self) -> int:
        return self.tuples // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        drawn, order = self._drawn(self.epoch if self.fresh else 0), torch.arange(self.tuples)
        if not self.fresh or drawn.lengths is not None:  # the longest come first, which no batch should know
            order = torch.randperm(self.tuples, generator=rng.generator(self.seed, "order", self.epoch))
        order = order[: len(self) * self.batch_size]
        if self.batches == "diverse":
            order = order[self._dealt(drawn.labels[0, order])]
        self.epoch += 1
        batches = [share_of_rank(batch) for batch in order.split(self.batch_size)]
        rows, sizes = torch.cat(batches), [len(batch) for batch in batches]

        def there(values: Tensor, device: torch.device) -> Sequence[Tensor]:
            """Bring the values of all batches to a device at once, so that no step waits for a copy."""
            split: Sequence[Tensor] = values[rows].to(device).split(sizes)
            return split

        gathered = [looked_up(source, there(drawn.indices[0], place(source))) for source in self.sources]
        weights, home = weighed(drawn)[: self.tuples], place(self.sources[0])
        parts = there(drawn.labels[0], home), there(weights, home)
        for labels, weight, *instances in zip(*parts, *gathered, strict=True):
            yield *instances, labels, weight

    def _drawn(self, epoch: int) -> Tuples:
        return self.form(self.labels, self.n, 1, self.prior, rng.generator(self.seed, "tuples", epoch), self.groups)

    def _dealt(self, labels: Int64[Tensor, "k"]) -> Int64[Tensor, "k"]:
        """Sort tuples by class, classes in random order, and deal them round the batches like cards."""
        generator = rng.generator(self.seed, "deal", self.epoch)
        ranks = torch.randperm(self.prior.numel(), generator=generator)
        return ranks[labels].argsort(stable=True).view(self.batch_size, -1).T.flatten()


def weighed(drawn: Tuples) -> Float[Tensor, "t"] | Float[Tensor, "t n"]:
    """Return the weights of the tuples of all partitions, of mean one; at every n, where tuples are ragged."""
    count, sizes = drawn.labels.numel(), range(1, drawn.indices.shape[2] + 1)
    weights = weights_at(drawn, sizes).flatten(0, 1) * count
    return (weights[:, 0] if weights.shape[1] == 1 else weights).float()


def augment(images: Num[Tensor, "b C H W"], crop: int, flip: bool) -> Num[Tensor, "b C H W"]:
    """Crop and mirror every image of a batch on its own, on its device.

    Args:
        images: to augment.
        crop: pixels to pad by before a window of the old size is chosen; 0 is off.
        flip: mirror about half of the images left to right.
    """
    return augmented(images, crop, Augmentation.drawn(len(images), crop, flip, images.device))


class Augmentation(NamedTuple):
    """What is done to each image of a batch; None leaves all as they are.

    Attributes:
        corners: top and left of the window that is cropped, pixels.
        mirrored: whether it is mirrored.
    """

    corners: Int64[Tensor, "2 b 1"] | None
    mirrored: Bool[Tensor, "b"] | None

    @classmethod
    def drawn(
        cls, batch: int, crop: int, flip: bool, device: torch.device, generator: torch.Generator | None = None
    ) -> Augmentation:
        """Draw it on a device, from torch's own stream unless another one is given; the rest is that of `augment`."""
        where: dict[str, Any] = {"device": device, "generator": generator}
        corners = torch.randint(0, 2 * crop + 1, (2, batch, 1), **where) if crop else None
        return cls(corners, torch.rand(batch, **where) < 0.5 if flip else None)


def augmented(images: Num[Tensor, "b C H W"], crop: int, drawn: Augmentation) -> Num[Tensor, "b C H W"]:
    """Crop, after padding by so many pixels, and mirror images as it was drawn."""
    batch, _, height, width = images.shape
    if drawn.corners is not None:
        padded = nn.functional.pad(images, [crop] * 4)
        top, left = drawn.corners
        rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
        channels = torch.arange(images.shape[1], device=images.device)[:, None, None]
        images = padded[torch.arange(batch, device=images.device)[:, None, None, None], channels, rows, columns]
    if drawn.mirrored is not None:
        images = torch.where(drawn.mirrored[:, None, None, None], images.flip(-1), images)
    return images


def share_of_rank(rows: Int64[Tensor, "b"]) -> Int64[Tensor, "b_share"]:
    """Return this process's equal share of a batch."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return rows
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    return rows[rank : len(rows) // world * world : world] if len(rows) >= world else rows
