"""A program that runs another one and ends all that it started when its own parent ends, kill -9 included.

The beginning of its standard input says what to run, as arguments could show the environment's secrets to others. On
SIGTERM too it ends all. On Linux it adopts what loses its parent (prctl(2), PR_SET_CHILD_SUBREAPER), so that daemons
end as well. It imports little, as each of PostgreSQL's tools waits for it.
"""

import marshal
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE = 5.0  # seconds between the signal that ends a program, and SIGKILL
SIGKILL = 9  # Windows has no name for it


def end_group(leader: subprocess.Popen[bytes], number: int, grace: float = GRACE) -> None:
    """End a program with its group: signal `number`, then SIGKILL, `grace` seconds each; sudo's may live on."""
    for each in (number, SIGKILL):
        with suppress(OSError):  # no such group; macOS says EPERM when only zombies are left
            if sys.platform != "win32":
                os.killpg(leader.pid, each)
            else:  # there are no groups
                _end_descendants(leader.pid)
                leader.kill()
        with suppress(subprocess.TimeoutExpired):
            leader.wait(grace)


def _end_descendants(pid: int) -> bool:
    """Kill what descends from the process `pid`; return False where nothing does that may be killed."""
    import psutil  # which takes its time, and is seldom needed

    killed = []
    with suppress(psutil.NoSuchProcess):  # one of them has ended meanwhile
        for each in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.AccessDenied):
                each.kill()
                killed.append(each)
        psutil.wait_procs(killed, 5)
        return bool(killed)
    return True


if __name__ == "__main__":
    wake, waker = os.pipe()  # no Event: its lock could be held when a signal comes
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(waker, b"."))
    with open(0, "rb", closefd=False) as pipe:  # with a buffer: a long order comes in pieces
        try:
            order = marshal.load(pipe)  # no JSON: to import that takes as long as Python's own start
        except (EOFError, ValueError, TypeError):
            sys.exit("The parent ended before it said what to run.")
    threading.Thread(target=lambda: (os.read(0, 1), os.write(waker, b".")), daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    try:
        process = subprocess.Popen(stdin=subprocess.DEVNULL, **order["program"])
    except OSError as error:
        print(f"{order['program']['args'][0]} cannot be started: {error}", file=sys.stderr, flush=True)
        sys.exit(127)
    threading.Thread(target=lambda: (process.wait(), os.write(waker, b".")), daemon=True).start()
    os.read(wake, 1)
    end_group(process, order["stop"])
    with suppress(ChildProcessError):  # there is none; only once Popen has the exit code, which this would take
        may_have_children = sys.platform == "win32" or os.waitpid(-1, os.WNOHANG)
        while may_have_children and _end_descendants(os.getpid()):
            pass
    code = -SIGKILL if process.returncode is None else process.returncode
    sys.exit(code if code >= 0 else 128 - code)
