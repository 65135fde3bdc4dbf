"""The command that measures a GPU runs on a CPU with a few images, so that it is whole when a GPU is lent."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import __main__ as benchmarks
from benchmarks import gpu
from sharedlabel import rng
from sharedlabel.training import batched


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of small images, as the zip of CIFAR-10 has ten."""
    path = tmp_path_factory.mktemp("images") / "images.zip"
    pixels = torch.randint(0, 256, (120, 8, 8, 3), dtype=torch.uint8, generator=rng.generator(0, "images")).numpy()
    with zipfile.ZipFile(path, "w") as file:
        for number, image in enumerate(pixels):
            content = BytesIO()
            Image.fromarray(image).save(content, "PNG")
            side = "test" if number >= 80 else "train"
            file.writestr(f"{side}/{'ab'[number % 2]}/{number:03}.png", content.getvalue())
    return path


def test_every_part_runs_and_writes_what_it_measured(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, together = tmp_path / "results", []
    train = batched.train
    monkeypatch.setattr(batched, "train", lambda *given: (together.append(len(given[0])), train(*given))[1])
    assert gpu.main(["--data", str(images), "--output", str(output), "--device", "cpu", "--tiny", *WITHOUT]) == 0
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    parts = [line["part"] for line in lines]
    assert list(dict.fromkeys(parts)) == ["machine", "training", "grid", "roofline", "aggregators"]
    assert lines[0]["device"] == "cpu"
    found = {name: [line for line in lines if line["part"] == name] for name in parts}
    assert 0 <= found["training"][0]["test_accuracy"] <= 1
    assert len(found["training"][0]["losses"]) == found["training"][0]["recipe"]["epochs"] == 2
    ways = found["grid"][:-1]
    assert {way["calls"] for way in ways} == {2}
    assert len({way["way"] for way in ways}) == len(ways) >= 3
    assert len({way["mean_validation_accuracy"] for way in ways[:3]}) == 1  # workers change no number
    assert 2 in together  # networks, in the way of several at once
    assert [line["what"] for line in found["roofline"][:-1]] == ["peak", *["features", "training"] * 2]
    assert all(line["share_of_peak_flops"] > 0 for line in found["roofline"][1:-1])
    losses = {line["aggregator"]: set() for line in found["aggregators"][:-1]}
    for line in found["aggregators"][:-1]:
        losses[line["aggregator"]].add(round(line["validation_loss"], 4))
    assert {len(values) for values in losses.values()} == {1}


WITHOUT = [word for name in gpu.PARTS if name != "compiled" for word in ("--only", name)]  # that needs a C++ compiler


def test_a_part_that_fails_is_written_down_and_those_after_it_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(setting: gpu.Setting) -> list[gpu.Facts]:
        raise RuntimeError(f"no such {setting.accelerator}")

    monkeypatch.setattr(gpu, "PARTS", {"first": broken, "second": lambda _: [{"value": 3}]})
    assert gpu.main(["--data", str(images), "--output", str(tmp_path / "results"), "--device", "cpu"]) == 1
    lines = [json.loads(line) for line in (tmp_path / "results" / "results.jsonl").read_text().splitlines()]
    assert "RuntimeError: no such cpu" in lines[1]["failed"]
    assert {"part": "second", "value": 3} in lines


@pytest.mark.parametrize(("data", "output"), [("absent.zip", "new"), ("here", "here")])
def test_what_the_user_can_mend_is_said(data: str, output: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert gpu.main(["--data", str(tmp_path / data), "--output", str(tmp_path / output)]) == 2


def test_it_is_offered_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gpu" in benchmarks.COMMANDS
    assert "gpu" not in benchmarks.available()
    with pytest.raises(SystemExit):
        benchmarks.main(["--help"])
    assert "gpu is not yet run on a GPU" in " ".join(capsys.readouterr().out.split())
