"""Callbacks, loggers and what a terminal shows: what a grid may watch its trainings with, or leaves unsaid.

`KeepPruned` is for trainings of your own. No key says what stands here, so nothing here changes what is computed.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import callbacks as lightning
from torch import Tensor, nn

from sharedlabel.backbones._masking import masked_weights
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import ConfigError
from sharedlabel.training import loggers, watchers
from sharedlabel.training.keeping import Unwatching
from sharedlabel.training.onlooker import Onlooker
from sharedlabel.training.resume import Workplace
from sharedlabel.training.watchers import WATCHERS

# Callbacks that only look, by the names of configurations, which import nothing.
WATCHING: Mapping[str, type[pl.Callback]] = {
    "device_stats_monitor": lightning.DeviceStatsMonitor,
    "learning_rate_monitor": lightning.LearningRateMonitor,
    "tqdm_progress_bar": lightning.TQDMProgressBar,
}
# Callbacks that change what is trained or when it stops, and what a grid says instead.
_CHANGING: Mapping[type[pl.Callback], str] = {
    lightning.EarlyStopping: "set fit.patience, or train with a Trainer of your own",
    lightning.StochasticWeightAveraging: "train with a Trainer of your own",
    lightning.WeightAveraging: "train with a Trainer of your own",
    lightning.GradientAccumulationScheduler: "set batch_size, or train with a Trainer of your own",
    lightning.LearningRateFinder: "set fit.trials, or train with a Trainer of your own",
    lightning.BatchSizeFinder: "set batch_size, or train with a Trainer of your own",
    lightning.BaseFinetuning: "train with a Trainer of your own",
    lightning.ModelPruning: "name a pruner under pruners",
    lightning.Timer: "set epochs, or train with a Trainer of your own",
}
# Lightning's remarks on loaders and devices, and its own use of what newer versions of torch deprecate.
_NOISE = (
    "does not have many workers|have no `val_dataloader`|GPU available but not used|logging interval|treespec, LeafSpec"
)
_EVERY = 50  # steps, as Lightning does
_MONITORS = ("device_stats_monitor", "learning_rate_monitor")


class KeepPruned(Unwatching):
    """Set removed weights back to exactly zero after every step, and count what was there.

    Masked networks of this package stay pruned without it: every pass uses weight * mask, whatever an optimiser writes
    to the parameter behind the mask. The callback is for code of your own that looks at the parameters themselves while
    they are trained, and for networks whose masks were baked into their weights.

    Args:
        zeros: also keep every weight matrix and filter bank without a mask as sparse as it is when training begins.

    Attributes:
        written: weights that were not zero after some step although they had been removed; the most at once.

    >>> layer = nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[0.0, 1.0]]))
    >>> keep = KeepPruned(zeros=True)
    >>> keep.begin(layer)
    >>> with torch.no_grad():
    ...     _ = layer.weight.add_(1)
    >>> keep.enforce()
    >>> layer.weight.tolist(), keep.written
    ([[0.0, 2.0]], 1)
    """

    def __init__(self, zeros: bool = False) -> None:
        self.zeros, self.written = zeros, 0
        self._network: nn.Module | None = None
        self._sparse: list[tuple[nn.Parameter, Tensor]] = []

    def begin(self, network: nn.Module) -> None:
        """Remember a network and, if asked to, which of its weights are zero."""
        self._network, self._sparse = network, []
        if self.zeros:
            behind = {id(place.weight) for place in masked_weights(network) if place.key in place.owner._parameters}
            matrices = [one for one in network.parameters() if one.ndim > 1 and id(one) not in behind]
            self._sparse = [(weight, weight.detach() != 0) for weight in matrices if not bool((weight != 0).all())]

    @torch.no_grad()
    def enforce(self) -> None:
        """Set removed weights to zero in place."""
        assert self._network is not None
        masks = [  # looked up every time: gradual pruning adds some while it trains
            (place.weight, place.mask)
            for place in masked_weights(self._network)
            if place.mask is not None and place.key in place.owner._parameters
        ]
        pairs = [*masks, *self._sparse]
        counts = [((weight != 0) & (kept == 0)).sum() for weight, kept in pairs]
        if pairs:
            torch._foreach_mul_([weight for weight, _ in pairs], [kept for _, kept in pairs])
        self.written = max(self.written, sum(int(count) for count in counts))  # a GPU is waited for here alone

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the network as it is."""
        del trainer
        self.begin(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Set removed weights to zero."""
        del trainer, pl_module
        self.enforce()


def check(config: TrainerConfig) -> None:
    """Refuse loggers and callbacks of a configuration that cannot work, before anything is trained.

    Raises:
        ConfigError: a callback that is not known, changes what is trained, or gets options that it does not have; or a
            logger that is not installed, or is missing.
    """
    _named(config)
    for callback in WATCHERS.get():
        _check_object(callback)
    loggers.check(config)


@contextlib.contextmanager
def watched(*callbacks: Any) -> Iterator[None]:
    """Let callbacks of your own watch every training of the grids that run in the block.

    They see LightningModules and Trainers as usual. What they draw at random moves no training, and a training whose
    length they change is an error; weights, gradients, optimisers and batches they have to leave alone, since no key
    says what they change.

    Args:
        callbacks: instances of `pytorch_lightning.Callback`.

    Raises:
        ConfigError: no callback, or one that changes what is trained, as `EarlyStopping` does.
    """
    for callback in callbacks:
        _check_object(callback)
    with _set(*WATCHERS.get(), *callbacks):
        yield


def unwatched() -> contextlib.AbstractContextManager[None]:
    """Keep callbacks of `watched` from what is trained in the block, such as a rehearsal."""
    return _set()


@contextlib.contextmanager
def _set(*callbacks: pl.Callback) -> Iterator[None]:
    token = WATCHERS.set(callbacks)
    try:
        yield
    finally:
        WATCHERS.reset(token)


def quiet() -> dict[str, Any]:
    """Return the arguments of a Trainer that nobody watches, and keep Lightning from announcing devices and tips."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Leave remarks of Lightning that help nobody unsaid in the block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*({_NOISE}).*")
        yield


def watching(config: TrainerConfig, workplace: Workplace, number: int, steps: int) -> dict[str, Any]:
    """Return the arguments of a Trainer that say who watches a training.

    Whoever watches sees it validated after every epoch, too, as far as `watchers.told` says on what.

    Args:
        config: names loggers and callbacks.
        workplace: where it logs.
        number: of the training within its stage call.
        steps: in an epoch; single steps are logged every 50, or once an epoch if it has fewer.
    """
    told = watchers.told()
    looks = [] if told is None or told.held_out is None else [loggers.Look(told.held_out)]
    options: dict[str, Any] = {"callbacks": [*looks, *map(Onlooker, WATCHERS.get())]}
    if watchers.logs(config):
        options["logger"] = loggers.logger(config.logger, workplace.logs, number, told)
        options["log_every_n_steps"] = max(1, min(_EVERY, steps))
        options["callbacks"].append(loggers.Pulse())
    named = _named(config)
    if not options.get("logger"):  # W&B is off, or has no run for an aggregator
        named = [one for one in named if not isinstance(one, tuple(map(WATCHING.__getitem__, _MONITORS)))]
    options["callbacks"] += named
    if any(isinstance(callback, lightning.ProgressBar) for callback in options["callbacks"]):
        options["enable_progress_bar"] = True
    return options


def _named(config: TrainerConfig) -> list[pl.Callback]:
    return [_make(spec if isinstance(spec, dict) else {"name": spec}, config) for spec in config.callbacks]


def _make(spec: Mapping[str, Any], config: TrainerConfig) -> pl.Callback:
    name, options = str(spec.get("name")), {key: value for key, value in spec.items() if key != "name"}
    changing = {_snake(kind.__name__): advice for kind, advice in _CHANGING.items()}
    if name in changing:
        raise ConfigError(
            f"trainer.callbacks: expected callbacks that only look, got {name}, which changes what is trained, and no "
            f"key would say so; {changing[name]}"
        )
    if name not in WATCHING:
        raise ConfigError(f"trainer.callbacks: expected some of {', '.join(WATCHING)}, got {name!r}; correct the name")
    if name in _MONITORS and config.logger == "none":
        raise ConfigError(f"trainer.callbacks: {name} needs a logger, got trainer.logger=none; set it to csv")
    try:
        return WATCHING[name](**options)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(
            f"trainer.callbacks: expected options that {name} of Lightning has, got {options}: "
            f"{' '.join(str(error).split()).rstrip('.')}; correct them"
        ) from error


def _check_object(callback: Any) -> None:
    if not isinstance(callback, pl.Callback):
        raise ConfigError(
            f"callbacks: expected a pytorch_lightning.Callback, got {type(callback).__name__}; pass an instance of one"
        )
    for kind, advice in _CHANGING.items():
        if isinstance(callback, kind):
            raise ConfigError(
                f"callbacks: expected callbacks that only look, got {type(callback).__name__}, which changes what is "
                f"trained, and no key would say so; {advice}"
            )


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
