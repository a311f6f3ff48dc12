"""Stands in for Kamal and for kubectl: writes down each argv, deploys by noting it, and prints what runs."""

import json
import sys
from pathlib import Path

folder, words = Path(sys.argv[1]), sys.argv[2:]
runs = folder / "runs"
with (folder / "calls").open("a") as file:
    file.write(json.dumps(words) + "\n")
if (folder / "broken").exists():
    sys.exit("the registry does not answer")
if words[:2] in (["kamal", "deploy"], ["kamal", "rollback"]):
    runs.write_text(words[-1])
elif words[:3] == ["kubectl", "set", "image"]:
    runs.write_text(words[-1].partition("=")[2])
elif words[0] == "kubectl" or words[1:] == ["app", "version", "--quiet"]:
    print(runs.read_text() if runs.exists() else "")
else:
    sys.exit(f"nobody has tried {words} with the real program")
