"""CIFAR-100: 60,000 colour photos of 32x32 pixels in a hundred classes.

    data: {name: cifar100, download: true}

Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from sharedlabel.data._torchvision import Config, loader

__all__ = ["Config", "load"]

load = loader("cifar100", "CIFAR100")
