"""What is told how far a run is, where nobody listens."""

from __future__ import annotations

from typing import Any


class Silent:
    """Tells nobody."""

    def __call__(self, node: Any, seconds: float | None, worker: int = 0) -> None:
        """Say nothing."""

    def failed(self, failed: Any, worker: int = 0) -> None:
        """Refuse failures, which would be cheap."""
        del worker
        raise RuntimeError(f"expected no failures, got {failed.reason}")

    def waiting(self, reason: str) -> None:
        """Say nothing."""

    def lost(self, node: Any) -> None:
        """Say nothing."""

    def elsewhere(self, node: Any) -> None:
        """Say nothing."""
