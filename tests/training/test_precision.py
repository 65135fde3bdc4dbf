"""Every precision that a configuration offers, from the first training to the scores."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest
import torch

from sharedlabel import grid
from sharedlabel.config import Experiment, parse
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import ConfigError
from sharedlabel.store import Store

OFFERED = typing.get_args(typing.get_type_hints(TrainerConfig)["precision"])


@pytest.mark.parametrize("precision", sorted({*OFFERED} - {"16-mixed"}))
def test_a_network_of_any_precision_is_pruned_embedded_trained_jointly_and_scored(
    experiment: Experiment, tmp_path: Path, precision: str
) -> None:
    given = dataclasses.replace(
        experiment,
        trainer=dataclasses.replace(experiment.trainer, precision=precision),
        ratios=(2.0,),
        aggregators=("log_pool", "deep_sets", "accumulator"),
        training=("frozen", {"name": "joint", "epochs": 1, "distill": 1.0}),
    )
    prepared, store = grid.prepare(given), Store(tmp_path / "store")
    for cell in prepared.cells:
        if cell.ratio == 2:
            grid.run_node(cell.evaluate, prepared, store, lambda *_: None)
            learned = store.load(cell.evaluate.stage, cell.evaluate.key).tensors()
            assert all(bool(tensor.isfinite().all()) for tensor in learned.values())
            for call in cell.evaluate.chain():
                if call.stage in ("dense", "prune", "features", "joint"):
                    kinds = {tensor.dtype for tensor in store.load(call.stage, call.key).tensors().values()}
                    assert kinds & {torch.float32, torch.float64, torch.float16, torch.bfloat16} == {torch.float32}


def test_weights_of_16_bits_without_their_exponents_are_refused() -> None:
    """AdamW divides by zero in them, so no training has ever come to its end."""
    with pytest.raises(ConfigError, match=r"trainer\.precision: expected one of '32-true', .*, got '16-true'; write "):
        parse(["--trainer.precision=16-true"])


def test_half_precision_that_lightning_would_replace_on_a_cpu_is_refused(experiment: Experiment) -> None:
    runtime = dataclasses.replace(experiment.trainer, accelerator="cpu", precision="16-mixed")
    with pytest.raises(ConfigError, match=r"a CPU computes in, got '16-mixed', .*'bf16-mixed'; ask for that"):
        grid.prepare(dataclasses.replace(experiment, trainer=runtime))
