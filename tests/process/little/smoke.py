"""The smoke `writing` sees that a sample can be stored."""

import os
import subprocess
import sys
from pathlib import Path

from point import psql, reach

name = sys.argv[1]
reach(f"in the smoke {name}")
fault = Path(os.environ["LITTLE_FAULTS"], f"smoke-{name}")
match fault.read_text() if fault.exists() else "":
    case "fails":
        sys.exit("the smoke saw smoke")
    case "hangs":
        subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], check=True)
    case "says nothing":
        sys.exit()
psql("begin; insert into app.samples select symbol, now() from app.symbols; rollback")
print(f"PASS {name}")
