"""A Hub on the loopback: the few endpoints that a push needs, and faults to order."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_a_test"
COMMIT = "c" * 40


@dataclass
class Hub:
    """What the server was sent. faults: part of a path -> status to answer, or "cut" to break the connection."""

    url: str = ""
    private: bool | None = None  #: None: there is no repository yet
    branches: set[str] = field(default_factory=lambda: {"main"})
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  #: branch -> path -> content
    uploads: dict[str, bytes] = field(default_factory=dict)  #: sha256 -> content
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    faults: dict[str, int | str] = field(default_factory=dict)
    card_errors: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Not on the test's stderr."""

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"{method} {self.path}")
        fault = next((what for part, what in self.hub.faults.items() if part in self.path), None)
        if fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif isinstance(fault, int):
            self.reply({"error": "a fault that was ordered"}, fault)
        elif "/upload/" not in self.path and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply({"error": "Invalid username or password."}, 401)
        else:
            self.route(method, body)

    def route(self, method: str, body: bytes) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            errors = [{"message": text} for text in hub.card_errors]
            return self.reply({"errors": errors, "warnings": []}, 400 if errors else 200)
        if found := re.fullmatch(r"/api/models/owner/name/branch/(.+)", path):
            hub.branches.add(found[1])
            return self.reply({})
        if re.fullmatch(r"/api/models/owner/name", path) and method == "GET":
            if hub.private is None:
                return self.reply({"error": "Repository not found"}, 404)
            return self.reply({"id": "owner/name", "modelId": "owner/name", "private": hub.private, "sha": COMMIT})
        if re.fullmatch(r"/api/models/owner/name/preupload/.+", path):
            return self.reply({"files": [self.mode(file) for file in json.loads(body)["files"]]})
        if path == "/owner/name.git/info/lfs/objects/batch":
            return self.reply(
                {"transfer": "basic", "objects": [self.place(one) for one in json.loads(body)["objects"]]}
            )
        if found := re.fullmatch(r"/upload/([0-9a-f]{64})", path):
            hub.uploads[found[1]] = body
            return self.reply({})
        if found := re.fullmatch(r"/api/models/owner/name/commit/(.+)", path):
            return self.commit(found[1], body)
        return self.reply({"error": f"no such place: {method} {path}"}, 404)

    def create(self, wanted: dict[str, Any]) -> None:
        url = {"url": f"{self.hub.url}/owner/name", "name": "owner/name"}
        if self.hub.private is not None:
            return self.reply({"error": "You already created this model repo", **url}, 409)
        self.hub.private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        return self.reply(url)

    def mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        known = wanted["oid"] in self.hub.uploads
        actions = {} if known else {"actions": {"upload": {"href": f"{self.hub.url}/upload/{wanted['oid']}"}}}
        return {"oid": wanted["oid"], "size": wanted["size"], **actions}

    def commit(self, branch: str, body: bytes) -> None:
        if branch not in self.hub.branches:
            return self.reply({"error": "Invalid rev id"}, 404)
        files = self.hub.files.setdefault(branch, {})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        return self.reply({"commitUrl": f"{self.hub.url}/owner/name/commit/{COMMIT}", "commitOid": COMMIT})

    def reply(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """The server on a free port, until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
