"""A service that speaks S3, on loopback, with faults on demand; and a tiny grid."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from sharedlabel.config import Experiment, parse
from sharedlabel.files import patience
from sharedlabel.store import Store, opened
from tests.smallest import SMALLEST

pytest.importorskip("s3fs")
pytest.importorskip("moto")

TINY = (*SMALLEST, "--aggregators=[log_pool]", "--dense.epochs=1")


@dataclass
class Fault:
    """What becomes of some requests.

    Attributes:
        method: of the request.
        path: expression in it.
        times: so often.
        status: answered in the place of what was asked for; 0 for an answer that is only late.
        code: what S3 calls it.
        seconds: before the answer.
        done: whether what was asked for is done all the same, and its answer is lost.
    """

    method: str
    path: str
    times: int = 1
    status: str = "500 Internal Server Error"
    code: str = "InternalError"
    seconds: float = 0.0
    done: bool = False


@dataclass
class Service:
    """A server of objects: one request at a time, as atomic as those of the real one are."""

    application: Any
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], respond: Callable[..., Any]) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], unquote(f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        with self.lock:
            self.requests.append((method, path))
            fault = next((one for one in self.faults if one.method == method and re.search(one.path, path)), None)
            if fault is None:
                return list(self.application(environ, respond))
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
            if fault.done:
                list(self.application(environ, lambda *_: lambda _: None))
        time.sleep(fault.seconds)
        if not fault.status:
            with self.lock:
                return list(self.application(environ, respond))
        respond(fault.status, [("Content-Type", "application/xml"), ("Connection", "close")])
        return [f"<Error><Code>{fault.code}</Code><Message>not now</Message></Error>".encode()]

    def objects(self) -> dict[str, Any]:
        """Return what is stored, by name."""
        from moto.backends import get_backend

        bucket = get_backend("s3")["123456789012"]["aws"].buckets["bucket"]
        return {name.removeprefix("prefix/"): bucket.keys[name] for name in bucket.keys}


@pytest.fixture(scope="session")
def _server() -> Iterator[tuple[Service, str]]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    service = Service(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, service, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield service, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def service(_server: tuple[Service, str], monkeypatch: pytest.MonkeyPatch) -> Service:
    """An empty bucket, and what a user would have in the environment to reach it."""
    import s3fs
    from moto.backends import get_backend

    service, endpoint = _server
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "ours"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_MAX_ATTEMPTS", "1"),  # the library's own tries would only take time
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    get_backend("s3").reset()
    get_backend("s3")["123456789012"]["aws"].create_bucket("bucket", "us-east-1")
    service.faults.clear()
    service.requests.clear()
    return service


URL = "s3://bucket/prefix"


@pytest.fixture
def host(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """Open the store as a machine of some name does: each has a cache of its own."""

    def open_there(name: str, readonly: bool = False) -> Store:
        monkeypatch.setenv("SHAREDLABEL_CACHE", str(tmp_path / name))
        return opened(URL, readonly)

    return open_there


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Be patient without waiting; the seconds that would have been waited."""
    waited: list[float] = []
    monkeypatch.setenv(patience.VARIABLE, "300")
    monkeypatch.setattr(patience, "_wait", waited.append)
    return waited


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str, ...]:
    """Arguments of the tiny grid, all but for its store."""
    return (*TINY, f"--output={tmp_path / 'runs'}", f"--data_root={tmp_path / 'data'}")


@pytest.fixture
def experiment(arguments: tuple[str, ...]) -> Experiment:
    """The tiny grid, stored at the URL."""
    return parse((*arguments, f"--store={URL}"))[0]
