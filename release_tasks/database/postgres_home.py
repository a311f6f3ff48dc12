"""Where an embedded PostgreSQL lives: PostgreSQL refuses to run as root, so root's runs as `nobody`, in /var/tmp."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from release_tasks.database.postgres_programs import shared
from release_tasks.errors import Refused
from release_tasks.processes.shell import hide


@dataclass(frozen=True)
class Home:
    """Where the server of `folder` keeps its data, password and port (`path`), and as whom it runs."""

    folder: Path
    path: Path
    user: str | None

    @classmethod
    def of(cls, folder: Path) -> Home:
        if sys.platform == "win32" or os.geteuid() != 0:
            return cls(folder, folder, None)
        key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        return cls(folder, shared() / f"release-postgres-{key}", "nobody")

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def recorded_port(self) -> int | None:
        """Return the port of the server that runs on this data, or ran until it was killed."""
        try:
            return int(self.pid_file.read_text(encoding="utf-8").splitlines()[3])
        except (OSError, IndexError, ValueError):
            return None

    def password(self) -> str:
        """Return the superuser's password, from now on hidden in all that is shown."""
        file = self.path / "password"
        try:
            password = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Refused(f"{file} cannot be read: {error.strerror}.", mend=f"rm -r {self.path}") from None
        hide(password)
        return password

    def make(self) -> None:
        """Make the folder `path`, for its user alone; /var/tmp is open to all, so look who made what is there."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self.user and sys.platform != "win32":
            import pwd

            if self.path.lstat().st_uid not in (0, pwd.getpwnam(self.user).pw_uid):
                raise Refused(f"{self.path} belongs to somebody else.", mend=f"rm -r {self.path}")
        self._own(self.path)

    def write(self, name: str, text: str) -> Path:
        """Write a small file that only the server's user can read."""
        file = self.path / name
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(text)
        self._own(file)
        return file

    def _own(self, path: Path) -> None:
        if self.user:
            shutil.chown(path, self.user)
