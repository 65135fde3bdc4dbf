"""What is shipped: the wheel, configurations by name, metadata, images, and the community's files."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import sharedlabel
from sharedlabel import config
from sharedlabel.api.run import experiment_of
from sharedlabel.config import named
from sharedlabel.errors import ConfigError
from tools import _page, dockerfile, matrix

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STAGES = dockerfile.stages(ROOT / "docker" / "Dockerfile")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
IMAGES = ("cpu", "gpu", "sandbox", "develop")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from a copy, since building writes into the folder."""
    folder = tmp_path_factory.mktemp("package")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("sharedlabel", "configs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "sharedlabel").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    files |= {f"sharedlabel/configs/{path.name}" for path in (ROOT / "configs").iterdir()}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files


def test_the_wheel_says_what_it_is(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    told = Parser().parsestr(wheel.read(name).decode())
    assert (told["Name"], told["Version"]) == ("sharedlabel", sharedlabel.__version__)
    assert told["License-Expression"] == "MIT"
    assert told.get_all("License-File") == ["LICENSE"]
    assert told["Author"] == "The sharedlabel authors"
    supported = {one.rpartition(" ")[2] for one in told.get_all("Classifier") if re.search(r"Python :: 3\.\d+$", one)}
    assert supported == set(matrix.PYTHONS)
    assert told.get_payload().startswith("# sharedlabel")


def test_a_configuration_of_the_package_is_named_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fsdd").mkdir()
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == set(named.names())
    for name in ("mnist", "fsdd"):
        assert config.parse([f"--config={name}"])[0].name == name
    assert experiment_of("cifar10").name == "cifar10"


def test_a_file_comes_before_a_configuration_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mnist").write_text("name: mine\n")
    assert config.parse(["--config", "mnist"])[0].name == "mine"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mnits", "or a configuration of the package, got 'mnits'; did you mean 'mnist'?"),
        ("configs/mnist.yaml", "check the path, or take the one of the package with --config mnist$"),
        ("configs/mine.yaml", "got: No such file or directory; check the path$"),
        ("folder", "expected a YAML file at folder, got none; check the path"),
    ],
)  # fmt: skip
def test_a_configuration_that_there_is_not_is_one_sentence(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match=message):
        config.parse(["--config", given])


def test_the_version_and_the_licence_are_the_same_everywhere():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == sharedlabel.__version__ == str(cited["version"])
    assert PROJECT["license"] == cited["license"] == "MIT"
    assert {"cff-version", "message", "title", "type", "authors"} <= set(cited)
    assert cited["authors"] == PROJECT["authors"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    example = tomllib.loads((ROOT / "examples" / "plugin" / "pyproject.toml").read_text())["project"]
    assert example["license"] == "MIT"


def test_all_extras_of_users_are_in_one():
    extras = PROJECT["optional-dependencies"]
    for name in set(extras) - {"all", "dev", "docs"}:
        for requirement in extras[name]:
            assert requirement in matrix.dependencies(extras=True).values(), name


@pytest.mark.parametrize("name", IMAGES)
def test_what_an_image_copies_is_there(name):
    ignored = (ROOT / ".dockerignore").read_text().split()
    for stage in STAGES.values():
        for kind, rest in stage.steps:
            copy = dockerfile.copied(rest) if kind == "COPY" else None
            assert copy is None or not copy.stage or copy.stage in STAGES
            if copy is not None and not copy.stage:
                for source in copy.sources:
                    assert (ROOT / source).exists(), source
                    assert source not in ignored
    assert name in STAGES


def test_the_services_of_compose_are_images_of_the_dockerfile():
    services = COMPOSE["services"]
    assert set(services) == {"train", "train-gpu", "sandbox", "docs"}
    for service in services.values():
        assert service["build"]["dockerfile"] == "docker/Dockerfile"
        assert service["build"]["target"] in STAGES
    named_volumes = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {volume for volume in named_volumes if not volume.startswith(".")} == set(COMPOSE["volumes"])


def test_the_sandbox_has_no_network_no_rights_and_nothing_to_write_to():
    sandbox = COMPOSE["services"]["sandbox"]
    assert sandbox["network_mode"] == "none"
    assert sandbox["read_only"] is True
    assert sandbox["cap_drop"] == ["ALL"]
    assert sandbox["volumes"] == ["./sharedlabel:/library/sharedlabel:ro"]
    assert dockerfile.last(STAGES, "sandbox", "USER") == "65534:65534"


def test_the_dev_container_is_an_image_of_the_dockerfile():
    described = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    place = (ROOT / ".devcontainer" / described["build"]["dockerfile"]).resolve()
    assert (place, described["build"]["target"]) == (ROOT / "docker" / "Dockerfile", "develop")
    assert f"useradd --uid 1000 --create-home {described['remoteUser']}" in " ".join(
        rest for _, rest in STAGES["develop"].steps
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_ask_for_what_helps(path):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(form)
    identifiers = [part["id"] for part in form["body"]]
    assert len(identifiers) == len(set(identifiers))
    for part in form["body"]:
        assert part["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert part["attributes"]["label"]
        assert part["validations"] == {"required": True}


def test_examples_of_the_tools_run():
    for module in (dockerfile, matrix, _page):
        failed, tried = doctest.testmod(module)
        assert failed == 0
        assert tried


def test_a_stage_ends_with_what_its_bases_say(tmp_path):
    file = tmp_path / "Dockerfile"
    file.write_text('FROM debian AS one\nUSER 1:1\nENTRYPOINT ["a"]\nFROM one AS two\nWORKDIR /b\nCMD ["c", "d"]\n')
    stages = dockerfile.stages(file)
    assert dockerfile.last(stages, "two", "USER") == "1:1"
    assert dockerfile.last(stages, "one", "WORKDIR") == ""
    assert dockerfile.started(stages, "two") == ["a", "c", "d"]


def test_a_stage_without_a_name_is_refused(tmp_path):
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian\n")
    with pytest.raises(ValueError, match="expected FROM BASE AS NAME, each name once, got FROM debian"):
        dockerfile.stages(file)


def test_the_matrix_shows_what_failed_beside_what_went_well():
    good = matrix.Environment("3.11.7", "oldest", {"torch": "2.11.0"}, 5.04, {"sharedlabel train": "ok"})
    bad = matrix.Environment("3.13.0", "newest", {}, 0.0, {"sharedlabel train": "exit code 2: error: a | b"})
    text = "\n".join(matrix.page([good, bad], "one.whl"))
    assert "| installed | 3.11.7, oldest | 3.13.0, newest |" in text
    assert "| `torch>=2.11` | 2.11.0 | - |" in text
    assert "| size without extras | 5.0 GB | 0.0 GB |" in text
    assert "| `sharedlabel train` | ok | exit code 2: error: a / b |" in text
