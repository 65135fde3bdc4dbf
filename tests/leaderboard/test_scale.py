"""The score of predictions does not depend on how sure they are: calibration undoes any factor of log-posteriors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from sharedlabel import rng
from sharedlabel.leaderboard.board import score
from sharedlabel.leaderboard.protocol import uniform
from tests.leaderboard.conftest import make_board

if TYPE_CHECKING:
    from sharedlabel.leaderboard.folder import Board


def predicted(board: Board, factor: float, rounded: bool) -> dict[str, torch.Tensor]:
    """Posteriors that know something of the labels, as a file of predictions holds them or exactly."""
    protocol = board.protocol("toy-v1")
    posteriors = {}
    for role, drawn in board.answers(protocol).items():
        stream, labels = rng.generator(0, role), drawn.labels[0]
        known = torch.nn.functional.one_hot(labels, protocol.source.classes)[:, None].expand(-1, len(protocol.n), -1)
        logits = 2 * known + torch.randn(known.shape, generator=stream, dtype=torch.float64)
        posterior = (factor * logits).log_softmax(-1)
        posteriors[f"dense.0.{role}"] = posterior.half().double().log_softmax(-1) if rounded else posterior
    return posteriors


def ri(board: Board, factor: float, rounded: bool = False) -> list[float]:
    protocol = board.protocol("toy-v1")
    scored = score.score(predicted(board, factor, rounded), protocol, board.answers(protocol))
    return [cell["ri"] for cell in scored.cells]


@pytest.mark.parametrize("factor", [0.01, 0.02, 100.0])
def test_scores_do_not_depend_on_the_scale(tmp_path, factor):
    board = make_board(tmp_path / "leaderboard")
    assert uniform(board.protocol("toy-v1")).numel() > 1
    assert ri(board, factor) == pytest.approx(ri(board, 1.0), abs=1e-6)


@pytest.mark.parametrize(("factor", "bound"), [(0.02, 0.02), (0.1, 0.005), (10.0, 0.005), (100.0, 0.005)])
def test_what_predictions_in_float16_leave_of_that(tmp_path, factor, bound):
    """Small factors are lost in the rounding of values near log(1 / classes), of which float16 keeps three digits."""
    board = make_board(tmp_path / "leaderboard")
    assert ri(board, factor, rounded=True) == pytest.approx(ri(board, 1.0), abs=bound)
