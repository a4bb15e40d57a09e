"""What to type next: commands that can be pasted into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from nasfuse.costs import parse_budget, show_macs
from nasfuse.data.load import runs_code
from nasfuse.names import space_names
from nasfuse.recipe import Recipe
from nasfuse.searching.limits import last_limits
from nasfuse.searching.study import SEARCH, Settings, Study

SWAPS = 8  # that the command to explain a study asks for by itself


def elsewhere_option(studies: Path) -> str:
    """The option without which the next command would look in another folder."""
    usual = studies == Path(os.environ.get("NASFUSE_STUDIES", "studies"))
    return "" if usual else f" --studies {shlex.quote(str(studies))}"


def next_commands(study: Study, *, swaps: int = SWAPS) -> dict[str, str]:
    """What to type next, quoted for a shell, by what it does.

    A study that an older nasfuse began cannot be resumed: a new search takes its place.
    """
    name, elsewhere = shlex.quote(study.folder.name), elsewhere_option(study.folder.parent)
    data = study.settings.data
    typed = f" --data {data}" if runs_code(data) else ""  # which training again insists on
    return {
        "resume": f"nasfuse resume {name}{elsewhere}{typed}" if study.resumable else SEARCH,
        "look": f"nasfuse ui {name}{elsewhere}",
        "explain": f"nasfuse explain {name}{elsewhere} --swaps {swaps}{typed}",
        "train": f"nasfuse train best --study {name}{elsewhere}{typed}",
        "export": f"nasfuse export best --study {name}{elsewhere} --out net/",
    }


def sync_command(study: Study) -> str:
    """What shows in MLflow all that it has missed."""
    name, elsewhere = shlex.quote(study.folder.name), elsewhere_option(study.folder.parent)
    return f"nasfuse sync {name}{elsewhere}"


def random_search(study: Study) -> str:
    """The command for a random search with the same data, budget and effort."""
    settings, limits = study.settings, last_limits(study)
    options = {
        "--sampler": "random",
        "--budget": _budget(settings.budget),
        "--data": settings.data,
        "--space": _space(settings),
        "--objective": None if settings.objective == "macs" else settings.objective,
        "--front-from": None if settings.front_from is None else _budget(settings.front_from),
        "--max-params": None if settings.max_params is None else str(settings.max_params),
        "--max-latency": None if settings.max_latency is None else f"{settings.max_latency:g}ms",
        "--trials": None if limits.trials is None else str(limits.trials),
        "--time-limit": None if limits.seconds is None else f"{limits.seconds:g}s",
        "--seed": str(settings.seed),
        **_training(settings.recipe),
    }
    words = [word for name, value in options.items() if value for word in (name, value)]
    return f"nasfuse search {shlex.join(words)}{elsewhere_option(study.folder.parent)}"


def _budget(macs: int) -> str:
    short = f"{show_macs(macs)}MACs"
    return short if parse_budget(short) == macs else f"{macs}MACs"


def _space(settings: Settings) -> str:
    """Its name; the place of a file is not known any more."""
    known = settings.space_name in space_names()
    return settings.space_name if known else f"{settings.space_name}.yaml"


def _training(recipe: Recipe) -> dict[str, str]:
    usual = Recipe()
    epochs = {"--epochs": str(recipe.rungs[-1].epochs)}
    same = recipe.model_copy(update={"rungs": usual.rungs}) == usual
    return epochs if same and len(recipe.rungs) == len(usual.rungs) else {"--recipe": "FILE"}
