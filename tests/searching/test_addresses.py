from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nasfuse.api import tracking_uri
from nasfuse.errors import UsageError
from nasfuse.planning import continuation
from nasfuse.searching.addresses import NAMED, remember, require_named
from nasfuse.searching.limits import Limits
from nasfuse.searching.storage import storage_of
from nasfuse.searching.study import Settings, Study

MakeSettings = Callable[..., Settings]
SERVER, DATABASE, HEAD = "https://runs.example/", "postgresql+psycopg://me@db/x", "10.0.0.1:6379"


@pytest.fixture(autouse=True)
def _nothing_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(NAMED, raising=False)


def test_a_study_from_elsewhere_reaches_no_server(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    asked: dict[str, Any] = {"workers": None, "gpus_per_trial": None, "ray_address": None}
    settings = make_settings("s", tracking_uri=SERVER, storage=DATABASE, ray_address=HEAD)
    study = Study(tmp_path / "s", settings)
    reaches: list[Callable[[], object]] = [
        lambda: tracking_uri(study),
        lambda: storage_of(study),
        lambda: continuation(settings, limits=Limits(1, None), **asked),
    ]
    for reach, address in zip(reaches, (SERVER, DATABASE, HEAD), strict=True):
        with pytest.raises(UsageError) as caught:
            reach()
        assert address in str(caught.value)
        remember(address)
        reach()


def test_an_address_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMED, f"{HEAD} {SERVER}")
    assert require_named(SERVER, "s") == SERVER
    monkeypatch.delenv(NAMED)
    assert require_named(SERVER, "s") == SERVER
    with pytest.raises(UsageError, match="not named"):
        require_named(HEAD, "s")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", ".hidden", ""])
def test_a_study_is_no_path(name: str, make_settings: MakeSettings) -> None:
    known = make_settings().model_dump()
    with pytest.raises(ValidationError, match="a study's name"):
        Settings.model_validate(known | {"name": name})
