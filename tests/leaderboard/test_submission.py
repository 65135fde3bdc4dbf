"""Folders of submissions: what is read, what is refused, and the one that `new` makes."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sharedlabel.aggregators
from sharedlabel import plugins
from sharedlabel.aggregators._base import Aggregator, normalize
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.leaderboard import __main__ as entry_point
from sharedlabel.leaderboard.board import commands
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.sandbox import command, conformance, examination, kinds
from sharedlabel.leaderboard.submission import metadata, reading, scaffold, stripped
from sharedlabel.types import SetShape
from tests.leaderboard.conftest import KIND, needs_sandbox

ROOT = Path(__file__).parents[2] / "leaderboard"


@pytest.fixture
def folder(board):
    return scaffold.new(board, "mine")


def test_what_new_makes_can_be_read(folder):
    submitted = reading.read(folder)
    assert submitted.name == "mine"
    assert '"""' not in submitted.code
    assert len(submitted.sha256) == 64


@needs_sandbox
def test_what_new_makes_passes_the_check_and_the_costs_are_right(board, folder, capsys):
    assert entry_point.main(["--root", str(board.root), "check", "mine", "--sandbox", KIND]) == 0
    printed = capsys.readouterr().out
    assert f"mine keeps the contract (tried in {KIND})" in printed
    macs = 6 * 32 + 32
    assert f"toy-v1: {macs + 32 + 1} parameters; MACs of a tuple: n = 1: {macs}, n = 4: {4 * macs}\n" in printed


def test_a_name_that_is_taken_or_none_is_refused(board, folder):
    with pytest.raises(DataError, match="is there already"):
        scaffold.new(board, "mine")
    for name in ("Mine", "../mine", "a b", "", "-mine", "x" * 65):
        with pytest.raises(DataError, match="expected a name of small letters"):
            scaffold.new(board, name)


CARDS = {
    "an unknown key": (lambda text: text + "\ncolour = 1\n", "colour: extra inputs are not permitted"),
    "no licence": (lambda text: text.replace("license", "licence"), "license: field required"),
    "a licence that is none": (lambda text: text.replace('"MIT"', '"my own; ask me"'), "license: string should match"),
    "no author": (lambda text: text.split("[[authors]]")[0], "authors: field required"),
    "a wrong type": (lambda text: text.replace("trials = 0", 'trials = "many"'), 'tuning.trials: .* got "many"'),
    "negative trials": (lambda text: text.replace("trials = 0", "trials = -1"), "tuning.trials: .* got -1"),
    "an address that is none": (lambda text: text.replace('source = ""', 'source = "javascript:x"'), "source: string"),
    "data without a word": (lambda text: text.replace("external_data = false", "external_data = true"), "goes with"),
    "no TOML": (lambda text: "title", "expected TOML in"),
    "nested lists": (lambda text: "title = " + "[" * 7_000, "expected TOML that is nested less in"),
    "nested keys": (lambda text: "a." * 7_000 + "a = 1", "expected TOML that is nested less in|a: extra inputs"),
    "a number too long": (lambda text: text.replace("trials = 0", "trials = " + "9" * 5_000), "expected TOML in"),
    "trials past counting": (
        lambda text: text.replace("trials = 0", "trials = 0x" + "f" * 9_000),
        "trials: .* got int",
    ),
    "a key that steers": (lambda text: '"\\u001b]0;pwned\\u0007" = 1\n' + text, r"\\x1b\]0;pwned\\x07: extra inputs"),
    "two lines": (lambda text: text.replace("Evidence", "One\\nEvidence"), r"description: .* remove U\+000A"),
    "a control": (lambda text: text.replace('"mine"', '"mi\\u009bne"'), r"title: .* remove U\+009B, got .*u009bne"),
    "turned text": (lambda text: text.replace("Your name", "\\u202eYour"), r"authors.0.name: .* remove U\+202E"),
    "a line separator": (lambda text: text.replace("Your name", "A\\u2028B"), r"authors.0.name: .* remove U\+2028"),
    "private use": (lambda text: text.replace('affiliation = ""', 'affiliation = "\\ue000"'), r"remove U\+E000"),
    "unassigned": (lambda text: text.replace("[tuning]", '[tuning]\nnote = "\\u0378"'), r"note: .* remove U\+0378"),
}


@pytest.mark.parametrize("what", CARDS)
def test_a_card_that_is_none_is_refused(folder, what):
    change, message = CARDS[what]
    path = folder / reading.METADATA
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        reading.read(folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1_000


def test_messages_on_a_card_are_short(folder):
    (folder / reading.METADATA).write_text("".join(f'"{"k" * 100}{i}" = "{"v" * 100}"\n' for i in range(70)))
    with pytest.raises(DataError, match=r"and more$") as caught:
        reading.read(folder)
    assert len(str(caught.value)) < 2_500


HIDDEN = {
    "an escape": "\x1b]0;x\x07",
    "a return": "\r",
    "turned text": "\u202e",
    "no width": "\u200b",
    "delete": "\x7f",
}


@pytest.mark.parametrize("what", HIDDEN)
@pytest.mark.parametrize("name", reading.FILES)
def test_files_hold_no_character_that_hides(folder, name, what):
    path = folder / name
    path.write_text(path.read_text() + f"# {HIDDEN[what]}\n", newline="")
    with pytest.raises(DataError, match=rf"got U\+{ord(HIDDEN[what][0]):04X}; remove it"):
        reading.read(folder)


def test_files_may_be_in_any_language(folder):
    path = folder / reading.README
    path.write_text(path.read_text() + "\tGrüße, 你好, ŷ ≈ Σ xᵢ\n")
    assert "你好" in reading.read(folder).readme


def test_what_is_left_of_the_template_is_named(folder):
    submitted = reading.read(folder)
    assert scaffold.template_text(submitted) == [
        'the author "Your name" in submission.toml',
        "the description in submission.toml",
        "the text of README.md",
    ]
    metadata = folder / reading.METADATA
    metadata.write_text(metadata.read_text().replace("Your name", "Me").replace("summed", "added"))
    assert scaffold.template_text(reading.read(folder)) == ["the text of README.md"]
    (folder / reading.README).write_text("# mine\n\nA sum.\n")
    assert scaffold.template_text(reading.read(folder)) == []


def test_links_folders_and_other_files_are_refused(folder, tmp_path):
    (folder / "weights.bin").write_bytes(b"1")
    with pytest.raises(DataError, match=r"got weights\.bin; remove"):
        reading.read(folder)
    (folder / "weights.bin").unlink()
    (folder / "__pycache__").mkdir()
    with pytest.raises(DataError, match="got __pycache__; remove"):
        reading.read(folder)
    (folder / "__pycache__").rmdir()
    (folder / "\x1b[31mred\n").touch()
    with pytest.raises(DataError, match=r"got \\x1b\[31mred\\n; remove"):
        reading.read(folder)
    (folder / "\x1b[31mred\n").unlink()
    link = tmp_path / "linked"
    link.symlink_to(folder)
    with pytest.raises(DataError, match="linked, got a link"):
        reading.read(link)
    secret = tmp_path / "secret"
    secret.write_text("x")
    for name in reading.FILES:
        kept = (folder / name).read_text()
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        with pytest.raises(DataError, match="expected a plain file"):
            reading.read(folder)
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(DataError, match="expected a plain file"):
            reading.read(folder)
        (folder / name).rmdir()
        with pytest.raises(DataError, match=f"expected the file .*{name}"):
            reading.read(folder)
        (folder / name).write_text(kept)


def test_large_and_binary_files_are_refused(folder):
    path = folder / reading.SOURCE
    path.write_text("#" * 64_001)
    with pytest.raises(DataError, match="at most 64,000 bytes"):
        reading.read(folder)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected text in UTF-8"):
        reading.read(folder)


CODE = {
    "no Python": ("def f(:", "expected Python in"),
    "other libraries": ("import numpy", "got 'numpy'; compute with torch"),
    "the system": ("from os import environ", "got 'os'"),
    "relative imports": ("from .. import score", "got '..'"),
    "the scorer": ("from sharedlabel.leaderboard import score", "got 'sharedlabel.leaderboard'"),
    "files": ("open('x')", "'open' is not allowed"),
    "texts that are evaluated": ("import typing\ntyping.get_type_hints(f)", "'.get_type_hints' is not allowed"),
    "references that are evaluated": ("from typing import ForwardRef", "got 'ForwardRef'"),
    "dispatch that evaluates": ("import functools\nfunctools.singledispatch(f)", "'.singledispatch' is not allowed"),
    "code in a field": ("class C:\n    x: 'list[f()]' = 1", "line 2: expected words in the texts of an annotation"),
    "code in a field's type": ("x: list['f()'] = 1", "expected words in the texts of an annotation"),
    "validation": ("from pydantic import ImportString", "got 'pydantic'"),
    "what is private": ("import torch\ntorch.nn._reduction", "line 2: '._reduction' is private to what it belongs to"),
    "what turns counting off": (
        "import torch\ndef f(self): return self._python_dispatch\nf(torch.utils)",
        "line 2: '._python_dispatch' is not allowed",
    ),
    "imports of what is private": ("from torch.nn import _reduction", "got '_reduction'; import what"),
    "imports below what is private": ("from torch.nn.modules._functions import f", "got '_functions'; import what"),
    "threads": ("from sharedlabel.errors import threading", "got 'threading'; import what"),
    "eval": ("x = eval", "'eval' is not allowed"),
    "loading": ("import torch\ntorch.load('x')", "'.load' is not allowed"),
    "numbers": ("X = [" + "1234567890," * 47 + "]", "at most 512 bytes of constants .* got 517"),
    "bytes of text": (f"X = {'中' * 171!r}", "at most 512 bytes of constants .* got 513"),
    "half letters": (f"X = '{chr(92)}ud800{'x' * 510}'", "at most 512 bytes of constants .* got 513"),
    "a long number": ("X = 0x" + "f" * 20_000, "at most 512 bytes of constants"),
    "a long name": (f"def f({'x' * 553}): pass", "at most 512 bytes of constants .* got 513"),
    "a long attribute": (f"f.{'x' * 553}", "at most 512 bytes of constants .* got 513"),
    "a long keyword": (f"f({'x' * 553}=f)", "at most 512 bytes of constants .* got 513"),
    "a long class": (f"class {'ü' * 277}: pass", "at most 512 bytes of constants .* got 514"),
    "a long import": (f"from torch import nn as {'x' * 553}", "at most 512 bytes of constants .* got 513"),
    "functions of libraries": ("from torch import nn, load", "got 'load'; import what"),
    "modules of libraries": ("from torch import os", "got 'os'"),
    "modules by another name": ("from torch import nn as sys", "got 'sys'"),
    "arrays": ("from torch import from_numpy as f", "got 'from_numpy'"),
    "everything": ("from torch import *", r"got '\*'"),
    "modules as attributes": ("import torch\ntorch.os", "'.os' is not allowed"),
    "attributes in patterns": ("import torch\nmatch torch:\n    case object(os=x): ...", "'.os' is not allowed"),
    "attributes by name": ("x = getattr", "'getattr' is not allowed"),
    "looking for meta": ("def f(x): return x.is_meta", "'.is_meta' is not allowed"),
    "the class": ("def f(x): return x.__class__", "'.__class__' is not allowed"),
    "modules of modules": ("import enum\nenum.bltns.exec('1')", "'.(exec|bltns)' is not allowed"),
    "imports from modules": ("from enum import bltns", "got 'bltns'; import what"),
    "operators": ("import typing\ntyping.operator.attrgetter('x')", "'.operator' is not allowed"),
    "tensors of files": ("import torch\ntorch.from_file('x')", "'.from_file' is not allowed"),
    "built-ins as attributes": ("def f(x): return x.exec", "'.exec' is not allowed"),
    "names of modules": ("X = __name__", "'__name__' is not allowed"),
    "its own copy": ("class A:\n    def __deepcopy__(self, memo): pass", "no '__deepcopy__' of its own"),
    "a copy elsewhere": ("def __reduce__(self): pass", "no '__reduce__' of its own"),
    "its own precision": ("class A:\n    def float(self): pass", "no 'float' of its own, .* storing rely on it"),
    "its own device": ("class A:\n    if a:\n        to = lambda self: self", "no 'to' of its own"),
    "a mode set late": ("def f(x): x.train = f", "no 'train' of its own"),
    "nothing, often": ("X = [" + "None," * 257 + "]", "at most 512 bytes of constants .* got 514"),
    "lists of names": ("X = {" + "a," * 513 + "}", "at most 512 bytes of constants .* got 513"),
    "dictionaries of names": ("X = {" + "a: b," * 513 + "}", "at most 512 bytes of constants .* got 513"),
    "arguments": ("f(" + "a," * 529 + ")", "at most 512 bytes of constants .* got 513"),
    "many names": ("".join(f"a{i:029}\n" for i in range(151)), "at most 512 bytes of constants .* got 530"),
    "much code": ("a\n" * 7_000, "at most 20,000 nodes of syntax .* got 21,001"),
    "signs": ("X = " + "-" * 20_000 + "1", "expected Python that is nested less in"),
    "attributes without end": ("X = a" + ".a" * 20_000, "expected Python that is nested less in"),
    "sums without end": ("X = a" + "+a" * 20_000, "expected Python that is nested less in"),
    "branches without end": ("if a: b\n" + "elif a: b\n" * 3_000, "expected Python that is nested less in"),
}


@pytest.mark.parametrize("what", CODE)
def test_code_that_does_more_than_an_aggregator_is_refused_with_its_line(what):
    code, message = CODE[what]
    with pytest.raises(DataError, match=message):
        stripped.normal(code, "aggregator.py")


FILES = {
    "no class": ("from sharedlabel.aggregators.log_pool import Config, build\n", "expected one class .* got none"),
    "two classes": (
        "from sharedlabel.aggregators.mean_vote import MeanVote\n"
        "from sharedlabel.aggregators.log_pool import LogPool, Config, build\n",
        "expected one class .* got LogPool, MeanVote",
    ),
    "options that may change": (
        "from dataclasses import dataclass\nfrom sharedlabel.aggregators.log_pool import LogPool, build\n"
        "@dataclass\nclass Config: ...\n",
        "expected a frozen dataclass Config in the file, got one that is not",
    ),
    "no build": ("from sharedlabel.aggregators.log_pool import LogPool, Config\n", r"build\(config, shape\), got none"),
    "a wrong signature": (
        "from sharedlabel.aggregators.log_pool import LogPool, Config\ndef build(shape): ...\n",
        r"got build\(shape\)",
    ),
    "an import that fails": ("from sharedlabel.aggregators.nothing import x\n", "No module named"),
    "no options": ("from sharedlabel.aggregators.log_pool import LogPool, build\n", "dataclass Config .* got none"),
    "options that are none": (
        "from sharedlabel.aggregators.log_pool import LogPool, build\nclass Config: ...\n",
        "dataclass Config .* got a type",
    ),
    "an error": ("raise ValueError('out of order')\n", "out of order"),
}


def test_without_a_sandbox_nothing_runs(board, folder, monkeypatch, capsys):
    monkeypatch.setattr(kinds.shutil, "which", lambda name: None)
    assert entry_point.main(["--root", str(board.root), "check", "mine"]) == 2
    error = capsys.readouterr().err
    assert "expected a sandbox to run submitted code in, got none (bwrap: not installed; docker: not installed" in error
    assert "--trust" in error
    with pytest.raises(ConfigError, match="bwrap: not installed"):
        kinds.choose("bwrap")


def test_trust_runs_without_a_sandbox(board, folder, capsys):
    assert entry_point.main(["--root", str(board.root), "check", "mine", "--trust"]) == 0
    assert "(tried in trusted)" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["new", "check"])
def test_a_folder_without_protocols_is_no_board(tmp_path, capsys, command):
    assert (
        entry_point.main(["--root", str(tmp_path), command, "mine", *(["--trust"] if command == "check" else [])]) == 2
    )
    assert "error: expected the " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def examined(tmp_path, monkeypatch):
    """Return what tries code on tuples of 4 classes in this process, and forgets it afterwards."""
    monkeypatch.setattr(sharedlabel.aggregators, "__path__", list(sharedlabel.aggregators.__path__))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def examine(code):
        (tmp_path / "submitted.py").write_text(code)
        importlib.invalidate_caches()
        return conformance.examine(str(tmp_path), {"shapes": [(6, 4, [1, 4]), (5, 3, [2])]})

    yield examine
    sys.modules.pop("sharedlabel.aggregators.submitted", None)
    vars(sharedlabel.aggregators).pop("submitted", None)


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_aggregator_has_one_problem(examined, what):
    code, message = FILES[what]
    (problem,) = examined(code)["problems"]
    assert re.search(message, problem)


@needs_sandbox
def test_a_file_that_is_no_aggregator_fails_the_check(board, folder):
    code, message = FILES["an error"]
    (folder / reading.SOURCE).write_text(code)
    with pytest.raises(DataError, match=f"mine does not keep the contract: .*{message}"):
        commands.check(reading.named(board.root, "mine"), board, KIND)


def test_what_new_makes_is_tried_and_counted(examined, folder):
    report = examined(reading.read(folder).code)
    assert report["problems"] == []
    assert [cost["macs"] for cost in report["costs"]] == [{"1": 224, "4": 896}, {"2": 2 * (5 * 32 + 32)}]


FAULTS = {
    "no Config comes first": (
        "",
        {"start": "raise ValueError"},
        ["expected a frozen dataclass Config in the file, got"],
    ),
    "what cannot be built": ("Config", {"start": "raise ValueError('late')"}, ["build: ValueError: late"]),
    "what builds nothing": ("Entry()", {}, ["build: expected build to return an Aggregator, got NoneType"]),
    "one fault": ("Config", {"forward": "raise ValueError('late')"}, ["normalised: ValueError: late"]),
    "what it says of itself": (
        "Config",
        {"forward": "raise ValueError(chr(27) + chr(10) + 'x' * 5000)"},
        [r"normalised: ValueError: \x1b xxx"],
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_reported_once_on_one_short_line(examined, written, what):
    change, places, expected = FAULTS[what]
    code = written(**places).code
    if change != "Config":
        code = code.replace("return Entry()", "return None") if change else code.replace("class Config", "class Other")
    problems = examined(code)["problems"]
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)
        assert problem.isprintable()
        assert len(problem) <= 300


WIDTH, LABELS = 64, 10
SHAPE = SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), torch.zeros(LABELS) - 2.3)


class Weighed(Aggregator):
    """Sums evidence that `evidence` reads from embeddings with a matrix of weights."""

    permutation_invariant = True

    def __init__(self, evidence) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((WIDTH, LABELS), 0.01))
        self.evidence = evidence

    def forward(self, embeddings, logits):
        bounded = embeddings.clamp(-10, 10)
        return normalize((normalize(logits).clamp_min(-20) + self.evidence(bounded, self.weight)).cumsum(1))


def by_squares(embeddings, weight):
    wide = embeddings[..., None]
    return ((wide + weight).square() - (wide - weight).square()).sum(-2) / 4


def by_squares_of_columns(embeddings, weight):
    squares = [((embeddings + w).square() - (embeddings - w).square()).sum(-1) for w in weight.T]
    return torch.stack(squares, dim=-1) / 4


def by_norms_of_columns(embeddings, weight):
    norms = [(embeddings + w).norm(dim=-1) - (embeddings - w).norm(dim=-1) for w in weight.T]
    return torch.stack(norms, dim=-1)


def by_stacking(embeddings, weight):
    wide = embeddings[..., None].expand(*embeddings.shape, LABELS)
    return torch.stack([wide, weight.expand_as(wide)], dim=-1).prod(-1).sum(-2)


def by_logs(embeddings, weight):
    return (embeddings.abs().log()[..., None] + weight.abs().log()).exp().sum(-2)


def by_xlogy(embeddings, weight):
    return torch.xlogy(embeddings[..., None], weight.exp()).sum(-2)


def by_fft(embeddings, weight):
    return torch.fft.irfft(torch.fft.rfft(embeddings) * torch.fft.rfft(weight[:, 0]))[..., :LABELS]


def by_lists(embeddings, weight):
    return torch.stack([p.sum(-1) for p in torch._foreach_mul([embeddings] * LABELS, list(weight.T))], dim=-1)


def by_losses(embeddings, weight):
    return torch.nn.functional.mse_loss(embeddings, weight[:, 0].expand_as(embeddings))


def by_number(embeddings, weight):
    return 0 * embeddings.sum().item() if embeddings.device.type != "meta" else 0.0


def by_comparing(embeddings, weight):
    return 0.0 if embeddings.device.type == "meta" or torch.equal(embeddings, embeddings) else 1.0


def by_branching(embeddings, weight):
    return 0.0 if embeddings.device.type == "meta" or embeddings.isfinite().all() else 1.0


def by_masking(embeddings, weight):
    return 0.0 if embeddings.device.type == "meta" else float(len(embeddings[embeddings > 99]))


def hidden(embeddings, weight):
    return 0.0 if embeddings.device.type == "meta" else embeddings @ weight


def hidden_in_batches(embeddings, weight):
    evidence = embeddings @ weight
    return evidence if len(embeddings) == 1 else evidence + 0 * (evidence @ weight.T).sum()


def by_broadcasting(embeddings, weight):
    return (embeddings[..., None] * weight).sum(-2)


def by_expanding(embeddings, weight):
    wide = embeddings[..., None].expand(*embeddings.shape, LABELS)
    return (wide * weight.expand_as(wide)).sum(-2)


def by_dividing(embeddings, weight):
    return (embeddings[..., None] / (1 + weight)).sum(-2)


def by_adding(embeddings, weight):
    return torch.addcmul(torch.zeros(()), embeddings[..., None], weight).sum(-2)


def by_column(embeddings, weight):
    return torch.stack([(embeddings * column).sum(-1) for column in weight.T], dim=-1)


def by_repeating(embeddings, weight):
    wide = embeddings.repeat_interleave(LABELS, dim=-1) * weight.flatten()
    return wide.unflatten(-1, (WIDTH, LABELS)).sum(-2)


COSTS = {
    hidden: "expected 0 MACs for 1 tuples of 4, as without values, got 2,560; compute",
    hidden_in_batches: "expected 15,360 MACs for 6 tuples of 4, as without values, got ",
    by_broadcasting: ("expected at most ", "elements from mul, got "),
    by_expanding: ("expected at most ", "elements from mul, got "),
    by_dividing: ("expected at most ", "elements from div, got "),
    by_adding: ("expected at most ", "elements from addcmul, got "),
    by_column: "expected at most 2,368 products of elements for 1 tuples of 4, got ",
    by_repeating: "expected at most 2,368 products of elements for 1 tuples of 4, got ",
    by_squares: ("expected at most ", "elements from add, got 2,560: work that is broadcast hides MACs; use a matrix"),
    by_squares_of_columns: "expected at most 4,736 elements of other work for 1 tuples of 4, got ",
    by_norms_of_columns: "expected at most 4,736 elements of other work for 1 tuples of 4, got ",
    by_stacking: "expected work whose MACs count, got prod, which hides MACs; use a matrix product",
    by_logs: ("expected at most ", "elements from add, got 2,560"),
    by_xlogy: ("expected at most ", "elements from xlogy, got 2,560"),
    by_fft: "expected work whose MACs count, got _fft_r2c, which",
    by_lists: "expected work whose MACs count, got _foreach_mul, which",
    by_losses: "expected work whose MACs count, got mse_loss, which",
    by_number: "expected values that stay in tensors, got _local_scalar_dense: values leave the tensors; use torch",
    by_comparing: "expected values that stay in tensors, got equal: values leave",
    by_branching: ("expected values that stay in tensors, got ", ": values leave"),
    by_masking: "expected values that stay in tensors, got index: values leave",
}


@pytest.mark.parametrize("evidence", COSTS)
def test_work_that_is_not_counted_is_refused(evidence):
    problems, costs = conformance._examined(lambda: Weighed(evidence), SHAPE, [4])
    expected = COSTS[evidence]
    start, rest = (expected, "") if isinstance(expected, str) else expected
    assert problems[0].startswith(f"counted: {start}")
    assert rest in problems[0]
    assert costs == {}


@pytest.mark.parametrize(
    ("evidence", "macs"),
    [
        (lambda e, w: e @ w, 4 * WIDTH * LABELS),
        (lambda e, w: torch.einsum("tnd,dc->tnc", e, w), 4 * WIDTH * LABELS),
        (lambda e, w: e[..., :LABELS] * w[0], 0),
        (lambda e, w: e[..., torch.arange(LABELS)].softmax(-1).prod(-1, keepdim=True), 0),
        (lambda e, w: torch.nn.functional.one_hot(e[..., :LABELS].argmax(-1), LABELS), 0),
    ],
    ids=["matmul", "einsum", "elementwise", "product of probabilities", "one-hot"],
)
def test_honest_work_is_counted(evidence, macs):
    assert conformance._examined(lambda: Weighed(evidence), SHAPE, [4]) == (
        [],
        {"macs": {"4": macs}, "parameters": WIDTH * LABELS},
    )


@pytest.mark.parametrize("name", plugins.available("aggregators"))
def test_every_aggregator_of_the_package_is_submitted(name):
    """Only what is nothing but an import of ours runs outside of a sandbox."""
    submitted = reading.named(ROOT, name)
    assert re.fullmatch(
        rf"from sharedlabel\.aggregators\.{name} import \w+(, \w+)*\n__all__ = \['\w+'(, '\w+')*\]\n", submitted.code
    )
    module = importlib.import_module(f"sharedlabel.aggregators.{name}")
    problems, costs = conformance._examined(lambda: module.build(module.Config(), SHAPE), SHAPE, [1, 4])
    assert problems == []
    assert set(costs["macs"]) == {"1", "4"}


@needs_sandbox
def test_every_other_submission_keeps_the_contract(board):
    names = {path.name for path in (ROOT / "submissions").iterdir()} - set(plugins.available("aggregators"))
    assert names
    for name in names:
        report = examination.examine(reading.named(ROOT, name), [(board.protocol("toy-v1"), 6)], KIND)
        assert report.problems == ()


def test_annotations_of_functions_do_not_come_along():
    """Texts in them are code to whoever evaluates them."""
    code = stripped.normal("def f(x: 'g()', *y: 'g()', z: 'g()' = 1) -> 'g()':\n    return x\n", "aggregator.py")
    assert code == "def f(x, *y, z=1):\n    return x\n"


def test_what_an_object_keeps_to_itself_is_its_own(folder):
    code = "class A:\n    def __init__(self):\n        super().__init__()\n        self._x = self._y\n"
    assert "self._x" in stripped.normal(code, "aggregator.py")
    code = "class C:\n    kind: Literal['a b'] = 'a b'\n"
    assert "Literal['a b']" in stripped.normal(code, "aggregator.py")


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_containers_get_no_network_and_one_folder(board, kind, tmp_path):
    line = command.command(kind, tmp_path, board.protocol("toy-v1").limits, 1, "x")
    assert {"--network=none", "--read-only", "--cap-drop=ALL", "--pids-limit=64", "--memory=3000m"} <= set(line)
    package = Path(command.__file__).parents[2]
    volumes = [part for part in line if "volume" in part]
    assert volumes == [f"--volume={package}:/library/sharedlabel:ro", f"--volume={tmp_path}:/submission:ro"]


def test_the_schema_in_the_repository_is_that_of_the_code():
    assert (ROOT / "metadata.schema.json").read_text() == metadata.schema()
    assert json.loads(metadata.schema())["additionalProperties"] is False


@pytest.mark.parametrize("name", Board(ROOT).ids())
def test_the_protocols_of_the_repository_are_intact(name):
    board = Board(ROOT)
    protocol = board.protocol(name)
    assert protocol.n == tuple(sorted(set(protocol.n)))
    answers = board.answers(protocol)
    for network in protocol.networks:
        features = board.features(protocol, network)
        for role, drawn in answers.items():
            images = getattr(protocol.source, role).count
            assert len(features.embeddings[role]) == len(features.logits[role]) == images
            indices = drawn.indices.flatten()
            assert len(indices.unique()) == len(indices)
            assert int(indices.max()) < images
        assert "test" not in features.labels
