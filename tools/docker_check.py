"""`python -m tools.docker_check`: carry out the Dockerfile without an engine, in folders made by debootstrap.

Every stage gets a root of its own. The base image is stood in for by Debian and the Python that runs this; COPY and RUN
of the Dockerfile are carried out as they stand, RUN by chroot with the variables, the folder and the user that the
Dockerfile says. At the end each image does what it is for. `make docker-check` writes what comes of it into
`docs/results/docker.md`. It needs root, debootstrap, the network, and 25 GB of a disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools import dockerfile
from tools._page import ROOT, done, gigabytes, machine, run, table, today
from tools.dockerfile import Stage

# What the image of Python has besides Debian's smallest system: certificates, and libraries that Python is linked to.
_PACKAGES = (
    "ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,zlib1g"
)
# What pip installs lies beside Python, which has a folder of its own here.
_SYSTEM_PATH = f"/usr/local/sbin:/usr/local/bin:{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What this machine needs to reach its registries; images have none of it.
_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
_PASSED = ("_proxy", "_CERT", "_CERT_FILE", "_CERT_DIR", "_CA_BUNDLE", "_INDEX_URL", "_DEFAULT_INDEX", "_TIMEOUT")
_TORCH = "--torch-backend cpu "
# What an image is for, as a command of its own user, without network.
PROBES = {
    "gpu": (),
    "cpu": (),
    "sandbox": (
        "python -c 'import pytorch_lightning, sklearn, torch'",
        "test ! -e /opt/sharedlabel/lib/python3*/site-packages/sklearn/datasets/data",
    ),
    "develop": ("bwrap --version && chromium --version && git --version && make --version", "touch .venv/written"),
}  # what `gpu` and `cpu` are for is what they start


@dataclass
class Outcome:
    """What came of one step.

    Attributes:
        stage: its name.
        what: the instruction.
        code: exit code.
        seconds: on the clock of the wall.
        printed: all that it printed.
    """

    stage: str
    what: str
    code: int
    seconds: float
    printed: str


@dataclass
class Builder:
    """Roots of stages in a folder.

    Args:
        folder: holds a root for each stage.
        found: the stages.
        without_torch_index: leave `--torch-backend cpu` out, where PyTorch's own index cannot be reached.
    """

    folder: Path
    found: Mapping[str, Stage]
    without_torch_index: bool
    outcomes: list[Outcome] = field(default_factory=list)
    seen: dict[str, Stage] = field(default_factory=dict)  # the stages as far as they were carried out

    def root(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.folder / name

    def build(self, name: str) -> None:
        """Build a stage, and first those that it needs.

        Raises:
            RuntimeError: a step failed.
        """
        if self.root(name).exists():
            return
        stage = self.found[name]
        if stage.base in self.found:
            self.build(stage.base)
            done(["cp", "--archive", str(self.root(stage.base)), str(self.root(name))])
        else:
            self._base(self.root(name), stage)
        self.seen[name] = Stage(name, stage.base)
        for kind, rest in stage.steps:
            if kind == "COPY":
                self._copy(name, rest)
            elif kind == "RUN":
                self._run(name, rest)
            self.seen[name].steps.append((kind, rest))

    def probe(self, name: str, commands: Sequence[str]) -> None:
        """Run what an image is for, without network."""
        for command in commands:
            self._record(name, f"`{command}`", self._entered(name, command, network=False))

    def _base(self, root: Path, stage: Stage) -> None:
        """Make the root that stands in for the base image."""
        suite = done(["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"]).strip()
        self._check_python(stage.base)
        start = time.monotonic()
        finished = run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root)])
        python = Path(sys.base_prefix)
        for file in (*_NETWORK, "/etc/apt/sources.list.d", "/etc/apt/apt.conf.d"):
            if Path(file).exists():
                done(["cp", "--archive", "--dereference", "--force", file, str((root / file[1:]).parent)])
        (root / str(python)[1:]).parent.mkdir(parents=True, exist_ok=True)
        done(["cp", "--archive", str(python), str(root / str(python)[1:])])
        for program in ("python", "python3", "pip"):
            (root / "usr/local/bin" / program).symlink_to(python / "bin" / program)
        for above in python.parents:  # the image's user reads it
            (root / str(above)[1:]).chmod(0o755)
        took = time.monotonic() - start
        self.outcomes.append(Outcome(stage.name, f"FROM {stage.base}", finished.returncode, took, finished.stdout))
        self._stop_at(self.outcomes[-1])

    def _check_python(self, image: str) -> None:
        """Refuse another Python than that of the base image, and one that lies among the system's files."""
        version = ".".join(map(str, sys.version_info[:2]))
        if not image.startswith(f"python:{version}-") or sys.base_prefix == "/usr":
            raise RuntimeError(
                f"expected the Python of {image.partition('@')[0]} in a folder of its own, as pyenv has it, got "
                f"{version} in {sys.base_prefix}; run this with such a one"
            )

    def _copy(self, name: str, rest: str) -> None:
        """Copy from the checkout, or from another stage, whose files are linked: they are not changed in place."""
        copy = dockerfile.copied(rest)
        if copy.stage:
            self.build(copy.stage)
        start = time.monotonic()
        target = self.root(name) / os.path.join(self._folder(name), copy.target)[1:]
        for source in copy.sources:
            origin = self.root(copy.stage) / source[1:] if copy.stage else ROOT / source
            into = target / origin.name if copy.target.endswith("/") and origin.is_file() else target
            into.parent.mkdir(parents=True, exist_ok=True)
            how = ["--archive", "--link"] if copy.stage else ["--recursive", "--no-dereference", "--preserve=mode"]
            done(["cp", "--no-target-directory", *how, str(origin), str(into)])
        self.outcomes.append(Outcome(name, f"`COPY {rest}`", 0, time.monotonic() - start, ""))

    def _run(self, name: str, rest: str) -> None:
        left_out = self.without_torch_index and _TORCH in rest
        note = f" (without `{_TORCH.strip()}`)" if left_out else ""
        command = rest.replace(_TORCH, "") if left_out else rest
        self._record(name, f"`RUN {rest}`{note}", self._entered(name, command, network=True))

    def _record(self, name: str, what: str, ended: tuple[int, float, str]) -> None:
        self.outcomes.append(Outcome(name, what, *ended))
        print(f"{name}: {what}: exit code {ended[0]}, {ended[1]:.0f} s", file=sys.stderr, flush=True)
        self._stop_at(self.outcomes[-1])

    def _entered(self, name: str, command: str, *, network: bool) -> tuple[int, float, str]:
        """Run a command in a root, as the Dockerfile says; return its exit code, seconds and what it printed."""
        root = self.root(name)
        user = dockerfile.last(self.seen, name, "USER") or "0:0"
        known = self._variables(name) | (_passed() if network else {})
        given = [f"{key}={value}" for key, value in known.items()]
        inside = 'mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; shift; exec "$@"'
        spaces = ["unshare", "--mount", "--pid", "--fork", *([] if network else ["--net"])]
        enter = ["chroot", f"--userspec={user}", str(root), "/usr/bin/env", "-i", "-C", self._folder(name), *given]
        start = time.monotonic()
        finished = run([*spaces, "sh", "-ec", inside, "sh", str(root), *enter, "/bin/sh", "-c", command])
        return finished.returncode, time.monotonic() - start, finished.stdout

    def _variables(self, name: str) -> dict[str, str]:
        known = {"PATH": _SYSTEM_PATH, "LANG": "C.UTF-8"}
        for stage in dockerfile.chain(self.seen, name):
            for kind, rest in stage.steps:
                known = dockerfile.variables(rest, known) if kind == "ENV" else known
        return known

    def _folder(self, name: str) -> str:
        """Return the working folder; as by an engine, it is made where it is not there."""
        folder = dockerfile.last(self.seen, name, "WORKDIR") or "/"
        (self.root(name) / folder[1:]).mkdir(parents=True, exist_ok=True)
        return folder

    def _stop_at(self, outcome: Outcome) -> None:
        if outcome.code:
            raise RuntimeError(f"{outcome.stage}: {outcome.what}: exit code {outcome.code}\n{outcome.printed}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 if a step failed, which is printed."""
    options = _parser().parse_args(arguments)
    found = dockerfile.stages(ROOT / "docker" / "Dockerfile")
    folder = Path(tempfile.mkdtemp(prefix="docker-check-", dir=options.folder))
    folder.chmod(0o755)  # users of images pass through it
    builder = Builder(folder, found, options.without_torch_index)
    try:
        for name in options.target:
            builder.build(name)
            start = dockerfile.started(found, name)
            builder.probe(name, PROBES[name] or (" ".join(start),))
        print("\n".join(page(builder, options.target)))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.docker_check", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--target", nargs="+", choices=PROBES, default=tuple(PROBES), help="images (default: all)")
    parser.add_argument(
        "--without-torch-index", action="store_true", help="PyTorch's own index cannot be reached: take PyPI's PyTorch"
    )
    parser.add_argument("--folder", type=Path, help="where roots are made (default: the temporary folder)")
    return parser


def _passed() -> dict[str, str]:
    """Return the variables that tell package clients of this machine how to reach their registries."""
    return {name: value for name, value in os.environ.items() if name.endswith(_PASSED)}


def page(builder: Builder, targets: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# The Dockerfile without an engine"
    yield ""
    yield f"Written by `make docker-check` ({today()}; {machine()}; Python {sys.version.split()[0]})."
    yield ""
    yield "The base image is stood in for by debootstrap's smallest Debian and a Python of the same minor version. All"
    yield "else is carried out as it stands in [docker/Dockerfile](../../docker/Dockerfile), by chroot, as the user it"
    yield "names; what an image is for runs last, without network. Others used the machine meanwhile."
    yield ""
    rows = [[one.stage, one.what.replace("|", "\\|"), f"{one.seconds:.0f} s"] for one in builder.outcomes]
    yield from table(["stage", "step", "took"], rows)
    yield ""
    yield "What the images hold:"
    yield ""
    sizes = [[name, f"{gigabytes(builder.root(name)):.2f} GB"] for name in targets]
    yield from table(["image", "size on disk"], sizes)
    if builder.without_torch_index:
        yield ""
        yield "PyTorch's own index was not reached: `cpu` holds PyPI's PyTorch here, with CUDA's libraries, and is"
        yield "smaller where it is built with that index."


if __name__ == "__main__":
    sys.exit(main())
