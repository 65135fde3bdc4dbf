"""The command line: help, mistakes of the user, interruption. Exit code 2, one line, nothing lost."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sharedlabel import train
from sharedlabel.config import Experiment
from sharedlabel.errors import guarded
from sharedlabel.records import read
from sharedlabel.training import compression

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Run the command line, require a clean refusal, and return its one line."""

    def check(*arguments: str) -> str:
        assert train.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error.removeprefix("error: ").rstrip("\n")

    return check


def artifacts(experiment: Experiment) -> dict[str, int]:
    """Manifests below the store, with the moment each was written."""
    folder = Path(experiment.output) / "store" / "artifacts"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}


def comparable(experiment: Experiment) -> list[dict[str, object]]:
    """Stored rows without what was measured with a clock."""
    rows = read(Path(experiment.output) / experiment.name).rows
    return [{k: v for k, v in dataclasses.asdict(row).items() if not k.startswith("measured_")} for row in rows]


def python(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False, **options
    )


def test_help_explains_the_options_without_importing_torch():
    script = """
import sys
from sharedlabel import train
try:
    train.main(["--help"])
except SystemExit as done:
    print("exit", done.code, "torch" in sys.modules, "pytorch_lightning" in sys.modules)
"""
    done = python("-c", script)
    assert "exit 0 False False" in done.stdout, done.stderr
    text = " ".join(done.stdout.split())
    assert "--plan" in text
    assert "--dense.learning_rate" in text
    assert "instances per tuple" not in text
    assert "tuple sizes to report" in text


@pytest.mark.parametrize("name", ["train", "evaluate", "choose.__main__", "export", "predict", "leaderboard.__main__"])
def test_entry_points_import_torch_where_an_interrupt_is_answered(name):
    done = python("-c", f"import sys; from sharedlabel.{name} import main; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_a_mistake_in_a_real_process_is_one_line_and_exit_code_2():
    done = python("-m", "sharedlabel.train", "--dense.epochss=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: unknown option 'dense.epochss'; did you mean 'dense.epochs'\?.*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rations=[1]"], r"unknown option 'rations'; did you mean 'ratios'\?"),
        (["--dense.epoch=3"], r"unknown option 'dense.epoch'; did you mean 'dense.epochs'\?"),
        (["--plann"], r"unknown option 'plann'; did you mean 'plan'\?"),
        (["stray"], "unknown option 'stray'"),
        (
            ["--dense.epochs=ten"],
            "dense.epochs: expected a whole number from 0 to 1000000, got 'ten'; the default",
        ),
        (["--seeds=3"], "seeds: expected a list of whole numbers of at least 0, got 3; write .3."),
        (["--ratios=[1, 0.5]"], "ratios.1: expected a number of at least 1, got 0.5; correct it"),
        (["--pruners=[magnitud]"], r"unknown pruner 'magnitud'; did you mean 'magnitude'\?"),
        (["--pruners=[{name: magnitude, scop: layer}]"], r"unknown option 'scop'; did you mean 'scope'\?"),
        (["--data={name: digits, size: 8}"], "data 'digits': unknown option 'size'; there are none"),
        (["--ratios=[1, 500]"], "magnitude on mlp reaches at most .*got 500; leave out ratios above the ceiling"),
        (["--evaluation.n=[1, 4000]"], "expected at least n = 4000 instances, got [0-9]+ in class '[0-9]'; use n <="),
        (["--evaluation.protocols=[grouped]"], "'grouped' needs group ids, and digits has none; use"),
        (["--trainer.accelerator=warp"], "accelerator='warp'.*set trainer.accelerator to auto"),
        (["--trainer.options={speed: 3}"], "speed"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(small, experiment, refused, arguments, message):
    assert re.search(message, refused(*small, *arguments))
    assert artifacts(experiment) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA, so asking for it is no mistake")
@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_cuda_asked_for_and_absent(small, refused, name):
    assert re.search(
        f"accelerator='{name}'.* cannot be used here: .*set trainer.accelerator to auto",
        refused(*small, f"--trainer.accelerator={name}"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dense: {epochs: 3\n", "grid.yaml: expected YAML, got: .*line 1"),
        ("- 1\n", "grid.yaml: expected a mapping of options, got .1.; write `option: value` lines"),
        ("", "grid.yaml: expected a mapping of options, got nothing; write `option: value` lines"),
        ("dense: 3\n", "dense: expected a mapping of options, got 3"),
        ("retrain: {epoch: 3}\n", r"unknown option 'retrain.epoch'; did you mean 'retrain.epochs'\?"),
        ("seeds: [a]\n", "seeds.0: expected a whole number of at least 0, got 'a'"),
        ("\0", "grid.yaml: expected"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(tmp_path, refused, text, message):
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    assert re.search(message, refused(f"--config={file}"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of small images."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(24):
            pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{index:02d}.png")
    return tmp_path / "pets"


def one_class(folder: Path) -> None:
    for file in (folder / "dog").iterdir():
        file.unlink()
    (folder / "dog").rmdir()


def empty_class(folder: Path) -> None:
    (folder / "cow").mkdir()


def truncated(folder: Path) -> None:
    file = folder / "dog" / "07.png"
    file.write_bytes(file.read_bytes()[:60])


def not_an_image(folder: Path) -> None:
    (folder / "cat" / "03.png").write_text("a picture of a cat")


def other_size(folder: Path) -> None:
    Image.new("RGB", (9, 5)).save(folder / "dog" / "11.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (one_class, r"expected at least two class folders with images, got 1 \(cat\); add another class"),
        (empty_class, "expected images in every class folder, got none in 'cow'; remove it"),
        (truncated, "expected an image in 'dog/07.png', got: .*; repair or remove it"),
        (not_an_image, "expected an image in 'cat/03.png', got: no image format .*, repair or remove it"),
        (other_size, "expected images of one size, got 6x6 in 'cat/00.png' and 9x5 in 'dog/11.png'; set `size`"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_of_images_with_a_flaw_is_refused(small, experiment, folder, refused, damage, message):
    arguments = [*small, f"--data={{name: imagefolder, path: {folder}}}", "--evaluation.n=[1, 2]"]
    assert train.main([*arguments, "--plan"]) == 0
    damage(folder)
    assert re.search(message, refused(*arguments))
    assert artifacts(experiment) == {}


def test_a_class_that_is_too_small_for_n_is_named(small, folder, refused):
    for index in range(16):
        (folder / "dog" / f"{index:02d}.png").unlink()
    line = refused(*small, f"--data={{name: imagefolder, path: {folder}}}", "--evaluation.n=[1, 4]")
    assert re.search("evaluation.n on the aggregator split.*n = 4 instances, got [0-3] in class 'dog'; use n <=", line)


def test_a_group_that_is_too_small_for_n_is_named(small, refused):
    data = "--data={name: gaussian, classes: 3, instances_per_class: 120, group_size: 3}"
    line = refused(*small, data, "--evaluation.protocols=[grouped]", "--evaluation.n=[1, 4]")
    assert re.search(
        "protocol grouped: .*n = 4 instances, got 3 in the largest group of class '[0-2]'; use n <= 3", line
    )


def test_classes_so_far_apart_that_images_were_infinite_are_refused(small, refused):
    line = refused(*small, "--data={name: gaussian, classes: 3, instances_per_class: 120, separation: 1.0e+39}")
    assert "data 'gaussian': separation: expected a number from 0 to 1000000, got 1e+39; the default is 3.0" in line


def reasons(experiment: Experiment) -> set[tuple[str, str]]:
    """Stages that failed and why, as the results tell."""
    return {(one.stage, one.reason) for one in read(Path(experiment.output) / experiment.name).failures}


def test_a_loss_that_explodes_fails_and_keeps_what_was_done(small, experiment, done):
    before = artifacts(experiment)
    assert train.main([*small, "--retrain.optimizer=sgd", "--retrain.learning_rate=1000000"]) == 3
    for stage, said in reasons(experiment):
        assert stage == "prune"
        assert re.search(r"expected a finite loss, got (nan|inf) in epoch 1; lower learning_rate \(now 1e\+06\)", said)
    assert len(read(Path(experiment.output) / experiment.name).failures) == 6
    assert artifacts(experiment).items() >= before.items()


def test_features_that_are_not_finite_fail(small, experiment, monkeypatch):
    def broken(backbone, *arguments):
        torch.nn.init.constant_(backbone.classifier.weight, torch.nan)
        return []

    monkeypatch.setattr(compression, "train", broken)
    assert train.main(small) == 3
    ((stage, said),) = reasons(experiment)
    assert stage == "dense"
    assert "expected finite logits, got NaN or Inf; lower the learning rate" in said
    assert not any(name.startswith(("dense", "prune")) for name in artifacts(experiment))


@pytest.mark.parametrize("stage", ["dense", "aggregate", "evaluate"])
def test_a_damaged_artifact_is_computed_again_with_a_warning_and_the_same_numbers(
    small, experiment, done, finished, stage
):
    rows, before = comparable(experiment), artifacts(experiment)
    shard = sorted((done.root / "artifacts" / stage).glob("*/*.safetensors"))[0]
    intact = shard.read_bytes()
    shard.write_bytes(intact[: len(intact) // 2])
    with pytest.warns(RuntimeWarning, match=f"artifact {stage}/{shard.parent.name[:12]} is damaged .* computed again"):
        assert train.main(small) == 0
    assert shard.read_bytes() == intact
    assert comparable(experiment) == rows
    after = artifacts(experiment)
    assert {name for name in before if after[name] != before[name]} == {f"{stage}/{shard.parent.name}/manifest.json"}


def test_a_store_of_a_newer_version_is_left_alone(small, experiment, refused, done):
    (done.root / "store.json").write_text('{"format": 99}')
    before = artifacts(experiment)
    assert re.search("has store format 99, this version reads up to 1; upgrade sharedlabel", refused(*small))
    assert artifacts(experiment) == before


def test_a_folder_that_cannot_be_written_is_named(small, tmp_path, refused):
    (tmp_path / "file").write_text("in the way")
    line = refused(*small, f"--output={tmp_path / 'file' / 'below'}")
    assert re.search("expected a store that can be read and written at .*file/below/store, got: .*--output", line)


def test_a_report_that_cannot_be_written_loses_no_numbers(small, experiment, refused, done):
    for path in sorted((Path(experiment.output) / experiment.name).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    report = Path(experiment.output) / experiment.name
    report.rmdir()
    report.write_text("in the way")
    before = artifacts(experiment)
    assert re.search("expected to read and write .*digits, got: File exists; .*choose another folder", refused(*small))
    assert artifacts(experiment) == before


def test_a_full_disk_in_the_middle_of_a_run_keeps_what_was_done(small, experiment):
    # A limit on file size makes the operating system refuse the write for real, as a full disk does.
    script = """
import resource, signal, sys
sys.dont_write_bytecode = True  # it would be cut, too, and the next program would trip over it
from sharedlabel import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
sys.exit(train.main(sys.argv[1:]))
"""
    done = python("-c", script, *small)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(
        r"error: could not write artifact features/[0-9a-f]{12} to .*: File too large; nothing is lost, free .*\n",
        done.stderr,
    )
    kept = {name.partition("/")[0] for name in artifacts(experiment)}
    assert kept == {"counts", "dense", "layers", "margin", "prune"}
    assert list((Path(experiment.output) / "store" / "partial").iterdir()) == []


def test_an_interrupt_that_a_library_turns_into_its_own_error_is_still_one(capsys):
    def translated() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    def broken() -> None:
        raise ValueError("a bug")

    handler = signal.getsignal(signal.SIGINT)
    assert guarded(translated) == 2
    assert capsys.readouterr().err.startswith("stopped: everything finished so far is stored")
    with pytest.raises(ValueError, match="a bug"):
        guarded(broken)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_stop_keeps_what_is_done_and_the_same_command_goes_on(small, experiment, capsys):
    """SIGINT is answered alike (below), and stops a run with workers in tests/grid/test_drivers.py."""
    arguments = [*small, "--retrain.epochs=10", "--ratios=[1]", "--aggregators=[log_pool]", "--latency.batches=[1]"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sharedlabel.train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/"):
            process.send_signal(signal.SIGTERM)
            break
    _, error = process.communicate(timeout=600)
    assert process.returncode == 2, error
    assert error == "stopped: everything finished so far is stored; run the same command again to go on\n"
    before = artifacts(experiment)
    assert any(name.startswith("dense/") for name in before)
    assert list((Path(experiment.output) / "store" / "partial").iterdir()) == []
    assert train.main(arguments) == 0
    output = capsys.readouterr().out
    after = artifacts(experiment)
    assert {name: after[name] for name in before} == before
    computed = re.findall(r"^\[(\d+)/(\d+)\]", output, flags=re.MULTILINE)
    total = sum(not name.startswith("summarize") for name in after) - len(before)  # summaries are no stage calls
    assert computed == [(str(index), str(total)) for index in range(1, total + 1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_asks_to_stop_is_answered_alike_and_handlers_are_put_back(capsys, number):
    former = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored where the tests run under nohup
    try:
        before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        assert guarded(lambda: os.kill(os.getpid(), number), "this is left") == 2
        assert {one: signal.getsignal(one) for one in before} == before
    finally:
        signal.signal(signal.SIGHUP, former)
    assert capsys.readouterr().err == "stopped: this is left\n"


def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert guarded(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, former)


CHILDREN = """
import multiprocessing, sys, time
from sharedlabel.errors import guarded

def sleep():
    print("asleep", flush=True)
    time.sleep(600)

def main():
    multiprocessing.get_context(sys.argv[1]).Process(target=sleep).start()
    time.sleep(600)

if __name__ == "__main__":
    sys.exit(guarded(main))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_processes_that_it_has_started_end_with_an_interrupted_command(tmp_path, method):
    (tmp_path / "children.py").write_text(CHILDREN)
    with subprocess.Popen(
        [sys.executable, "-m", "children", method], cwd=tmp_path, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)  # until the last process has closed the pipes
    assert (process.returncode, error[:9]) == (2, "stopped: ")
    assert "Traceback" not in error


def test_a_command_may_have_an_exit_code_of_its_own():
    assert guarded(lambda: 3) == 3
    assert guarded(lambda: None) == 0


VERBOSE = """
import sys
from argparse import ArgumentParser
from rich.console import Console
from sharedlabel.errors import DataError, guarded

def lines():
    for number in range(100_000):
        print(number)

def few():
    print("one")

def table():
    for number in range(20_000):
        Console().print(number)

def text():
    ArgumentParser(description=100 * "long " * 1000).parse_args(["--help"])

def mistake():
    few()
    raise DataError("expected one thing, got another; do this")

sys.stdin.readline()  # until the reader has gone
sys.exit(guarded(locals()[sys.argv[1]]))
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("what", "code", "said"),
    [("lines", 141, b""), ("few", 141, b""), ("table", 141, b""), ("text", 141, b""),
     ("mistake", 2, b"error: expected one thing, got another; do this\n")],
)  # fmt: skip
def test_a_reader_that_has_gone_is_no_error(tmp_path, what, code, said, unbuffered):
    (tmp_path / "verbose.py").write_text(VERBOSE)
    with subprocess.Popen(
        [sys.executable, "-m", "verbose", what], cwd=tmp_path, env=ENVIRONMENT | {"PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        error = process.stderr.read()
    if what != "mistake" or not unbuffered:  # unbuffered, the first line is where it ends
        assert (process.returncode, error) == (code, said)
    else:
        assert (process.returncode, error) == (141, b"")


@pytest.mark.parametrize(("output", "code", "said"), [("&-", 0, ""), ("/dev/full", 2, "error: expected to read")])
def test_without_an_output_or_with_a_full_one(tmp_path, output, code, said):
    (tmp_path / "verbose.py").write_text(VERBOSE)
    command = f"{sys.executable} -m verbose few >{output}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, input="", check=False
    )
    assert (done.returncode, done.stderr[: len(said) or None]) == (code, said)
    assert done.stderr.count("\n") == code // 2


def test_a_pipe_that_breaks_elsewhere_is_one():
    def broken() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        guarded(broken)


def test_an_interrupt_while_python_executes_a_text_is_one_like_any_other(tmp_path):
    script = """
import sys
from sharedlabel.errors import guarded

def interrupted():
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")

sys.exit(guarded(interrupted))
"""
    (tmp_path / "interrupted.py").write_text(script)
    done = python("-m", "interrupted", cwd=tmp_path)
    assert (done.returncode, done.stderr[:8]) == (2, "stopped:")
