"""LightningModules: thin shells that train the pure parts, and the only place where Lightning is imported."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Num
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from sharedlabel.aggregators._base import CHUNK, Aggregator, prefix_loss
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import FitConfig, JointConfig, TrainConfig, TrainerConfig
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.loaders import ImageBatch, TupleBatch, augment

# Lightning's remarks on loaders and devices, and its own use of what newer versions of torch deprecate.
_NOISE = "does not have many workers|GPU available but not used|logging interval|treespec, LeafSpec"


class _Trained(pl.LightningModule):
    """What the three modules share: the optimiser, the schedule and the record of losses."""

    history: Tensor

    def __init__(self, epochs: int, learning_rate: float, weight_decay: float, warmup: float = 0.1) -> None:
        super().__init__()
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.register_buffer("history", torch.full((max(epochs, 1),), math.nan))
        self._losses: list[Tensor] = []

    def make_optimizer(self, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimiser; AdamW unless a module says otherwise."""
        return torch.optim.AdamW(parameters, lr=self.learning_rate)

    def configure_optimizers(self) -> Any:
        """Decay weights but not biases and norms; warm up linearly, then follow the schedule, step by step."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self.make_optimizer(
            [
                {"params": [p for p in trainable if p.ndim > 1], "weight_decay": self.weight_decay},
                {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
            ]
        )
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.scale(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def scale(self, step: int, steps: int) -> float:
        """Return the learning rate at a step as a share of its peak: linear warm-up, then cosine to zero."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def record(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Keep a step's loss for the epoch's mean without waiting for the device."""
        self._losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        """Store the epoch's mean loss; stop with a message if it is not finite."""
        mean = torch.stack(self._losses).mean()
        self._losses.clear()
        self.history[self.current_epoch] = mean
        if not torch.isfinite(mean):
            raise TrainingError(
                f"expected a finite loss, got {mean.item()} in epoch {self.current_epoch + 1}; "
                f"lower learning_rate (now {self.learning_rate:g}) or check the images for NaN and Inf"
            )

    def losses(self) -> list[float]:
        """Return the mean loss (nats) of every epoch trained."""
        return [value for value in self.history.tolist() if not math.isnan(value)]


class BackboneModule(_Trained):
    """Train or retrain a backbone on single images; its masks hold (`backbones/_masking.py`).

    Args:
        backbone: dense or pruned.
        config: the recipe.
        compiled: train through torch.compile.
        span: the part of the recipe's steps to train, as shares in [0, 1].
        after_step: called after every step with the backbone and the share of the steps done.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: TrainConfig,
        compiled: bool = False,
        span: tuple[float, float] = (0.0, 1.0),
        after_step: Callable[[Backbone, float], None] | None = None,
    ) -> None:
        super().__init__(config.epochs, config.learning_rate, config.weight_decay, config.warmup)
        self.backbone, self.config, self.span, self.after_step = backbone, config, span, after_step
        self._steps = 0
        self._network: nn.Module = torch.compile(backbone) if compiled else backbone  # type: ignore[assignment]

    def make_optimizer(self, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return AdamW, or SGD with Nesterov momentum."""
        if self.config.optimizer == "adamw":
            return super().make_optimizer(parameters)
        momentum = float(self.config.momentum)
        return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=momentum, nesterov=momentum > 0)

    def scale(self, step: int, steps: int) -> float:
        """Follow the configured schedule, from the beginning of the span."""
        self._steps, step = steps, step + round(self.span[0] * steps)
        rising = max(1, round(self.warmup * steps))
        return 1.0 if self.config.schedule == "constant" and step >= rising else super().scale(step, steps)

    def training_step(self, batch: ImageBatch) -> Tensor:
        """Return the cross-entropy of an augmented batch."""
        images, labels = batch
        logits = self._network(augment(images, self.config))
        return self.record(
            nn.functional.cross_entropy(logits, labels, label_smoothing=float(self.config.label_smoothing))
        )

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop at the end of the span."""
        done = round(self.span[0] * self._steps) + self.global_step
        if self.after_step is not None:
            self.after_step(self.backbone, done / self._steps)
        if self.span[1] < 1 and done >= round(self.span[1] * self._steps):
            self.trainer.should_stop = True


class AggregatorModule(_Trained):
    """Train an aggregator on frozen features by the likelihood of every prefix; keep the epoch best on validation.

    Args:
        aggregator: the set aggregator.
        config: the recipe.
        validation: embeddings `[t n d]`, logits `[t n c]`, labels `[t]` and weights `[t]` for early stopping.
    """

    def __init__(self, aggregator: Aggregator, config: FitConfig, validation: TupleBatch) -> None:
        super().__init__(config.epochs, config.learning_rate, config.weight_decay)
        self.aggregator, self.config, self.validation = aggregator, config, validation
        self.best, self.best_epoch, self.best_state = self._validation_loss(), 0, copy.deepcopy(aggregator.state_dict())

    def training_step(self, batch: TupleBatch) -> Tensor:
        """Return the weighted negative log-likelihood (nats), averaged over prefixes as the aggregator weighs them."""
        embeddings, logits, labels, weights = batch
        prefixes, importance = _weighted(self.aggregator, logits.shape[1])
        losses = prefix_loss(self.aggregator.at(embeddings, logits, prefixes), labels)
        return self.record((losses @ importance.to(losses) * weights).mean())

    def on_train_epoch_end(self) -> None:
        """Keep the best epoch; stop when it is long ago."""
        super().on_train_epoch_end()
        loss = self._validation_loss()
        if loss < self.best:
            self.best, self.best_epoch = loss, self.current_epoch + 1
            self.best_state = copy.deepcopy(self.aggregator.state_dict())
        if self.current_epoch + 1 - self.best_epoch >= self.config.patience:
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        """Restore the best epoch."""
        self.aggregator.load_state_dict(self.best_state)

    @torch.no_grad()
    def _validation_loss(self) -> float:
        training = self.aggregator.training
        self.aggregator.eval()
        prefixes, importance = _weighted(self.aggregator, self.validation[1].shape[1])
        total = 0.0
        for embeddings, logits, labels, weights in zip(*(part.split(CHUNK) for part in self.validation), strict=True):
            posterior = self.aggregator.draft(embeddings.to(self.device), logits.to(self.device), prefixes).cpu()
            total += float((prefix_loss(posterior, labels) @ importance.to(posterior) * weights).sum())
        self.aggregator.train(training)
        return total / float(self.validation[3].sum())


def _weighted(aggregator: Aggregator, size: int) -> tuple[list[int], Float[Tensor, "k"]]:
    """Return the prefixes that count in an aggregator's loss, and their weights."""
    weights = aggregator.prefix_weights(size)
    counted = weights.nonzero()[:, 0]
    return (counted + 1).tolist(), weights[counted]


class SharedLabelModule(_Trained):
    """A backbone at its compression ratio and an aggregator, trained together through the likelihood of the tuple.

    Args:
        backbone: dense or pruned.
        aggregator: the set aggregator.
        config: the recipe.
        temperature: divides the corrected logits before the aggregator sees them.
        log_correction: `[c]`, added to the logits: from the backbone's class frequencies to the prior of tuples.
    """

    log_correction: Tensor

    def __init__(
        self,
        backbone: Backbone,
        aggregator: Aggregator,
        config: JointConfig,
        temperature: float,
        log_correction: Float[Tensor, "c"],
    ) -> None:
        super().__init__(config.epochs, config.learning_rate, config.weight_decay)
        self.backbone, self.aggregator, self.config, self.temperature = backbone, aggregator, config, temperature
        self.register_buffer("log_correction", log_correction)

    def instances(self, images: Num[Tensor, "t n C H W"]) -> tuple[Float[Tensor, "t n d"], Float[Tensor, "t n c"]]:
        """Return the embeddings and raw logits of every instance."""
        embeddings = self.backbone.embed(images.flatten(0, 1))
        logits = self.backbone.classify(embeddings)
        return embeddings.unflatten(0, images.shape[:2]), logits.unflatten(0, images.shape[:2])

    def forward(self, images: Num[Tensor, "t n C H W"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix of every tuple of images."""
        embeddings, logits = self.instances(images)
        posterior: Tensor = self.aggregator(embeddings, (logits + self.log_correction) / self.temperature)
        return posterior

    def on_train_epoch_start(self) -> None:
        """Keep batch-norm statistics fixed if asked to."""
        if self.config.batch_norm == "frozen":
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def training_step(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the weighted sum of the losses of the recipe (nats).

        A batch is images `[t n C H W]`, the log-posteriors of the teacher `[t n c]` where there is one, labels `[t]`
        and weights `[t]`.
        """
        images, *taught, labels, weights = batch
        embeddings, logits = self.instances(images)
        set_loss, distill, seen = float(self.config.set_loss), float(self.config.distill), (embeddings, logits)
        if not set_loss and not distill:  # the limit of small weights: AdamW does not see how small the gradients are
            set_loss, seen = 1.0, (embeddings.detach(), logits.detach())
        posterior = self.aggregator(seen[0], (seen[1] + self.log_correction) / self.temperature)
        single = prefix_loss(logits.log_softmax(-1), labels).mean(1)
        losses = set_loss * prefix_loss(posterior, labels).mean(1) + float(self.config.instance_loss) * single
        if distill:
            losses = losses + distill * divergence(taught[0], posterior).mean(1)
        return self.record((losses * weights).mean())


def divergence(teacher: Float[Tensor, "t n c"], student: Float[Tensor, "t n c"]) -> Float[Tensor, "t n"]:
    """Return KL(teacher || student) (nats) between log-posteriors after every prefix."""
    return nn.functional.kl_div(student, teacher.to(student).exp(), reduction="none").sum(-1)


def trainer(config: TrainerConfig, epochs: int, gradient_clip: float = 0.0, small: bool = False) -> pl.Trainer:
    """Build the Lightning Trainer.

    Args:
        config: where and how.
        epochs: passes over the loader.
        gradient_clip: largest gradient norm; 0 is off.
        small: train on one device in full precision, as aggregators are.

    Raises:
        ConfigError: a device that is absent or an option that Lightning does not know.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # it announces devices and tips at every start
    devices: Any = 1 if small else config.devices
    several = devices not in (1, "1")
    strategy = "ddp_spawn" if several and config.strategy == "auto" else config.strategy
    try:
        return pl.Trainer(
            max_epochs=epochs,
            accelerator=config.accelerator,
            devices=devices,
            strategy="auto" if small else strategy,
            precision="32-true" if small else config.precision,
            gradient_clip_val=gradient_clip or None,
            **{
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **config.options,
            },
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError, ImportError, MemoryError) as error:
        asked = {"accelerator": config.accelerator, "devices": config.devices, "strategy": config.strategy}
        other = [name for name in ("accelerator", "strategy") if asked[name] != "auto"]
        advice = f"set trainer.{' and trainer.'.join(other)} to auto" if other else "correct trainer.options"
        stated = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        raise ConfigError(
            f"trainer: {stated} cannot be used here: {' '.join(str(error).split()).rstrip('.')}; {advice}"
        ) from error


def fit(
    module: _Trained,
    loader: Iterable[Any],
    config: TrainerConfig,
    epochs: int,
    gradient_clip: float = 0.0,
    small: bool = False,
) -> None:
    """Train a module and leave it on the CPU in evaluation mode."""
    module.train()  # Lightning keeps the mode it finds, and restored backbones come in evaluation mode
    if epochs:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=f".*({_NOISE}).*")
            with _interruptible():
                trainer(config, epochs, gradient_clip, small).fit(module, loader)
    module.to("cpu").eval()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Pass Ctrl-C on as KeyboardInterrupt: Lightning would exit with code 1 and ignore every later Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        if not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stopped


def device(config: TrainerConfig) -> torch.device:
    """Return the device that features are computed on: the one the Trainer would use first."""
    name = config.accelerator
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name in {"gpu", "cuda"}:
        return torch.device("cuda")
    return torch.device(name)
