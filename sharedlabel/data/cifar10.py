"""CIFAR-10: 60,000 colour photos of 32x32 pixels in ten classes.

    data: {name: cifar10, download: true}

Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from sharedlabel.data._torchvision import Config, loader

__all__ = ["Config", "load"]

load = loader("cifar10", "CIFAR10")
