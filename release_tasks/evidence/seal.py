"""Signatures by ssh-keygen, and RFC 3161 timestamps by openssl."""

import hashlib
import json
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_tasks import process
from release_tasks.errors import Problem, Refused, listed, refuse
from release_tasks.evidence import bag
from release_tasks.evidence.settings import token_name
from release_tasks.files import atomic_write
from release_tasks.machine import parsed
from release_tasks.masks import short

NAMESPACE = "evidence-pack"
ANSWER = 30.0  # seconds that an authority may take
MEDIA_TYPE = "application/timestamp-query"  # RFC 3161, section 3.4
TIME = re.compile(r"^Time stamp: (\w{3} +\d+ [\d:]{8})(?:\.\d+)?( \d{4} GMT)$", re.MULTILINE)
VERIFY = ("openssl", "ts", "-verify")
WHERE = re.compile(r"^.*routines:\w+:|:[^:]+\.c:\d+:(Verify error)?|:$")  # what openssl says around the reason
WEAK = re.compile(r"^Hash Algorithm: (?!sha(256|384|512)$)(.*)", re.MULTILINE)


def allowed_signers(who: str, root: Path, key: str) -> bytes:
    """Return the line by which ssh-keygen(1) knows that the setting `key`, from `root`, signs packs as `who`.

    The public half stands beside it; where `key` is itself NAME.pub, an agent has the other half.
    """
    kind, blob = (root / f"{key.removesuffix('.pub')}.pub").read_text(encoding="utf-8").split()[:2]
    return f'{who} namespaces="{NAMESPACE}" {kind} {blob}\n'.encode()


def sign(file: Path, root: Path, key: str) -> None:
    """Write the signature of `file` beside it. Raises `Refused` where the key does not sign."""
    signature_of(file).unlink(missing_ok=True)  # ssh-keygen would ask
    process.run(["ssh-keygen", "-Y", "sign", "-f", root / key, "-n", NAMESPACE, file])


def signature_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sig")


def signer_of(file: Path, allowed: Path, at: datetime) -> str:
    """Return who of the file `allowed` has signed `file`, by which key, which was valid `at`. Raises `Refused`."""
    ours = ["-f", str(allowed), "-s", str(signature_of(file)), f"-Overify-time={at:%Y%m%d%H%M%S}"]
    how: dict[str, Any] = {"check": False, "env": {"TZ": "UTC0"}}  # OpenSSH before 9.1 reads no Z
    found = process.run(["ssh-keygen", "-Y", "find-principals", *ours], **how)
    if not (who := found.stdout.splitlines()):
        raise Refused(f"no key of {allowed.name} that was valid at {at:%Y-%m-%d %H:%M} has signed it")
    words = ["ssh-keygen", "-Y", "verify", *ours, "-I", who[0], "-n", NAMESPACE]
    with file.open("rb") as content:
        verified = process.run(words, stdin=content, **how)
    if verified.code:
        raise Refused(f"it is not what {who[0]} has signed: {verified.tail(1)}")
    return verified.stdout.partition(" signature for ")[2].strip() or who[0]  # and by which key


def check_own_signature(file: Path, root: Path, key: str) -> None:
    """Raise `Refused` unless the setting `key`, from `root`, has signed `file`."""
    with TemporaryDirectory() as folder:
        (allowed := Path(folder, "evidence.signing_key")).write_bytes(allowed_signers("us", root, key))
        signer_of(file, allowed, datetime.now(UTC))


def certificate_problems(ca: Path) -> Iterator[Problem]:
    """Yield a problem where the file `ca` has no certificate in the form in which openssl reads roots."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except OSError:  # SSLError is one
        found = "no certificate in it" if ca.is_file() else "no file"
        hint = f"openssl x509 -inform DER -in {ca} -out NEW.pem   # if it is one in DER; else ask the authority for it"
        yield Problem(f"{ca}: found {found}, expected root certificates as PEM.", hint)


def stamp(folder: Path, url: str, ca: Path) -> None:
    """Let the authority at `url` stamp the pack in `folder`: query, reply and `ca` go into its anchors.

    Raises `Refused` where it does not answer, or its reply cannot be verified with `ca`, its certificate.
    """
    import requests

    refuse(certificate_problems(ca))
    token = folder / token_name(url)
    with TemporaryDirectory() as temporary:
        query, reply = Path(temporary, "query"), Path(temporary, "reply")
        process.run(["openssl", "ts", "-query", "-data", folder / bag.ROOT, "-sha512", "-cert", "-out", query])
        try:
            answer = requests.post(url, query.read_bytes(), headers={"Content-Type": MEDIA_TYPE}, timeout=ANSWER)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise Refused(f"it does not stamp: {short(error, 400)}") from None
        reply.write_bytes(answer.content)
        ran = process.run([*VERIFY, "-queryfile", query, "-in", reply, "-CAfile", ca], check=False)
        if ran.code:
            raise Refused(f"its reply cannot be verified: {reason(ran, ca)}")
        refuse(token_problems(reply, folder / bag.ROOT, ca, datetime.now(UTC)))
        for file, suffix in ((query, ".tsq"), (ca, ".pem"), (reply, ".tsr")):  # the reply last: it counts
            atomic_write(token.with_suffix(suffix), file.read_bytes())


def token_time(token: Path) -> datetime:
    """Return when the reply `token` says that it was made. Raises `Refused` where it says nothing."""
    text = process.run(["openssl", "ts", "-reply", "-in", token, "-text"], check=False).stdout
    if not (found := TIME.search(text)):
        raise Refused(f"{token.name}: no time can be read in it")
    if weak := WEAK.search(text):
        raise Refused(f"{token.name}: its hash algorithm is {weak[2]}")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(found[1] + found[2]), UTC)


def token_problems(token: Path, file: Path, ca: Path, at: datetime) -> Iterator[Problem]:
    """Yield why `token` is no proof of `file`: its certificates lead to `ca`, and are valid then as well as `at`."""
    for moment in (token_time(token), at):
        how = ("-attime", f"{moment.timestamp():.0f}", "-data", file, "-in", token, "-CAfile", ca)
        ran = process.run([*VERIFY, *how], check=False)
        if ran.code:
            yield Problem(f"{token.name}, as of {moment:%Y-%m-%d %H:%M} UTC: {reason(ran, ca)}")
            return


def reason(ran: process.Finished, ca: Path) -> str:
    """Return why openssl says that a reply is no proof."""
    why = short(WHERE.sub("", ran.tail(1)).replace(":", ": "))
    root = f"its root is not in {ca.name}: " if re.search("self.signed certificate|local issuer", why) else ""
    return root + why


def check_chain(file: Path, first: str) -> list[bytes]:
    """Return the lines of `file`. Raises `Refused` unless each has the SHA-512 of the one before, at first `first`."""
    lines, previous = file.read_bytes().splitlines(), first
    for number, line in enumerate(lines, 1):
        if parsed(line.decode(errors="replace")).get("previous") != previous:
            raise Refused(f"{file.name}, line {number} does not follow what is before it")
        previous = hashlib.sha512(line).hexdigest()
    return lines


def append(file: Path, rows: list[dict[str, Any]], after: Path | None, root: Path, key: str) -> int:
    """Append those of `rows` that `file` has not got, each with the SHA-512 of the line before, and sign it anew.

    The first line has that of the file `after`. Raises `Refused` where one of both is signed and there is no `key`, and
    where `file` is not as it was left: what somebody has changed would be signed with it.
    """
    first = bag.digest(after) if after else ""
    if signed := [each.name for each in (after, file) if each and signature_of(each).exists() and not key]:
        what = f"{listed(signed)} is signed, and no key is set that signs what is added to it."
        raise Refused(what, "Set release.evidence.signing_key in invoke.yaml, as when it was signed.")
    try:
        lines = check_chain(file, first) if file.exists() else []
        if signature_of(file).exists():
            check_own_signature(file, root, key)
    except Refused as no:
        back = f"Bring back {file.name} as it was signed; if by another key, set that as release.evidence.signing_key."
        raise Refused(f"{file} is not as it was left: {no}.", back) from None
    known = [{name: value for name, value in json.loads(line).items() if name != "previous"} for line in lines]
    new = [row for row in json.loads(json.dumps(rows, default=str)) if row not in known]
    for row in new:
        previous = hashlib.sha512(lines[-1]).hexdigest() if lines else first
        lines.append(json.dumps({"previous": previous, **row}, ensure_ascii=False).encode())
    if new:
        signature_of(file).unlink(missing_ok=True)  # first, so that the next call signs what a stop left unsigned
    atomic_write(file, b"".join(line + b"\n" for line in lines))
    if key and not signature_of(file).exists():
        sign(file, root, key)
    return len(new)
