"""Mask a ResNet-50 in a process of its own; its parent watches the memory."""

from __future__ import annotations

import sys

import torch

from sharedlabel import rng
from sharedlabel.backbones import mlp, torchvision_model
from sharedlabel.backbones._base import Backbone
from sharedlabel.plugins import load
from sharedlabel.pruners import _methods
from sharedlabel.pruners._base import Context

RATIO = 10.0
CLASSES = 1000


def resnet50(side: int) -> Backbone:
    """Build a ResNet-50 with random weights and its usual stem.

    Args:
        side: height and width of an image, pixels.
    """
    config = torchvision_model.Config("resnet50", stem="keep")
    with rng.seeded(0, "benchmarks"):
        return torchvision_model.build(config, (3, side, side), CLASSES).eval()


def prune(backbone: Backbone, name: str, rounds: int | None = None) -> Backbone:
    """Mask a network with a pruner that needs no data."""
    pruner = load("pruners", name)
    config = pruner.Config(rounds=rounds) if rounds else pruner.Config()
    pruned: Backbone = _methods.prune(pruner, backbone, RATIO, config, Context(rng.generator(0, "benchmarks")))
    return pruned


def main(name: str, side: int, rounds: int) -> None:
    """Prepare everything, say so, wait for a line, then mask the network; rounds is 0 for pruners without any."""
    torch.set_num_threads(1)
    backbone = resnet50(side)
    small = mlp.build(mlp.Config((80,)), (3, 8, 8), 10)
    prune(small, name, rounds or None)  # what is imported or allocated once is not counted
    print("ready", flush=True)
    sys.stdin.readline()
    prune(backbone, name, rounds or None)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
