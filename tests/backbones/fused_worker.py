"""Compare the fused kernel of butterfly networks with the plain form on a device; prints `same` if they agree."""

from __future__ import annotations

import sys

import torch

from sharedlabel.backbones._butterfly_network import Butterfly
from sharedlabel.backbones._butterfly_paths import depth, draw_order


def main(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for width, k, cut in [(2, 1, None), (13, 5, None), (13, 9, 2)]:
        order = draw_order(width, generator)
        network = Butterfly(width, order[:k], generator, cut or depth(width))
        torch.nn.init.normal_(network.weights, generator=generator)
        inputs, outputs = (torch.randn(4, size, generator=generator).to(device) for size in (width, k))
        network.to(device)
        results = []
        for fused in (False, True):
            network.fused = fused
            network.zero_grad()
            there, back = network(inputs), network.transposed(outputs)
            (there.square().sum() + back.square().sum()).backward()
            results.append((there, back, network.weights.grad))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-3)
    print("same")


if __name__ == "__main__":
    main(sys.argv[1])
