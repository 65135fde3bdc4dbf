"""Where submitted code runs: a process without network, files, environment or a view of any other process.

`bwrap` (bubblewrap, Linux) is the default, a container the alternative; `trusted` runs without either, for code of
one's own. The process gets its job on standard input and answers on standard output; nothing else leaves it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import selectors
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import PositiveInt

from sharedlabel.errors import ConfigError, SharedLabelError, printable
from sharedlabel.leaderboard.schema import Strict

Kind: TypeAlias = Literal["bwrap", "docker", "podman", "trusted"]
KINDS: tuple[Kind, ...] = ("bwrap", "docker", "podman", "trusted")
IMAGE = "sharedlabel-sandbox"
LIBRARY, SUBMISSION = "/library", "/submission"  # where the package and the submission lie inside
_PROGRAM = "sharedlabel.leaderboard.child"
HELLO = b"hello"  # says the program before it reads anything
_NUMBERS = itertools.count()
_running: set[Process] = set()
_POLL_SECONDS = 0.05
_PROBE_SECONDS = 60
_BLOCK = 1 << 16
# What is shown of the environment, with what these need: others bring data sets and their labels, or take seconds to
# import where an optional library is found.
_LIBRARIES = (
    "docstring-parser",
    "jaxtyping",
    "numpy",
    "pydantic",
    "pytorch-lightning",
    "pyyaml",
    "safetensors",
    "scipy",
    "torch",
)


class Limits(Strict):
    """What one process in the sandbox may use.

    Attributes:
        seconds: wall-clock time of training and prediction together.
        memory_mb: resident memory, in MB.
        processes: processes and threads.
        disk_mb: files in its temporary folder, in MB.
        log_kb: what it may print, in kB; more ends the run.
    """

    seconds: PositiveInt
    memory_mb: PositiveInt
    processes: PositiveInt
    disk_mb: PositiveInt
    log_kb: PositiveInt


class SandboxError(SharedLabelError):
    """A submission that did not do what was asked of it within its limits."""


def choose(kind: str | None) -> Kind:
    """Return the sandbox to use: the one asked for, else the first that this system has.

    Raises:
        ConfigError: there is none of the kind, or none at all.
    """
    if kind == "trusted":
        return "trusted"
    asked = (kind,) if kind else ("bwrap", "docker", "podman")
    unusables = {}
    for name in asked:
        why = unusable(name)
        if why is None and name in KINDS:
            return name
        unusables[name] = why
    found = "; ".join(f"{name}: {why}" for name, why in unusables.items())
    raise ConfigError(
        f"expected a sandbox to run submitted code in, got none ({found}); install bubblewrap "
        "(apt install bubblewrap), or docker with the image of docker/sandbox.Dockerfile; code that you trust runs "
        "without one with --trust, and its row stays self-reported"
    )


def unusable(kind: str) -> str | None:
    """Say why a sandbox cannot be used on this system; None if it can."""
    if kind not in KINDS:
        return f"unknown; available: {', '.join(KINDS)}"
    if kind == "trusted":
        return None
    executable = shutil.which(kind)
    if executable is None:
        return "not installed"
    probe = [executable, "image", "inspect", IMAGE]
    if kind == "bwrap":
        probe = [executable, "--unshare-all", "--ro-bind", "/", "/", "--", sys.executable, "-c", ""]
    try:
        tried = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not answering within {_PROBE_SECONDS} s"
    return None if tried.returncode == 0 else " ".join(tried.stderr.split()) or f"exit code {tried.returncode}"


class Process:
    """A process in a sandbox.

    Args:
        kind: of the sandbox.
        submission: folder with the code; the only thing of the submission that is visible inside.
        limits: what it may use; its time counts from here.
        threads: that torch computes with.

    The context manager starts it, and kills everything in it at the end.
    """

    def __init__(self, kind: Kind, submission: Path, limits: Limits, threads: int = 1) -> None:
        self.kind, self.submission, self.limits, self.threads = kind, submission, limits, threads
        self.log = b""
        self._name = f"{IMAGE}-{os.getpid()}-{next(_NUMBERS)}"
        self._ended = ""

    def __enter__(self) -> Process:
        self._deadline = time.monotonic() + self.limits.seconds
        # Its own environment would be readable inside, in /proc of the process that starts it.
        self._process = subprocess.Popen(
            command(self.kind, self.submission, self.limits, self.threads, self._name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(self.kind, self.threads) if self.kind in ("bwrap", "trusted") else None,
            cwd=self.submission,  # podman leaves a file where it was started when memory ran out
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # one that does not read must not hold us
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._reading = threading.Thread(target=self._read_log, daemon=True)
        self._watching.start()
        self._reading.start()
        _running.add(self)
        try:
            self.receive(len(HELLO))
        except SandboxError as error:  # nothing of a submission has run yet
            self._close()
            raise ConfigError(f"expected {self.kind} to start a process, got: {error}; repair the sandbox") from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        _running.discard(self)
        self.stop()
        self._process.wait()
        self._reading.join()
        self._watching.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def send(self, content: bytes) -> None:
        """Write a message: its length in eight bytes, then the content.

        Raises:
            SandboxError: the process ended, or ran out of time.
        """
        stream = self._process.stdin
        assert stream is not None
        message, done = memoryview(len(content).to_bytes(8, "little") + content), 0
        with self._ready(stream.fileno(), selectors.EVENT_WRITE) as wait:
            while done < len(message):
                wait()
                try:
                    done += os.write(stream.fileno(), message[done : done + _BLOCK])
                except BlockingIOError:  # less room than a block
                    continue
                except BrokenPipeError as error:
                    raise self._failure() from error

    def receive(self, size: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            SandboxError: the process ended, ran out of time, or broke a limit.
        """
        stream = self._process.stdout
        assert stream is not None
        parts, left = [], size
        with self._ready(stream.fileno(), selectors.EVENT_READ) as wait:
            while left:
                wait()
                part = os.read(stream.fileno(), min(left, _BLOCK))
                if not part:
                    raise self._failure()
                parts.append(part)
                left -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Close its input and wait for its end.

        Raises:
            SandboxError: it failed, wrote more than it was asked for, or did not end in time.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        stream = self._process.stdout
        assert stream is not None
        with self._ready(stream.fileno(), selectors.EVENT_READ) as wait:
            wait()
            if os.read(stream.fileno(), 1):
                raise SandboxError("expected nothing after the last posterior, got more output; only return posteriors")
        self._await()
        if self._process.returncode != 0:
            raise self._failure()

    @contextlib.contextmanager
    def _ready(self, descriptor: int, event: int) -> Iterator[Callable[[], None]]:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)

            def wait() -> None:
                left = self._deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self._late()
                    raise self._failure()

            yield wait

    def _late(self) -> None:
        self._kill(f"expected an end within {self.limits.seconds} s, got none; train for fewer steps")

    def _await(self) -> None:
        """Wait for its end, and bring it about when its time is over."""
        try:
            self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._late()
            self._process.wait()

    def _failure(self) -> SandboxError:
        """Return what went wrong; called when the process has ended or has to."""
        self._await()
        self._reading.join()
        last = [line for line in self.log.decode(errors="replace").splitlines() if line.strip()]
        code = self._process.returncode
        said = f": {printable(last[-1].strip(), 300)}" if last else ""
        return SandboxError(self._ended or f"the process ended with code {code}{said}")

    def stop(self) -> None:
        """Kill everything in it."""
        self._kill("it was stopped")

    def _kill(self, why: str) -> None:
        if self._process.poll() is None:
            self._ended = self._ended or why
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self.kind in ("docker", "podman"):
            subprocess.run([self.kind, "kill", self._name], capture_output=True, check=False)

    def _read_log(self) -> None:
        """Keep what it prints up to the limit; kill it beyond."""
        stream = self._process.stderr
        assert stream is not None
        limit = self.limits.log_kb * 1000
        while block := os.read(stream.fileno(), _BLOCK):
            if len(self.log) + len(block) > limit:
                self._kill(f"expected at most {self.limits.log_kb} kB of output, got more; print less")
            self.log += block[: limit - len(self.log)]

    def _watch(self) -> None:
        """Kill it when its processes together pass a limit that the kernel does not hold for each."""
        while self._process.poll() is None:
            tree = _descendants(self._process.pid)
            if time.monotonic() > self._deadline:
                self._late()
            memory, tasks = sum(_resident(pid) for pid in tree), sum(_tasks(pid) for pid in tree)
            if memory > self.limits.memory_mb * 1e6:
                self._kill(f"expected at most {self.limits.memory_mb} MB of memory, got more; use less")
            if tasks > self.limits.processes:
                self._kill(f"expected at most {self.limits.processes} processes and threads, got {tasks}; start fewer")
            time.sleep(_POLL_SECONDS)


def stop() -> None:
    """Kill everything that runs in a sandbox of this process."""
    for process in tuple(_running):
        process.stop()


def keep_apart(kind: Kind, board: Path) -> None:
    """Refuse a board, which holds the answers, in a folder that a sandbox shows.

    Raises:
        ConfigError: says which folder it has to leave.
    """
    for folder in map(Path, ("/usr", *_prefixes())) if kind == "bwrap" else ():
        if board.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"expected the leaderboard outside of {folder}, which the sandbox shows with all it holds, got "
                f"{board}; keep the checkout and the environment apart"
            )


def _prefixes() -> tuple[str, ...]:
    """Return the folders of Python and of the environment."""
    return tuple(dict.fromkeys((sys.base_prefix, sys.prefix)))


def command(kind: Kind, submission: Path, limits: Limits, threads: int, name: str) -> list[str]:
    """Return the command line that starts the program inside a sandbox.

    Args:
        kind: of the sandbox.
        submission: folder with the code.
        limits: what it may use.
        threads: that torch computes with.
        name: of the container.
    """
    package = Path(__file__).resolve().parent.parent
    start = f"from {_PROGRAM} import main; main()"
    program = ["-c", start, str(limits.memory_mb), str(limits.disk_mb)]
    if kind == "trusted":
        start = f"import sys; sys.path.insert(0, {str(package.parent)!r}); {start}"
        return [sys.executable, "-I", "-c", start, *program[2:], str(submission)]
    program.append(SUBMISSION)
    if kind == "bwrap":
        return [shutil.which(kind) or kind, *_view(package, submission, limits), "--", sys.executable, *program]
    options = {
        "name": name,
        "network": "none",
        "cap-drop": "ALL",
        "security-opt": "no-new-privileges",
        "user": "65534:65534",
        "pids-limit": limits.processes,
        "memory": f"{limits.memory_mb}m",
        "memory-swap": f"{limits.memory_mb}m",
        "tmpfs": f"/tmp:size={limits.disk_mb}m",
        "pull": "never",
        "log-driver": "none",
    }
    given = [f"--{option}={value}" for option, value in options.items()]
    given += [f"--env={name}={value}" for name, value in {"OMP_NUM_THREADS": threads, "PYTHONPATH": LIBRARY}.items()]
    shown = {package: f"{LIBRARY}/sharedlabel", submission.resolve(): SUBMISSION}
    given += [f"--volume={outside}:{inside}:ro" for outside, inside in shown.items()]
    return [
        shutil.which(kind) or kind,
        "run",
        "--rm",
        "--interactive",
        "--read-only",
        *given,
        IMAGE,
        "python",
        *program,
    ]


def _view(package: Path, submission: Path, limits: Limits) -> list[str]:
    """Return what bubblewrap shows: system libraries, Python, this package's code and one submission, all read-only."""
    disk = str(limits.disk_mb * 1_000_000)
    shown: list[str] = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    shown += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        path = Path(folder)
        if path.is_symlink():
            shown += ["--symlink", str(path.readlink()), folder]
        elif path.exists():
            shown += ["--ro-bind", folder, folder]
    for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"):
        shown += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    # Before what may lie below them: an environment in a temporary folder would be hidden by an empty one.
    shown += ["--proc", "/proc", "--dev", "/dev"]
    # Settings of the kernel belong to root, who runs the sandbox where root does; bubblewrap may leave them writable.
    for name in ("sys", "sysrq-trigger", "irq", "bus"):
        shown += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for folder in ("/tmp", "/dev/shm"):
        shown += ["--size", disk, "--tmpfs", folder]
    shown += ["--remount-ro", "/dev"]
    for prefix in _prefixes():
        if not Path(prefix).is_relative_to("/usr"):
            shown += ["--ro-bind", prefix, prefix]
    folders = [place for place in _library_folders() if place.is_dir()]
    for place in folders:
        shown += ["--tmpfs", str(place)]
    for library in _libraries():
        shown += ["--ro-bind", str(library), str(library)]
    for place in folders:
        shown += ["--remount-ro", str(place)]
    shown += ["--ro-bind", str(package), f"{LIBRARY}/sharedlabel"]
    shown += ["--ro-bind", str(submission.resolve()), SUBMISSION]
    return [*shown, "--chdir", "/tmp", "--remount-ro", "/"]


def _library_folders() -> list[Path]:
    """Return where libraries lie that Python finds, or would find, in what is shown."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    names = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    names += [f"{prefix}/lib/{version}/{kind}-packages" for prefix in _prefixes() for kind in ("site", "dist")]
    names += ["/usr/lib/python3/dist-packages", f"/usr/local/lib/{version}/dist-packages"]
    return list(dict.fromkeys(Path(name).resolve() for name in names))


@functools.cache
def _libraries() -> tuple[Path, ...]:
    """Return the files and folders of the libraries that are shown, those they need included.

    Raises:
        ConfigError: the environment does not know what belongs to one of them.
    """
    found: dict[str, None] = {}
    seen, rest = set[str](), list(_LIBRARIES)
    while rest:
        name = canonicalize_name(rest.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        if distribution.files is None:
            raise ConfigError(f"expected the list of files of {name} in its metadata, got none; install it with pip")
        tops = {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}
        found |= dict.fromkeys(str(distribution.locate_file(top)) for top in sorted(tops) if not top.endswith(".pth"))
        required = map(Requirement, distribution.requires or ())
        rest += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return tuple(path.resolve() for path in map(Path, found) if path.exists())


def _environment(kind: Kind, threads: int) -> dict[str, str]:
    """Return the only variables that the process has."""
    shown = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": str(threads)}
    shown |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"}
    return shown | ({"PYTHONPATH": LIBRARY} if kind == "bwrap" else {})


def _descendants(root: int) -> list[int]:
    """List a process and all that descend from it."""
    found, rest = [], [root]
    while rest:
        pid = rest.pop()
        found.append(pid)
        for task in _listed(Path(f"/proc/{pid}/task")):
            rest += [int(child) for child in _text(task / "children").split()]
    return found


def _tasks(pid: int) -> int:
    return len(_listed(Path(f"/proc/{pid}/task")))


def _resident(pid: int) -> int:
    """Return the bytes that a process holds alone or shared in memory, files it has mapped left out."""
    fields = dict(line.split(":", 1) for line in _text(Path(f"/proc/{pid}/status")).splitlines() if ":" in line)
    return sum(int(fields.get(name, "0 kB").split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it ended meanwhile
        return ()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""
