"""A fake hub on 127.0.0.1 that answers huggingface_hub's requests, and fails on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 1000  # from this size in bytes on, a file is stored in LFS


class Hub:
    """repositories: {"models/OWNER/NAME": {file: bytes}}; `commit` names what they hold now.

    Faults, by file name: `cut` ends a connection in the middle that many times; `wrong` gives other bytes of the same
    length that many times; `status` (by repository) is the only answer; `names` are listed in addition to the files.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.cut: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.status: dict[str, int] = {}
        self.names: list[str] = []
        self.seconds = 0.0
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self, True)

            def do_HEAD(self) -> None:
                outer._answer(self, False)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, repository: str) -> str:
        files = sorted(self.repositories[repository].items())
        return hashlib.sha1(repr([(name, hashlib.sha1(data).hexdigest()) for name, data in files]).encode()).hexdigest()

    def _answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {path}")
        time.sleep(self.seconds)
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(?:revision|tree)/([^/]+))?", path):
            kind, name, revision = match[1], match[2], match[3] or "main"
            repository = f"{kind}/{name}"
            if self._refused(request, repository):
                return
            if revision not in ("main", "v1", self.commit(repository)):
                self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
                return
            data = self._tree(repository) if "/tree/" in path else {"id": name, "sha": self.commit(repository)}
            self._send(request, 200, json.dumps(data).encode(), {"Content-Type": "application/json"}, body)
            return
        match = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match is None:
            self._send(request, 404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            return
        repository, file = f"{'datasets' if match[1] else 'models'}/{match[2]}", match[4]
        if self._refused(request, repository):
            return
        if (data := self.repositories[repository].get(file)) is None:
            self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        etag = hashlib.sha256(data).hexdigest() if len(data) >= LARGE else _git(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit(repository), "Accept-Ranges": "bytes"}
        if len(data) >= LARGE:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        if body and self.wrong[file] > 0:
            self.wrong[file] -= 1
            data = bytes(len(data))
        whole, start = data, 0
        if body and (found := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))):
            start = int(found[1])
            data = whole[start:]
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        if body and self.cut[file] > 0:
            self.cut[file] -= 1
            self._send(request, 206 if start else 200, data, headers, True, len(data) // 2)
            request.close_connection = True
            request.connection.close()
            return
        self._send(request, 206 if start else 200, data, headers, body)

    def _refused(self, request: BaseHTTPRequestHandler, repository: str) -> bool:
        status = self.status.get(repository, 0 if repository in self.repositories else 404)
        if status:
            codes = {404: "RepoNotFound", 403: "GatedRepo"}
            self._send(request, status, b"{}", {"X-Error-Code": codes.get(status, ""), "Retry-After": "7"}, True)
        return status != 0

    def _tree(self, repository: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        folders = {name.rpartition("/")[0] for name in self.repositories[repository]} - {""}
        rows += [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]
        for name, data in [*self.repositories[repository].items(), *((name, b"x") for name in self.names)]:
            row: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
            if len(data) >= LARGE:
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            rows.append(row)
        return rows

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str], body: bool,
        most: int | None = None,
    ) -> None:  # fmt: skip
        request.send_response(status)
        for name, value in headers.items():
            if value:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if body and request.command != "HEAD":
            request.wfile.write(data[:most])
            request.wfile.flush()


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
