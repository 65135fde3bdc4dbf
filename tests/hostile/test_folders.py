"""Folders as people have them: strays, bad files, groups of any size, copies, tables from spreadsheets, kills."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sharedlabel import grid, train
from sharedlabel.config import parse
from sharedlabel.data import _cache, _locks, _pass, imagefolder
from sharedlabel.data.imagefolder import Config
from sharedlabel.deployment.groups import read_groups
from sharedlabel.errors import DataError
from sharedlabel.grid import survey
from sharedlabel.records import read
from sharedlabel.scoring.data import clusters
from sharedlabel.types import Dataset


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def written(root: Path, names: list[str]) -> Path:
    """Write images, each of its own content."""
    for index, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(index))
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return written(tmp_path / "pets", [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(3)])


@pytest.fixture(params=["folder", "zip"])
def form(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Leave a folder as it is, or pack it with a folder that wraps everything."""

    def packed(folder: Path) -> Path:
        if request.param == "folder":
            return folder
        path = folder.parent / "packed.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, Path("wrapper") / file.relative_to(folder))
        return path

    return packed


def load(path: Path, **options: object) -> Dataset:
    return imagefolder.load(Config(path=str(path), **options), path.parent / "root")  # type: ignore[arg-type]


STRAYS = (
    "thumbs.db", "THUMBS.DB", "Icon\r", "desktop.ini", "notes.txt", "boxes.json", "boxes.xml", "list.csv", "clip.mp4",
    "a.part", "b.png.crdownload", "c.jpg.tmp", "d.png~", "Unconfirmed 1.crdownload",
)  # fmt: skip


def test_stray_files_are_left_out_with_one_line(pets: Path, form: Callable[[Path], Path]) -> None:
    clean = load(pets)
    for name in STRAYS:
        (pets / "cat" / name).write_bytes(b"x")
    written(pets, ["@eaDir/cat/SYNOPHOTO_THUMB_M.png", "cat/@eaDir/0.png/thumb.jpg", "meta/readme.txt", ".git/x.png"])
    dataset = load(form(pets))
    assert torch.equal(dataset.images, clean.images)
    (line,) = dataset.remarks
    assert line.startswith(
        f"left out {len(STRAYS) + 3} files that are no images by their names: 2 .crdownload, 2 .db, "
    )
    tuples = read_groups(form(pets))
    assert [len(group.paths) for group in tuples.groups if group.paths] == [3, 3]
    assert tuples.remarks == (line,)


def test_a_class_of_images_that_are_not_read_is_no_stray(pets: Path) -> None:
    (pets / "eel").mkdir()
    (pets / "eel/0.heic").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"\(BMP, .*\), got only others such as 'eel/0.heic'; convert them, or remove 'eel'"
    ):
        load(pets)


def test_bad_images_are_an_error_or_are_skipped_and_listed(pets: Path, form: Callable[[Path], Path]) -> None:
    whole = load(form(pets), groups=None)
    (pets / "cat/1.png").write_bytes(picture(1)[:40])
    (pets / "dog/0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cat/1\.png"):
        load(form(pets))
    for _ in range(2):  # decoded, and read again
        dataset = load(form(pets), on_bad_image="skip")
        assert torch.equal(dataset.images, whole.images[[0, 2, 4, 5]])
        assert dataset.labels.tolist() == [0, 0, 1, 1]
        assert [name[-9:] for name, _ in dataset.skipped] == ["cat/1.png", "dog/0.png"]
        assert all("expected an image in" in reason for _, reason in dataset.skipped)
    assert dataset.fingerprint != whole.fingerprint
    for file in (pets / "dog").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(DataError, match="expected instances of every class, got none of 'dog'"):
        load(form(pets), on_bad_image="skip")
    shutil.rmtree(pets)
    with pytest.raises(DataError, match="expected images that can be read, got none of 2: expected an image"):
        load(written_badly(pets), on_bad_image="skip")


def written_badly(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(b"x")
    return root


def test_a_folder_whose_name_is_not_utf8_is_named(pets: Path) -> None:
    os.rename(os.fsencode(pets / "dog"), os.fsencode(pets) + b"/d\xf6g")
    with pytest.raises(DataError, match=r"a class folder with a name of letters in UTF-8, got 'd\\udcf6g'; rename it"):
        load(pets)
    groups = read_groups(pets).groups
    assert [bool(group.flaw) for group in groups] == [False, True]
    os.rename(os.fsencode(pets) + b"/d\xf6g", pets / "d\x1b[31mog")
    with pytest.raises(DataError, match=r"got 'd\\x1b\[31mog'; rename it"):
        load(pets)


def test_a_file_whose_name_is_not_utf8_is_an_image_all_the_same(pets: Path) -> None:
    os.rename(os.fsencode(pets / "dog/0.png"), os.fsencode(pets) + b"/dog/\xf6.png")
    assert len(load(pets).labels) == 6


def test_levels_count_from_the_class_folder_and_take_its_name_along(
    tmp_path: Path, form: Callable[[Path], Path]
) -> None:
    names = [
        f"{side}{label}/{track}/{index}.png"
        for side in ("",)
        for label in "abc"
        for track in range(12)
        for index in "01"
    ]
    dataset = load(form(written(tmp_path / "tracks", names)), groups="level:1")
    assert dataset.groups is not None
    assert len(dataset.groups.unique()) == 36
    assert dataset.group_names is not None
    assert dataset.group_names[:2] == ("a/0", "a/1")
    sided = written(tmp_path / "sided", [f"{side}/{name}" for side in ("train", "test") for name in names])
    assert len(load(form(sided), groups="level:1").groups.unique()) == 36  # type: ignore[union-attr]
    with pytest.raises(
        DataError, match=r"level:K with K from 1 to 1, since '.*0\.png' has 1 folders below .*'level:2'"
    ):
        load(form(sided), groups="level:2")


TABLES = {
    "spaces and more columns": (" Path , GROUP,note\ncat/0.png, ä ,x\n", "utf-8"),
    "semicolons and quotes": ('"group";"path"\n"ä";"cat/0.png"\n', "utf-8"),
    "tabs, a mark and Windows lines": ("\ufeffgroup\tpath\r\nä\tcat/0.png\r\n\r\n", "utf-8"),
    "Latin-1": ("group,path\nä,cat/0.png\n", "latin-1"),
    "UTF-16": ("group,path\nä,cat/0.png\n", "utf-16"),
    "backslashes and dots": ("group,path\nä,cat\\0.png\nä,./cat//0.png\n", "utf-8"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_programs_write_them(pets: Path, form: Callable[[Path], Path], name: str) -> None:
    text, encoding = TABLES[name]
    rest = [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(3)][1:]
    header, *rows = text.splitlines(keepends=True)
    delimiter = next(one for one in ";\t," if one in header)
    order = ("ö", "{}") if "group" in header.lower().split(delimiter)[0] else ("{}", "ö")
    rows += [delimiter.join(order).format(path) + "\n" for path in rest]
    (pets / "groups.csv").write_bytes("".join([header, *rows]).encode(encoding))
    dataset = load(form(pets), groups="groups.csv", encoding=encoding)
    assert dataset.group_names == ("ä", "ö")
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 1, 1, 1, 1, 1]
    assert dataset.remarks == ()
    tuples = read_groups(pets / "groups.csv", encoding).groups
    assert [(group.name, len(group.paths), group.flaw) for group in tuples] == [("ä", 1, ""), ("ö", 5, "")]


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (
            "group,path\nx,cat/0.png\nä,dog/0.png\n".encode("latin-1"),
            "utf-8",
            r"text in utf-8 in .*, got the bytes e4 .* in row 3; state its encoding, such as latin-1",
        ),
        (b"group,path\n", "klingon", "encoding: expected the name of a text encoding .*, got 'klingon'; correct it"),
        (b"group,path\n", "zip", "encoding: expected the name of a text encoding .*, got 'zip'; correct it"),
        (b"group,path\nx," + b"y" * 200_000 + b"\n", "utf-8", "in row 2: field larger than field limit .*; check"),
        (b'group,path\nx,"cat/0.png\n' + b"z" * 200_000, "utf-8", "got in row .*: field larger than field limit"),
        (b"group:path\nx|y\n", "utf-8", r"columns group and path in .*, got 'group:path'; add .*, and separate"),
        (b"group,path\nx\x1b[31m,cat/0.png\n", "utf-8", r"names of groups in .*, got 'x\\x1b\[31m' in row 2; re"),
        (b"", "utf-8", "columns group and path in .*, got none; add"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_read(pets: Path, data: bytes, encoding: str, message: str) -> None:
    (pets / "groups.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        load(pets, groups="groups.csv", encoding=encoding)
    with pytest.raises(DataError, match=message):
        read_groups(pets / "groups.csv", encoding)


def test_the_cache_is_never_read_as_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path("data"), [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(3)])
    Path("data/imagefolder").mkdir()  # where versions before kept what they had decoded
    Path("data/imagefolder/0.npy").write_bytes(b"x")
    first = imagefolder.load(Config("data"), Path("data"))
    second = imagefolder.load(Config("data"), Path("data"))
    assert first.class_names == second.class_names == ("cat", "dog")
    assert first.fingerprint == second.fingerprint
    with pytest.raises(
        DataError, match=r"expected images of your own, got .*, where decoded ones are kept; set `path`"
    ):
        imagefolder.load(Config("data/.cache/imagefolder"), Path("data"))


class _Killed(BaseException):
    """As a signal would end the process."""


def test_a_killed_decode_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pass, "STEP_IMAGES", 4)
    names, seen = [str(index) for index in range(20)], list[str]()

    def decode(name: str, last: int) -> np.ndarray:
        seen.append(name)
        if int(name) == last:
            raise _Killed
        return np.full((1, 2, 2), int(name), dtype=np.uint8) + np.arange(4, dtype=np.uint8).reshape(1, 2, 2)

    for last in (10, 17):
        with pytest.raises(_Killed):
            _cache.cached(tmp_path, "key", names, lambda some, last=last: (decode(name, last) for name in some))
        assert sorted(file.suffix for file in tmp_path.iterdir()) == [".partial", ".progress"]
        seen.clear()
    images = _cache.cached(tmp_path, "key", names, lambda some: (decode(name, -1) for name in some)).images
    assert seen == names[16:]
    assert images[:, 0, 0, 0].tolist() == list(range(20))
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".npy"]


def _slowly(folder: str, key: str, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    def decode(name: str) -> np.ndarray:
        time.sleep(0.01)
        return np.full((1, 2, 2), int(name), dtype=np.uint8) + np.arange(4, dtype=np.uint8).reshape(1, 2, 2)

    images = _cache.cached(
        Path(folder), key, [str(index) for index in range(30)], lambda some: (decode(name) for name in some)
    ).images
    results.put(images[:, 0, 0, 0].tolist())


def test_two_processes_decode_the_same_images_and_one_may_be_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    runs = [context.Process(target=_slowly, args=(str(tmp_path), "key", results)) for _ in range(3)]
    runs[0].start()
    while not list(tmp_path.glob("*.partial")):
        assert runs[0].is_alive() or list(tmp_path.glob("*.npy"))
        time.sleep(0.001)
    for run in runs[1:]:
        run.start()
    os.kill(runs[0].pid or 0, signal.SIGKILL)
    assert [results.get(timeout=60) for _ in runs[1:]] == [list(range(30))] * 2
    for run in runs:
        run.join()
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".npy"]


def test_what_was_abandoned_is_removed_and_what_is_at_work_is_not(tmp_path: Path) -> None:
    for name in ("old", "busy", "new"):
        (tmp_path / f"{name}.partial").write_bytes(b"x")
        if name != "new":
            os.utime(tmp_path / f"{name}.partial", (0, 0))

    def decode(name: str) -> np.ndarray:
        return np.arange(4, dtype=np.uint8).reshape(1, 2, 2)

    with _locks.locked(tmp_path / "busy.lock"):
        _cache.cached(tmp_path, "key", ["0"], lambda some: (decode(name) for name in some))
    assert {file.name for file in tmp_path.glob("*.partial")} == {"busy.partial", "new.partial"}


SMALL = (
    "--backbones=[{name: mlp, label: mlp, widths: [8]}]",
    "--pruners=[magnitude]",
    "--ratios=[1, 2]",
    "--aggregators=[log_pool]",
    "--dense.epochs=1",
    "--retrain.epochs=1",
    "--evaluation.partitions=4",
    "--sweet_spot.replicates=5",
    "--adaptive.rules=[]",
    "--margin.epsilons=[]",
    "--latency.batches=[1]",
    "--latency.seconds=0.001",
    "--tracking=none",
)


def prepared(path: Path, *more: str) -> grid.Grid:
    arguments = (*SMALL, f"--data={{name: imagefolder, path: {path}, groups: 'level:1'}}", *more)
    return grid.prepare(parse([*arguments, f"--data_root={path.parent / 'root'}"])[0])


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    """Groups of 2 to 7 images."""
    sizes = {"train": (7, 6, 5, 4, 7, 6, 5, 2), "val": (5, 6, 3), "test": (6, 7, 3, 5)}
    names = [
        f"{side}/{label}/{side}{track}/{index}.png"
        for side, tracks in sizes.items()
        for label in ("cat", "dog")
        for track, size in enumerate(tracks)
        for index in range(size)
    ]
    return written(tmp_path / "tracks", names)


GROUPED = ("--evaluation.protocols=[iid, grouped]", "--evaluation.n=[1, 2, 4]")


def test_groups_smaller_than_n_are_dropped_and_counted_or_an_error(tracks: Path) -> None:
    planned = prepared(tracks, *GROUPED)
    assert survey.dropped(planned)["test"] == {"1": 0, "2": 0, "4": 2}
    (line,) = [line for line in survey.remarks(planned) if line.startswith("groups with")]
    assert line.startswith("groups with fewer than 4 images count at every n that they reach (")
    left_out = [*GROUPED, "--evaluation.groups_smaller_than_n=drop"]
    (other,) = [line for line in survey.remarks(prepared(tracks, *left_out)) if line.startswith("groups with")]
    assert other.startswith("groups with fewer than 4 images have no tuples, but of `iid` (")
    assert "validation 2 of 6 (2 with fewer than 4); test 2 of 8 (2 with fewer than 4)" in line
    drawn = planned.data.tuples("test", "grouped", 4, 4, 0)
    assert drawn.weights.sum(1).tolist() == pytest.approx([1] * 4)
    counted = clusters(planned.data, "test", "grouped", drawn)
    assert counted is not None
    assert len(counted.unique()) == 6  # intervals are over the groups that scores come from
    message = "got [23] in group '.*/.*' of class '.*'; use n <= [23], .*groups_smaller_than_n to keep or drop"
    with pytest.raises(DataError, match=message):
        prepared(tracks, *GROUPED, "--evaluation.groups_smaller_than_n=error")


def test_classes_smaller_than_n_are_an_error_or_leave_the_experiment(tracks: Path) -> None:
    names = [
        f"{side}/eel/{side}{track}/{index}.png"
        for side in ("train", "val", "test")
        for track in (0, 1)
        for index in "01"
    ]
    for index, name in enumerate(names):
        (tracks / name).parent.mkdir(parents=True, exist_ok=True)
        (tracks / name).write_bytes(picture(1000 + index))
    with pytest.raises(DataError, match="at least n = 4 instances, got 2 in class 'eel'"):
        prepared(tracks, "--evaluation.n=[1, 4]")
    planned = prepared(tracks, "--evaluation.n=[1, 4]", "--evaluation.classes_smaller_than_n=drop")
    assert planned.data.dataset.class_names == ("cat", "dog")
    assert planned.data.prior.tolist() == [0.5, 0.5]
    assert all(set(planned.data.labels(role).tolist()) == {0, 1} for role in planned.data.splits)
    assert any(line.startswith("left out 1 classes without a tuple of n = 4: eel") for line in survey.remarks(planned))
    with pytest.raises(
        DataError, match="expected two classes or more with n = 20 instances in every split, got 0 of 3"
    ):
        prepared(tracks, "--evaluation.n=[20]", "--evaluation.classes_smaller_than_n=drop")


def test_copies_in_two_splits_and_in_two_classes_are_reported_or_an_error(tracks: Path) -> None:
    assert not [line for line in survey.remarks(prepared(tracks, "--evaluation.n=[1]")) if "copies" in line]
    shutil.copy(tracks / "train/cat/train0/0.png", tracks / "test/cat/test0/copy.png")
    shutil.copy(tracks / "test/cat/test0/1.png", tracks / "test/dog/test1/copy.png")
    lines = [line for line in survey.remarks(prepared(tracks, "--evaluation.n=[1]")) if "copies" in line]
    assert lines[0].endswith("and test, such as 'train/cat/train0/0.png' and 'test/cat/test0/copy.png'")
    assert lines[0].startswith("exact copies of images in two splits: 1 in ")
    assert lines[1] == (
        "exact copies of images in two classes: 1, such as 'test/cat/test0/1.png' and 'test/dog/test1/copy.png'"
    )
    with pytest.raises(DataError, match=r"split\.leaks: expected no image twice .* or set split\.leaks to warn"):
        prepared(tracks, "--evaluation.n=[1]", "--split.leaks=error")


def test_validation_folders_are_the_role_validation_and_train_alone_is_split(tracks: Path) -> None:
    data = prepared(tracks, "--evaluation.n=[1]", "--split.limit=0").data
    names = data.dataset.instance_names
    assert names is not None
    sides = {role: {names[index].split("/")[0] for index in indices} for role, indices in data.splits.items()}
    assert sides == {"backbone": {"train"}, "aggregator": {"train"}, "validation": {"val"}, "test": {"test"}}
    assert sum(len(indices) for indices in data.splits.values()) == len(data.dataset.labels)
    assert len(data.splits["backbone"]) > len(data.splits["aggregator"])


def test_a_run_prints_and_stores_what_the_data_are(tracks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tracks / "test/cat/test0/0.png").write_bytes(b"x")
    (tracks / "readme.md").write_bytes(b"x")
    data = f"--data={{name: imagefolder, path: {tracks}, groups: 'level:1', on_bad_image: skip}}"
    arguments = [*SMALL, *GROUPED, data, f"--data_root={tracks.parent / 'root'}", f"--output={tracks.parent / 'runs'}"]
    assert train.main([*arguments, "--name=pets"]) == 0
    printed = capsys.readouterr()
    line = "images: backbone 52 of 10 groups, aggregator 32 of 6 groups, validation 28 of 6 groups, test 41 of 8 groups"
    assert line in printed.out.splitlines()
    warnings = [line for line in printed.out.splitlines() if line.startswith("warning: ")]
    for start in (
        "warning: left out a file that is no image by its name: 'readme.md'",
        "warning: skipped 1 files that cannot be read as images: expected an image in 'test/cat/test0/0.png', got",
        "warning: groups with fewer than 4 images count at every n that they reach (",
        "warning: test has fewer than 50 images of 2 of 2 classes ('cat' 20, 'dog' 21): read",
        "warning: test has fewer than 10 groups of 2 of 2 classes ('cat' 4, 'dog' 4): read",
    ):
        assert [line for line in warnings if line.startswith(start)], start
    facts = read(tracks.parent / "runs/pets").dataset
    assert len(facts.remarks) == len(warnings)
    assert [name for name, _ in facts.skipped] == ["test/cat/test0/0.png"]
    assert facts.dropped["test"] == {"1": 0, "2": 0, "4": 2}
    assert [(count.images, count.groups) for count in facts.counts if count.split == "test"] == [(20, 4), (21, 4)]
    page = (tracks.parent / "runs/pets/report.html").read_text()
    assert '<th scope="row">cat</th><td>' in page
    assert "<td>20 (4)</td>" in page


def test_a_validation_folder_that_is_the_test_set_is_named(tmp_path: Path) -> None:
    root = written(
        tmp_path / "pets",
        [f"{side}/{pet}/{n}.png" for side in ("train", "val") for pet in ("cat", "dog") for n in range(3)],
    )
    assert load(root).remarks == ("the folder 'val' is the test set, since there is no other",)


@pytest.mark.parametrize("table", ["sep=;\npath;group\n{rows}", "path|group\n{rows}"])
def test_tables_of_excel_and_with_bars(pets: Path, table: str) -> None:
    separator = ";" if "sep" in table else "|"
    names = [path.relative_to(pets).as_posix() for path in sorted(pets.rglob("*.png"))]
    rows = "\n".join(f"{name}{separator}{name[0]}" for name in names)
    (pets / "groups.csv").write_text(table.format(rows=rows))
    assert load(pets, groups="groups.csv").group_names == tuple(sorted({name[0] for name in names}))
