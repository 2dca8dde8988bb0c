"""The page as a browser has it: whole, sortable, quiet, and asking for nothing from outside."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import load
from aggregate.render import figures, html, report
from aggregate.render.figures import loss, throughput
from aggregate.tests.factory import FULL_PHASES, PRICES, leaves, make_result, save

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</style></title>"


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Tags, ids and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "srcset", "action", "data"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def page_of(folder: Path, *contents: dict[str, Any]) -> str:
    for i, content in enumerate(contents):
        save(content, folder, f"{i}.json")
    loaded = load([folder])
    report.write(compare(loaded.results, loaded.problems, PRICES), folder / "report")
    return (folder / "report" / "index.html").read_text()


def test_everything_is_within_and_every_link_leads_somewhere(invented_report: Path) -> None:
    text = (invented_report / "index.html").read_text()
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"(?:url\(|@import\s+|src=)[\"']?(?!#)", text)
    assert str(invented_report.parent) not in text
    assert page.tags.count("svg") >= 9


@pytest.mark.usefixtures("unrendered")
def test_each_row_leads_to_its_file_and_fingerprint(tmp_path: Path) -> None:
    text = page_of(tmp_path, make_result("mlx"), make_result("tf-cuda"))
    (result, *_) = load([tmp_path / "0.json"]).results
    assert re.search(rf'id="run-A".*0\.json.*SHA-256 <code>{result.sha256}</code>', text, re.DOTALL)


@pytest.mark.usefixtures("unrendered")
def test_warnings_stand_beside_the_numbers(tmp_path: Path) -> None:
    text = page_of(tmp_path, make_result("mlx", warnings=["the machine ran on its battery"]), make_result("tf-cuda"))
    assert re.search(r'title="the machine ran on its battery">1</a></sup>', text)


def test_hostile_text_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "KINDS", (throughput.KIND, loss.KIND))
    hostile = make_result(device_name=EVIL, engine=EVIL, warnings=[EVIL], failed={("latency", 0): EVIL})
    for outcome in hostile["phases"]:
        if outcome["backend"]:
            outcome["backend"]["framework_version"] = EVIL
    text = page_of(tmp_path, hostile, make_result("mlx"))
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not page.handlers
    assert "{{ 7 * 7 }}" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_hostile_text_in_every_text_field_is_refused_or_text(tmp_path: Path) -> None:
    good, shown = make_result("mlx", phases=FULL_PHASES, failed={("latency", 0): "killed"}), 0
    for path in leaves(good):
        hostile = json.loads(json.dumps(good))
        inner = hostile
        for key in path[:-1]:
            inner = inner[key]
        if not isinstance(inner[path[-1]], str):
            continue
        inner[path[-1]] = EVIL
        loaded = load([save(hostile, tmp_path)])
        assert loaded.results or loaded.problems
        if loaded.results:
            comparison = compare(loaded.results, loaded.problems, PRICES)
            page = Page(html.page(comparison, EVIL, [[] for _ in comparison.sections]))
            assert (page.tags.count("script"), "img" in page.tags, page.handlers) == (1, False, []), path
            shown += 1
    assert shown > 10


PROBE = """
<script>
window.addEventListener("error", e => document.title = "FAULT " + e.message);
window.addEventListener("load", () => {
  const sorted = [...document.querySelectorAll("table.sortable")].map(table => {
    const values = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[1].firstChild.textContent.replace(/,/g, "")));
    const click = () => { table.tHead.rows[0].cells[1].querySelector("button").click(); return values(); };
    return {up: click(), down: click()};
  });
  const drawn = [...document.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().width);
  const wide = document.documentElement.scrollWidth > window.innerWidth;
  window.parent.postMessage({sorted, drawn, wide, width: window.innerWidth, title: document.title,
    requests: performance.getEntriesByType("resource").map(entry => entry.name)}, "*");
});
</script>
"""


FRAMES = """{frames}
<script>
const seen = {{}};
window.addEventListener("message", e => {{
  const frame = [...document.querySelectorAll("iframe")].find(frame => frame.contentWindow === e.source);
  seen[frame.id] = e.data;
  if (Object.keys(seen).length === {count}) document.body.textContent = "PROBE " + JSON.stringify(seen);
}});
</script>
"""
FRAME = '<iframe id="{name}" src="{page}" style="border: 0; width: {width}px; height: 900px"></iframe>'
"""A window cannot be as narrow as a phone, a frame can."""
WIDTHS = (1300, 390)


@pytest.fixture(scope="session")
def in_browser(
    tmp_path_factory: pytest.TempPathFactory, invented_report: Path, committed_report: Path
) -> dict[str, dict[str, Any]]:
    """What either report is like in a window of either width, its tables sorted by their first column.

    A browser takes longer to start than to show all four.
    """
    if BROWSER is None:
        pytest.skip("NO BROWSER: the report was not opened in one; install chromium")
    folder, frames = tmp_path_factory.mktemp("browser"), []
    for name, report_folder in (("invented", invented_report), ("committed", committed_report)):
        text = (report_folder / "index.html").read_text()
        (folder / f"{name}.html").write_text(text.replace("</head>", f"{PROBE}</head>"))
        frames += [FRAME.format(name=f"{name}-{width}", page=f"{name}.html", width=width) for width in WIDTHS]
    (folder / "frames.html").write_text(FRAMES.format(frames="\n".join(frames), count=len(frames)))
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
            (folder / "frames.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    probed = re.search(r"PROBE (\{.*\})", done.stdout)
    assert probed, done.stdout[-500:]
    seen: dict[str, dict[str, Any]] = json.loads(probed.group(1))
    return seen


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["invented", "committed"])
def test_in_a_real_browser(request: pytest.FixtureRequest, in_browser: Any, width: int, name: str) -> None:
    """Of invented results with all there can be, and of those in results/: the very report that the README shows."""
    seen = in_browser[f"{name}-{width}"]
    assert seen["width"] == width
    folder: Path = request.getfixturevalue(f"{name}_report")
    plots = len(list((folder / "plots").glob("*.svg")))
    assert len(seen["drawn"]) == plots >= 9
    assert all(drawn > 250 for drawn in seen["drawn"])
    assert (seen["wide"], seen["requests"]) == (False, [])
    assert "FAULT" not in seen["title"]
    assert len(seen["sorted"]) > 5
    for table in seen["sorted"]:
        up = [value for value in table["up"] if value is not None]
        assert up == sorted(up)
        assert table["up"][len(up) :] == table["down"][len(up) :] == [None] * (len(table["up"]) - len(up))
        assert table["down"][: len(up)] == up[::-1]
    assert any(len(set(table["up"])) > 1 for table in seen["sorted"])
