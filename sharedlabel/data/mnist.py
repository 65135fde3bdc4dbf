"""MNIST: 70,000 grey handwritten digits of 28x28 pixels in ten classes.

    data: {name: mnist, download: true}

Reference: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998).
"""

from sharedlabel.data._torchvision import Config, loader

__all__ = ["Config", "load"]

load = loader("mnist", "MNIST")
