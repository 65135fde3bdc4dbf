"""The folder that `new` makes: an aggregator that works, its metadata and its README, to be changed."""

from __future__ import annotations

from pathlib import Path

from sharedlabel.errors import DataError
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.submission import reading
from sharedlabel.leaderboard.submission.reading import Submission

_SOURCE = '''"""Evidence of single instances, weighed by a small network and summed. Change this."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharedlabel.aggregators._base import Aggregator, Standardize, normalize
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options; the defaults are what the leaderboard runs.

    Attributes:
        hidden: width of the hidden layer.
    """

    hidden: int = 32


class WeighedSum(Aggregator):
    """log p(y) + sum over instances of a weight in [0, 2] times log p(y given the instance) - log p(y)."""

    permutation_invariant = True

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.standardize = Standardize(shape)
        width = config.hidden
        self.weigh = nn.Sequential(nn.Linear(shape.embedding_dim, width), nn.ReLU(), nn.Linear(width, 1))
        self.register_buffer("log_prior", shape.log_prior.clone())

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        """Return the log-posterior after every prefix: embeddings [t n d], logits [t n c] -> [t n c]."""
        weight = 2 * torch.sigmoid(self.weigh(self.standardize(embeddings)))
        evidence = weight * (normalize(logits) - self.log_prior)
        return normalize(self.log_prior + evidence.cumsum(dim=1))


def build(config: Config, shape: SetShape) -> WeighedSum:
    """Build it for the widths of a backbone."""
    return WeighedSum(config, shape)
'''
_DESCRIPTION = "Evidence of single instances, weighed by a small network that sees the embedding, and summed."
_AUTHOR = "Your name"
_METADATA = f"""title = "{{name}}"
description = "{_DESCRIPTION}"
license = "MIT"
source = ""
external_data = false

[tuning]
trials = 0
selected_on = "nothing"

[[authors]]
name = "{_AUTHOR}"
affiliation = ""
url = ""
"""
_PROMPT = """What it computes, as a formula. What it costs in n. What it is meant to do better than the log-opinion
pool, and where you expect it to lose.
"""
_README = f"# {{name}}\n\n{_PROMPT}"


def template_text(submitted: Submission) -> list[str]:
    """Say which parts of a submission are still what `new` wrote, a line for each."""
    left = {
        f'the author "{_AUTHOR}" in {reading.METADATA}': any(
            author.name.strip() == _AUTHOR for author in submitted.metadata.authors
        ),
        f"the description in {reading.METADATA}": submitted.metadata.description.strip() == _DESCRIPTION,
        f"the text of {reading.README}": " ".join(_PROMPT.split()) in " ".join(submitted.readme.split()),
    }
    return [part for part, unchanged in left.items() if unchanged]


def new(board: Board, name: str) -> Path:
    """Make the folder of a submission that passes the check as it is.

    Raises:
        DataError: the name cannot be one, or is taken.
        StoreError: the board has no protocols.
    """
    reading.check_name(name)
    board.present()
    folder = board.root / "submissions" / name
    if folder.exists():
        raise DataError(f"{folder} is there already; choose another name, or change what is in it")
    folder.mkdir(parents=True)
    for file, text in ((reading.SOURCE, _SOURCE), (reading.METADATA, _METADATA), (reading.README, _README)):
        (folder / file).write_text(text.replace("{name}", name), encoding="utf-8")
    return folder
