"""`python -m benchmarks.conformance`: every pruner on networks that it was not made for, as Markdown and CSV.

Weights are random: what is tried is whether a pruner runs, reaches its ratio and leaves a network that works, or says
in one sentence why it does not. Where channels were removed, the outputs are compared with those of the network in
which they are zero.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import functools
import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks._measure import ROOT
from sharedlabel import rng
from sharedlabel.backbones import torchvision_model
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError, guarded
from sharedlabel.files import together
from sharedlabel.measurements import counts
from sharedlabel.plugins import available, load
from sharedlabel.pruners import _channels, _methods, _removal
from sharedlabel.pruners._base import Context

# Architecture in torchvision by name, and the side of its images in pixels: transformers with positions have one size.
NETWORKS = {
    "MobileNetV3-S": ("mobilenet_v3_small", 64),
    "EfficientNet-B0": ("efficientnet_b0", 64),
    "RegNetX-400MF": ("regnet_x_400mf", 64),
    "ShuffleNetV2 x0.5": ("shufflenet_v2_x0_5", 64),
    "DenseNet121": ("densenet121", 64),
    "ConvNeXt-T": ("convnext_tiny", 64),
    "Swin-T": ("swin_t", 64),
    "ViT-B/16": ("vit_b_16", 224),
}
CLASSES = 10
MASKED, REMOVED = 16.0, 2.0  # ratios that are asked of masks and of removed channels, where the ceiling allows it
TOLERANCE = 1e-5  # of the largest output: what removing may change against setting to zero
# Few examples and rounds: the question is whether it runs, not how good it is.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "apoz": {"examples": 4},
    "greedy_forward": {"examples": 2, "candidates": 2, "shortlist": 1},
    "obd": {"examples": 2},
    "pfp": {"examples": 2},
    "sipp": {"examples": 2},
    "snip": {"examples": 4},
    "synflow": {"rounds": 3},
}
AT_CEILING = ("greedy_forward",)  # it takes time for every channel that it keeps: it keeps one of each group
FILE = "conformance"


@dataclass(frozen=True)
class Row:
    """What one pruner did with one network.

    Attributes:
        network: its name.
        pruner: its name.
        outcome: `pruned`, `refused`, or `failed` where it did neither.
        parameters: of the dense network.
        left: parameters left; None if it was not pruned.
        ratio: parameters / left.
        ceiling: the largest ratio that the pruner says it reaches; None if it says none.
        difference: largest difference from the network whose removed channels are zero, as a share of the largest
            output; None where no channels were removed.
        reason: why it was refused, or how it failed.
    """

    network: str
    pruner: str
    outcome: str
    parameters: int
    left: int | None = None
    ratio: float | None = None
    ceiling: float | None = None
    difference: float | None = None
    reason: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and return the exit code: 0, 1 if a pruner failed, or 2 for what the user can fix."""
    rows: list[Row] = []
    code = guarded(lambda: rows.extend(_main(arguments)))
    return code or int(any(row.outcome == "failed" for row in rows))


def _main(arguments: Sequence[str] | None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__.splitlines()[0])
    pruners = available("pruners")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only this one; repeatable")
    parser.add_argument("--pruner", action="append", choices=pruners, help="only this one; repeatable")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results", help="folder of the two files")
    chosen = parser.parse_args(arguments)
    table = read(chosen.output)
    for name in chosen.network or NETWORKS:
        dense = build(*NETWORKS[name])
        for pruner in chosen.pruner or pruners:
            row = attempt(name, dense, pruner)
            print(_sentence(row), flush=True)
            table[row.network, row.pruner] = row
            write(table.values(), chosen.output)
    return list(table.values())


def build(architecture: str, side: int) -> Backbone:
    """Build a network of torchvision with its usual stem, for square images, in which no parameter has a special value.

    A scale of 1e-6 or a bias of 0 would hide what goes wrong behind it.
    """
    config = torchvision_model.Config(architecture, stem="keep")
    with rng.seeded(0, "conformance"):
        backbone = torchvision_model.build(config, (3, side, side), CLASSES).eval()
    return _removal.randomized(backbone, rng.generator(0, "conformance", "weights"))


def attempt(name: str, dense: Backbone, pruner: str) -> Row:
    """Let a pruner prune a network as far as it is asked, or as it can."""
    module, total = load("pruners", pruner), counts.parameters(dense)
    config = module.Config(**OPTIONS.get(pruner, {}))
    row = Row(name, pruner, "refused", total)
    try:
        row = dataclasses.replace(row, ceiling=_methods.ceiling(module, dense, config))
        assert row.ceiling is not None
        asked = min(REMOVED if module.STRUCTURED else MASKED, row.ceiling)
        pruned, difference = _prune(module, dense, row.ceiling if pruner in AT_CEILING else asked, config)
        works = _is_finite(pruned) and (difference or 0.0) <= TOLERANCE
    except CompressionError as error:
        return dataclasses.replace(row, reason=str(error))
    except Exception as error:
        return dataclasses.replace(row, outcome="failed", reason=f"{type(error).__name__}: {error}".splitlines()[0])
    left = counts.parameters(pruned)
    outcome, reason = ("pruned", "") if works else ("failed", "outputs are not finite, or not those of zero channels")
    return dataclasses.replace(
        row, outcome=outcome, reason=reason, left=left, ratio=total / left, difference=difference
    )


def _prune(module: Any, dense: Backbone, ratio: float, config: Any) -> tuple[Backbone, float | None]:
    """Prune, and compare with the masked network where channels were removed."""
    seen: list[tuple[Backbone, Backbone, Mapping[str, Tensor]]] = []

    def remove(before: Backbone, channel_groups: Any, keep: Mapping[str, Tensor]) -> Backbone:
        small = _removal.remove(before, channel_groups, keep)
        seen.append((small, before, keep))
        return small

    images, labels = _images(dense), torch.arange(4) % CLASSES
    context = Context(rng.generator(0, "conformance"), images, labels, images, functools.partial(_train, images))
    with mock.patch.object(_channels, "remove", remove):
        pruned = _methods.prune(module, dense, ratio, config, context)
    own = [(before, keep) for small, before, keep in seen if small is pruned]
    return pruned, _difference(pruned, *own[0]) if own else None


@torch.no_grad()
def _difference(small: Backbone, before: Backbone, keep: Mapping[str, Tensor]) -> float:
    """Compare in float64, where rounding does not add up to anything."""
    images = _images(before).double()
    expected = _channels.mask_channels(before, keep).double().eval()(images)
    return float((copy.deepcopy(small).double().eval()(images) - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def _is_finite(network: Backbone) -> bool:
    return bool(network.eval()(_images(network)).isfinite().all())


def _images(network: Backbone) -> Tensor:
    return torch.rand(4, *network.image_shape, generator=rng.generator(0, "conformance", "images"))


@torch.enable_grad()
def _train(images: Tensor, network: Backbone) -> None:
    """Take one step on whatever requires a gradient."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(network.train()(images[:2]), torch.arange(2)).backward()
    optimizer.step()
    network.eval()


def _sentence(row: Row) -> str:
    what = f"{row.ratio:.4g}x, {row.left} parameters left" if row.ratio else row.reason
    return f"{row.network}, {row.pruner}: {row.outcome}, {what}"


def read(folder: Path) -> dict[tuple[str, str], Row]:
    """Read the rows of a table, by network and pruner; none if there is no table."""
    path = folder / f"{FILE}.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(file)]
    return {(row.network, row.pruner): row for row in rows}


def _value(name: str, text: str) -> Any:
    if name in {"parameters", "left"}:
        return int(text) if text else None
    if name in {"ratio", "ceiling", "difference"}:
        return float(text) if text else None
    return text


def write(rows: Iterable[Row], folder: Path) -> None:
    """Write both files, in the order of networks and of pruners; the folder is made when absent."""
    order = list(itertools.product(NETWORKS, available("pruners")))
    ordered = sorted(
        (row for row in rows if (row.network, row.pruner) in order),
        key=lambda row: order.index((row.network, row.pruner)),
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Row)])
    writer.writerows([_text(value) for value in dataclasses.astuple(row)] for row in ordered)
    page = "\n".join(markdown(ordered)) + "\n"
    together.replace(folder, {f"{FILE}.csv": text.getvalue(), f"{FILE}.md": page})


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the page: the ratios, then the reasons of refusals."""
    yield from (*_HEAD.splitlines(), "")
    table = {(row.network, row.pruner): row for row in rows}
    pruners = list(dict.fromkeys(row.pruner for row in rows))
    yield f"| pruner | {' | '.join(NETWORKS)} |"
    yield f"|{' --- |' * (1 + len(NETWORKS))}"
    for pruner in pruners:
        cells = [table.get((network, pruner)) for network in NETWORKS]
        yield f"| `{pruner}` | {' | '.join('' if row is None else _cell(row) for row in cells)} |"
    yield from ("", "## Refusals", "")
    for (pruner, reason), group in itertools.groupby(
        sorted((row for row in rows if row.reason), key=lambda row: (row.pruner, row.reason)),
        key=lambda row: (row.pruner, row.reason),
    ):
        yield f"- `{pruner}` on {', '.join(row.network for row in group)}: {reason}"


def _cell(row: Row) -> str:
    if row.ratio is None:
        return row.outcome
    return f"{row.ratio:.1f}x ({row.left:,})"


_HEAD = f"""# Pruners on networks of torchvision

Written by `python -m benchmarks.conformance`; [the same rows]({FILE}.csv) with ceilings and differences.

Weights are random, there are {CLASSES} classes, images have 64 x 64 pixels (ViT-B/16: 224 x 224). Each cell
shows the compression ratio that was reached and the parameters left, or *refused*. Asked for were {MASKED:g}x of
masks and {REMOVED:g}x of removed channels, or the ceiling where it is lower (always the ceiling of `greedy_forward`,
which takes time for every channel that it keeps). Few examples and rounds were used: the table shows what
runs, not how good it is. Where channels were removed, the outputs are those of the network in which they
are zero, within {TOLERANCE:g} of the largest one.
"""


if __name__ == "__main__":
    sys.exit(main())
