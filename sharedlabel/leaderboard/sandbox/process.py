"""A process in a sandbox, seen from outside: it gets its job on standard input and answers on standard output."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sharedlabel.errors import ConfigError, printable
from sharedlabel.leaderboard.sandbox.command import command, environment
from sharedlabel.leaderboard.sandbox.kinds import IMAGE
from sharedlabel.leaderboard.sandbox.limits import Kind, Limits, SandboxError
from sharedlabel.leaderboard.sandbox.usage import descendants, resident, threads

HELLO = b"hello"  # says the program before it reads anything
_NUMBERS = itertools.count()
_running: set[Process] = set()
_POLL_SECONDS = 0.05
_BLOCK = 1 << 16


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
            env=environment(self.kind, self.threads) if self.kind in ("bwrap", "trusted") else None,
            cwd=self.submission,  # podman leaves a file where it was started when memory ran out
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._watch, self._read_log)]
        try:
            _running.add(self)
            os.set_blocking(self._process.stdin.fileno(), False)  # one that does not read must not hold us
            for thread in self._threads:
                thread.start()
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
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()
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
        self._threads[-1].join()  # all that it has printed is read
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
                os.killpg(self._process.pid, signal.SIGSTOP)  # from here on it starts no process
            # Bubblewrap's child leaves the group before it is bound to die with its parent; this may lie between.
            for pid in descendants(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
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
            tree = descendants(self._process.pid)
            if time.monotonic() > self._deadline:
                self._late()
            memory, tasks = sum(resident(pid) for pid in tree), sum(threads(pid) for pid in tree)
            if memory > self.limits.memory_mb * 1e6:
                self._kill(f"expected at most {self.limits.memory_mb} MB of memory, got more; use less")
            if tasks > self.limits.processes:
                self._kill(f"expected at most {self.limits.processes} processes and threads, got {tasks}; start fewer")
            time.sleep(_POLL_SECONDS)


def stop() -> None:
    """Kill everything that runs in a sandbox of this process."""
    for process in tuple(_running):
        process.stop()
