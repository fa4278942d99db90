#!/usr/bin/env bash
# `hf_hub_download` names a file of its cache by the SHA-256 that the hub states, and compares the
# length of what arrives with the stated one, but not its hash: other bytes of the same length (a
# mirror that is out of date, a proxy) lie in the cache under the stated hash from then on, without
# a word, and are given to every later call. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0
HF_HOME="$folder/home" HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1 \
  "$folder/venv/bin/python" - <<'PYTHON'
import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub

STATED, SENT = b"weights of a network", b"something else there"
assert len(STATED) == len(SENT)
HASH = hashlib.sha256(STATED).hexdigest()


class Hub(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{HASH}"')
        self.send_header("Content-Length", str(len(STATED)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(SENT)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
print("Python", sys.version.split()[0], "huggingface_hub", huggingface_hub.__version__)
try:
    path = Path(huggingface_hub.hf_hub_download("someone/tiny", "tiny.bin", endpoint=endpoint))
except Exception as error:
    sys.exit(f"behaviour changed: refused with {type(error).__name__}: {error}")
print("kept as ", path.resolve().name)
print("holds   ", hashlib.sha256(path.read_bytes()).hexdigest())
if path.resolve().name != HASH or path.read_bytes() != SENT:
    sys.exit("behaviour changed: the cache is named otherwise, or holds other bytes")
PYTHON
