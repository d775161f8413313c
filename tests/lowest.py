"""The lowest versions that pyproject.toml allows. Prints them as pip constraints or, given the scripts folder of an
environment with these versions, tries them. `make lowest` does both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
EXTRAS = ("play", "gym", "video")


def constraints() -> list[str]:
    """numpy==1.24 and so on, of the package and of the extras that need no PyTorch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in EXTRAS for d in project["optional-dependencies"][extra])]
    found = (re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)", requirement) for requirement in wanted)
    return [f"{one[1]}=={one[2]}" for one in found if one]


def tried(scripts: Path, place: Path) -> None:
    """Run what a user would, and the server. Raises CalledProcessError, OSError."""

    def run(program: str, *words: str) -> None:
        subprocess.run([scripts / program, *words], cwd=place, check=True)

    for output in ("low.gif", "low.webp", "low.mp4"):
        run("genie-run", "-n", "3", "-o", output, "-y")
        run("genie-info", output)
    run("genie-cpp", "worlds")
    run("genie-eval", "--life", "--held", "3", "--mixed", "3", "--still", "2", "--returns", "1", "--seeds", "1")
    run(
        "python",
        "-c",
        "import genie_cpp.gym, genie_cpp.server.page.app, gymnasium; gymnasium.make('genie_cpp/World-v0').reset()",
    )
    with subprocess.Popen(
        [scripts / "genie-serve", "--port", "0"], cwd=place, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[2]
            asked = urllib.request.Request(f"{address}v1/sessions", method="POST")
            session = urllib.request.urlopen(asked, timeout=30).headers["location"]
            body = json.dumps({"action": 1}).encode()
            head = {"Content-Type": "application/json"}
            step = urllib.request.Request(f"{address.rstrip('/')}{session}/step", body, head)
            assert urllib.request.urlopen(step, timeout=30).read(8) == b"\x89PNG\r\n\x1a\n"
        finally:
            server.terminate()


if __name__ == "__main__":
    if sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            tried(Path(sys.argv[1]).resolve(), Path(folder))
        print("1 passed, 0 failed")
    else:
        print(*constraints(), sep="\n")
