from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from sharedlabel import rng
from sharedlabel.backbones import torchvision_model
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones.torchvision_model import Config
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _masks, _methods, magnitude
from sharedlabel.pruners._base import Context

SMALL, LARGE = (3, 32, 32), (3, 224, 224)


def test_kept_stem_is_the_model_of_torchvision() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet18().eval()
    torch.manual_seed(0)
    backbone = torchvision_model.build(Config(), (3, 65, 65), 7).eval()
    reference.fc = backbone.classifier
    images = torch.rand(2, 3, 65, 65)
    torch.testing.assert_close(backbone(images), reference(images))


def test_a_prunable_head_starts_as_the_same_network() -> None:
    torch.manual_seed(0)
    kept = torchvision_model.build(Config(), SMALL, 7).eval()
    torch.manual_seed(0)
    prunable = torchvision_model.build(Config(head="prunable"), SMALL, 7).eval()
    images = torch.rand(2, *SMALL)
    torch.testing.assert_close(prunable(images), kept(images))
    assert "body.fc" in _masks.prunable(prunable)
    assert "body.fc" not in _masks.prunable(kept)


def test_magnitude_at_initialisation_empties_a_prunable_head() -> None:
    torch.manual_seed(0)
    dense = torchvision_model.build(Config(head="prunable"), SMALL, 10)
    left = {ratio: _left(dense, ratio, "body.fc") for ratio in (3.16, 10.0, 31.6)}
    assert left[3.16] > left[10.0] > left[31.6] == 0


def _left(dense: Backbone, ratio: float, layer: str) -> int:
    pruned = _methods.prune(magnitude, dense, ratio, magnitude.Config(), Context(rng.generator(0)))
    return int(_masks.kept(pruned)[layer].sum())


def test_small_stem_of_resnet18_has_the_known_cost_on_cifar() -> None:
    backbone = torchvision_model.build(Config(), SMALL, 10)
    assert isinstance(backbone.body.conv1, nn.Conv2d)
    assert (backbone.body.conv1.kernel_size, backbone.body.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(backbone.body.maxpool, nn.Identity)
    assert counts.parameters(backbone) == 11_173_962
    assert round(counts.macs(backbone, SMALL).executed / 1e6) == 555


@pytest.mark.parametrize(
    ("stem", "side", "stride"), [("auto", 64, 1), ("auto", 65, 2), ("keep", 32, 2), ("small", 96, 1)]
)
def test_stem_rule(stem: str, side: int, stride: int) -> None:
    backbone = torchvision_model.build(Config(stem=stem), (3, side, side + 40), 10)
    assert backbone.body.conv1.stride == (stride, stride)
    assert isinstance(backbone.body.maxpool, nn.Identity if stride == 1 else nn.MaxPool2d)


def test_pooling_later_in_the_network_stays() -> None:
    body = torchvision_model.build(Config("googlenet"), SMALL, 10).body
    assert isinstance(body.maxpool1, nn.Identity)
    assert all(isinstance(pool, nn.MaxPool2d) for pool in (body.maxpool2, body.maxpool3, body.maxpool4))


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet"])
def test_other_architectures_in_grey(architecture: str) -> None:
    backbone = torchvision_model.build(Config(architecture), (1, 32, 32), 5).eval()
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    assert backbone.embed(images).shape == (2, backbone.embedding_dim)
    assert backbone(images).shape == (2, 5)


def test_inception_has_one_output() -> None:
    backbone = torchvision_model.build(Config("inception_v3"), (1, 96, 96), 5).train()
    assert backbone(torch.rand(2, 1, 96, 96)).shape == (2, 5)


def _weights_from(monkeypatch: pytest.MonkeyPatch, state: Any) -> None:
    def load(*args: Any, **kwargs: Any) -> Any:
        if isinstance(state, Exception):
            raise state
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)


def test_pretrained_grey_image_gets_the_response_of_a_grey_colour_image(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = torchvision.models.resnet18().eval()
    _weights_from(monkeypatch, reference.state_dict())
    backbone = torchvision_model.build(Config(weights="DEFAULT"), (1, 70, 70), 5).eval()
    reference.fc = backbone.classifier
    images = torch.rand(2, 1, 70, 70)
    torch.testing.assert_close(backbone(images), reference(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_pretrained_inception_drops_its_auxiliary_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    _weights_from(monkeypatch, torchvision.models.inception_v3(init_weights=False).state_dict())
    backbone = torchvision_model.build(Config("inception_v3", weights="IMAGENET1K_V1"), (3, 96, 96), 5).train()
    assert backbone(torch.rand(2, 3, 96, 96)).shape == (2, 5)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    _weights_from(monkeypatch, urllib.error.URLError("no route"))
    with pytest.raises(DataError, match=rf"no route.*offline.*resnet18-f37072fd.pth into {tmp_path}.*weights to null"):
        torchvision_model.build(Config(weights="DEFAULT"), LARGE, 5)


def test_damaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    _weights_from(monkeypatch, RuntimeError('invalid hash value (expected "f37072fd", got "0")'))
    with pytest.raises(DataError, match=r"invalid hash value.*damaged"):
        torchvision_model.build(Config(weights="IMAGENET1K_V1"), LARGE, 5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config("resnet81"), "unknown torchvision classifier 'resnet81'; did you mean 'resnet18'"),
        (Config("fcn_resnet50"), "unknown torchvision classifier 'fcn_resnet50'"),
        (Config(weights="IMAGENET1K_V9"), "unknown weights 'IMAGENET1K_V9' of resnet18; did you mean 'IMAGENET1K_V1'"),
        (Config("squeezenet1_1"), "got 'squeezenet1_1', which has none"),
        (Config("vit_b_32"), "3 x 32 x 32.*got 'vit_b_32': Wrong image height! Expected 224 but got 32"),
        (Config("inception_v3"), "got 'inception_v3': .*Kernel size"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(config: Config, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        torchvision_model.build(config, SMALL, 10)
