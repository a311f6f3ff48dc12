"""A throw-away timestamp authority, and keys, for rehearsals and tests: they prove nothing to others."""

import threading
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from release_tasks import process

CONFIG = Path(__file__).with_suffix(".cnf")  # the files that it names are in the folder of the authority


def make(folder: Path) -> Path:
    """Make an authority in `folder`, and return its certificate, which is its own root, valid for 30 days."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "tsa.key"]
    process.run(["openssl", "req", "-x509", "-config", CONFIG, *key, "-out", "tsa.pem"], cwd=folder)
    return folder / "tsa.pem"


def reply(folder: Path, query: Path) -> bytes:
    """Return the reply of the authority in `folder` to the file `query`, beside which it is written."""
    token = query.with_suffix(".tsr")
    process.run(["openssl", "ts", "-reply", "-config", CONFIG, "-queryfile", query, "-out", token], cwd=folder)
    return token.read_bytes()


def serve(folder: Path) -> str:
    """Serve the authority in `folder` until this process ends; return its URL."""

    def answer(request: dict[str, Any], start: Any) -> list[bytes]:
        (query := folder / "query.tsq").write_bytes(request["wsgi.input"].read(int(request["CONTENT_LENGTH"])))
        start("200 OK", [("Content-Type", "application/timestamp-reply")])
        return [reply(folder, query)]

    silent = type("Silent", (WSGIRequestHandler,), {"log_message": lambda *_: None})
    server = make_server("127.0.0.1", 0, answer, handler_class=silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def settings(folder: Path) -> dict[str, Any]:
    """Return settings of evidence by which all of it is done, with keys and an authority made in `folder`."""
    from pyrage import x25519

    identity = x25519.Identity.generate()
    (folder / "identity").write_text(str(identity), encoding="utf-8")
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"])
    stamps = {serve(folder): str(make(folder))}
    keys = {"signing_key": str(folder / "key"), "recipients": [str(identity.to_public())]}
    return {**keys, "authorities": stamps, "places": [str(folder / "place")]}
