"""Attention written out in layers, and masks on the weights of attention."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import _packed, _restore
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Plugin
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.plugins import load
from sharedlabel.pruners import _masks, _methods, magnitude
from sharedlabel.pruners._attention import WrittenAttention, layer_twins, written_out
from sharedlabel.pruners._base import Context

WIDTH, HEADS, CLASSES = 8, 2, 3
SHAPE = (WIDTH, 3, 2)
MASKS = ("edge_popup", "grasp", "lottery_ticket", "magnitude", "obd", "random", "sipp", "snip", "synflow")


class Attending(nn.Module):
    """Attention over pixels; with `across`, from some pixels to others."""

    def __init__(self, across: bool = False, **options: Any) -> None:
        super().__init__()
        self.across = across
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, **options)
        nn.init.normal_(self.attention.out_proj.bias)
        if self.attention.in_proj_bias is not None:
            nn.init.normal_(self.attention.in_proj_bias)

    def forward(self, images: Tensor) -> Tensor:
        steps = images.flatten(2).transpose(1, 2)
        steps = steps if self.attention.batch_first else steps.transpose(0, 1)
        keys = steps.flip(-1) if self.across else steps
        mixed = self.attention(steps, keys, keys, need_weights=False)[0]
        return mixed.mean(1 if self.attention.batch_first else 0)


def network(**options: Any) -> Backbone:
    with rng.seeded(0):
        return Backbone(Attending(**{"batch_first": True, **options}), nn.Linear(WIDTH, CLASSES), SHAPE).eval()


def images(count: int = 4) -> Tensor:
    return torch.rand(count, *SHAPE, generator=rng.generator(0, "images"))


def context(train: Any = None) -> Context:
    return Context(rng.generator(0, "prune"), images(), torch.arange(4) % CLASSES, images(), train)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True}, {"bias": False}, {"kdim": 5, "vdim": 3}],
    ids=["sequence first", "batch first", "no bias", "widths of their own"],
)
@pytest.mark.parametrize("masks", [False, True])
def test_written_out_is_what_torch_computes(across: bool, options: dict[str, Any], masks: bool) -> None:
    with rng.seeded(0):
        attention = nn.MultiheadAttention(WIDTH, HEADS, **options)
        query = torch.rand(4, 4, WIDTH)
        key = torch.rand(4, 4, options.get("kdim", WIDTH)) if across or "kdim" in options else query
        value = torch.rand(4, 4, options.get("vdim", WIDTH)) if across or "vdim" in options else query
    given: dict[str, Any] = {}
    if masks:
        given = {"attn_mask": torch.ones(4, 4).triu(1).bool(), "key_padding_mask": torch.eye(4).flip(0).bool()}
        given["key_padding_mask"][-1] = False  # else an example has no key at all
    for average in (True, False):
        expected = attention(query, key, value, average_attn_weights=average, **given)
        outputs = WrittenAttention(attention)(query, key, value, average_attn_weights=average, **given)
        torch.testing.assert_close(outputs, expected)
    assert WrittenAttention(attention)(query, key, value, need_weights=False, **given)[1] is None


def test_a_mask_for_every_head_and_numbers_as_masks() -> None:
    with rng.seeded(0):
        attention, steps = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), torch.rand(3, 4, WIDTH)
        mask = torch.randn(3 * HEADS, 4, 4)
    expected = attention(steps, steps, steps, attn_mask=mask)
    torch.testing.assert_close(WrittenAttention(attention)(steps, steps, steps, attn_mask=mask), expected)


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_additional_keys_are_refused(options: dict[str, bool]) -> None:
    with pytest.raises(CompressionError, match="got one with additional keys"):
        written_out(network(**options))


def test_all_that_is_prunable_is_a_layer_that_is_called() -> None:
    names = ["body.attention.in_proj", "body.attention.out_proj"]
    assert list(_masks.prunable(network())) == names
    assert not _masks.called_layers(network())
    written = written_out(network())
    assert list(_masks.called_layers(written)) == names
    torch.testing.assert_close(written(images()), network()(images()))


def test_a_layer_of_torchs_encoder_calls_all_its_layers_when_written_out() -> None:
    """Without gradients it would else run as one kernel, which reads all weights itself."""
    with rng.seeded(0):
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, batch_first=True)
        body = nn.Sequential(nn.Flatten(2), layer, nn.Flatten(), nn.Linear(WIDTH * 8, WIDTH))
        backbone = Backbone(body, nn.Linear(WIDTH, CLASSES), (8, 2, 4)).eval()
    given, called = torch.rand(2, 8, 2, 4, generator=rng.generator(0)), []
    written = written_out(backbone)
    for name, module in _masks.called_layers(written).items():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        torch.testing.assert_close(written(given), backbone(given))
    assert called == list(_masks.prunable(backbone))


def test_twins_are_the_layers_themselves_but_for_attention() -> None:
    with rng.seeded(0):
        body = nn.Sequential(Attending(batch_first=True), nn.Linear(WIDTH, WIDTH))
        backbone = Backbone(body, nn.Linear(WIDTH, CLASSES), SHAPE)
    twins = layer_twins(backbone)
    assert list(twins) == list(_masks.prunable(backbone))
    assert twins["body.1"] is backbone.body[1]
    assert torch.equal(twins["body.0.attention.in_proj"].weight, backbone.body[0].attention.in_proj_weight)


def test_projections_of_widths_of_their_own_are_three() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=5, vdim=3)
    backbone = Backbone(nn.ModuleDict({"attention": attention}), nn.Linear(WIDTH, CLASSES), SHAPE)
    names = [f"body.attention.{key}_proj" for key in ("q", "k", "v", "out")]
    assert list(_masks.prunable(backbone)) == names
    assert _masks.count(backbone)[0] == WIDTH * (WIDTH + 5 + 3 + WIDTH)
    assert list(_masks.called_layers(written_out(backbone))) == names


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_every_mask_pruner_removes_weights_of_attention(name: str, batch_first: bool) -> None:
    pruner, dense = load("pruners", name), network(batch_first=batch_first)
    pruned = _methods.prune(pruner, dense, 3.0, pruner.Config(), context(lambda _: None))
    assert counts.parameters(pruned) == round(counts.parameters(dense) / 3)
    assert {layer for layer, _, _ in _masks.masked(pruned)} == {"body.attention.in_proj", "body.attention.out_proj"}
    assert torch.isfinite(pruned(images())).all()


def test_obd_cannot_tell_apart_what_one_weight_does_to_queries_and_keys() -> None:
    pruner, dense = load("pruners", "obd"), network(across=True)
    with pytest.raises(CompressionError, match="to be called once with a batch of examples, got another call"):
        _methods.prune(pruner, dense, 2.0, pruner.Config(), context())


@pytest.mark.parametrize("gradients", [True, False])
def test_masks_hold_in_attention_and_in_its_fused_path(gradients: bool) -> None:
    """Without gradients torch runs one kernel, which reads the weights itself."""
    pruned = _methods.prune(magnitude, network(), 3.0, magnitude.Config(), context()).eval()
    baked = copy.deepcopy(pruned)
    _masks.bake(baked)
    pruned.body.attention.in_proj_weight.data += 7 * (pruned.body.attention.in_proj_weight_mask == 0)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(pruned(images()), baked(images()))


def test_macs_of_attention_fall_with_its_masks() -> None:
    dense = network()
    mask = torch.ones(3 * WIDTH, WIDTH)
    mask[:, :6] = 0
    _masks.apply_masks(dense, {"body.attention.in_proj": mask})
    macs = counts.macs(dense, SHAPE)
    assert macs.executed - macs.effective == 6 * 3 * WIDTH * 6  # of 6 pixels
    assert counts.bytes_on_disk(dense).dense == counts.bytes_on_disk(network()).dense


def test_stored_masks_of_attention_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_restore, "load", lambda *_: SimpleNamespace(build=lambda *_: network()))
    pruned = _methods.prune(magnitude, network(), 3.0, magnitude.Config(), context()).eval()
    tensors = _restore.state(pruned)
    assert tensors["body.attention.in_proj_weight_mask"].dtype == torch.bool
    packed = _packed.pack(tensors)
    weight, mask = (tensors[f"body.attention.in_proj_weight{end}"] for end in ("", "_mask"))
    assert torch.equal(packed["body.attention.in_proj_weight"], weight[mask])
    assert packed["body.attention.in_proj_weight_shape"].tolist() == list(weight.shape)
    restored = _restore.restore(Plugin("backbones", "attending", "attending", None), SHAPE, CLASSES, tensors)
    assert restored.has_masks
    assert torch.equal(restored(images()), pruned(images()))
    assert counts.parameters(restored) == counts.parameters(pruned)
