"""A small server that speaks what W&B's client says when it publishes: GraphQL, streams of files, uploads."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "somebody"


@dataclass
class Received:
    """What a run has sent.

    Attributes:
        upserts: the variables of each request that creates or changes the run.
        history: points in the order of their lines.
        summary: values.
        exit: its exit code.
    """

    upserts: list[dict[str, Any]] = field(default_factory=list)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit: int | None = None


class Server(ThreadingHTTPServer):
    """Keeps what runs have sent.

    Attributes:
        runs: by id.
        uploads: contents of files by path.
        artifacts: the variables of each artifact.
        views: workspaces and reports.
        unknown: operations that it was asked for and does not know.
        entities: users and teams that there are.
        deleted: ids of runs that were deleted.
        down: answers nothing but errors.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: defaultdict[str, Received] = defaultdict(Received)
        self.uploads: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.unknown: list[str] = []
        self.entities, self.deleted, self.down = {ENTITY}, set[str](), False

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that gives up closes its connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Server]:
    """Run the server in a thread."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _RefusedError(Exception):
    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, code: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_PUT(self) -> None:
        self.server.uploads[self.path] = self._body()
        self._answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.server.down:
            self._answer(503, {"errors": [{"message": "down"}]})
        elif self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], body)
            self._answer(200, {})
        else:
            name = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
            operation = name[1] if name else ""
            answer = getattr(self, f"_{operation}", None)
            if answer is None:
                self.server.unknown.append(operation)
                self._answer(200, {"data": {}})
                return
            try:
                self._answer(200, {"data": answer(body.get("variables") or {})})
            except _RefusedError as refused:
                self._answer(refused.code, {"errors": [{"message": refused.message}]})

    def _stream(self, run: str, body: dict[str, Any]) -> None:
        received = self.server.runs[run]
        for name, part in (body.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith((".jsonl", ".json")) else []
            if name == "wandb-history.jsonl":
                received.history |= {part["offset"] + at: line for at, line in enumerate(lines)}
            elif name == "wandb-summary.json":
                received.summary |= lines[-1]
        if body.get("complete"):
            received.exit = body.get("exitcode")

    def _Viewer(self, _: Any) -> Any:
        flags = {"id": "u", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": {**flags, "entity": ENTITY, "username": ENTITY, "email": "somebody@example.org"}}

    def _ServerFeaturesQuery(self, _: Any) -> Any:
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> Any:
        known = self.server.runs.get(given["name"])
        bucket = None
        if known is not None and known.upserts:
            bucket = {
                "id": given["name"],
                "name": given["name"],
                "displayName": given["name"],
                "summaryMetrics": json.dumps(known.summary),
                "historyLineCount": len(known.history),
                "eventsLineCount": 0,
                "logLineCount": 0,
                "historyTail": json.dumps([json.dumps(known.history[max(known.history)])] if known.history else []),
                "eventsTail": "[]",
                "config": known.upserts[-1].get("config") or "{}",
                "tags": [],
                "notes": None,
                "wandbConfig": json.dumps({"t": 1}),  # it has begun
            }
        return {"model": {"id": "p", "name": given["project"], "entity": {"id": "e", "name": ENTITY}, "bucket": bucket}}

    def _UpsertBucket(self, given: dict[str, Any]) -> Any:
        entity = given.get("entity") or ENTITY
        if entity not in self.server.entities:
            raise _RefusedError(404, f"entity {entity} not found during upsertBucket")
        if given["name"] in self.server.deleted:
            raise _RefusedError(409, f"run {given['name']} was previously created and deleted; try a new run name")
        run = self.server.runs[given["name"]]
        run.upserts.append(given)
        project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": entity}}
        bucket = {"id": given["name"], "name": given["name"], "displayName": given.get("displayName")}
        more = {
            "description": None,
            "config": None,
            "sweepName": given.get("sweep"),
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": {**bucket, **more, "project": project}, "inserted": len(run.upserts) == 1}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> Any:
        files = [
            {"name": name, "uploadUrl": f"{self.server.url}/storage/{given['run']}/{name}"} for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, _: Any) -> Any:
        return {"markRunFilesUploaded": {"success": True}}

    def _ArtifactType(self, _: Any) -> Any:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, given: dict[str, Any]) -> Any:
        self.server.artifacts.append(given["input"])
        return {
            "createArtifact": {
                "artifact": {
                    "id": f"artifact{len(self.server.artifacts)}",
                    "state": "PENDING",
                    "versionIndex": 0,
                    "artifactSequence": {"id": "sequence", "name": "results", "latestArtifact": None},
                }
            }
        }

    def _manifest(self, given: dict[str, Any]) -> Any:
        del given
        number = len(self.server.artifacts)
        file = {"id": "file", "uploadUrl": f"{self.server.url}/storage/manifest{number}.json", "uploadHeaders": []}
        return {"artifactManifest": {"id": f"manifest{number}", "file": file}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> Any:
        return {"createArtifactManifest": self._manifest(given)}

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> Any:
        return {"updateArtifactManifest": self._manifest(given)}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> Any:
        nodes = [
            {
                "storagePath": f"artifact/{one['name']}",
                "uploadUrl": f"{self.server.url}/storage/artifact/{one['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": one["artifactID"]},
            }
            for one in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> Any:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "0"}}}

    def _GetProjects(self, given: dict[str, Any]) -> Any:
        node = {"__typename": "Project", "id": "p", "name": "sharedlabel", "entityName": given["entity"], "user": None}
        node |= {"createdAt": "2026-11-29T00:00:00Z", "isBenchmark": False}
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": node, "cursor": ""}], "pageInfo": page}}

    def _upsertView(self, given: dict[str, Any]) -> Any:
        self.server.views.append(given)
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        view = {"id": f"view{len(self.server.views)}", "updatedAt": "2026-11-29T00:00:00Z", "project": project}
        kept = {name: given.get(name) for name in ("type", "name", "displayName", "description", "spec")}
        return {"upsertView": {"view": {**view, **kept}, "inserted": True}}

    _UpsertView2 = _upsertView
    _GetDefaultEntity = _Viewer
