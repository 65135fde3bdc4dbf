"""The backbone contract: `embed`, then `classify`."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from sharedlabel.backbones._masking import after_loading, before_state, masked_call, masked_weights

Normalization: TypeAlias = Literal["channel", "image"]


class Normalize(nn.Module):
    """Map images to zero mean and unit variance; `uint8` is scaled to [0, 1] first.

    By channel, the statistics are set once from the backbone split and travel with the weights. By image, they are
    those of all values of each image alone, which takes its brightness and contrast away; a deviation is at least that
    of one value 1 in an image of zeros, on the scale of [0, 1].

    Args:
        channels: of an image.
        by: `channel` or `image`.

    Reference:
        By image: `per_image_standardization` of TensorFlow, whose least deviation is the same number on the scale that
        images come in.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, by: Normalization = "channel") -> None:
        super().__init__()
        self.by = by
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, images: Num[Tensor, "b C H W"]) -> Float[Tensor, "b C H W"]:
        """Normalise a batch."""
        scaled = images.to(self.mean.dtype)
        if not images.is_floating_point():
            scaled = scaled / 255
        if self.by == "image":
            values = scaled.flatten(1)
            spread, mean = torch.std_mean(values, dim=1, correction=0)
            least = values.shape[1] ** -0.5
            scaled = (scaled - mean[:, None, None, None]) / spread.clamp(min=least)[:, None, None, None]
        return (scaled - self.mean[:, None, None]) / self.std[:, None, None]


class Backbone(nn.Module):
    """A network that embeds an image and classifies the embedding.

    Masks in the body hold in every pass. Its state, read or loaded, has zeros where they remove weights.

    Args:
        body: maps normalised images `[b C H W]` to embeddings `[b d]` (or `[b d 1 1]`).
        classifier: the linear layer that leads to the logits; pruners leave it alone.
        image_shape: channels, height and width of an image.
        normalize: how images are normalised, by `channel` or by `image` (`Normalize`).

    Attributes:
        has_masks: whether there are masks in the body (`_masking.py`), so that others need not look for them.
        input_dtype: numbers that it takes; those of tokens are no floating-point numbers.
    """

    image_shape: tuple[int, ...]
    input_dtype: torch.dtype = torch.float32

    def __init__(
        self,
        body: nn.Module,
        classifier: nn.Linear,
        image_shape: tuple[int, int, int],
        normalize: Normalization = "channel",
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.normalize = Normalize(image_shape[0], normalize)
        self.body = body
        self.classifier = classifier
        self.has_masks = any(True for _ in masked_weights(body))
        self.register_state_dict_pre_hook(before_state)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(after_loading)  # type: ignore[no-untyped-call]

    @property
    def embedding_dim(self) -> int:
        """Width `d` of the embedding."""
        return self.classifier.in_features

    def blank(self, count: int = 1, device: torch.device | str | None = None) -> Num[Tensor, "b ..."]:
        """Return inputs of zeros, of the form that it takes."""
        return torch.zeros(count, *self.image_shape, dtype=self.input_dtype, device=device)

    def embed(self, images: Num[Tensor, "b C H W"]) -> Float[Tensor, "b d"]:
        """Embed a batch of images (`uint8` or float)."""
        normalized = self.normalize(images)
        embedding: Tensor = masked_call(self.body, normalized) if self.has_masks else self.body(normalized)
        return embedding.flatten(1)

    def classify(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Map embeddings to logits."""
        logits: Tensor = self.classifier(embedding)
        return logits

    def forward(self, images: Num[Tensor, "b C H W"]) -> Float[Tensor, "b c"]:
        """Classify a batch of images."""
        return self.classify(self.embed(images))


def initialize(network: nn.Module) -> None:
    """Draw convolutions (by fan-out) and linear layers (by fan-in) from He's normal for ReLU; biases are 0.

    Reference: He, Zhang, Ren & Sun, "Delving Deep into Rectifiers" (2015).
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            mode: Literal["fan_in", "fan_out"] = "fan_out" if isinstance(module, nn.Conv2d) else "fan_in"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
