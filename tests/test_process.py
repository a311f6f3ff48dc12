"""Programs end in time, as a group, and say no secrets."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import process
from release_tasks.errors import Refused
from release_tasks.masks import PUBLIC, hide, mask
from release_tasks.process import CommandFailed, Finished, run

posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
SLEEP = "import time; time.sleep(600)"
WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=6, max_size=12)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody waits for does not."""
    try:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    except FileNotFoundError:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] if Path(f"/proc/{pid}").exists() else ""
    return bool(state.strip()) and not state.strip().startswith("Z")


def until(holds: Callable[[], object], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


@pytest.mark.parametrize("supervised", [False, True])
def test_both_outputs_and_the_exit_code_come_back(supervised: bool) -> None:
    finished = run(python("import sys; print('out'); print('err', file=sys.stderr)"), supervised=supervised)
    assert (finished.code, finished.stdout.split(), finished.stderr.split()) == (0, ["out"], ["err"])
    with pytest.raises(CommandFailed, match=r"exit code 3:\nwhat went wrong") as failed:
        run(
            python("import sys; sys.exit('what went wrong') if 0 else (print('what went wrong'), sys.exit(3))"),
            supervised=supervised,
        )
    assert failed.value.finished.code == 3
    again = subprocess.run(["sh", "-c", failed.value.problems[0].hint], capture_output=True)
    assert (again.returncode, again.stdout.strip()) == (3, b"what went wrong"), "the hint can be typed as it is"
    assert run(python("raise SystemExit(3)"), supervised=supervised, check=False).code == 3


def test_the_program_gets_no_input_no_git_prompt_and_the_given_environment(tmp_path: Path) -> None:
    code = (
        "import os, sys; print(repr(sys.stdin.read()), os.environ['GIT_TERMINAL_PROMPT'], os.environ['X'], os.getcwd())"
    )
    assert run(python(code), env={"X": "y"}, cwd=tmp_path).stdout.split() == ["''", "0", "y", str(tmp_path.resolve())]


def test_a_missing_program_or_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no-such-program was not found"):
        run(["no-such-program"])
    with pytest.raises(Refused, match="was not found"):
        run(["ls"], env={"PATH": str(tmp_path)})
    with pytest.raises(Refused, match="no folder"):
        run(["ls"], cwd=tmp_path / "gone")


def test_large_outputs_on_both_pipes_do_not_block() -> None:
    finished = run(python("import sys\nfor i in range(20000): print('o'*50); print('e'*50, file=sys.stderr)"))
    assert len(finished.stdout) == len(finished.stderr) == 20000 * 51


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert run(python(r"import sys; sys.stdout.buffer.write(b'a\xffb')")).stdout == "a\ufffdb"


def test_what_is_said_is_masked_when_it_is_told() -> None:
    hide("swordfish")
    finished = run(python("print('it is swordfish')"))
    assert "swordfish" in finished.stdout and finished.tail(1) == "it is ***"


@pytest.mark.parametrize("supervised", [False, True])
def test_a_program_may_be_shown_while_it_runs(supervised: bool, capfd: pytest.CaptureFixture[str]) -> None:
    finished = run(python("import sys; print('out'); print('err', file=sys.stderr)"), show=True, supervised=supervised)
    assert (finished.output, capfd.readouterr()) == ("", ("out\n", "err\n"))


@posix
@pytest.mark.parametrize("supervised", [False, True])
def test_a_deadline_ends_the_whole_group(tmp_path: Path, supervised: bool) -> None:
    """The grandchild even refuses SIGTERM."""
    deaf = "import signal, time, os; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {deaf!r}]); time.sleep(600)"
    with pytest.raises(CommandFailed, match="did not end within 5 s") as failed:
        run(python(code), timeout=5, supervised=supervised)
    assert until(lambda: not alive(int(failed.value.finished.stdout)))


@posix
@pytest.mark.parametrize("supervised", [False, True])
def test_leftovers_end_with_the_program_though_they_hold_its_output(supervised: bool) -> None:
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid)"
    finished = run(python(code), timeout=300, supervised=supervised)
    assert until(lambda: not alive(int(finished.stdout)))


@posix
def test_a_process_that_left_the_group_cannot_hang_us() -> None:
    started = f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"
    code = f"import subprocess, sys; print({started}.pid)"
    finished = run(python(code), timeout=300)
    os.kill(int(finished.stdout), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="nobody else can adopt orphans")
@pytest.mark.parametrize("seconds", [0, 600], ids=["ends", "is ended"])
def test_a_daemon_ends_with_a_supervised_program(seconds: int) -> None:
    """It has left the group, and its parent has ended."""
    middle = (
        f"import subprocess, sys; print(subprocess.Popen({python(SLEEP)!r}, start_new_session=True).pid, flush=True)"
    )
    code = f"import subprocess, sys, time; subprocess.run({python(middle)!r}); time.sleep({seconds})"
    try:
        finished = run(python(code), timeout=10 if seconds else 300, supervised=True)
    except CommandFailed as failed:
        finished = failed.finished
    assert until(lambda: not alive(int(finished.stdout)))


@posix
@pytest.mark.parametrize(("number", "name"), [(9, "9 (Killed"), (40, "40 (")])
def test_a_signal_is_told_also_where_it_has_no_name(number: int, name: str) -> None:
    """It was a traceback."""
    with pytest.raises(CommandFailed, match=re.escape(f"ended with signal {name}")):
        run(python(f"import os; os.kill(os.getpid(), {number})"))


@posix
def test_ctrl_c_ends_the_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import sys; from release_tasks.process import run; run([sys.executable, '-c', {child!r}])"
    parent = subprocess.Popen(python(code), stderr=subprocess.DEVNULL)
    assert until(lambda: pid_file.exists() and pid_file.read_text())
    parent.send_signal(signal.SIGINT)
    parent.wait(120)
    assert until(lambda: not alive(int(pid_file.read_text())))


@posix
def test_a_supervised_ends_the_program_when_we_are_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    grandchild = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    code = f"import sys; from release_tasks.process import run; run([sys.executable, '-c', {child!r}], supervised=True)"
    parent = subprocess.Popen(python(code))
    assert until(lambda: pid_file.exists() and pid_file.read_text())
    parent.kill()
    parent.wait()
    assert until(lambda: not alive(int(pid_file.read_text())))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:p@ss@h:5432/db", "postgres://***@h:5432/db"),
        ("https://ghp_abc@github.com/x.git", "https://***@github.com/x.git"),
        ("https://registry/@types/node", "https://registry/@types/node"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        (r"password = 'it\'s two' dbname=d", "password = *** dbname=d"),
        ("nothing to see", "nothing to see"),
    ],
)
def test_mask_examples(text: str, shown: str) -> None:
    assert mask(text) == shown


@given(st.lists(WORD.filter(lambda word: word not in PUBLIC), min_size=1), st.text(), st.text())
def test_no_hidden_secret_is_shown(secrets: list[str], before: str, after: str) -> None:
    for secret in secrets:
        hide(secret)
    assert not any(secret in mask(f"{before}{secret}{after}") for secret in secrets)


@given(WORD, WORD, st.sampled_from(["postgresql", "https", "git+ssh"]))
def test_no_userinfo_is_shown(user: str, password: str, scheme: str) -> None:
    assert mask(f"see {scheme}://{user}:{password}@host/x, and more") == f"see {scheme}://***@host/x, and more"


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_no_libpq_password_is_shown(password: str) -> None:
    quoted = "'" + password.replace("\\", "\\\\").replace("'", "\\'") + "'"
    assert mask(f"password={quoted} host=h") == "password=*** host=h"


@given(st.text())
def test_masking_again_changes_nothing(text: str) -> None:
    assert mask(mask(text)) == mask(text)


def test_values_of_the_environment_s_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_TOKEN", "abcdef")
    monkeypatch.setenv("MY_PASSWORD", "short")
    assert mask("abcdef short") == "*** short"
    run(python("pass"), env={"PGPASSWORD": "ghijkl"})
    assert mask("ghijkl") == "***"


def test_lines_of_a_hidden_key_are_masked_one_by_one() -> None:
    hide("first line\nsecond line")
    assert mask("> second line") == "> ***"


def test_the_tail_has_the_last_lines_that_say_something() -> None:
    assert Finished(["x"], 0, "a\n\nb\n \n", "c\n", 0.1).tail(2) == "b\nc"


def test_a_free_port_can_be_listened_on_and_is_none_that_connections_get() -> None:
    port = process.free_port()
    with socket.create_server(("127.0.0.1", port)):
        pass
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    assert port < int(given.read_text().split()[0]) if given.exists() else port in process.PORTS


def test_a_port_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mine = taken.getsockname()[1]
        monkeypatch.setattr(process, "PORTS", [mine])
        monkeypatch.setattr(process.random, "sample", lambda places, _: places)
        with pytest.raises(Refused, match=f"No port of 127.0.0.1 between {mine} and {mine} is free"):
            process.free_port()
