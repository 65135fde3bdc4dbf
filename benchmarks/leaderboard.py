"""Seconds of the leaderboard: check, run and score of a small LSTM, and pages of 200 entries in a browser."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from benchmarks._measure import ROOT, Result, python, summarize
from sharedlabel import rng
from sharedlabel.leaderboard.board import commands, facts, score, writing
from sharedlabel.leaderboard.board.facts import Result as Stored
from sharedlabel.leaderboard.cost import Cost
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.leaderboard.submission import reading

BOARD = ROOT / "leaderboard"
NAME, PROTOCOL = "lstm", "cifar10-jpeg-v1"
CHECK, RUN, SITE, PAGE = 30.0, 300.0, 10.0, 1.0  # seconds
ENTRIES = 200
LEADERBOARD = ["-m", "sharedlabel.leaderboard"]
# Until the script has run, and until a click on a column has sorted the table and the browser has painted it.
_READY = "() => performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000"
_SORT = """() => new Promise(done => {
  const started = performance.now();
  document.querySelectorAll('.standings thead button')[1].click();
  requestAnimationFrame(() => setTimeout(() => done((performance.now() - started) / 1000)));
})"""


def run(quick: bool) -> list[Result]:
    """Time the commands in fresh processes, and the page in Chromium."""
    rounds, entries = (1, 5) if quick else (3, ENTRIES)
    return [_check(rounds), *([] if quick else [_run()]), *_site(rounds, entries)]


def _check(rounds: int) -> Result:
    times = [python([*LEADERBOARD, "check", NAME], ROOT)[0] for _ in range(rounds)]
    note = "fresh process, in the sandbox, contract and costs on every protocol"
    return summarize(f"leaderboard: check of {NAME}", "s", times, bound=CHECK, note=note)


def _run() -> Result:
    with tempfile.TemporaryDirectory() as folder:
        where = ["--protocol", PROTOCOL, "--predictions", folder]
        trained, _ = python([*LEADERBOARD, "run", NAME, *where, "--workers", "2"], ROOT)
        scored, _ = python([*LEADERBOARD, "score", *where, "--out", folder], ROOT)
    note = f"check, training and questions of 12 processes, two at a time: {trained:.0f} s; score: {scored:.1f} s"
    return summarize(
        f"leaderboard: run and score of {NAME} on {PROTOCOL}", "s", [trained + scored], bound=RUN, note=note
    )


def _site(rounds: int, entries: int) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        board = _filled(Path(folder) / "leaderboard", entries)
        command = [*LEADERBOARD, "--root", str(board.root), "site"]
        times = [python(command, ROOT)[0] for _ in range(rounds)]
        page = board.root / "site" / PROTOCOL / "index.html"
        size = page.stat().st_size / 1e6
        ready, sorting = zip(*(_opened(page, entries) for _ in range(rounds)), strict=True)
    both = [first + second for first, second in zip(ready, sorting, strict=True)]
    return [
        summarize(f"leaderboard: site of {entries} entries", "s", times, bound=SITE, note="fresh process"),
        summarize(
            f"leaderboard: page of {entries} entries, ready and sorted by a click",
            "s",
            both,
            bound=PAGE,
            note=f"headless Chromium, {size:.1f} MB; sorting and painting alone {min(sorting):.2f} s at best",
        ),
    ]


def _filled(root: Path, entries: int) -> Board:
    """Make a board of one real protocol and verified entries of made-up skill."""
    board, made = Board(BOARD), Board(root)
    protocol = board.protocol(PROTOCOL)
    (root / "protocols").mkdir(parents=True)
    shutil.copytree(BOARD / "protocols" / PROTOCOL, root / "protocols" / PROTOCOL)
    shutil.copy(BOARD / "protocols" / f"{PROTOCOL}.toml", root / "protocols")
    answers = board.answers(protocol)
    posteriors = {name: value.double().log_softmax(-1) for name, value in _noise(protocol, board).items()}
    scored = score.score(posteriors, protocol, answers)
    draw = rng.generator(0, "benchmark")
    for index in range(entries):
        name = f"entry-{index:03d}"
        source = BOARD / "submissions" / NAME
        shutil.copytree(source, root / "submissions" / name)
        metadata = root / "submissions" / name / reading.METADATA
        metadata.write_text(metadata.read_text().replace('title = "', f'title = "{index} '))
        worse = 0.05 * torch.rand((), generator=draw) + 0.1 * torch.rand(
            scored.scores["information"].shape, generator=draw
        )
        tensors = scored.scores | {"information": (scored.scores["information"] - worse).half()}
        scores, digest = writing.serialized(tensors)
        sizes = {n: n * (1000 + index) for n in protocol.n}
        result = Stored.model_validate(
            {
                "protocol": protocol.id,
                "name": name,
                "submission": reading.named(root, name).sha256,
                "features": protocol.files,
                "predictions": writing.digest(b""),
                "scores": digest,
                "ri": score.primary(tensors["information"], answers["test"], torch.full((10,), 0.1)),
                "cost": Cost(macs=sizes, parameters=1000).model_dump(),
                "cells": scored.cells,
                "seconds": {f"{network.name}.{seed}": (10.0, 1.0) for network, seed, _ in facts.cells_of(protocol)},
                "sandbox": "bwrap",
                "secret": index,
                "provenance": {},
            }
        )
        place = commands.entry(made, protocol, name)
        place.write(result, b"", scores, "made up")
        place.record("verified", "made up", result.ri)
    return made


def _noise(protocol: Protocol, board: Board) -> dict[str, torch.Tensor]:
    """Return logits with some truth in them."""
    draw, logits = rng.generator(0, "benchmark", "logits"), {}
    for role, drawn in board.answers(protocol).items():
        truth = torch.nn.functional.one_hot(drawn.labels[0], protocol.source.classes)[:, None]
        for network in protocol.networks:
            for seed in protocol.seeds:
                shape = (len(truth), len(protocol.n), protocol.source.classes)
                logits[f"{network.name}.{seed}.{role}"] = 2 * truth + torch.randn(shape, generator=draw)
    return logits


def _opened(page: Path, entries: int) -> tuple[float, float]:
    """Open a table in a browser; return the seconds until it can be used, and those that sorting takes.

    Raises:
        RuntimeError: there is no browser, or the table has other rows.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the other benchmarks run without it

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("expected Chromium, found none; install it or set CHROMIUM to its path")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(page.as_uri())
        rows = tab.locator(".standings tbody tr").count()
        if rows != entries:
            raise RuntimeError(f"expected {entries} rows in {page.name}, got {rows}")
        ready, sorting = float(tab.evaluate(_READY)), float(tab.evaluate(_SORT))
        browser.close()
    return ready, sorting
