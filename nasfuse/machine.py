"""What this machine has: versions, processors, memory, disk, images at hand, open addresses."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from packaging.requirements import Requirement

from nasfuse.data.downloads import cache_folder
from nasfuse.data.load import DATASETS
from nasfuse.gpus import usable_gpus
from nasfuse.planning import cores
from nasfuse.searching.admission import listening
from nasfuse.searching.sharing import mps_text

GB = 1e9
LITTLE_MEMORY, LITTLE_DISK = 2 * GB, 1 * GB


class Finding(NamedTuple):
    """One line of what was found; `broken` is what no search can run with."""

    subject: str
    text: str
    fix: str = ""
    broken: bool = False


def examine(studies: Path) -> list[Finding]:
    """Everything that a report of a problem should say. Takes seconds; writes nothing."""
    return [
        *_programs(),
        *_extras(),
        *_processors(),
        *_room(studies),
        *_data(),
        *_addresses(),
    ]


def _programs() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    nasfuse = _version("nasfuse") or "unknown"
    yield Finding("nasfuse", f"{nasfuse}, Python {platform.python_version()}, {system}")
    for needed in sorted(_requirements(None), key=lambda needed: needed.name):
        found = _version(needed.name)
        wanted = f"{needed.name}{needed.specifier}"
        fix = f"pip install '{wanted}'"
        if found is None:
            yield Finding("package", f"{needed.name} is missing", fix, broken=True)
        elif not needed.specifier.contains(found, prereleases=True):
            text = f"{needed.name} {found} is not one of {needed.specifier}"
            yield Finding("package", text, fix, broken=True)
        else:
            yield Finding("package", f"{needed.name} {found}")


def _extras() -> Iterator[Finding]:
    listed = [Requirement(text) for text in requires("nasfuse") or []]
    names = {word for one in listed if one.marker for word in _quoted(str(one.marker))}
    for extra in sorted(names):
        missing = [one.name for one in _requirements(extra) if _version(one.name) is None]
        text = f"{extra}: {'lacks ' + ', '.join(missing) if missing else 'installed'}"
        yield Finding("extra", text, f"pip install 'nasfuse[{extra}]'" if missing else "")


def _quoted(marker: str) -> list[str]:
    """The extra that a marker such as `extra == "test"` names."""
    return marker.split('"')[1::2] if "extra" in marker else []


def _requirements(extra: str | None) -> list[Requirement]:
    """What nasfuse needs here, or what an extra adds to that."""
    listed = [Requirement(text) for text in requires("nasfuse") or []]
    if extra is None:
        return [one for one in listed if not one.marker or one.marker.evaluate({"extra": ""})]
    return [
        one
        for one in listed
        if one.marker and "extra" in str(one.marker) and one.marker.evaluate({"extra": extra})
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processors() -> Iterator[Finding]:
    ability = torch.backends.cpu.get_cpu_capability()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    yield Finding("cpu", f"{cores()} cores for nasfuse, {ability}; load {load}")
    gpus = usable_gpus()
    for index in range(gpus):
        about = torch.cuda.get_device_properties(index)
        text = f"{about.name}, {about.total_memory / GB:.0f} GB, CUDA {torch.version.cuda}"
        yield Finding("gpu", text)
    if gpus:
        yield Finding("gpu", mps_text())
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
        said = filter(None, ("none that torch can use", built, _why_no_gpu()))
        newer = "a newer driver, or a torch for this one: https://pytorch.org/get-started/locally"
        yield Finding("gpu", "; ".join(said), newer if torch.cuda.device_count() else "")


def _why_no_gpu() -> str:
    """What torch says of GPUs that are there, and that it cannot use."""
    try:
        if torch.cuda.device_count():
            torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # of several types, whatever its driver or its build lack
        return str(error).split(". ")[0]
    return ""


def _room(studies: Path) -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    little = free < LITTLE_MEMORY
    fix = "fewer workers: --workers 1" if little else ""
    yield Finding("memory", f"{free / GB:.1f} GB free", fix)
    places = [studies.absolute(), *studies.absolute().parents]
    folder = next(place for place in places if place.exists())
    space = psutil.disk_usage(str(folder)).free
    text = f"{space / GB:.1f} GB free for {studies}"
    if not os.access(folder, os.W_OK):
        yield Finding("disk", f"{folder} cannot be written", "--studies FOLDER", broken=True)
    elif space < LITTLE_DISK:
        yield Finding("disk", text, "--studies FOLDER   on a larger disk")
    else:
        yield Finding("disk", text)


def _data() -> Iterator[Finding]:
    for name, description in DATASETS.items():
        yield Finding("data", f"{name}: {description}")
    folder = cache_folder()
    files = [path for path in folder.rglob("*") if path.is_file()]
    held = f"{sum(path.stat().st_size for path in files) / 1e6:.0f} MB" if files else "empty"
    yield Finding("data", f"downloads are kept in {folder} ({held})")


def _addresses() -> Iterator[Finding]:
    """Where MLflow and Ray processes of this user listen."""
    open_to_all = False
    for process in psutil.process_iter(["name", "cmdline", "uids"]):
        program = _server(process.info["cmdline"] or [])
        for end in listening([process]) if program else []:
            open_to_all = open_to_all or end.everywhere
            own = f"{end.host}:{end.port}"
            place = f"every interface, port {end.port}" if end.everywhere else own
            yield Finding("listens", f"{program} (process {end.process}) on {place}")
    if open_to_all:
        yield Finding(
            "listens", "Ray binds every interface by itself; a token keeps others out of it"
        )


def _server(command: list[str]) -> str | None:
    words = " ".join(command)
    if "mlflow" in words and ("server" in words or "uvicorn" in words):
        return "MLflow"
    return "Ray" if "raylet" in words or "gcs_server" in words or "ray::" in words else None
