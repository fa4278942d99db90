"""A stand-in of the Hugging Face hub on this computer, for its own client to talk to."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_writerwriterwriter", "hf_readerreaderreader"


class Hub:
    """Repositories as lists of commits, and what was asked.

    Attributes:
        commits: by repository, the files of each commit, by name.
        asked: method and path of each request.
        faults: by a pattern of method and path, a status to give, "drop" to hang up, or "half" to
            hang up in the middle of the answer.
        said: bodies of requests, in text.
    """

    def __init__(self):
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.stored: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.faults: dict[str, int | str] = {}
        self.endpoint = ""

    def add(self, repository, files):
        """A commit with these files, others gone."""
        past = self.commits.setdefault(repository, [])
        text = json.dumps([repository, len(past), sorted(files)])
        past.append((hashlib.sha1(text.encode()).hexdigest(), dict(files)))
        return past[-1][0]

    def at(self, repository, revision="main"):
        """The commit of a revision and its files; None where there is none."""
        past = self.commits.get(repository, [])
        found = [c for c in past if revision == "main" or c[0] == revision]
        return found[-1] if found else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub, *arguments):
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._serve()

    def do_GET(self):
        self._serve()

    def do_POST(self):
        self._serve()

    def do_PUT(self):
        self._serve()

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        self.hub.asked.append(asked)
        fault = next((f for p, f in self.hub.faults.items() if re.search(p, asked)), None)
        self.half = fault == "half"
        if fault == "drop":
            self.close_connection = True
            return
        if isinstance(fault, int):
            self._give(fault, {"error": f"no, {self.headers.get('Authorization')}"})
            return
        for pattern, answer in (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda _: self._give(200, {"errors": [], "warnings": []})),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/upload/(\w+)", self._upload),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
            (r"/api/models/([^/]+/[^/]+)/paths-info/(\w+)", self._paths),
            (r"/api/models/([^/]+/[^/]+)", self._info),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ):
            if found := re.fullmatch(pattern, path):
                answer(body, *found.groups())
                return
        self._give(404, {"error": "what?"})

    def _give(self, status, content, **headers):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw[: len(raw) // 2] if self.half else raw)
        if self.half:
            self.close_connection = True

    def _may_write(self):
        word = self.headers.get("Authorization", "")
        if word == f"Bearer {WRITER}":
            return True
        if word == f"Bearer {READER}":
            self._give(403, {"error": "no rights"}, X_Error_Message="no rights")
        else:
            message = "Invalid credentials in Authorization header"
            self._give(401, {"error": message}, X_Error_Message=message)
        return False

    def _create(self, body):
        if not self._may_write():
            return
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "stranger":
            self._give(403, {"error": "not yours"}, X_Error_Message="not yours")
            return
        new = name not in self.hub.commits
        if new:
            self.hub.add(name, {".gitattributes": b"x"})
        self._give(200 if new else 409, {"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _preupload(self, body, _):
        if self._may_write():
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            self._give(200, {"files": files})

    def _batch(self, body, _):
        objects = []
        for one in json.loads(body)["objects"]:
            to = {"upload": {"href": f"{self.hub.endpoint}/upload/{one['oid']}", "header": {}}}
            there = one["oid"] in self.hub.stored
            objects.append({**one, **({} if there else {"actions": to})})
        self._give(200, {"transfer": "basic", "objects": objects})

    def _upload(self, body, digest):
        self.hub.stored[digest] = body
        self._give(200, {})

    def _commit(self, body, repository):
        if not self._may_write():
            return
        lines = [json.loads(line) for line in body.splitlines()]
        last, files = self.hub.at(repository)
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", last) != last:
                self._give(412, {"error": "moved on"})
                return
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        commit = self.hub.add(repository, files)
        url = f"{self.hub.endpoint}/{repository}/commit/{commit}"
        self._give(200, {"commitUrl": url, "commitOid": commit})

    def _info(self, _, repository):
        found = self.hub.at(repository)
        if found is None:
            self._give(404, {"error": "none"}, X_Error_Code="RepoNotFound")
            return
        siblings = [{"rfilename": name} for name in found[1]]
        self._give(200, {"id": repository, "sha": found[0], "siblings": siblings})

    def _paths(self, body, repository, revision):
        _, files = self.hub.at(repository, revision)
        given = []
        for name in parse_qs(body.decode())["paths"]:
            content = files[name]
            facts = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
            if name.endswith("safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                facts["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 1}
            given.append(facts)
        self._give(200, given)

    def _resolve(self, _, repository, revision, name):
        if repository not in self.hub.commits:
            self._give(404, b"", X_Error_Code="RepoNotFound")
            return
        found = self.hub.at(repository, revision)
        if found is None:
            self._give(404, b"", X_Error_Code="RevisionNotFound")
            return
        commit, files = found
        if name not in files:
            self._give(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        digest = hashlib.sha256(files[name]).hexdigest()
        self._give(200, files[name], X_Repo_Commit=commit, ETag=f'"{digest}"')


@contextmanager
def serving_hub():
    """A hub at `Hub.endpoint` until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
