from __future__ import annotations

import pytest
import torch
from torch import nn

from sharedlabel.backbones import mlp
from sharedlabel.config import resolve
from sharedlabel.errors import ConfigError


def test_output_is_the_formula() -> None:
    backbone = mlp.build(mlp.Config(widths=(5, 4)), (1, 2, 3), 3).double()
    images = torch.rand(7, 1, 2, 3, dtype=torch.float64)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in backbone.body if isinstance(layer, nn.Linear))
    hidden = (images.reshape(7, 6) @ w1.T + b1).clamp(min=0)
    embedding = (hidden @ w2.T + b2).clamp(min=0)
    torch.testing.assert_close(backbone.embed(images), embedding)
    torch.testing.assert_close(backbone(images), embedding @ backbone.classifier.weight.T + backbone.classifier.bias)


def test_without_biases_every_parameter_is_a_matrix() -> None:
    backbone = mlp.build(mlp.Config(widths=(5, 4), bias=False), (1, 2, 3), 3)
    assert [tuple(p.shape) for p in backbone.parameters()] == [(5, 6), (4, 5), (3, 4)]


def test_without_hidden_layers_the_embedding_is_the_image() -> None:
    backbone = mlp.build(mlp.Config(widths=()), (1, 2, 3), 3)
    images = torch.rand(2, 1, 2, 3)
    assert torch.equal(backbone.embed(images), images.flatten(1))


def test_initial_weights_have_he_variance() -> None:
    torch.manual_seed(0)
    first = mlp.build(mlp.Config(widths=(400,)), (1, 20, 20), 3).body[1]
    assert isinstance(first, nn.Linear)
    assert first.weight.var().item() == pytest.approx(2 / 400, rel=0.03)
    assert not first.bias.any()


def test_width_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'mlp': widths\.1: expected a whole number from 1 to 65536, got 0"):
        resolve("backbones", {"name": "mlp", "widths": [8, 0]})
