"""What every aggregator promises, tried on tuples: finite, normalised, causal, each tuple on its own.

Whoever fits an aggregator, the conformance suite and the leaderboard's check share this code. Natural logs of
probabilities are compared, cut at `MIN_LOG_PROBABILITY`, so that what is next to certain still shows a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import MIN_LOG_PROBABILITY, Aggregator
from sharedlabel.errors import ContractError

# In float32, batches and tuples of another size move the trained aggregators of this package by 3e-7 at most.
TOLERANCE = 1e-3
TUPLES = 4


@torch.no_grad()
def check(
    aggregator: Aggregator,
    embeddings: Float[Tensor, "t n d"],
    logits: Float[Tensor, "t n c"],
    tolerance: float = TOLERANCE,
) -> None:
    """Refuse an aggregator that breaks its contract on a few of these tuples; about n + 10 passes of four tuples.

    Args:
        aggregator: fitted; tried in evaluation mode and left in the mode it came in.
        embeddings: of the tuples, `[t n d]`.
        logits: of the tuples, calibrated, `[t n c]`.
        tolerance: largest difference of log-posteriors, relative to 1 plus their size.

    Raises:
        ContractError: names the first prefix that is wrong, and both numbers.
    """
    rows = torch.linspace(0, len(logits) - 1, min(TUPLES, len(logits))).long()  # tuples may come sorted by label
    few, training = (embeddings[rows], logits[rows]), aggregator.training
    aggregator.eval()
    try:
        for promise in (check_separate, check_causal, check_some):
            promise(aggregator, *few, tolerance)
    finally:
        aggregator.train(training)


def posterior(
    aggregator: Aggregator, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], tolerance: float
) -> Float[Tensor, "t n c"]:
    """Return the log-posterior after every prefix.

    Raises:
        ContractError: another shape or type, values that are not finite, or probabilities that do not sum to 1.
    """
    log_posterior, name = aggregator(embeddings, logits), type(aggregator).__name__
    if not isinstance(log_posterior, Tensor) or log_posterior.shape != logits.shape:
        shape = list(log_posterior.shape) if isinstance(log_posterior, Tensor) else f"a {type(log_posterior).__name__}"
        raise ContractError(
            f"expected a posterior of shape {list(logits.shape)} from {name}, got {shape}; return one for every prefix"
        )
    if log_posterior.dtype not in (torch.float32, torch.float64):
        raise ContractError(
            f"expected a posterior in float32 or wider from {name}, got {log_posterior.dtype}; use `normalize`"
        )
    broken = (~log_posterior.isfinite()).movedim(1, 0).nonzero()
    if len(broken):
        prefix, row, label = broken[0].tolist()
        raise ContractError(
            f"expected finite log-posteriors from {name}, got {float(log_posterior[row, prefix, label])} for class "
            f"{label} at n = {prefix + 1}; check its arithmetic and the features"
        )
    sums = log_posterior.logsumexp(-1)
    broken = (sums.abs() > tolerance).T.nonzero()
    if len(broken):
        prefix, row = broken[0].tolist()
        raise ContractError(
            f"expected posteriors that sum to 1 from {name}, got a sum of {float(sums[row, prefix].exp()):.6g} "
            f"at n = {prefix + 1}; return `normalize(scores)`"
        )
    return log_posterior


def check_causal(
    aggregator: Aggregator, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], tolerance: float
) -> None:
    """Refuse posteriors that change when the later instances, or their number, are taken away.

    Raises:
        ContractError: names the first prefix that does.
    """
    every = posterior(aggregator, embeddings, logits, tolerance)
    for k in range(1, logits.shape[1]):
        alone = posterior(aggregator, embeddings[:, :k], logits[:, :k], tolerance)
        within = f"among {logits.shape[1]} instances"
        check_same(aggregator, (every[:, :k], within), (alone, f"with {k} alone"), tolerance, "use no later instance")


def check_separate(
    aggregator: Aggregator, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], tolerance: float
) -> None:
    """Refuse posteriors of a tuple that depend on the other tuples of its batch, or on its place there.

    Raises:
        ContractError: names the first prefix that does.
    """
    every = posterior(aggregator, embeddings, logits, tolerance)
    pairs = zip(embeddings.split(1), logits.split(1), strict=True)
    alone = torch.cat([posterior(aggregator, *pair, tolerance) for pair in pairs])
    turned = posterior(aggregator, embeddings.flip(0), logits.flip(0), tolerance).flip(0)
    batch, advice = (every, f"in a batch of {len(logits)} tuples"), "use no other tuple"
    check_same(aggregator, batch, (alone, "with the tuple alone"), tolerance, advice)
    check_same(aggregator, batch, (turned, "in another order of the batch"), tolerance, advice)


def check_some(
    aggregator: Aggregator, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], tolerance: float
) -> None:
    """Refuse an `at` that returns other posteriors than `forward` does.

    Raises:
        ContractError: names the first prefix that differs.
    """
    every, size = posterior(aggregator, embeddings, logits, tolerance), logits.shape[1]
    doubling = [k for k in range(1, size + 1) if k & (k - 1) == 0]
    for prefixes in (doubling, [size]):
        picked = torch.tensor(prefixes) - 1
        some, whole = aggregator.at(embeddings, logits, prefixes), every[:, picked]
        if not isinstance(some, Tensor) or some.shape != whole.shape:
            shape = list(some.shape) if isinstance(some, Tensor) else f"a {type(some).__name__}"
            raise ContractError(
                f"expected posteriors of shape {list(whole.shape)} from `at` of {type(aggregator).__name__}, got "
                f"{shape}; return one for each of the prefixes asked for"
            )
        texts = "from `at`", "from `forward`"
        advice = "let both return the same"
        check_same(aggregator, (some, texts[0]), (whole, texts[1]), tolerance, advice, prefixes)


def check_repeatable(
    aggregator: Aggregator, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], tolerance: float
) -> None:
    """Refuse posteriors that are others the second time, by however little.

    Raises:
        ContractError: they are.
    """
    first, second = (posterior(aggregator, embeddings, logits, tolerance) for _ in range(2))
    if not torch.equal(first, second):
        raise ContractError("expected the same posterior from the same tuples, got another the second time")


def check_order(
    aggregator: Aggregator, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], tolerance: float
) -> None:
    """Refuse posteriors of whole tuples that depend on the order of instances although the class says they do not.

    Raises:
        ContractError: they do, or the class says neither.
    """
    if not isinstance(getattr(aggregator, "permutation_invariant", None), bool):
        raise ContractError("expected a class constant permutation_invariant, True or False, got none")
    if aggregator.permutation_invariant:
        turned = posterior(aggregator, embeddings.flip(1), logits.flip(1), tolerance)[:, -1:]
        given = posterior(aggregator, embeddings, logits, tolerance)[:, -1:]
        texts, advice = ("with the instances turned round", "as given"), "declare permutation_invariant = False"
        check_same(aggregator, (turned, texts[0]), (given, texts[1]), tolerance, advice, [logits.shape[1]])


def check_state(
    aggregator: Aggregator,
    other: Aggregator,
    embeddings: Float[Tensor, "t n d"],
    logits: Float[Tensor, "t n c"],
    tolerance: float,
) -> None:
    """Refuse posteriors that follow from more than the state, which is what is stored.

    Args:
        aggregator: whose state is taken.
        other: built anew with the same options; it is given the state.
        embeddings: of the tuples, `[t n d]`.
        logits: of the tuples, calibrated, `[t n c]`.
        tolerance: as of `posterior`; the posteriors have to be the very same.

    Raises:
        ContractError: they do.
    """
    other.load_state_dict(aggregator.state_dict())
    first, second = (posterior(one, embeddings, logits, tolerance) for one in (aggregator, other))
    if not torch.equal(first, second):
        raise ContractError("expected the posterior to follow from state_dict() alone, got another; register buffers")


def check_same(
    aggregator: Aggregator,
    first: tuple[Float[Tensor, "t k c"], str],
    second: tuple[Float[Tensor, "t k c"], str],
    tolerance: float,
    advice: str,
    prefixes: Sequence[int] | None = None,
) -> None:
    """Refuse two log-posteriors that differ.

    Args:
        aggregator: whose they are.
        first: one, and words for where it comes from.
        second: the other.
        tolerance: largest difference, relative to 1 plus the size of the logarithm.
        advice: what to do about it.
        prefixes: instances behind each; 1, 2, ... if None.

    Raises:
        ContractError: names the first prefix where they do, and the probabilities of one class there.
    """
    one, other = (values.clamp_min(MIN_LOG_PROBABILITY) for values, _ in (first, second))
    apart = (one - other).abs() / (1 + other.abs())
    wrong = (~(apart <= tolerance)).any(2).any(0).nonzero()
    if not len(wrong):
        return
    at = int(wrong[0])
    row, label = divmod(int(apart[:, at].argmax()), apart.shape[2])
    shown = [f"{float(values[row, at, label].exp()):.6g} {words}" for values, words in (first, second)]
    n = at + 1 if prefixes is None else prefixes[at]
    raise ContractError(
        f"expected the same posterior from {type(aggregator).__name__} at n = {n}, got {shown[0]} and {shown[1]} for "
        f"class {label}; {advice}"
    )
