"""Shape aliases (jaxtyping) and the frozen records that stages hand over.

Axis names, used everywhere: `N` instances of a data set, `p` partitions, `t` tuples, `n` instances of a tuple (and
prefixes of it), `d` embedding width, `c` classes, `b` batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int64, Num
from torch import Tensor

from sharedlabel.decoding import Decoding

Role: TypeAlias = Literal["backbone", "aggregator", "validation", "test"]
ROLES: tuple[Role, ...] = get_args(Role)


@runtime_checkable
class InFiles(Protocol):
    """Images that stay in files; looked up by an index tensor, they come out decoded, in memory."""

    @property
    def shape(self) -> torch.Size:
        """Shape `[N C H W]` of all together."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of a pixel."""

    @property
    def device(self) -> torch.device:
        """Where those that are looked up are, and where their index has to be."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Return the images `[... C H W]` at `index [...]`."""

    def ahead(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the images at each index in turn; the next may be decoded while those of one are used."""


Images: TypeAlias = Num[Tensor, "N C H W"] | InFiles


@dataclass(frozen=True)
class Dataset:
    """Labelled instances, in memory, memory-mapped or in files.

    Attributes:
        name: what tables call the data set.
        images: `uint8 [N C H W]` (synthetic data may be `float32`); may be a memory map, or images that stay in files:
            look them up by an index tensor, in batches.
        labels: class index of each instance, in `[0, c)`.
        class_names: one name per class, in index order.
        groups: id of each instance's group (track, speaker, specimen), or None.
        holdout: True where the source itself puts the instance in its test set, or None if it has none.
        fingerprint: sha256 of the content, independent of where it lies and when it was read.
        decoding: how an image file becomes an instance, for new images.
        validation: True where the source itself puts the instance in its validation set, beside a test set of its own;
            None if it has none.
        group_names: what users call the groups, by id; None if they have no names.
        instance_names: what users call the instances, such as their files; None if they have no names.
        content: the same number for exact copies, known without looking at the images; None if that is not known.
        remarks: what users should know of how the data were read, a sentence each.
        skipped: name of each file that was left out although it seemed an image, and why.
        positions: where in its group each instance stands, such as the number of a frame or its time; None for the
            order of the instances.
    """

    name: str
    images: Images
    labels: Int64[Tensor, "N"]
    class_names: tuple[str, ...]
    groups: Int64[Tensor, "N"] | None
    holdout: Bool[Tensor, "N"] | None
    fingerprint: str
    decoding: Decoding = Decoding()  # noqa: RUF009 -- it is frozen
    validation: Bool[Tensor, "N"] | None = None
    group_names: tuple[str, ...] | None = None
    instance_names: tuple[str, ...] | None = None
    content: Int64[Tensor, "N"] | None = None
    remarks: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    positions: Float64[Tensor, "N"] | None = None

    def group_name(self, group: int) -> str:
        """Say what users call a group."""
        return str(group) if self.group_names is None else repr(self.group_names[group])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width


@dataclass(frozen=True)
class Tuples:
    """Index arrays: partitions of instances into disjoint tuples that share a label.

    Tuples of different sizes are ragged: the longest come first, and a shorter one repeats its last instance up to n.
    What depends on instances 0 to k alone is therefore right wherever a tuple has that many; nothing else of it counts.

    Attributes:
        indices: `[p t n]`, positions in the split's arrays; no instance twice within a partition.
        labels: `[p t]`, the shared label of each tuple.
        weights: `[p t]`, weight of each tuple so that each class weighs its prior; sums to 1 in every partition.
        lengths: `[t]`, instances of each tuple, the same in every partition and falling; None where all have n.
    """

    indices: Int64[Tensor, "p t n"]
    labels: Int64[Tensor, "p t"]
    weights: Float[Tensor, "p t"]
    lengths: Int64[Tensor, "t"] | None = None

    def reaching(self, size: int) -> Tuples:
        """Return the tuples that have so many instances, each class weighing as much as it does in all."""
        if self.lengths is None:
            return self
        count = int((self.lengths >= size).sum())
        if count == len(self.lengths):
            return Tuples(self.indices, self.labels, self.weights)
        labels, weights = self.labels[:, :count], self.weights[:, :count]
        classes = int(self.labels.max()) + 1
        whole, own = (
            mass.new_zeros(len(mass), classes).scatter_add_(1, at, mass)
            for at, mass in ((self.labels, self.weights), (labels, weights))
        )
        scale = whole / own.where(own > 0, 1.0)
        return Tuples(self.indices[:, :count], labels, weights * scale.gather(1, labels))


@dataclass(frozen=True)
class SetShape:
    """What an aggregator is built for.

    Attributes:
        embedding_mean: `[d]`, mean of the embeddings on the aggregator split.
        embedding_scale: `[d]`, their standard deviation, or the layer's typical one for units that hardly vary.
        log_prior: `[c]`, log prior over labels, natural log.
    """

    embedding_mean: Float[Tensor, "d"]
    embedding_scale: Float[Tensor, "d"]
    log_prior: Float[Tensor, "c"]

    @property
    def embedding_dim(self) -> int:
        """Width of an embedding."""
        return self.embedding_mean.numel()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.log_prior.numel()
