"""Fashion-MNIST: 70,000 grey photos of clothes, 28x28 pixels, in ten classes.

    data: {name: fashion_mnist, download: true}

Reference: Xiao, Rasul & Vollgraf, "Fashion-MNIST" (arXiv 1708.07747).
"""

from sharedlabel.data._torchvision import Config, loader

__all__ = ["Config", "load"]

load = loader("fashion_mnist", "FashionMNIST")
