"""The page as a browser has it: whole, sortable, quiet, and asking for nothing from outside."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aggregate import report
from aggregate.reading import load
from aggregate.tests.factory import FULL_PHASES, PRICES, make_result, save, small_spec

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</style></title>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(html.parser.HTMLParser):
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
    report.write(report.compared(loaded.results, loaded.problems, PRICES), folder / "report")
    return (folder / "report" / "index.html").read_text()


def many() -> tuple[dict[str, Any], ...]:
    return (
        make_result("mlx", phases=FULL_PHASES, repeats=2), make_result("tf-cuda", phases=FULL_PHASES),
        make_result("tf-cuda", precision="bf16"), make_result(spec=small_spec()),
        make_result(conformance=False), {"schema_version": "9.0"},
    )  # fmt: skip


def test_everything_is_within_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    text = page_of(tmp_path, *many())
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"(?:url\(|@import\s+|src=)[\"']?(?!#)", text)
    assert str(tmp_path) not in text
    assert page.tags.count("svg") >= 9


def test_each_row_leads_to_its_file_and_fingerprint(tmp_path: Path) -> None:
    text = page_of(tmp_path, make_result("mlx"), make_result("tf-cuda"))
    (result, *_) = load([tmp_path / "0.json"]).results
    assert re.search(rf'id="run-A".*0\.json.*SHA-256 <code>{result.sha256}</code>', text, re.DOTALL)


def test_warnings_stand_beside_the_numbers(tmp_path: Path) -> None:
    text = page_of(tmp_path, make_result("mlx", warnings=["the machine ran on its battery"]), make_result("tf-cuda"))
    assert re.search(r'title="the machine ran on its battery">1</a></sup>', text)


def test_hostile_text_is_text(tmp_path: Path) -> None:
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


PROBE = """
<script>
window.addEventListener("error", e => document.title = "FAULT " + e.message);
window.addEventListener("load", () => {
  const table = document.querySelector("table.sortable"), head = table.tHead.rows[0].cells[1];
  const values = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[1].textContent.replace(/,/g, "")));
  head.querySelector("button").click(); const up = values();
  head.querySelector("button").click(); const down = values();
  const drawn = [...document.querySelectorAll("figure svg")].every(svg => svg.getBoundingClientRect().width > 100);
  const wide = document.documentElement.scrollWidth > window.innerWidth;
  document.body.innerHTML = "PROBE " + JSON.stringify({up, down, drawn, wide,
    requests: performance.getEntriesByType("resource").map(entry => entry.name), title: document.title});
});
</script>
"""


@pytest.mark.parametrize("width", [1300, 500])
def test_in_a_real_browser(tmp_path: Path, width: int) -> None:
    if BROWSER is None:
        pytest.skip("NO BROWSER: the report was not opened in one; install chromium")
    text = page_of(tmp_path, *many())
    probed = tmp_path / "report" / "probed.html"
    probed.write_text(text.replace("</head>", f"{PROBE}</head>"))
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probed.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    found = re.search(r"PROBE (\{.*\})", done.stdout)
    assert found, done.stdout[-500:]
    said = json.loads(found.group(1))
    assert said["up"] == sorted(said["up"])
    assert said["down"] == sorted(said["up"], reverse=True)
    assert said["up"][0] < said["up"][-1]
    assert (said["drawn"], said["wide"], said["requests"]) == (True, False, [])
    assert "FAULT" not in said["title"]
