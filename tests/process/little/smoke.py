"""The smoke `writing` sees that a sample can be stored."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
from point import reach

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
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("insert into app.samples select symbol, now() from app.symbols")
    connection.rollback()
print(f"PASS {name}")
