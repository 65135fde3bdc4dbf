"""Files that belong together are new together or old together, whatever fails, and whenever a process dies."""

import builtins
import contextlib
import errno
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sharedlabel import records
from sharedlabel.errors import StoreError, WriteError, guarded
from sharedlabel.files import leases, together

OLD = {"results.json": "old", "rows.csv": "1\n", "report.html": "<p>", "plots/a-iid.svg": "<a>", "plots/b.svg": "<b>"}
NEW = {"results.json": "new", "rows.csv": "2\n", "report.html": "<q>", "plots/a-iid.svg": "<n>", "plots/c.svg": "<c>"}


def content(folder: Path) -> dict[str, str]:
    """The files of a set by name; the list of them and what is not theirs left out."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in files.items() if name != together.LIST}


def plots(name: str) -> bool:
    return name.startswith("plots/")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A set that was written before, and files of the user beside."""
    together.replace(tmp_path / "run", OLD, plots)
    (tmp_path / "run" / "plots" / "mine.svg").write_text("mine")
    (tmp_path / "run" / "notes.txt").write_text("notes")
    return tmp_path / "run"


MINE = {"plots/mine.svg": "mine", "notes.txt": "notes"}


class Failing:
    """Lets the k-th call to the system fail, or kills; counts them."""

    def __init__(self, monkeypatch, at: int, error: BaseException) -> None:
        self.left, self.error = at, error
        for name in ("fsync", "rename", "mkdir", "unlink", "replace"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        for name in ("rename", "mkdir", "unlink"):
            monkeypatch.setattr(pathlib.Path, name, self.counted(getattr(pathlib.Path, name)))
        opened = io.open
        outer = self

        def open_(file, mode="r", *arguments, **options):
            if "w" in mode:
                outer.count()
            return opened(file, mode, *arguments, **options)

        monkeypatch.setattr(io, "open", open_)
        monkeypatch.setattr(builtins, "open", open_)

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error

    def counted(self, function):
        def call(*arguments, **options):
            self.count()
            return function(*arguments, **options)

        return call


def test_the_new_set_takes_the_place_of_the_old_one_and_the_users_files_stay(folder):
    together.replace(folder, NEW, plots)
    assert content(folder) == NEW | MINE
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == [together.LIST]


def outcome(folder: Path) -> str:
    """Write the new set; say whether that succeeded, else what the message says of the files."""
    try:
        together.replace(folder, NEW, plots)
    except WriteError as error:
        said = re.fullmatch(
            f"expected to write {folder}.*, got: No space left on device; (.*); free some.*", str(error)
        )
        return {"what was there before is as it was": "kept"}.get(said[1], "waits") if said else str(error)
    return "done"


def test_whatever_call_fails_all_is_new_or_all_is_old(tmp_path, monkeypatch):
    """A full disk at every moment: before the decision nothing has changed, after it the new set is read."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # for its time
    outcomes = []
    for k in range(1, 200):
        folder = tmp_path / str(k)
        together.replace(folder, OLD, plots)
        with monkeypatch.context() as full:
            failing = Failing(full, k, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            outcomes.append(outcome(folder))
        if outcomes[-1] == "kept":
            assert content(folder) == OLD
        expected = OLD if outcomes[-1] == "kept" else NEW
        assert {name: together.read(folder, name).decode() for name in expected} == expected
        together.replace(folder, NEW, plots)
        assert content(folder) == NEW
        if failing.left > 0:
            break
    assert set(outcomes) == {"kept", "waits", "done"}
    assert outcomes[-1] == "done"
    assert outcomes.count("kept") > 10
    assert outcomes.count("waits") >= len(NEW)


class DiedError(BaseException):
    """The process is killed here."""


def test_whenever_a_process_dies_what_is_read_is_whole_and_the_next_write_mends_it(tmp_path, monkeypatch):
    for k in range(1, 200):
        folder = tmp_path / str(k)
        together.replace(folder, OLD, plots)
        with monkeypatch.context() as dying:
            dying.setattr("sharedlabel.files.leases.shutil.rmtree", lambda *_, **__: None)  # nothing is cleared up
            failing = Failing(dying, k, DiedError())
            with contextlib.suppress(DiedError):
                together.replace(folder, NEW, plots)
        read = {name: together.read(folder, name).decode() for name in ("results.json", "rows.csv", "report.html")}
        assert read in ({name: OLD[name] for name in read}, {name: NEW[name] for name in read})
        for left in folder.glob(f"{leases.MARK}*"):
            os.utime(left, (0, 0))  # the death was long ago
        together.replace(folder, NEW, plots)
        assert content(folder) == NEW
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [together.LIST]
        if failing.left > 0:
            break
    assert 40 < k < 199


def test_a_disk_that_is_really_full(tmp_path):
    """A limit on file size makes the system refuse the write for real."""
    script = """
import resource, signal, sys
from pathlib import Path
from sharedlabel.files import together
folder, files = Path(sys.argv[1]), {"rows.csv": "1", "results.json": "x" * 10_000}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
together.replace(folder, files)
"""
    together.replace(tmp_path, OLD)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert f"WriteError: expected to write {tmp_path / 'results.json'}, got: File too large; what was" in done.stderr
    assert content(tmp_path) == OLD


def test_what_lies_in_the_way_is_named_before_anything_is_replaced(folder):
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    before = content(folder)
    with pytest.raises(WriteError, match=r"expected to write .*report.html, got: Is a directory; what was there"):
        together.replace(folder, NEW, plots)
    assert content(folder) == before


def test_a_list_of_files_that_somebody_made_up_removes_nothing_elsewhere(tmp_path):
    folder, kept = tmp_path / "run", tmp_path / "kept"
    together.replace(folder, OLD, plots)
    kept.write_text("kept")
    names = ["../kept", str(kept), "plots/../../kept", "a/b/c", 5, None, "..", ".", ""]
    for listed in ({"files": names}, {"files": 3}, [], {"files": {"../kept": 1}}):
        (folder / together.LIST).write_text(json.dumps(listed))
        together.replace(folder, NEW, lambda name: True)
        assert kept.read_text() == "kept"
    (folder / together.LIST).write_text("[" * 100_000)
    together.replace(folder, NEW, plots)
    (folder / together.REPLACING).mkdir()
    (folder / together.REPLACING / together.LIST).write_text(json.dumps({"gone": names}))
    together.replace(folder, OLD, plots)
    assert kept.read_text() == "kept"


def test_two_write_at_once_and_one_of_them_is_there_whole(tmp_path):
    script = """
import sys
from pathlib import Path
from sharedlabel.files import together
for _ in range(30):
    together.replace(Path(sys.argv[1]), {f"{name}.csv": sys.argv[2] for name in "abcdefgh"}, lambda name: True)
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), word]) for word in ("one", "two")]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(set(content(tmp_path).values())) == 1
    assert len(content(tmp_path)) == 8
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [together.LIST]


FACTS = records.DatasetFacts(("a", "b"), (1, 8, 8), "uint8", None, None, (0.5, 0.5))
EMPTY = dict.fromkeys(("rows", "summaries", "comparisons", "sweet_spots", "reliability"), ())
FOUND = records.Results(format=records.FORMAT, experiment="name", config={}, provenance={}, dataset=FACTS, **EMPTY)


def test_results_that_wait_to_be_moved_are_read(tmp_path):
    records.write(FOUND, tmp_path)
    (tmp_path / together.REPLACING).mkdir()
    (tmp_path / records.NAME).rename(tmp_path / together.REPLACING / records.NAME)
    (tmp_path / records.NAME).write_text("{}")
    assert records.read(tmp_path) == records.read(tmp_path / records.NAME) == FOUND


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "expected a results.json at .*nested deeper"),
        ('{"format": 4, "format": 4}', "the key 'format' stands twice"),
        ('{"format": NaN}', "NaN, which is no number"),
        ("null", "has format 'NoneType', this version reads 4; run the grid again"),
        ('{"format": "4"}', "has format '4', this version reads 4"),
        (
            '{"format": 4, "rows": [{"cell": "\\u001b[31m"}]}',
            r"is not a results file of this version: expected what .* writes, got experiment = ",
        ),
    ],
)
def test_results_that_nobody_wrote_are_a_message(tmp_path, text, message, capsys):
    (tmp_path / records.NAME).write_text(text)
    assert guarded(lambda: records.read(tmp_path) and None) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_results_of_before_failures_were_told_are_read(tmp_path):
    records.write(FOUND, tmp_path)
    payload = json.loads((tmp_path / records.NAME).read_text())
    del payload["failures"], payload["cells"]
    (tmp_path / records.NAME).write_text(json.dumps(payload))
    assert records.read(tmp_path) == FOUND
    assert (FOUND.failures, FOUND.cells) == ((), 0)


def fill(made: Path) -> None:
    (made / "card.json").write_text("new")


def test_a_folder_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    for k in range(1, 100):
        folder = tmp_path / f"model-{k}"
        folder.mkdir()
        (folder / "card.json").write_text("old")
        with monkeypatch.context() as dying:
            failing = Failing(dying, k, DiedError())
            with contextlib.suppress(DiedError):
                together.replace_folder(folder, fill)
        together.restore(folder)  # as whoever opens it next does
        assert (folder / "card.json").read_text() in ("old", "new")
        together.replace_folder(folder, fill)
        assert content(folder) == {"card.json": "new"}
        if failing.left > 0:
            break
    assert 10 < k < 99
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_cannot_be_made_leaves_the_former_one(tmp_path):
    def broken(made: Path) -> None:
        fill(made)
        raise ValueError("not today")

    together.replace_folder(tmp_path / "model", lambda made: (made / "card.json").write_text("old") and None)
    with pytest.raises(ValueError, match="not today"):
        together.replace_folder(tmp_path / "model", broken)
    assert content(tmp_path) == {"model/card.json": "old"}


@contextlib.contextmanager
def heard(number: int):
    """Have a signal do what it does by default: under nohup SIGHUP is ignored, and so would guarded."""
    former = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, former)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_closed_terminal_cannot_show_is_no_error(number, tmp_path, monkeypatch):
    def gone(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(sys, "stderr", type("Gone", (), {"write": gone, "flush": gone})())
    with heard(number):
        assert guarded(lambda: os.kill(os.getpid(), number)) == 2


def sent(tmp_path) -> Path:
    """A run's folder from somebody else, and a folder of ours."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/id_rsa").write_text("secret")
    together.replace(tmp_path / "run", {"rows.csv": "old"}, plots)
    return tmp_path / "run"


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path):
    run = sent(tmp_path)
    (run / "plots").symlink_to(tmp_path / "victim")
    (run / ".replacing/plots").mkdir(parents=True)
    (run / ".replacing/plots/authorized_keys").write_text("mine")
    (run / ".replacing/.files.json").write_text('{"files": [], "gone": ["plots/id_rsa"]}')
    with pytest.raises(WriteError, match=r"expected to write .*plots/.*, got: plots is a link"):
        together.finish(run)
    with pytest.raises(WriteError, match="got: plots is a link"):
        together.replace(run, {"rows.csv": "new", "plots/a.svg": "new"}, plots)
    assert content(tmp_path / "victim") == {"id_rsa": "secret"}
    assert (run / "rows.csv").read_text() == "old"


def test_links_that_wait_to_be_moved_are_not_followed(tmp_path):
    run = sent(tmp_path)
    (run / ".replacing").symlink_to(tmp_path / "victim")
    together.finish(run)
    assert content(tmp_path / "victim") == {"id_rsa": "secret"}
    (run / ".replacing").unlink()
    (run / ".replacing").mkdir()
    (run / ".replacing/rows.csv").symlink_to(tmp_path / "victim/id_rsa")
    together.finish(run)
    assert (run / "rows.csv").read_text() == "old"


def test_pipes_and_devices_are_neither_waited_for_nor_replaced(tmp_path):
    run = sent(tmp_path)
    (run / ".replacing").mkdir()
    os.mkfifo(run / ".replacing/results.json")
    with pytest.raises(StoreError, match=r"got: .*no plain file but a folder, pipe or device"):
        records.read(run)
    (run / ".replacing/results.json").unlink()
    (run / ".replacing/results.json").symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="no plain file but a folder, pipe or device"):
        records.read(run)
    (run / ".replacing/results.json").unlink()
    os.mkfifo(run / "report.html")
    with pytest.raises(WriteError, match=r"report.html, got: there is a link, pipe or device"):
        together.replace(run, {"report.html": "page"}, plots)
    assert (run / "rows.csv").read_text() == "old"
    (run / ".files.json").unlink()
    os.mkfifo(run / ".files.json")
    with pytest.raises(WriteError, match="there is a link, pipe or device"):
        together.replace(run, {"rows.csv": "new"}, plots)


def test_a_full_or_absent_stderr_keeps_the_exit_code():
    code = "import sys; from sharedlabel.choose.__main__ import main; sys.exit(main(['/nonexistent']))"
    for redirection in ("2>/dev/full", "2>&-"):
        run = subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "{code}" {redirection}'], check=False)
        assert run.returncode == 2


def test_a_set_is_known_again_while_it_follows_from_the_same_and_nobody_has_touched_it(folder):
    assert not together.holds(folder, "")  # it was written without saying what it follows from
    together.replace(folder, NEW, plots, made_of="one")
    assert together.holds(folder, "one")
    assert not together.holds(folder, "two")
    assert together.contents(folder) == list(NEW)
    (folder / "notes.txt").write_text("other notes")
    assert together.holds(folder, "one")
    (folder / "rows.csv").write_text("3\n")
    assert not together.holds(folder, "one")
    (folder / "rows.csv").write_text(NEW["rows.csv"])
    assert together.holds(folder, "one")
    (folder / "plots" / "c.svg").unlink()
    assert not together.holds(folder, "one")
    together.replace(folder, OLD, plots)
    assert not together.holds(folder, "one")


def test_a_set_that_waits_to_be_moved_is_not_known(folder):
    together.replace(folder, NEW, plots, made_of="one")
    (folder / together.REPLACING).mkdir()
    assert not together.holds(folder, "one")


@pytest.mark.parametrize("listed", ["", "[]", "{}", '{"made_of": "one"}', '{"made_of": "one", "contents": ["a"]}'])
def test_a_list_that_says_something_else_holds_nothing(folder, listed):
    (folder / together.LIST).write_text(listed)
    assert not together.holds(folder, "one")


def test_a_list_leads_nowhere_else(folder):
    together.replace(folder, NEW, plots, made_of="one")
    listed = json.loads((folder / together.LIST).read_text())
    (folder.parent / "secret").write_text("secret")
    for name in ("../secret", str(folder.parent / "secret"), "plots/../../secret"):
        (folder / together.LIST).write_text(json.dumps(listed | {"contents": {name: together._digest("secret")}}))
        assert not together.holds(folder, "one")
        with pytest.raises(ValueError, match="leads elsewhere"):
            together.contents(folder)
