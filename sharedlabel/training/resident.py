"""Images that stay on the device that computes, where they fit: a GPU waits longer for images than it computes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from sharedlabel.types import Images

SHARE = 0.4  # of the free memory of a device that images may take
_there = WeakIdKeyDictionary()  # by the images in memory: the same on the device that they were last asked for on


def resident(images: Images, device: torch.device) -> Images:
    """Return images on a device if they fit there, else as they are; what was brought there stays for the next call.

    Args:
        images: `[N C H W]`, in the type in which they are kept, such as uint8; those in files stay there.
        device: that computes.

    >>> images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    >>> resident(images, torch.device("cpu")) is images
    True
    """
    if not isinstance(images, Tensor) or device.type == images.device.type:
        return images
    kept: Tensor | None = _there.get(images)
    if kept is not None and kept.device == device:
        return kept
    if images.numel() * images.element_size() > SHARE * _free(device):
        return images
    _there[images] = moved = images.to(device)
    return moved


def _free(device: torch.device) -> int:
    """Return the free bytes of a device; none where that cannot be told."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
