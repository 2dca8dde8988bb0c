"""The page as text: whole, asking for nothing from outside, and nothing in it that a result file could make run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import aggregate
from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import load
from aggregate.render import figures, html, report
from aggregate.render.figures import loss, questions
from aggregate.tests.factory import FULL_PHASES, PRICES, leaves, make_result, save

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</style></title>"


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
    assert (invented_report / "index.html").stat().st_size < 5e6


@pytest.mark.usefixtures("unrendered")
def test_the_answer_comes_first_and_the_day_and_version_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    text = page_of(tmp_path, make_result("mlx"), make_result("tf-cuda"))
    answered, charted, tabled = (text.index(mark) for mark in ('class="answer', "<figure", "<table"))
    assert answered < charted < tabled
    assert f"Made by deit-bench aggregate {aggregate.__version__} on 2026-01-01" in text


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
    monkeypatch.setattr(figures, "KINDS", (questions.TRAINING, loss.KIND))
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


@pytest.mark.usefixtures("unrendered")
def test_what_does_not_compare_has_a_bar_and_no_factor(tmp_path: Path) -> None:
    full: Any = {"phases": FULL_PHASES}
    text = page_of(tmp_path, make_result("mlx", **full), make_result("tf-cuda", data="synthetic", **full))
    (chart,) = re.findall(r'id="s1-target".*?</figure>', text, re.DOTALL)
    assert chart.count("<li data-run") == 2
    assert 'class="times">best<' in chart
    assert "times behind" not in chart
