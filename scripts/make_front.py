"""The picture in README: the front of a real search.

    python scripts/make_front.py [--budget 10MFLOPs] [--time-limit 8m] [--seed 0]

Searches the default space on the bundled images, with everything else left alone, and copies the
picture of the study's report to scripts/front.png. Prints what the search printed at its end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).with_name("front.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budget", default="10MFLOPs")
    parser.add_argument("--time-limit", default="8m")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    asked = ["--budget", options.budget, "--time-limit", options.time_limit, "--seed", options.seed]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nasfuse", "search", *asked, "--studies", folder]
        subprocess.run([*command, "--name", "front"], check=True)
        shutil.copyfile(Path(folder) / "front" / "report" / "front.png", PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
