"""`sl.SharedLabelClassifier`: scikit-learn's conventions, and groups that share a label."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn

import sharedlabel as sl
from sharedlabel.api.fusion import Fusion
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.rng import seeded

QUICK = {"epochs": 8, "learning_rate": 0.03, "batch_size": 32, "n": 4, "random_state": 0}
SMALL = {"name": "mlp", "widths": [16, 16]}
DRAW = np.random.default_rng(0)
Y = np.repeat(["ant", "bee", "cat"], 80)
X = DRAW.normal(size=(240, 4)) + np.repeat([0, 1, 2], 80)[:, None] * 0.8
GROUPS = np.arange(240) // 5


def _quick(**changed) -> sl.SharedLabelClassifier:
    return sl.SharedLabelClassifier(**{"backbone": SMALL, "aggregator": "log_pool", **QUICK, **changed})


@pytest.fixture(scope="module")
def model() -> sl.SharedLabelClassifier:
    return _quick(aggregator="refit_pool", ratio=2, recipe={"epochs": 3}).fit(X, Y, groups=GROUPS)


def test_rows_of_a_group_are_answered_together(model) -> None:
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.n_features_in_ == 4
    assert model.n_ == 4
    alone, together = model.predict_proba(X), model.predict_proba(X, groups=GROUPS)
    for probabilities in (alone, together):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    by_group = together.reshape(48, 5, 3)
    np.testing.assert_array_equal(by_group, by_group[:, :1].repeat(5, axis=1))
    assert not np.array_equal(alone.reshape(48, 5, 3), alone.reshape(48, 5, 3)[:, :1].repeat(5, axis=1))
    assert model.score(X, Y, groups=GROUPS) > model.score(X, Y) + 0.1
    np.testing.assert_array_equal(model.predict(X, groups=np.arange(240)), model.predict(X))
    np.testing.assert_allclose(model.predict_proba(X, groups=np.arange(240)), alone)


def test_a_group_is_what_the_aggregator_says_of_its_rows(model) -> None:
    names = np.array(["x", "y", "x", "z", "y", "x"])
    probabilities = model.predict_proba(X[:6], groups=names)
    embeddings, logits = model._embed(torch.tensor(X[:6], dtype=torch.float32))
    for name in "xyz":
        rows = np.flatnonzero(names == name)
        with torch.no_grad():
            expected = model.fusion_(embeddings[rows][None], logits[rows][None])[0, -1].exp()
        np.testing.assert_allclose(probabilities[rows], expected.expand(len(rows), -1), atol=1e-6)


def test_it_is_compressed_and_the_aggregator_learns_from_other_rows(model, monkeypatch) -> None:
    assert sl.compression_ratio(model.network_) == pytest.approx(2, rel=0.02)
    trained, fitted = [], []
    train, fit = sl.SharedLabelClassifier._train, Fusion.fitted

    def watched_train(self, network, inputs, *rest):
        trained.append(inputs)
        train(self, network, inputs, *rest)

    def watched_fit(self, *given, **rest):
        fitted.append((given, rest))
        return fit(self, *given, **rest)

    monkeypatch.setattr(sl.SharedLabelClassifier, "_train", watched_train)
    monkeypatch.setattr(Fusion, "fitted", watched_fit)
    again = _quick(epochs=1).fit(X, Y, groups=GROUPS)
    assert len(trained[0]) == 120
    [(given, rest)] = fitted
    assert len(given[2]) + len(rest["validation"][2]) == 120
    network_rows = {tuple(row) for row in trained[0].tolist()}
    seen = again._embed(torch.tensor(X, dtype=torch.float32))[0]
    of_network = torch.tensor([tuple(row) in network_rows for row in torch.tensor(X, dtype=torch.float32).tolist()])
    rows = {tuple(row) for row in given[0].tolist()}
    assert not any(tuple(row) in rows for row in seen[of_network].tolist())


def test_a_seed_repeats_a_fit_and_clones_are_unfitted(model) -> None:
    first, second = (_quick().fit(X, Y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(_quick(random_state=1).fit(X, Y).predict_proba(X), first)
    assert not hasattr(clone(model), "classes_")
    assert clone(model).get_params() == model.get_params()


def test_it_works_in_pipelines_and_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), _quick())
    scores = cross_val_score(pipeline, X, Y, groups=GROUPS, cv=GroupKFold(2, shuffle=True, random_state=0))
    assert scores.mean() > 0.6


def test_cross_validation_hands_on_groups_that_are_asked_for() -> None:
    folds = GroupKFold(2)
    with sklearn.config_context(enable_metadata_routing=True):
        asking = _quick().set_fit_request(groups=True).set_score_request(groups=True)
        scores = cross_val_score(asking, X, Y, params={"groups": GROUPS}, cv=folds)
    expected = [
        _quick().fit(X[learn], Y[learn], groups=GROUPS[learn]).score(X[rest], Y[rest], groups=GROUPS[rest])
        for learn, rest in folds.split(X, Y, GROUPS)
    ]
    assert scores.tolist() == expected
    assert scores.tolist() != cross_val_score(_quick(), X, Y, groups=GROUPS, cv=folds).tolist()


def test_images_and_modules_of_ones_own() -> None:
    images = np.repeat(X[:, :1, None, None], 64, axis=1).reshape(240, 1, 8, 8)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layers(x).log_softmax(-1)
            return logits

    with seeded(0, "own"):
        own = Own()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    fitted = _quick(backbone=own, epochs=20).fit(images, Y)
    assert fitted.score(images, Y) > 0.5
    assert fitted.n_features_in_ == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    usual = _quick(backbone=None, epochs=1).fit(images, Y)
    assert usual.predict(images).shape == (240,)


def test_a_module_takes_rows_of_any_form_and_the_same_at_prediction(model) -> None:
    cubes = X.reshape(240, 1, 2, 2).squeeze(1)
    own = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    fitted = _quick(backbone=own).fit(cubes, Y)
    assert fitted.score(cubes, Y) > 0.4
    for wrong in (X[:, :2], cubes[..., None]):
        with pytest.raises(ValueError, match=r"X: expected 3 axes, as in fit, got shape \[240"):
            fitted.predict(wrong)
    with pytest.raises(ValueError, match=r"X: expected 2 axes, as in fit, got shape \[240, 4, 1\]; reshape it"):
        model.predict(X[:, :, None])


def test_groups_stay_whole_in_every_part(monkeypatch) -> None:
    """No group is divided between the network, the aggregator and what stops it."""
    numbers = np.arange(240, dtype=np.float32)
    marked = np.column_stack([X, numbers])  # the last value of a row says which it is
    parts, fit, train = [], Fusion.fitted, sl.SharedLabelClassifier._network

    def watched_train(self, inputs, labels, seed):
        parts.append(inputs[:, -1])
        return train(self, inputs, labels, seed)

    def watched_embed(self, inputs):
        return inputs[:, -1:], torch.randn(len(inputs), 3)

    def watched_fit(self, *given, validation, **rest):
        parts.extend([given[0][:, 0], validation[0][:, 0]])
        for of in (given, validation):
            assert of[3].tolist() == np.unique(GROUPS, return_inverse=True)[1][of[0][:, 0].long()].tolist()
        return fit(self, *given, validation=validation, **rest)

    monkeypatch.setattr(sl.SharedLabelClassifier, "_network", watched_train)
    monkeypatch.setattr(sl.SharedLabelClassifier, "_embed", watched_embed)
    monkeypatch.setattr(Fusion, "fitted", watched_fit)
    _quick(epochs=1).fit(marked, Y, groups=GROUPS)
    seen = [set(GROUPS[part.long().numpy()].tolist()) for part in parts]
    assert sorted(int(number) for part in parts for number in part) == list(range(240))
    assert [len(groups) for groups in seen] == [24, 18, 6]
    assert set.union(*seen) == set(GROUPS.tolist())
    assert sum(map(len, seen)) == len(set(GROUPS.tolist()))


def test_a_prediction_runs_the_network_once_and_copies_nothing(model, monkeypatch) -> None:
    calls, split = [], model._embed(torch.tensor(X[:3], dtype=torch.float32))
    handle = model.network_.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(copy, "deepcopy", lambda *_: pytest.fail("a copy"))
    try:
        probabilities = model.predict_proba(X[:3])
    finally:
        handle.remove()
        monkeypatch.undo()
    assert calls == [1]
    with torch.no_grad():
        torch.testing.assert_close(split[1], model.network_(torch.tensor(X[:3], dtype=torch.float32)))
    assert split[0].shape == (3, 16)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict_proba(X[:3]), probabilities)


def test_threads_may_ask_at_the_same_time(model) -> None:
    expected = [model.predict_proba(rows) for rows in np.array_split(X, 40)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for one, other in zip(pool.map(model.predict_proba, np.array_split(X, 40)), expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_where_there_is_too_little_the_pool_stands_in() -> None:
    with pytest.warns(UserWarning, match="too few instances or groups .* pooled"):
        fitted = _quick(prior="uniform").fit(X[60:100:4], Y[60:100:4])
    assert fitted.n_ == 1
    assert fitted.predict(X, groups=GROUPS).shape == (240,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: _quick().fit(X, np.repeat(["a"], 240)), ValueError, "expected at least two classes, got one class"),
        (lambda: _quick().fit(X, Y, groups=GROUPS[1:]), ValueError, "groups: expected one for each of 240 rows"),
        (
            lambda: _quick().fit(X, Y, groups=np.arange(240) // 7),
            ValueError,
            "one label in each, got 2 in the group of row 77",
        ),
        (lambda: _quick(prior="flat").fit(X, Y), ValueError, "prior: expected 'empirical' or 'uniform', got 'flat'"),
        (lambda: _quick(aggregator="lgo_pool").fit(X, Y), ConfigError, "did you mean 'log_pool'"),
        (lambda: _quick(backbone="mpl").fit(X, Y), ConfigError, "did you mean 'mlp'"),
        (lambda: _quick(epochs=-1).fit(X, Y), DataError, "expected epochs of at least 0, got -1"),
        (lambda: _quick(epochs=1.5).fit(X, Y), DataError, "epochs as a whole number of at least 0, got 1.5"),
        (lambda: _quick(batch_size=0).fit(X, Y), DataError, "expected batch_size of at least 1, got 0"),
        (lambda: _quick(n=0).fit(X, Y), DataError, "expected n of at least 1, got 0"),
        (lambda: _quick(learning_rate=0).fit(X, Y), DataError, "expected learning_rate above 0, got 0"),
        (lambda: _quick(learning_rate="high").fit(X, Y), DataError, "learning_rate as a number, got 'high'"),
        (lambda: _quick(ratio=[2, 4]).fit(X, Y), DataError, r"ratio as a number, got \[2, 4\]"),
        (lambda: _quick(ratio=0.5).fit(X, Y), DataError, "expected ratio of at least 1, got 0.5"),
        (lambda: _quick(ratio=1, pruner="x").fit(X, Y), ConfigError, "unknown pruner 'x'"),
        (
            lambda: _quick(backbone=torch.nn.Linear(X.shape[1], 5)).fit(X, Y),
            DataError,
            r"backbone: expected logits \[1, \d\], one for each class of y, got \[1, 5\]; change",
        ),
        (lambda: _quick(recipe={"epoch": 1}).fit(X, Y), ConfigError, "recipe: unknown option 'epoch'; did"),
        (lambda: _quick(recipe={"n": 3}).fit(X, Y), ConfigError, "recipe: unknown option 'n'; available: batch_size"),
        (lambda: _quick(recipe={"seed": 3}).fit(X, Y), ConfigError, "recipe: unknown option 'seed'"),
        (lambda: _quick(recipe=3).fit(X, Y), ConfigError, "recipe: expected a mapping of options, got 3"),
        (lambda: _quick(aggregator=3).fit(X, Y), ConfigError, "aggregators: expected a plugin name or .*, got 3"),
        (
            lambda: _quick(device="gpu").fit(X, Y),
            ConfigError,
            "device: expected a device of torch .* got 'gpu'; choose",
        ),
        (lambda: _quick(device="meta").fit(X, Y), ConfigError, "device: expected a device of torch .* got 'meta'"),
        (lambda: _quick(device=None).fit(X, Y), ConfigError, "device: expected a device of torch .* got None"),
        (
            lambda: _quick().fit(X, Y, groups=[None, *GROUPS[1:].tolist()]),
            ValueError,
            "groups: expected one for each row, got None for row 0; give it one of its own",
        ),
        (
            lambda: _quick().fit(X, Y, groups=np.where(GROUPS == 3, np.nan, GROUPS)),
            ValueError,
            "groups: expected one for each row, got nan for row 15",
        ),
        (
            lambda: _quick().fit(X, Y, groups=np.array(["a", *GROUPS[1:].tolist()], dtype=object)),
            ValueError,
            "groups: expected names of one kind, or numbers, got both",
        ),
        (
            lambda: _quick().fit(X.reshape(240, 2, 2), Y),
            ValueError,
            r"X: expected vectors \[N d\] or images \[N C H W\], got shape \[240, 2, 2\]",
        ),
    ],
)
def test_mistakes_are_a_sentence(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.filterwarnings("ignore:too few instances or groups")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        *estimator_checks_generator(
            sl.SharedLabelClassifier(SMALL, "log_pool", **{**QUICK, "random_state": None}),
            expected_failed_checks={"check_methods_subset_invariance": "float32: the next test allows it to round"},
            mark="skip",
        )
    ],
    ids=lambda part: getattr(getattr(part, "func", None), "__name__", ""),
)
def test_scikit_learns_own_checks(estimator, check) -> None:
    check(estimator)


def test_answers_do_not_depend_on_what_is_asked_beside(model) -> None:
    parts = [model.predict_proba(X[rows]) for rows in np.array_split(np.arange(240), 7)]
    np.testing.assert_allclose(np.concatenate(parts), model.predict_proba(X), atol=1e-5)
