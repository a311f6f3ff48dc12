"""A throw-away timestamp authority, for rehearsals and tests: openssl, behind HTTP. It proves nothing to others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from release_tasks import process

CERTIFICATE = """-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=throw-away
 -addext basicConstraints=critical,CA:FALSE -addext keyUsage=digitalSignature
 -addext extendedKeyUsage=critical,timeStamping"""
CONFIG = """[tsa]
default_tsa = own
[own]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha1, sha256, sha512
ess_cert_id_alg = sha256
"""


def make(folder: Path, days: int = 30) -> Path:
    """Make an authority in the empty `folder`, and return its certificate, which is its own root."""
    words = ["openssl", "req", "-x509", "-days", str(days), *CERTIFICATE.split()]
    process.run([*words, "-keyout", folder / "tsa.key", "-out", folder / "tsa.pem"])
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder.as_posix()), encoding="utf-8")
    return folder / "tsa.pem"


def reply(folder: Path, query: Path) -> bytes:
    """Return the reply of the authority in `folder` to the file `query`."""
    out = query.with_suffix(".tsr")
    process.run(["openssl", "ts", "-reply", "-config", folder / "tsa.cnf", "-queryfile", query, "-out", out])
    return out.read_bytes()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the authority in `folder` for the length of the block; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = folder / "query.tsq"
            query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            content = reply(folder, query)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
