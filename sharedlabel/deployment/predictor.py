"""Predict the shared label of a tuple, one instance after another, from an exported model."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor

from sharedlabel.deployment import card_file, programs
from sharedlabel.deployment.card import Calibration, Card
from sharedlabel.deployment.programs import AGGREGATOR, BACKBONE, SUFFIXES, Program
from sharedlabel.errors import DataError, DeploymentError
from sharedlabel.metrics.calibration import apply_temperature, calibrate_logits
from sharedlabel.metrics.information import floor_posterior


@dataclass(frozen=True)
class Prediction:
    """What is known of a tuple.

    Attributes:
        label: the most probable one.
        probability: its posterior probability.
        instances: how many instances were looked at.
        reached: whether the probability reached the threshold; None without one.
        extrapolated: whether more instances were used than the aggregator was trained with.
        posterior: probability of every label.
    """

    label: str
    probability: float
    instances: int
    reached: bool | None
    extrapolated: bool
    posterior: dict[str, float]


class Predictor:
    """An exported model, ready to run.

    Args:
        card: of the model.
        backbone: images `[b C H W]` -> embeddings `[b d]`, logits `[b c]`.
        aggregator: embeddings `[1 n d]`, calibrated logits `[1 n c]` -> log-posterior `[1 n c]`.
    """

    def __init__(self, card: Card, backbone: Program, aggregator: Program) -> None:
        self.card = card
        self._backbone, self._aggregator = backbone, aggregator
        self._correction = torch.tensor(card.calibration.log_correction)

    def threshold(self, error: float) -> float:
        """Return the threshold that was fitted for a nominal error.

        Args:
            error: share of wrong answers among those that reach the threshold.

        Raises:
            DeploymentError: none was fitted for this error.
        """
        fitted = {one.nominal_error: one.threshold for one in self.card.stopping}
        if error in fitted:
            return fitted[error]
        known = ", ".join(f"{nominal:g}" for nominal in fitted)
        nothing = "adaptive n was off, or validation has too few images or groups to promise any; use --threshold"
        way_out = f"use one of {known}" if known else nothing
        raise DeploymentError(f"expected an error that a threshold was fitted for, got {error:g}; {way_out}")

    def stream(self, instances: Iterable[Num[Tensor, "C H W"]]) -> Iterator[Float64[Tensor, "c"]]:
        """Yield the log-posterior, natural log, after each instance; every instance is embedded once.

        Args:
            instances: of one tuple; read one at a time, only as far as the caller goes.

        Raises:
            DataError: an instance of another shape or type than the model takes.
        """
        for seen in self._seen(instances):
            yield self._fuse(*seen)

    def predict(
        self, instances: Iterable[Num[Tensor, "C H W"]], threshold: float | None = None, most: int | None = None
    ) -> Prediction:
        """Look at instances until the largest posterior probability reaches a threshold.

        Args:
            instances: of one tuple, one at least.
            threshold: probability in [0, 1], 0 stops after the first instance; None looks at all instances.
            most: look at no more than this many instances; None for no limit.

        Raises:
            DataError: no instances, or one that the model does not take.
        """
        posterior, seen, used, reached = None, None, 0, False
        for used, seen in enumerate(self._seen(instances), start=1):
            if threshold is not None:
                posterior = self._fuse(*seen).exp()
                reached = float(posterior.max()) >= threshold
            if reached or used == most:
                break
        if seen is None:
            raise DataError("expected at least one instance in the tuple, got none; add one")
        if posterior is None:
            posterior = self._fuse(*seen).exp()
        index = int(posterior.argmax())
        return Prediction(
            label=self.card.labels[index],
            probability=float(posterior[index]),
            instances=used,
            reached=None if threshold is None else reached,
            extrapolated=used > max(self.card.calibration.n),
            posterior=dict(zip(self.card.labels, posterior.tolist(), strict=True)),
        )

    def _seen(
        self, instances: Iterable[Num[Tensor, "C H W"]]
    ) -> Iterator[tuple[Float[Tensor, "1 n d"], Float[Tensor, "1 n c"]]]:
        """Yield the embeddings and calibrated logits of all instances so far, after each."""
        embeddings, logits = torch.empty(1, 0, self.card.embedding_dim), torch.empty(1, 0, len(self.card.labels))
        for instance in instances:
            self._check(instance)
            embedding, calibrated = self._embed(instance)
            embeddings = torch.cat([embeddings, embedding], dim=1)
            logits = torch.cat([logits, calibrated], dim=1)
            yield embeddings, logits

    @torch.no_grad()
    def _embed(self, instance: Num[Tensor, "C H W"]) -> tuple[Float[Tensor, "1 1 d"], Float[Tensor, "1 1 c"]]:
        """Return embedding and calibrated logits of one instance."""
        embedding, logits = self._backbone(instance[None])
        self._check_outputs(BACKBONE, (embedding, (1, self.card.embedding_dim)), (logits, (1, len(self.card.labels))))
        calibrated = calibrate_logits(logits, self._correction, self.card.calibration.temperature)
        return embedding[None], calibrated[None]

    @torch.no_grad()
    def _fuse(self, embeddings: Float[Tensor, "1 n d"], logits: Float[Tensor, "1 n c"]) -> Float64[Tensor, "c"]:
        """Aggregate instances, then temper and floor the log-posterior of all of them, as the evaluation does."""
        (log_posterior,) = self._aggregator(embeddings, logits)
        self._check_outputs(AGGREGATOR, (log_posterior, tuple(logits.shape)))
        if not log_posterior.isfinite().all():
            raise DataError(
                f"expected a finite posterior after {embeddings.shape[1]} instances, got NaN or infinity; check the "
                "instances for values that training never saw, or export the cell again"
            )
        calibration = self.card.calibration
        temperature = torch.tensor([temperature_of(embeddings.shape[1], calibration)], dtype=torch.float64)
        tempered = apply_temperature(log_posterior[:, -1:], temperature)
        return floor_posterior(tempered, calibration.floor)[0, 0]

    def _check_outputs(self, part: str, *outputs: tuple[Tensor, tuple[int, ...]]) -> None:
        for output, shape in outputs:
            if tuple(output.shape) != shape or output.dtype != torch.float32:
                raise DeploymentError(
                    f"expected float32 {list(shape)} of the {part}, as the card says, got "
                    f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}; export the cell again"
                )

    def _check(self, instance: Tensor) -> None:
        wanted = self.card.preprocessing
        shape, given = (wanted.channels, wanted.height, wanted.width), tuple(instance.shape)
        dtype = str(instance.dtype).removeprefix("torch.")
        if given != shape or dtype != wanted.dtype:
            raise DataError(
                f"expected instances of {wanted.dtype} {shape} (channels, height, width), got {dtype} {given}; "
                "prepare them as the model's card says"
            )


def load(folder: Path, runtime: str | None = None, *, trust: bool = False) -> Predictor:
    """Open an exported model.

    Args:
        folder: what `sharedlabel export` wrote.
        runtime: `onnx` or `torch`; None takes ONNX if it was exported, else torch.
        trust: whether its files may run code, as those for torch may when they are opened. The checksums of the card
            are no reason to: whoever changes a file changes the card as well.

    Raises:
        DeploymentError: no model, an altered one, an unknown runtime, one that was not exported or is not installed, or
            files that would have to be trusted.
    """
    chosen = None if runtime is None else programs.runtime_named(runtime)
    card = card_file.read(folder)
    parts = (BACKBONE, AGGREGATOR)
    exported = [name for name, suffix in SUFFIXES.items() if all(f"{part}{suffix}" in card.files for part in parts)]
    if not exported:
        raise DeploymentError(
            f"expected the card in {folder} to list backbone and aggregator of one runtime, got "
            f"{', '.join(card.files) or 'no files'}; export the cell again"
        )
    chosen = chosen or exported[0]
    if chosen not in exported:
        raise DeploymentError(
            f"expected a model exported for the runtime {chosen!r} in {folder}, got one for {', '.join(exported)}; "
            f"use --runtime {exported[0]} or export the cell again with --format {chosen}"
        )
    paths = [folder / f"{part}{SUFFIXES[chosen]}" for part in parts]
    return Predictor(card, *(programs.read(path, card.files, trusted=trust) for path in paths))


def temperature_of(n: int, calibration: Calibration) -> float:
    """Return the temperature of the posterior after `n` instances: that of the largest fitted size up to `n`.

    Every size up to the largest is fitted where adaptive n was; between others nothing is interpolated.

    >>> fitted = Calibration("", (), 1.0, "", (2, 4, 8), (0.9, 0.8, 0.02), "", 1e-6)
    >>> [temperature_of(n, fitted) for n in (1, 2, 3, 4, 7, 8, 9)]
    [0.9, 0.9, 0.9, 0.8, 0.8, 0.02, 0.02]
    """
    index = bisect.bisect_right(calibration.n, n) - 1
    return calibration.posterior_temperature[max(index, 0)]
