"""A Hugging Face Hub of one's own: the endpoints that an upload uses, over real HTTP on loopback.

It keeps what it was sent. Uploads follow the Hub's protocol: repository, upload modes, Git LFS for weights, one commit.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml

TOKEN = "hf_CanaryTokenThatNobodyMayPrint"  # noqa: S105  of this stand-in alone
OWNER = "lab"


@dataclass
class Hub:
    """What was received: ``private`` by repository, committed ``files`` by repository and name, and all requests."""

    address: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    received: bytes = b""
    blobs: dict[str, bytes] = field(default_factory=dict)
    broken: str = ""
    """Part of a path whose requests end in an error of the server."""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, JSON and headers for one authorised request."""
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            known = found[1] in self.private
            if not known:
                return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            return 200, {"id": found[1], "private": self.private[found[1]], "sha": "0" * 40, "siblings": []}, {}
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/lfs/(\w+)", path):
            self.blobs[found[1]] = body
            return (200 if hashlib.sha256(body).hexdigest() == found[1] else 400), {}, {}
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/.]+)(?:\.git)?/(.+)", path)
        assert found, f"{method} {path} is nothing an upload needs"
        if not found[1].startswith(f"{OWNER}/"):
            return 403, {"error": "you do not have the rights"}, {}
        return {"preupload/main": self._modes, "info/lfs/objects/batch": self._batch, "commit/main": self._commit}[
            found[2]
        ](found[1], body)

    def _validate(self, card: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        licence = yaml.safe_load(card.split("---\n")[1]).get("license")
        wrong = [{"message": '"license" must be one of ours'}] if licence == "no-such-licence" else []
        return (400 if wrong else 200), {"errors": wrong, "warnings": []}, {}

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
        if asked["organization"] != OWNER:
            return 403, {"error": "you do not have the rights"}, {}
        repository = f"{asked['organization']}/{asked['name']}"
        self.private[repository] = asked["visibility"] == "private"
        return 200, {"url": f"{self.address}/{repository}", "id": repository}, {}

    def _modes(self, repository: str, body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
        modes = {True: "lfs", False: "regular"}
        names = [file["path"] for file in json.loads(body)["files"]]
        found = [
            {"path": n, "uploadMode": modes[n.endswith(".safetensors")], "shouldIgnore": False, "oid": None}
            for n in names
        ]
        return 200, {"files": found}, {}

    def _batch(self, repository: str, body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
        wanted = json.loads(body)["objects"]
        objects = [w | {"actions": {"upload": {"href": f"{self.address}/lfs/{w['oid']}"}}} for w in wanted]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _commit(self, repository: str, body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
        files = self.files.setdefault(repository, {})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
        return 200, {"commitUrl": f"{self.address}/{repository}/commit/1", "commitOid": "1" * 40}, {}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.received += body
        if self.hub.broken and self.hub.broken in path:
            status, answer, headers = 418, {"error": "out of tea"}, {}
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}" and not path.startswith("/lfs/"):
            wrong = "Invalid credentials in Authorization header"
            status, answer, headers = 401, {"error": wrong}, {"X-Error-Message": wrong}
        else:
            status, answer, headers = self.hub.answer(self.command, path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815  as http.server names them

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that serves until the block is left."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
