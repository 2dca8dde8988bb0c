"""The page in a real browser: quiet, within a phone's width, sortable, filtered, and accessible."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
"""`npm install --prefix aggregate/tests` brings it."""
NAMES = ("invented", "committed", "one", "three", "fifty")
WIDTHS = (1300, 390)
PROBE = """
<script>
const faults = [];
window.addEventListener("error", e => faults.push(e.message));
document.addEventListener("securitypolicyviolation", e => faults.push(e.violatedDirective + " " + e.blockedURI));
window.addEventListener("load", async () => {
  const all = selector => [...document.querySelectorAll(selector)];
  const visible = () => new Set(all("[data-run]").filter(e => !e.hasAttribute("hidden")).map(e => e.dataset.run)).size;
  const seen = {width: innerWidth, wide: document.documentElement.scrollWidth > innerWidth,
    answer: document.querySelector(".answer li")?.getBoundingClientRect().bottom ?? 0, faults,
    drawn: all("figure svg").map(e => e.getBoundingClientRect().width).filter(width => width),
    outside: all("figure *").filter(e => e.checkVisibility() && !e.closest("svg"))
      .filter(e => e.getBoundingClientRect().right > innerWidth).length,
    requests: performance.getEntriesByType("resource").map(entry => entry.name)};
  if (window.axe) {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    const serious = found.violations.filter(violation => ["serious", "critical"].includes(violation.impact));
    seen.axe = serious.map(({id, nodes}) => `${id}: ${nodes[0].html.slice(0, 150)} ${nodes[0].failureSummary}`);
  }
  all("details").forEach(details => details.open = true);
  seen.wideOpen = document.documentElement.scrollWidth > innerWidth;
  const column = table => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[1].dataset.value));
  seen.sorted = all("table.sortable").map(table => {
    const head = table.tHead.rows[0].cells[1], click = () => { head.querySelector("button").click(); return column(table); };
    return {better: head.dataset.better, first: click(), second: click()};
  });
  seen.address = location.hash;
  seen.runs = visible();
  const search = document.querySelector("#filter");
  if (search) {
    const chip = document.querySelector('.chip[data-kind="platform"]');
    if (chip) {
      chip.click();
      seen.chip = [visible(), Object.values(FACTS).filter(facts => facts.platform === chip.dataset.value).length];
      chip.click();
    }
    search.value = "no such thing"; search.dispatchEvent(new Event("input")); seen.none = visible();
    search.value = ""; search.dispatchEvent(new Event("input")); seen.again = visible();
    document.querySelector("#relative").click();
    seen.relative = all(".bars .times").filter(e => e.checkVisibility()).map(e => e.textContent);
  }
  parent.postMessage(seen, "*");
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


@pytest.fixture(scope="session")
def in_browser(
    tmp_path_factory: pytest.TempPathFactory,
    invented_report: Path,
    committed_report: Path,
    made_up_reports: dict[str, Path],
) -> dict[str, dict[str, Any]]:
    """What each report is like in a window of either width; a browser takes longer to start than to show them all."""
    if BROWSER is None:
        pytest.skip("NO BROWSER: the report was not opened in one; install chromium")
    folder, frames = tmp_path_factory.mktemp("browser"), []
    axe = f"<script>{AXE.read_text()}</script>" if AXE.exists() else ""
    reports = {"invented": invented_report, "committed": committed_report, **made_up_reports}
    for name, report_folder in reports.items():
        text = (report_folder / "index.html").read_text()
        for width in WIDTHS:
            page = folder / f"{name}-{width}.html"
            page.write_text(text.replace("</head>", f"{PROBE}{axe if width == WIDTHS[0] else ''}</head>"))
            frames.append(FRAME.format(name=page.stem, page=page.name, width=width))
    (folder / "frames.html").write_text(FRAMES.format(frames="\n".join(frames), count=len(frames)))
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--enable-logging=stderr", "--virtual-time-budget=60000", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
            (folder / "frames.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    probed = re.search(r"PROBE (\{.*\})", done.stdout)
    assert probed, done.stdout[-500:]
    seen: dict[str, dict[str, Any]] = json.loads(
        probed.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    return seen


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_quiet_and_within_its_window(in_browser: Any, width: int, name: str) -> None:
    seen = in_browser[f"{name}-{width}"]
    assert seen["width"] == width
    assert (seen["faults"], seen["requests"]) == ([], [])
    assert (seen["wide"], seen["wideOpen"], seen["outside"]) == (False, False, 0)
    assert 0 < seen["answer"] < 900, "the answer begins on the first screen"
    assert seen["drawn"]
    assert min(seen["drawn"]) > 250


@pytest.mark.parametrize("name", NAMES)
def test_sorts(in_browser: Any, name: str) -> None:
    tables = in_browser[f"{name}-1300"]["sorted"]
    assert len(tables) > 3
    for table in tables:
        first = [value for value in table["first"] if value is not None]
        second = [value for value in table["second"] if value is not None]
        assert first == sorted(first, reverse=table.get("better") == "more")
        assert second == first[::-1]
        missing = len(table["first"]) - len(first)
        assert table["first"][len(first) :] == table["second"][len(first) :] == [None] * missing
    assert "sort=" in in_browser[f"{name}-1300"]["address"]


@pytest.mark.parametrize("name", ["committed", "three", "fifty"])
def test_filters_charts_and_tables(in_browser: Any, name: str) -> None:
    seen = in_browser[f"{name}-390"]
    assert seen["chip"][0] == seen["chip"][1] < seen["runs"]
    assert (seen["none"], seen["again"]) == (0, seen["runs"])
    assert "best" in seen["relative"]
    assert any(re.fullmatch(r"[\d.,]+ times behind", text) for text in seen["relative"])


def test_one_run_has_nothing_to_filter(in_browser: Any) -> None:
    assert "none" not in in_browser["one-390"]


@pytest.mark.parametrize("name", NAMES)
def test_accessible(in_browser: Any, name: str) -> None:
    if not AXE.exists():
        pytest.skip("NO AXE: the report was not checked for accessibility; npm install --prefix aggregate/tests")
    assert in_browser[f"{name}-1300"]["axe"] == []


@pytest.mark.parametrize("name", ["one", "three", "fifty"])
def test_weighs_little_and_says_what_is_made_up(made_up_reports: dict[str, Path], name: str) -> None:
    page = made_up_reports[name] / "index.html"
    assert page.stat().st_size < 5e6
    assert "made up for a test" in page.read_text()
