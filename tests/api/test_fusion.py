"""`sl.aggregator`: it computes what a grid does, from embeddings and logits as a network makes them."""

from __future__ import annotations

import copy
import pickle

import jaxtyping
import pytest
import torch

import sharedlabel as sl
from sharedlabel.api.fusion import Fusion
from sharedlabel.data import tuples
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.plugins import available
from sharedlabel.rng import generator
from sharedlabel.scoring.data import FEATURE_ROLES
from sharedlabel.stages._restore import stored_aggregator, stored_shape
from sharedlabel.training import search

CLASSES, WIDTH = 4, 6
LABELS = torch.arange(96) % CLASSES
DRAW = generator(0, "fusion")
EMBEDDINGS = torch.randn(96, WIDTH, generator=DRAW) + LABELS[:, None]
LOGITS = torch.randn(96, CLASSES, generator=DRAW) + 2 * torch.nn.functional.one_hot(LABELS, CLASSES)
GROUPS = torch.arange(96) // 16
TUPLE = EMBEDDINGS[:24].view(4, 6, WIDTH), LOGITS[:24].view(4, 6, CLASSES)


@pytest.mark.parametrize("name", ["log_pool", "lstm"])
def test_it_is_what_a_grid_fits(finished, name) -> None:
    grid, store = finished.grid, finished.store
    [cell] = [cell for cell in grid.cells if (cell.aggregator, cell.ratio) == (name, 2)]
    inputs = {role: store.load(node.stage, node.key) for role, node in cell.aggregate.inputs}
    lengths = [inputs["features"].meta["lengths"][role] for role in FEATURE_ROLES]
    embeddings, logits = (inputs["features"].tensors()[part].split(lengths) for part in ("embeddings", "logits"))
    data = grid.data
    fitted = sl.aggregator(name).fitted(
        embeddings[0],
        logits[0],
        data.labels("aggregator"),
        n=max(finished.experiment.evaluation.n),
        validation=(embeddings[1], logits[1], data.labels("validation")),
        frequencies=tuples.prior(data.labels("backbone"), "empirical", 10),
        epochs=finished.experiment.fit.epochs,
    )
    stored = stored_aggregator(
        cell.aggregate.config.aggregator,
        stored_shape(data.prior, inputs["calibrate"]),
        store.load(cell.aggregate.stage, cell.aggregate.key),
    )
    assert float(fitted.temperature) == inputs["calibrate"].meta["temperature"]
    some = torch.arange(40).view(10, 4)
    seen = embeddings[2][some], logits[2][some]
    torch.testing.assert_close(fitted(*seen), stored(seen[0], fitted.calibrated(seen[1])), rtol=0, atol=0)
    assert ("best_epoch" in fitted.facts) == (name == "lstm")


def test_without_parameters_it_is_ready() -> None:
    posterior = sl.aggregator("log_pool", num_classes=CLASSES)(*TUPLE)
    torch.testing.assert_close(posterior, LOGITS[:24].view(4, 6, CLASSES).log_softmax(-1).cumsum(1).log_softmax(-1))
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    posterior = sl.aggregator("log_pool", log_prior=prior.log())(*TUPLE)
    evidence = TUPLE[1].log_softmax(-1) - prior.log()
    torch.testing.assert_close(posterior, (evidence.cumsum(1) + prior.log()).log_softmax(-1))
    raw = sl.aggregator({"name": "lstm", "hidden": 8}, num_classes=CLASSES, embedding_dim=WIDTH)
    assert raw(*TUPLE).shape == (4, 6, CLASSES)
    assert raw.aggregator is not None
    assert sum(p.numel() for p in raw.parameters()) > 0


def test_only_those_that_look_at_embeddings_are_told_their_width() -> None:
    blind = {"confusion_vote", "log_pool", "majority_vote", "matrix_log_pool", "max_vote", "mean_logit", "mean_vote"}
    blind |= {"tempered_log_pool", "vector_log_pool", "random_effect_pool", "forgetting_pool", "kalman_pool"}
    blind |= {"max_confidence"}
    for name in blind:
        agg = sl.aggregator(name, num_classes=CLASSES)
        torch.testing.assert_close(agg(TUPLE[0] * 2, TUPLE[1]), agg(TUPLE[0][..., :2], TUPLE[1]), rtol=0, atol=0)
    state = torch.get_rng_state()
    for name in {*available("aggregators")} - blind:
        message = f"^embedding_dim: expected the width of the embeddings, which {name} looks at, got none; pass embedd"
        with pytest.raises(ConfigError, match=message):
            sl.aggregator(name, num_classes=CLASSES)
    assert torch.equal(torch.get_rng_state(), state)  # looking costs no random numbers
    for name in {*available("aggregators")} - blind:
        agg = sl.aggregator(name, num_classes=CLASSES, embedding_dim=WIDTH)
        assert agg(*TUPLE).shape == (4, 6, CLASSES)
        with pytest.raises(DataError, match=r"embeddings \[t n d\] with d = 6, got \[4, 6, 5\]"):
            agg(TUPLE[0][..., :5], TUPLE[1])


def test_fitted_modules_are_copied_pickled_and_moved() -> None:
    made = sl.aggregator("crafted_lstm", hidden=4, projection=4)
    fitted = made.fitted(EMBEDDINGS, LOGITS, LABELS, n=4, epochs=2, seed=3)
    assert made.aggregator is None
    posterior = fitted(*TUPLE)
    torch.testing.assert_close(posterior.logsumexp(-1), torch.zeros(4, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(fitted(TUPLE[0][:, :2], TUPLE[1][:, :2]), posterior[:, :2])
    for again in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted).to("cpu")):
        torch.testing.assert_close(again(*TUPLE), posterior, rtol=0, atol=0)
    same = made.fitted(EMBEDDINGS, LOGITS, LABELS, n=4, epochs=2, seed=3)
    torch.testing.assert_close(same(*TUPLE), posterior, rtol=0, atol=0)
    other = made.fitted(EMBEDDINGS, LOGITS, LABELS, n=4, epochs=2, seed=4)
    assert not torch.equal(other(*TUPLE), posterior)


def test_a_quarter_is_held_out_and_groups_stay_whole(monkeypatch) -> None:
    seen = {}
    task = search.task

    def watching(shape, learn, watch, *rest, **options):
        seen.update(learn=learn, watch=watch)
        return task(shape, learn, watch, *rest, **options)

    monkeypatch.setattr(search, "task", watching)
    sl.aggregator("log_pool").fitted(EMBEDDINGS, LOGITS, LABELS, n=4)
    assert [len(seen[part].labels) for part in ("learn", "watch")] == [72, 24]
    assert torch.bincount(seen["watch"].labels).tolist() == [6] * CLASSES
    sl.aggregator("log_pool").fitted(EMBEDDINGS, LOGITS, LABELS, GROUPS, n=2)
    assert not set(seen["learn"].groups.tolist()) & set(seen["watch"].groups.tolist())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sl.aggregator("lgo_pool"), ConfigError, "unknown aggregator 'lgo_pool'; did you mean 'log_pool'"),
        (lambda: sl.aggregator("lstm", hiden=3), ConfigError, "unknown option 'hiden'; did you mean 'hidden'"),
        (lambda: sl.aggregator("lstm", num_classes=1), DataError, "a number of classes of at least 2, got 1"),
        (
            lambda: sl.aggregator("lstm", num_classes=2.5),
            DataError,
            r"classes as a whole number of at least 2, got 2\.5",
        ),
        (lambda: sl.aggregator("lstm", num_classes="3"), DataError, "classes as a whole number of at least 2, got '3'"),
        (
            lambda: sl.aggregator("lstm", num_classes=3, embedding_dim=1.5),
            DataError,
            r"a width of embeddings as a whole number of at least 1, got 1\.5",
        ),
        (lambda: sl.aggregator("lstm", num_classes=3, embedding_dim=0), DataError, "embeddings of at least 1, got 0"),
        (lambda: sl.aggregator("log_pool")(*TUPLE), ConfigError, r"got 'log_pool' alone; call .fitted"),
        (lambda: _fit(epoch=3), ConfigError, "fit: unknown option 'epoch'; did you mean 'epochs'"),
        (lambda: _fit(n=90), DataError, "expected at least n = 90 instances, got 18 in class '0'"),
        (lambda: _fit(labels=LABELS.float()), DataError, r"expected labels as int64 \[96\], got float32"),
        (
            lambda: _fit(labels=LABELS % 3),
            DataError,
            "instances of all 4 labels that logits have .*, got none of label 3",
        ),
        (lambda: _fit(labels=LABELS + 1), DataError, "expected labels from 0 to 3, got 4"),
        (lambda: _fit(logits=LOGITS[:3]), DataError, r"expected logits \[m c\] with m = 96, got \[3, 4\]"),
        (lambda: _fit(logits=LOGITS * torch.nan), DataError, "expected logits without NaN"),
        (lambda: _fit(embeddings=EMBEDDINGS.numpy()), DataError, "expected embeddings as a tensor .* got a ndarray"),
        (lambda: _fit(groups=GROUPS.float()), DataError, r"expected groups as int64 \[96\], got float32"),
        (
            lambda: _fit(groups=GROUPS // 3),
            DataError,
            "validation: expected every label in each of 4 parts, groups whole, .* without label 0, which has 2 groups",
        ),
        (
            lambda: _fit(labels=(torch.arange(96) < 3).long(), logits=LOGITS[:, :2]),
            DataError,
            "validation: expected every label in each of 4 parts, to .* without label 1, which has 3 instances; add",
        ),
        (lambda: _fit(n=2.5), DataError, r"expected n as a whole number of at least 1, got 2\.5"),
        (lambda: _fit(device="gpu"), ConfigError, "device: expected a device of torch that is here, .*, got 'gpu'"),
        (lambda: _fit(accelerator="cpu"), ConfigError, "fit: unknown option 'accelerator'"),
        (lambda: sl.aggregator(None), ConfigError, "aggregators: expected a plugin name or .* got .*None.*; available"),
        (
            lambda: sl.aggregator("log_pool", log_prior=LOGITS[0, :3].log_softmax(-1)).fitted(
                EMBEDDINGS, LOGITS, LABELS
            ),
            DataError,
            r"a prior \[c\] with c = 4, got \[3\]",
        ),
        (
            lambda: _fit(validation=(EMBEDDINGS, LOGITS)),
            DataError,
            r"validation: expected \(embeddings, .* got 2 tensors",
        ),
        (lambda: _fit(validation=(EMBEDDINGS[:, :2], LOGITS, LABELS)), DataError, "validation embeddings .* d = 6"),
        (lambda: _fit(groups=GROUPS, validation=(EMBEDDINGS, LOGITS, LABELS)), DataError, "groups of validation"),
        (lambda: _fit(prior=torch.tensor([1.0, 0, 0, 0])), DataError, "probabilities in a prior above 0, got 0"),
        (lambda: _fit(prior=torch.tensor([0.5, 0.5, 0.5, 0.5])), DataError, "a prior that sum to 1, got a sum of 2"),
        (lambda: _fit(n=2)(TUPLE[0][..., :3], TUPLE[1]), DataError, r"embeddings \[t n d\] with d = 6"),
        (lambda: _fit(n=2)(TUPLE[0], TUPLE[1][..., :3]), DataError, r"log corrections \[c\] with c = 3"),
    ],
)
def test_mistakes_are_a_sentence(monkeypatch, call, error, message) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        call()


def _fit(**changed) -> Fusion:
    given = {"embeddings": EMBEDDINGS, "logits": LOGITS, "labels": LABELS, **changed}
    return sl.aggregator("log_pool").fitted(**given)


def test_a_prior_that_it_was_made_with_holds_when_it_is_fitted() -> None:
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1])
    made = sl.aggregator("log_pool", log_prior=prior.log())
    posterior = made.fitted(EMBEDDINGS, LOGITS, LABELS, n=2)(*TUPLE)
    told = sl.aggregator("log_pool").fitted(EMBEDDINGS, LOGITS, LABELS, n=2, prior=prior)
    torch.testing.assert_close(posterior, told(*TUPLE))
    uniform = torch.full((CLASSES,), 1 / CLASSES)
    without = sl.aggregator("log_pool").fitted(EMBEDDINGS, LOGITS, LABELS, n=2)(*TUPLE)
    torch.testing.assert_close(made.fitted(EMBEDDINGS, LOGITS, LABELS, n=2, prior=uniform)(*TUPLE), without)
    assert (posterior - without).abs().max() > 0.1
    again = made.fitted(EMBEDDINGS, LOGITS, LABELS, n=2, prior=uniform).fitted(EMBEDDINGS, LOGITS, LABELS, n=2)
    torch.testing.assert_close(again(*TUPLE), posterior)


def test_states_are_loaded_where_there_is_something_to_load_them_into() -> None:
    fitted = sl.aggregator("refit_pool").fitted(EMBEDDINGS, LOGITS, LABELS, n=2, epochs=1)
    made = sl.aggregator("refit_pool", num_classes=CLASSES, embedding_dim=WIDTH)
    made.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(made.eval()(*TUPLE), fitted(*TUPLE))
    alone = torch.nn.ModuleDict({"agg": sl.aggregator("refit_pool")})
    alone.load_state_dict(torch.nn.ModuleDict({"agg": sl.aggregator("refit_pool")}).state_dict())
    message = r"for 4 classes, to load a state into it, got 'refit_pool' alone; pass num_classes=4, and embedding_dim="
    with pytest.raises(ConfigError, match=message):
        alone.load_state_dict(torch.nn.ModuleDict({"agg": fitted}).state_dict())


def test_it_is_trained_where_it_is_told(monkeypatch) -> None:
    seen, task = [], search.task

    def watching(*given, runtime, **rest):
        seen.append(runtime.accelerator)
        return task(*given, runtime=runtime, **rest)

    monkeypatch.setattr(search, "task", watching)
    for device in ("cpu", torch.device("cpu"), "auto"):
        sl.aggregator("log_pool").fitted(EMBEDDINGS, LOGITS, LABELS, n=2, device=device)
    assert seen == ["cpu", "cpu", "cuda" if torch.cuda.is_available() else "cpu"]


def test_all_aggregators_fit_embeddings_of_any_precision() -> None:
    fitted = sl.aggregator("refit_pool").fitted(EMBEDDINGS.double(), LOGITS.bfloat16(), LABELS, n=2, epochs=1)
    assert fitted(TUPLE[0].double(), TUPLE[1].bfloat16()).isfinite().all()
