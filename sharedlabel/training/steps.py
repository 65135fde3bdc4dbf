"""What follows the steps of a training."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class AfterStep(Protocol):
    """What is called after every step of a backbone's training, and goes on where a killed training was."""

    def __call__(self, network: Any, share: float, /) -> None:
        """Look at the network, or change it, after this share of the steps."""

    def state(self, network: Any, /) -> dict[str, Any]:
        """Return what it has to know to go on, as tensors and plain data."""

    def restore(self, network: Any, state: dict[str, Any], /) -> None:
        """Go on from there; the network has yet to get its weights."""
