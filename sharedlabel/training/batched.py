"""Train several networks of one architecture as one: every operation is that of all of them, each on its own batches.

On a GPU a small network waits for its operations to be started, which takes as long for many networks as for one. Each
network sees the batches, the augmentation and the recipe that it sees alone, so it ends where it would alone but for
rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import MaskableWeight, masked_weights
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.errors import TrainingError
from sharedlabel.scoring.data import Data
from sharedlabel.training.backbone import BackboneTraining
from sharedlabel.training.devices import device
from sharedlabel.training.fit import fit
from sharedlabel.training.loaders import Augmentation, ImageBatch, ImageLoader, augmented, looked_up
from sharedlabel.training.resident import resident


def train(
    backbones: Sequence[Backbone],
    recipe: TrainConfig,
    data: Data,
    runtime: TrainerConfig,
    seeds: Sequence[int],
    streams: Sequence[torch.Generator],
    span: tuple[float, float] = (0.0, 1.0),
) -> list[list[float]]:
    """Train several networks in place, each as `compression.train` would.

    Args:
        backbones: alike but for their numbers and masks.
        recipe: how.
        data: its `backbone` split is used.
        runtime: where; one device.
        seeds: of the order of images, for each network.
        streams: of augmentation, for each network; on the device that trains.
        span: the part of the recipe's steps to train, as shares in [0, 1].

    Returns:
        Mean loss of every epoch, nats, for each network; empty if nothing is to be trained.

    Raises:
        TrainingError: the networks are not alike, or the loss of one of them is not finite.
    """
    if span[0] >= span[1] or not any(parameter.requires_grad for parameter in backbones[0].parameters()):
        return [[] for _ in backbones]
    networks = Networks(backbones)
    module = BackbonesTraining.of(networks, recipe, span=span)
    module.streams = streams
    images = resident(data.dataset.images, device(runtime))
    rows = data.splits["backbone"]
    given = images, data.dataset.labels, rows, recipe.batch_size
    loaders = [ImageLoader(*given, seed, recipe.balanced) for seed in seeds]
    fit(module, SideBySide(loaders), runtime, recipe.epochs)
    networks.hand_back(backbones)
    return module.losses_of_each()


def alone(recipe: TrainConfig) -> bool:
    """Tell whether networks can be trained one at a time only."""
    return bool(recipe.augment or recipe.mixup or recipe.ema)


class Networks(nn.Module):
    """Several networks as one, with copies of their tensors, one beside the other.

    Args:
        networks: alike but for their numbers and masks.

    Raises:
        TrainingError: they are not alike.
    """

    def __init__(self, networks: Sequence[Backbone]) -> None:
        super().__init__()
        alike = [copy.deepcopy(network) for network in networks]
        places = sorted({name for network in alike for name in _masks(network)})
        for network in alike:
            _mask_all(network, places)
        _check(alike)
        parameters, buffers = stack_module_state(list(alike))
        self.network = alike[0]
        self.network.has_masks = False  # its passes get products already
        self._masks = _masks(self.network)
        for name, tensor in parameters.items():
            owner, key = _place(self.network, name)
            owner._parameters[key] = nn.Parameter(tensor.detach(), tensor.requires_grad)
        for name, tensor in buffers.items():
            owner, key = _place(self.network, name)
            owner._buffers[key] = tensor

    def forward(self, images: Num[Tensor, "k b C H W"]) -> Float[Tensor, "k b c"]:
        """Return the logits of each network for its own images."""
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        masks = _masks(self.network)
        if masks:
            products = torch._foreach_mul(
                [tensors[name] for name in masks], [tensors.pop(masks[name]) for name in masks]
            )
            tensors.update(zip(masks, products, strict=True))
        logits: Tensor = vmap(self._of_one)(tensors, images)
        return logits

    def _of_one(self, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, dict(tensors), (images,))
        return logits

    @torch.no_grad()
    def hand_back(self, networks: Sequence[Backbone]) -> None:
        """Give the networks that it was made of what it has become, in place."""
        state = self.network.state_dict()
        for number, network in enumerate(networks):
            network.load_state_dict({name: state[name][number] for name in network.state_dict()})


class BackbonesTraining(BackboneTraining):
    """Train several networks at once.

    A batch is images `[k b C H W]` and labels `[k b]`, those of each network; what is minimised is the sum of losses,
    in which no network has a part in what another one gets.

    Attributes:
        streams: of augmentation, for each network.
    """

    streams: Sequence[torch.Generator] = ()

    def decays(self, parameter: Tensor) -> bool:
        """Tell whether a parameter decays, of which each network has one."""
        return super().decays(parameter[0])

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the sum of the networks' cross-entropies of an augmented batch."""
        images, labels = batch
        logits = self._network(self._augmented(images))
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=self.label_smoothing
        )
        return self.record(losses.view_as(labels).mean(1)).sum()

    def _augmented(self, images: Tensor) -> Tensor:
        """Augment all images at once by what each network draws on its own."""
        drawn = [Augmentation.drawn(images.shape[1], self.crop, self.flip, images.device, one) for one in self.streams]
        corners, mirrored = zip(*drawn, strict=True)
        together = Augmentation(
            torch.cat(corners, dim=1) if self.crop else None, torch.cat(mirrored) if self.flip else None
        )
        return augmented(images.flatten(0, 1), self.crop, together).view_as(images)

    def losses_of_each(self) -> list[list[float]]:
        """Return the mean loss (nats) of every epoch trained, for each network."""
        losses: list[list[float]] = self.history.T.tolist()
        return losses

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save how far the streams are."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["streams"] = [stream.get_state() for stream in self.streams]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the streams go on from there."""
        super().on_load_checkpoint(checkpoint)
        for stream, state in zip(self.streams, checkpoint["streams"], strict=True):
            stream.set_state(state)


class SideBySide:
    """Batches of several loaders of the same images at once: images `[k b C H W]` and labels `[k b]`.

    Args:
        loaders: of equally many batches; they differ by their seeds.
    """

    def __init__(self, loaders: Sequence[ImageLoader]) -> None:
        self.loaders = loaders

    @property
    def epoch(self) -> int:
        """Number of the epoch that begins next."""
        return self.loaders[0].epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        for loader in self.loaders:
            loader.epoch = number

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[ImageBatch]:
        first = self.loaders[0]
        batches = [torch.stack(rows) for rows in zip(*(loader.chosen() for loader in self.loaders), strict=True)]
        for rows, images in zip(batches, looked_up(first.images, batches), strict=True):
            yield images, first.labels[rows]


def _masks(network: nn.Module) -> dict[str, str]:
    """Return the name of each masked weight with that of its mask."""
    owners = {module: name for name, module in network.named_modules()}
    names = [".".join(filter(None, (owners[one.owner], one.key))) for one in masked_weights(network)]
    return {name: f"{name}_mask" for name in names}


def _mask_all(network: Backbone, names: Sequence[str]) -> None:
    """Give a network masks that keep everything where it has none, in place."""
    for name in names:
        place = MaskableWeight(*_place(network, name))
        if place.mask is None:
            place.owner.register_buffer(f"{place.key}_mask", torch.ones_like(place.weight).detach())


def _place(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that has a tensor, and its name there."""
    owner, _, key = name.rpartition(".")
    return network.get_submodule(owner), key


def _check(networks: Sequence[nn.Module]) -> None:
    """Refuse networks that differ by more than numbers."""
    first, *others = (
        [(name, type(module)) for name, module in network.named_modules()]
        + [(name, one.shape, one.dtype, one.requires_grad) for name, one in network.named_parameters()]
        + [(name, one.shape, one.dtype) for name, one in network.named_buffers()]
        for network in networks
    )
    for other in others:
        if other != first:
            differing = next(one for one in other + first if one not in first or one not in other)
            raise TrainingError(
                f"expected networks that are alike, to train them in one program, got {differing} in one of them "
                "alone; set trainer.networks to 1"
            )
