"""What to type next: commands that can be pasted into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from nasfuse.data.load import runs_code
from nasfuse.searching.study import Study

SWAPS = 8  # that the command to explain a study asks for


def elsewhere_option(studies: Path) -> str:
    """The option without which the next command would look in another folder."""
    usual = studies == Path(os.environ.get("NASFUSE_STUDIES", "studies"))
    return "" if usual else f" --studies {shlex.quote(str(studies))}"


def next_commands(study: Study) -> dict[str, str]:
    """What to type next, quoted for a shell, by what it does."""
    name, elsewhere = shlex.quote(study.folder.name), elsewhere_option(study.folder.parent)
    data = study.settings.data
    typed = f" --data {data}" if runs_code(data) else ""  # which training again insists on
    return {
        "resume": f"nasfuse resume {name}{elsewhere}{typed}",
        "look": f"nasfuse ui {name}{elsewhere}",
        "explain": f"nasfuse explain {name}{elsewhere} --swaps {SWAPS}{typed}",
        "export": f"nasfuse export best --study {name}{elsewhere} --out net/",
    }
