"""The front in a real browser: on MLflow's page, and on ours without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from nasfuse.architecture import Architecture
from nasfuse.fusion_map import Cell, FusionMap
from nasfuse.fusion_report import write_fusions
from nasfuse.recipe import Recipe
from nasfuse.report import write_report
from nasfuse.results import Result
from nasfuse.serving import serve
from nasfuse.summary import summarise
from nasfuse.tracking import Tracker, local_uri, open_client, study_addresses
from nasfuse.trained import Epoch, Scores, SeedRun, Trained, TrainingSettings
from nasfuse.trial_runs import training_runs

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


@pytest.fixture
def trained(architecture: Architecture) -> Trained:
    """A full training on classes with names that are HTML."""
    settings = TrainingSettings(
        study="demo",
        number=1,
        architecture=architecture,
        data=EVIL,
        side=16,
        split_seed=0,
        skip_bad=0,
        stored=16,
        fingerprint="0" * 12,
        train=9,
        validation=6,
        classes=(EVIL, "b", "c"),
        mean=(0.5,),
        std=(0.25,),
        recipe=Recipe(),
        epochs=1,
        seeds=1,
        seed=0,
        all_data=False,
    )
    run = SeedRun(seed=0, weights="a", seconds=1.0, epochs=(Epoch(loss=1.0, accuracy=0.5),))
    return Trained(
        settings=settings,
        macs=1000,
        params=1000,
        thop=1000,
        runs=(run,),
        chosen=0,
        validation=Scores.of([[[2, 0, 0], [0, 2, 0], [0, 0, 2]]]),
        test=None,
        versions={},
        finished="2026-01-01T00:00:00+00:00",
    )


def test_mlflow_opens_on_the_front(study: list[Result], trained: Trained, tmp_path: Path) -> None:
    uri, artifacts = local_uri(tmp_path), tmp_path / "mlartifacts"
    tracker = Tracker.open(uri, artifacts=artifacts, study="demo", identity="demo", settings={})
    tracker.sync(study, 1, BUDGET)
    write_report(
        tmp_path / "report", study, summarise(study, budget=BUDGET, validation=2000), title="demo"
    )
    tracker.add(training_runs(trained))
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
        training = next(known for key, known in tracker.known.items() if key.endswith("-1"))
        classes = wait_for(f"{server.address}/{tracker._address(training.run_id)}", "answers by")
        assert f">{html.escape(EVIL, quote=False)}</t" in classes, "the name of a class, as text"
        assert "<title>hacked" not in classes
        assert not re.search("<img[^>]*onerror", classes)
        assert keys["interactive page"].split("?")[0].endswith("/artifacts/report/front.html")
    assert server.process.poll() is not None


def test_our_page_draws_without_network(study: list[Result], tmp_path: Path) -> None:
    write_report(tmp_path, study, summarise(study, budget=BUDGET, validation=2000), title="demo")
    address = (tmp_path / "front.html").as_uri()
    page = page_in_browser(address, tmp_path / "profile", seconds=20, offline=True)
    on_the_front = len((tmp_path / "front.csv").read_text().splitlines()) - 1
    assert len(re.findall(POINT, page)) == FULL + on_the_front
    assert "validation accuracy" in page


IMAGE = "<img src=x onerror=\"document.title='hacked'\">"
EVIL = f"<script>document.title='hacked'</script>{IMAGE}"
LOOK = """<!doctype html><body><script>
function look(frame) {
  const page = frame.contentDocument, plot = page.getElementById('front');
  for (const trace of plot ? plot.data : []) (trace.customdata || []).forEach((key, i) => {
    frame.contentWindow.Plotly.Fx.hover(plot, [{curveNumber: 0, pointNumber: 0}]);
    plot.emit('plotly_click', {points: [{customdata: key, hovertext: trace.hovertext[i]}]});
  });
  setTimeout(() => {  // an image has failed by then
    const found = {title: page.title, added: page.querySelectorAll('[onerror]').length,
                   text: page.body.innerText, clicked: page.getElementById('chosen')?.innerText};
    document.body.append(Object.assign(document.createElement('pre'),
                                       {textContent: JSON.stringify(found)}));
  }, 1000);
}
for (const page of ['front.html', 'fusions.html'])
  document.body.append(Object.assign(document.createElement('iframe'),
                                     {src: page, onload: event => look(event.target)}));
</script></body>"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The test's folder on a server: a page may look into another one of its own server only."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_text_from_outside_stays_text(
    make_result: Callable[..., Result], tmp_path: Path, address: str
) -> None:
    """Whatever a browser makes of names, also after a click: it runs nothing, and adds nothing."""
    title = f"</title></script>{EVIL}"
    results = [make_result(n, origin=EVIL, accuracy=0.4 + n / 10) for n in range(2)]
    write_report(tmp_path, results, summarise(results, budget=BUDGET, validation=2000), title=title)
    cells = (Cell("stages.0", IMAGE, 3, 1), Cell("stages.0", "add", 3, 1))
    fusions = FusionMap(6, 2, ("stages.0",), cells, None, 0, (), 0)
    write_fusions(tmp_path, fusions, [], title=title)
    (tmp_path / "look.html").write_text(LOOK)
    seen = page_in_browser(f"{address}/look.html", tmp_path / "profile", seconds=20)
    pages = [json.loads(html.unescape(text)) for text in re.findall("<pre>(.*?)</pre>", seen, re.S)]
    assert sorted(page["title"] for page in pages) == [title, f"{title}: fusions"]
    assert [page["added"] for page in pages] == [0, 0]
    assert all(EVIL in page["text"] for page in pages)
    assert [EVIL in page["clicked"] for page in pages if "clicked" in page] == [True]
