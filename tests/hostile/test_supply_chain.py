"""What installs and runs this project is named by content, not by names that somebody else can move."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tools import dockerfile

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-tools.lock")
DOCKERFILE = ROOT / "docker" / "Dockerfile"
STAGES = dockerfile.stages(DOCKERFILE)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))


def steps(tree):
    """Yield every mapping in a workflow that uses an action."""
    if isinstance(tree, dict):
        if "uses" in tree:
            yield tree
        for inner in tree.values():
            yield from steps(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from steps(inner)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_say_their_version(path):
    text = path.read_text()
    used = [step["uses"] for step in steps(yaml.safe_load(text))]
    assert used
    for name in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", name), name
        assert re.search(rf"uses: {re.escape(name)} # v\d+\.\d+\.\d+$", text, re.MULTILINE), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_can_only_read(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_images_start_from_one_digest():
    bases = {stage.base for stage in STAGES.values()} - set(STAGES)
    assert len(bases) == 1
    assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", bases.pop())
    assert not [rest for stage in STAGES.values() for kind, rest in stage.steps if kind == "ADD"]


@pytest.mark.parametrize("name", ["cpu", "gpu", "sandbox", "develop"])
def test_images_run_as_nobody_special(name):
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dockerfile.last(STAGES, name, "USER"))


def test_the_image_has_the_folders_that_a_run_writes():
    (line,) = [rest for kind, rest in STAGES["runtime"].steps if kind == "RUN"]
    folders = "/home/sharedlabel /sharedlabel/runs /sharedlabel/data"
    assert re.search(rf"--owner sharedlabel .* {folders}$", line)


@pytest.mark.parametrize("path", [DOCKERFILE, ROOT / "Makefile"], ids=lambda path: path.name)
def test_everything_is_installed_with_hashes(path):
    text = re.sub(r"\\\n", " ", path.read_text())
    installs = re.findall(r"pip install ([^&\n]*)", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE))
    assert installs
    for options in installs:
        hashed = "--require-hashes -r requirements" in options
        locked = re.search(r"--constraint (requirements|others)\.lock --requirement pyproject\.toml", options)
        own = "--no-deps" in options and options.split()[-1] in {".", "dist/*.whl"}
        # PyTorch's builds without CUDA are on its own index alone: the lock has their versions, not their hashes.
        torch = "--no-deps --torch-backend cpu --requirement torch.txt" in options
        assert hashed or locked or own or torch, options


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_its_version_and_hashes(name):
    entries = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    assert entries
    for entry in filter(None, entries):
        assert re.match(r"[a-z0-9._-]+==[^\s;]+( ; [^-]+?)?\s+--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


def versions(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE))


def test_lock_files_agree_so_that_one_environment_holds_them_all():
    main = versions("requirements.lock")
    for name in LOCKS[1:]:
        for package, version in versions(name).items():
            assert main.get(package, version) == version, (name, package)


def test_what_builds_the_package_is_locked():
    import tomllib

    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=~! ]", one)[0] for one in needed} <= set(versions("requirements-build.lock"))
