"""The table of pruners on networks of torchvision: how it is made, and that the committed one is whole."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import conformance
from benchmarks._measure import ROOT
from sharedlabel import plugins, rng
from sharedlabel.backbones import mlp
from sharedlabel.backbones._base import Backbone

MOBILE = "MobileNetV3-S"


@pytest.fixture(scope="module")
def mobile() -> Backbone:
    return conformance.build("mobilenet_v3_small", 32)


@pytest.mark.parametrize("pruner", ["magnitude", "snip", "synflow"])
def test_masks_reach_what_is_asked(mobile: Backbone, pruner: str) -> None:
    row = conformance.attempt(MOBILE, mobile, pruner)
    assert (row.outcome, row.left) == ("pruned", round(row.parameters / conformance.MASKED))
    assert row.difference is None


def test_removed_channels_are_compared_with_zero_ones(mobile: Backbone) -> None:
    row = conformance.attempt(MOBILE, mobile, "filter_l1")
    assert row.outcome == "pruned"
    assert row.ratio == pytest.approx(conformance.REMOVED, rel=0.01)
    assert row.difference is not None
    assert 0 < row.difference <= conformance.TOLERANCE


def test_a_refusal_is_its_sentence(mobile: Backbone) -> None:
    row = conformance.attempt(MOBILE, mobile, "apoz")
    assert (row.outcome, row.left, row.ratio) == ("refused", None, None)
    assert row.reason.startswith("expected all that")


class Failing(nn.Module):
    """A layer that has no forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise IndexError("no such thing")


def test_what_is_neither_pruned_nor_refused_has_failed() -> None:
    row = conformance.attempt(MOBILE, Backbone(Failing(), nn.Linear(3, 2), (1, 2, 2)), "magnitude")
    assert (row.outcome, row.reason) == ("failed", "IndexError: no such thing")


def test_rows_are_written_read_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with rng.seeded(0):
        network = mlp.build(mlp.Config((10, 6)), (1, 4, 4), conformance.CLASSES)
    monkeypatch.setattr(conformance, "build", lambda *_: network)
    old = conformance.Row(MOBILE, "magnitude", "failed", 1, reason="old")
    kept = conformance.Row("ViT-B/16", "none", "failed", 9, 9, 1.0, 1.0)
    tmp_path /= "new"
    conformance.write([kept, old], tmp_path)
    assert list(conformance.read(tmp_path).values()) == [old, kept]  # in the order of the networks
    code = conformance.main(["--network", MOBILE, "--pruner", "magnitude", "--output", str(tmp_path)])
    assert code == 1  # what is failed in the table fails the command
    rows = conformance.read(tmp_path)
    assert rows["ViT-B/16", "none"] == kept
    assert rows[MOBILE, "magnitude"].outcome == "pruned"
    assert "magnitude: pruned" in capsys.readouterr().out
    page = (tmp_path / "conformance.md").read_text()
    assert f"| `magnitude` | {rows[MOBILE, 'magnitude'].ratio:.1f}x" in page


def test_reasons_are_listed_once_for_the_networks_that_share_them() -> None:
    row = conformance.Row(MOBILE, "apoz", "refused", 1, reason="why")
    lines = list(conformance.markdown([row, dataclasses.replace(row, network="Swin-T")]))
    assert "- `apoz` on MobileNetV3-S, Swin-T: why" in lines


def test_the_committed_table_is_whole_and_nothing_failed() -> None:
    rows = conformance.read(ROOT / "docs" / "results")
    assert set(rows) == set(itertools.product(conformance.NETWORKS, plugins.available("pruners")))
    assert [row for row in rows.values() if row.outcome == "failed"] == []
    assert all(row.reason.startswith("expected ") for row in rows.values() if row.outcome == "refused")
    masks = ("magnitude", "random", "snip", "grasp", "synflow", "edge_popup", "lottery_ticket")
    reached = [rows["ViT-B/16", name].ratio for name in masks]
    assert reached == pytest.approx([16.0] * len(masks), rel=1e-4)
    removed = [row.difference for row in rows.values() if row.difference is not None]
    assert max(removed) <= conformance.TOLERANCE
