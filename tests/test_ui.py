"""The front in a real browser: on MLflow's page, and on ours without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nasfuse.report import write_report
from nasfuse.results import Result
from nasfuse.serving import serve
from nasfuse.summary import summarise
from nasfuse.tracking import Tracker, local_uri, open_client, study_addresses

BUDGET = 100_000_000
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1600,1000"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome"),
]


def page_in_browser(address: str, profile: Path, *, seconds: int, offline: bool = False) -> str:
    """The document after its scripts ran for this long by the page's own clock."""
    no_names = ["--host-resolver-rules=MAP * ~NOTFOUND"] if offline else []
    command = [str(BROWSER), *FLAGS.split(), *no_names, f"--user-data-dir={profile}"]
    wait = f"--virtual-time-budget={1000 * seconds}"
    ran = subprocess.run(
        [*command, wait, "--dump-dom", address], capture_output=True, text=True, timeout=120
    )
    return ran.stdout


TRIALS, FULL = 120, 30
POINT = r'<path class="point[ "]'  # as plotly draws one


@pytest.fixture
def study(make_result: Callable[..., Result]) -> list[Result]:
    """More trials than MLflow's run list has on a page; some of them are fully trained."""
    return [
        make_result(n, rung=rung, macs=(n + 1) * 800_000, accuracy=0.3 + rung / 5 + (n % 7) / 50)
        for n in range(TRIALS)
        for rung in ((0, 1) if n < FULL else (0,))
    ]


def test_mlflow_opens_on_the_front(study: list[Result], tmp_path: Path) -> None:
    uri, artifacts = local_uri(tmp_path), tmp_path / "mlartifacts"
    tracker = Tracker.open(uri, artifacts=artifacts, study="demo", identity="demo", settings={})
    tracker.sync(study, 1, BUDGET)
    write_report(
        tmp_path / "report", study, summarise(study, budget=BUDGET, validation=2000), title="demo"
    )
    tracker.publish(tmp_path / "report", "A note.")
    tracker.close("FINISHED")
    with serve(uri, artifacts) as server:

        def wait_for(address: str, pattern: str) -> str:
            """The page; its clock can run out before the server has answered."""
            for attempt in range(4):
                profile = tmp_path / f"profile {attempt}"
                page = page_in_browser(address, profile, seconds=100 * (attempt + 1))
                if re.search(pattern, page):
                    break
            return page

        addresses = study_addresses(server.address, uri, "demo", "demo")
        chart = wait_for(addresses.front, POINT)
        assert len(re.findall(POINT, chart)) == TRIALS + FULL, (
            "two charts: of the first rung, of the last"
        )
        assert "mmacs" in chart
        programs = open_client(server.address)
        asked = programs.search_runs([tracker.experiment_id], max_results=100)
        assert len(asked) == 100, "only MLflow's own pages get more than they ask for"
        note = wait_for(addresses.note, "interactive page")
        links = re.findall(r'href="(#/experiments/[^"]*)"[^>]*>([^<]*)<', note)
        keys = {text: link for link, text in links}
        best = tracker.rows[-1]
        assert best.key in keys, "the table has the best network"
        run = wait_for(f"{server.address}/{keys[best.key]}", f"trial {best.number}<")
        assert "fusions" in run
        assert keys["interactive page"].split("?")[0].endswith("/artifacts/report/front.html")
    assert server.process.poll() is not None


def test_our_page_draws_without_network(study: list[Result], tmp_path: Path) -> None:
    write_report(tmp_path, study, summarise(study, budget=BUDGET, validation=2000), title="demo")
    address = (tmp_path / "front.html").as_uri()
    page = page_in_browser(address, tmp_path / "profile", seconds=20, offline=True)
    on_the_front = len((tmp_path / "front.csv").read_text().splitlines()) - 1
    assert len(re.findall(POINT, page)) == FULL + on_the_front
    assert "validation accuracy" in page


def test_text_from_outside_stays_text(make_result: Callable[..., Result], tmp_path: Path) -> None:
    """Whatever a browser makes of names, it runs nothing and adds no element of theirs."""
    evil = "</title></script><script>document.title='run'</script><img src=x onerror=alert(1)>"
    results = [make_result(n, origin=evil, accuracy=0.4 + n / 10) for n in range(2)]
    write_report(tmp_path, results, summarise(results, budget=BUDGET, validation=2000), title=evil)
    address = (tmp_path / "front.html").as_uri()
    page = page_in_browser(address, tmp_path / "profile", seconds=20, offline=True)
    assert re.findall(POINT, page), "the page's own scripts ran"
    assert "<title>run" not in page
    assert "<img src=" not in page
    assert "onerror=alert(1)&gt;" in page
