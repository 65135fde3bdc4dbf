"""Information gain in bits, by three estimators, and relative information.

The posterior estimator is primary: a lower bound on the mutual information of the label and the instances (Barber &
Agakov 2003; Xu et al. 2020). It is negative when the posterior is worse than the prior, and never clipped.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.logs import log_normalize
from sharedlabel.metrics import _checks
from sharedlabel.metrics._scored import Scored
from sharedlabel.metrics._weights import normalized, weighted_mean
from sharedlabel.metrics.accuracy import n_accuracy

FLOOR = 1e-6
_Marginal: TypeAlias = tuple[tuple[float, int], ...]


def label_entropy(log_prior: Float[Tensor, "c"]) -> float:
    """Return H(Y) in bits.

    Args:
        log_prior: log prior over labels, natural log; `-inf` for a label that never occurs. It is normalised again,
            so that rounding to float32 does not show.

    >>> round(label_entropy(torch.tensor([0.5, 0.25, 0.25]).log()), 6)
    1.5
    """
    _checks.shape("log-priors", log_prior, "c")
    _checks.logs("log-priors", log_prior, normalised=True)
    prior = log_prior.double().softmax(dim=0)
    return float(torch.special.entr(prior).sum() / math.log(2))


def floor_posterior(log_posterior: Float[Tensor, "t n c"], epsilon: float = FLOOR) -> Float[Tensor, "t n c"]:
    """Normalise a log-posterior in float64 and mix it with the uniform distribution.

    `negative_log_likelihood`, `information_gain` and `relative_information` do this themselves; done before, too, it
    would count twice. Tables of a run hold all scores of floored posteriors: the Brier score and the calibration error
    of posteriors as they are differ from them by a few millionths.

    Args:
        log_posterior: natural log; need not be normalised.
        epsilon: share of the uniform distribution in the mixture, in (0, 1).

    Returns:
        Normalised log-posterior, natural log, at least `log(epsilon / c)` everywhere.
    """
    _checks.posterior(log_posterior)
    if not 0 < epsilon < 1:
        raise DataError(f"expected a share of the uniform distribution in (0, 1), got {epsilon:g}; 1e-6 is usual")
    uniform = math.log(epsilon / log_posterior.shape[2])
    mixed = log_normalize(log_posterior.double()) + math.log1p(-epsilon)
    return torch.logaddexp(mixed, mixed.new_tensor(uniform))


def log2_posterior_of_label(log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"]) -> Float[Tensor, "t n"]:
    """Return the log2 of the posterior of the true label: minus the bits still missing.

    Args:
        log_posterior: normalised, natural log; floor it first (`floor_posterior`).
        labels: class index of each tuple.
    """
    _checks.scored(log_posterior, labels, normalised=True)
    index = labels[:, None, None].expand(-1, log_posterior.shape[1], 1)
    return log_posterior.double().gather(2, index).squeeze(2) / math.log(2)


def posterior_gain(
    log2_posterior: Float[Tensor, "t n"], weights: Float[Tensor, "t"] | None, entropy: float
) -> Float[Tensor, "n"]:
    """Return H(Y) - mean(-log2 p(Y)), the primary estimator.

    Args:
        log2_posterior: log2 posterior of the true label (`log2_posterior_of_label`).
        weights: weight of each tuple; equal if None.
        entropy: H(Y) in bits.

    Returns:
        Bits, in (-inf, H(Y)].
    """
    _checks.array("log2 posteriors", log2_posterior, "t n", high=_checks.CLOSE)
    _checks.number("a label entropy in bits", entropy, 0)
    labels = torch.empty(len(log2_posterior), dtype=torch.int64, device=log2_posterior.device)
    return entropy + weighted_mean(log2_posterior, normalized(labels, weights))


def confusion(
    log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"] | None = None
) -> Float[Tensor, "n c c"]:
    """Return the joint distribution of label (rows) and decision (columns) for every prefix.

    Args:
        log_posterior: log-posterior after each prefix; ties go to the lowest class index.
        labels: class index of each tuple.
        weights: weight of each tuple; equal if None.

    Returns:
        Shares that sum to 1 for each prefix.
    """
    _checks.scored(log_posterior, labels)
    prefixes, classes = log_posterior.shape[1:]
    mass = normalized(labels, weights)[:, None].expand(-1, prefixes)
    return _joint(labels[:, None], log_posterior.argmax(dim=2), mass, classes)


def _joint(
    labels: Int64[Tensor, "t #m"], decisions: Int64[Tensor, "t m"], mass: Float[Tensor, "t m"], classes: int
) -> Float[Tensor, "m c c"]:
    """Return the joint distribution of label and decision in every column."""
    cell = labels * classes + decisions
    joint = mass.new_zeros(cell.shape[1], classes * classes).scatter_add_(1, cell.T, mass.T)
    return joint.view(-1, classes, classes)


def _entropy(probabilities: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
    nats: Tensor = torch.special.entr(probabilities).sum(dim=1)
    return nats / math.log(2)


def decision_gain(joint: Float[Tensor, "n c c"]) -> Float[Tensor, "n"]:
    """Return the mutual information of label and decision, plug-in.

    The estimate is biased upwards when tuples are few for the number of classes: read it beside `decision_gain_null`,
    or take `decision_gain_adjusted`.

    Args:
        joint: distribution of label and decision (`confusion`), best of one partition: tuples of several share
            instances, so how many independent ones stand behind their mean is not known.

    Returns:
        Bits.
    """
    _check_joint(joint)
    return _entropy(joint.sum(2)) + _entropy(joint.sum(1)) - _entropy(joint.flatten(1))


def _check_joint(joint: Tensor, samples: int = 1) -> None:
    _checks.array("joint distributions", joint, "n c c", c=joint.shape[-1])
    _checks.distributions("joint distributions", joint, axes=2)
    _checks.number("a number of tuples", samples, 1)


def _whole(probabilities: Float[Tensor, "n c"], samples: int) -> Float[Tensor, "n c"]:
    """Round shares to counts that sum to `samples`, by largest remainder."""
    exact = probabilities * samples
    counts = (exact + 1e-9).floor()
    missing = (samples - counts.sum(dim=1, keepdim=True)).round()
    rank = (exact - counts).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return counts + (rank < missing)


@functools.lru_cache(maxsize=2**14)
def _null(rows: _Marginal, columns: _Marginal, samples: int) -> float:
    """Return the mean over permutations; few distinct counts occur, so the sum over c * c cells collapses to them."""
    (a, times_a), (b, times_b) = (torch.tensor(marginal, dtype=torch.float64).T for marginal in (rows, columns))
    a, b = a[:, None, None], b[None, :, None]
    shared = torch.arange(1, int(min(a.max(), b.max())) + 1, dtype=a.dtype)
    rest = samples - a - b + shared
    possible = (shared <= a) & (shared <= b) & (rest >= 0)

    def log_factorial(count: Tensor) -> Tensor:
        return torch.lgamma(count.clamp(min=0) + 1)

    chosen = log_factorial(a) + log_factorial(b) + log_factorial(samples - a) + log_factorial(samples - b)
    left = log_factorial(a - shared) + log_factorial(b - shared) + log_factorial(rest) + log_factorial(shared)
    log_mass = chosen - left - math.lgamma(samples + 1)
    term = log_mass.exp() * shared / samples * torch.log2(samples * shared / (a * b))
    per_pair: Tensor = torch.where(possible, term, 0.0).sum(dim=2)
    return float(torch.einsum("i,ij,j", times_a, per_pair, times_b))


def decision_gain_null(joint: Float[Tensor, "n c c"], samples: int) -> Float[Tensor, "n"]:
    """Return what the plug-in `decision_gain` gives on average when labels and decisions are independent.

    It is the exact mean over all permutations of the decisions (a hypergeometric sum), with the given marginals
    rounded to whole tuples: the asymptotic (c-1)^2 / (2 N ln 2) exceeds H(Y) itself when classes are many.

    Args:
        joint: distribution of label and decision; only its marginals matter.
        samples: number of tuples, disjoint ones: those of one partition.

    Returns:
        Bits.

    Reference:
        Vinh, Epps & Bailey, "Information theoretic measures for clusterings comparison" (2010), equation 24a.
    """
    _check_joint(joint, samples)
    rows, columns = (_whole(joint.double().sum(dim).cpu(), samples).tolist() for dim in (2, 1))
    # Of a network's decisions most partitions and sizes have the same counts.
    nulls = [_null(_counts(label), _counts(decision), samples) for label, decision in zip(rows, columns, strict=True)]
    return torch.tensor(nulls, dtype=torch.float64, device=joint.device)


def _counts(marginal: Sequence[float]) -> _Marginal:
    """Return the distinct counts above 0, each with how often it occurs."""
    return tuple(sorted(Counter(count for count in marginal if count > 0).items()))


def decision_gain_adjusted(
    gain: Float[Tensor, "*shape"], null: Float[Tensor, "*shape"], entropy: float
) -> Float[Tensor, "*shape"]:
    """Return the plug-in `decision_gain`, corrected for chance.

    Of what lies between the null and H(Y), the same share of H(Y): 0 on average when labels and decisions are
    independent, H(Y) when decisions tell labels. Miller and Madow's correction does neither where tuples are hardly
    more than pairs of a label and a decision: with 10 classes and 120 tuples it leaves .28 bits for independent ones.

    Args:
        gain: `decision_gain`, bits.
        null: `decision_gain_null`, bits.
        entropy: H(Y) in bits.

    Returns:
        Bits, 0 where chance alone leaves nothing to know.

    Reference:
        Vinh, Epps & Bailey (2010), as above: the adjusted mutual information, whose upper bound here is H(Y).
    """
    _checks.number("gains", gain)
    _checks.number("gains by chance", null)
    _checks.number("a label entropy in bits", entropy, 0)
    room = entropy - null
    known = room > 1e-9
    return torch.where(known, entropy * (gain - null) / room.where(known, 1.0), 0.0)


def accuracy_gain(accuracy: Float[Tensor, "n"], classes: int) -> Float[Tensor, "n"]:
    """Return the information gain of a symmetric channel with this accuracy; it needs no posterior.

    Args:
        accuracy: n-accuracy in [0, 1].
        classes: number of classes, at least 2.

    Returns:
        Bits; 0 for an accuracy at or below chance.
    """
    _checks.array("accuracies", accuracy, "n", 0, 1)
    _checks.number("a number of classes", classes, 2)
    wrong = 1 - accuracy
    bits = torch.xlogy(accuracy, accuracy) + torch.xlogy(wrong, wrong / (classes - 1)) + math.log(classes)
    return torch.where(accuracy > 1 / classes, bits / math.log(2), 0.0)


def share_of_entropy(gain: Float[Tensor, "*shape"], entropy: float) -> Float[Tensor, "*shape"]:
    """Return an information gain as a share of the label entropy.

    Args:
        gain: bits.
        entropy: H(Y) in bits.

    Returns:
        Relative information, in (-inf, 1] for the posterior estimator.

    Raises:
        DataError: the label is certain, so there is no information to gain.
    """
    _checks.number("gains", gain)
    if not 0 < entropy < math.inf:
        raise DataError(f"expected at least two labels that occur, got a label entropy of {entropy} bits; add a class")
    return gain / entropy


def columns(scored: Scored) -> dict[str, Tensor]:
    """Return the columns of rows: information by the posterior, by decisions and by the n-accuracy, in bits."""
    labels, weights, entropy = scored.labels, scored.weights, scored.entropy
    raw, calibrated = (
        posterior_gain(log2_posterior_of_label(version, labels), weights, entropy)
        for version in (scored.raw, scored.calibrated)
    )
    accuracy = n_accuracy(scored.posterior, labels, weights).clamp(max=1)  # weights sum to 1 but for rounding
    return {
        "label_entropy": torch.full_like(accuracy, entropy),
        "information_gain_raw": raw,
        "ri_raw": share_of_entropy(raw, entropy),
        "information_gain": calibrated,
        **_decision_columns(scored),
        "information_gain_accuracy": accuracy_gain(accuracy, len(scored.prior)),
    }


def _decision_columns(scored: Scored) -> dict[str, Tensor]:
    """Return the information of decisions, averaged over partitions.

    What few tuples add by chance depends on how many there are. Those of one partition are independent; those of all
    together share images, and are worth an unknown number between one partition's and all.
    """
    drawn = scored.drawn
    partitions, samples = drawn.labels.shape
    prefixes, classes = scored.posterior.shape[1:]
    decisions = scored.posterior.argmax(dim=2).view(partitions, samples, prefixes).transpose(0, 1)  # [t, p, k]
    labels, weights = drawn.labels.T[:, :, None].expand_as(decisions), drawn.weights.double()
    mass = (weights / weights.sum(1, keepdim=True)).T[:, :, None].expand_as(decisions)
    joint = _joint(labels.flatten(1), decisions.flatten(1), mass.flatten(1), classes)  # [pk, c, c]
    gain, null = decision_gain(joint), decision_gain_null(joint, samples)
    gains = {
        "information_gain_decision": gain,
        "information_gain_decision_corrected": decision_gain_adjusted(gain, null, scored.entropy),
        "information_gain_decision_null": null,
    }
    return {name: values.view(partitions, -1).mean(dim=0) for name, values in gains.items()}
