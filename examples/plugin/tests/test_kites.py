"""What the data set promises beyond what every one does; the rest is tried by the pytest plugin (pyproject.toml)."""

from pathlib import Path

from kites import data


def test_a_kite_is_of_one_class():
    dataset = data.load(data.Config(kites=5), Path())
    assert dataset.groups.bincount().tolist() == [6] * 10
    assert all(dataset.labels[dataset.groups == kite].unique().numel() == 1 for kite in range(10))
