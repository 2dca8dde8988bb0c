"""The folder of a report: what is ours is replaced, what is not is left alone."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregate.render import folder
from aggregate.render.folder import MARKER, write
from aggregate.tests.factory import call, make_result, save
from shared_spec import files
from shared_spec.errors import UserError

FIRST = {"index.html": b"one", "plots/cost.png": b"PNG"}
SECOND = {"index.html": b"two"}


def content_of(out: Path) -> dict[str, bytes]:
    """Every file but the marker."""
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_a_report_is_replaced_by_the_next(tmp_path: Path) -> None:
    for content in (FIRST, SECOND, FIRST, FIRST):
        write(tmp_path, content)
        assert content_of(tmp_path) == content


@pytest.mark.parametrize("name", ["index.html", "plots/cost.png"])
def test_what_no_report_wrote_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=r"would be overwritten.*--force"):
        write(tmp_path, FIRST)
    assert content_of(tmp_path) == {name: b"mine"}
    write(tmp_path, FIRST, force=True)
    assert content_of(tmp_path) == FIRST


def test_what_was_changed_since_is_somebodys_work(tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    (tmp_path / "plots/cost.png").write_text("mine")
    with pytest.raises(UserError, match="cost"):
        write(tmp_path, FIRST)
    write(tmp_path, SECOND)
    assert content_of(tmp_path) == {**SECOND, "plots/cost.png": b"mine"}


def test_links_and_folders_under_our_names_are_left_alone(tmp_path: Path) -> None:
    target, out = tmp_path / "target", tmp_path / "out"
    target.write_text("mine")
    out.mkdir()
    (out / "index.html").symlink_to(target)
    with pytest.raises(UserError, match="index"):
        write(out, FIRST)
    (out / "index.html").unlink()
    (out / "index.html").mkdir()
    with pytest.raises(UserError, match="index"):
        write(out, FIRST)
    with pytest.raises(UserError, match="cannot be written to"):
        write(out, FIRST, force=True)
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    "marker",
    [b"", b"[]", b"{}", b'{"format": 1}', b'{"format": 1, "files": []}', b'{"format": 1, "files": {"../x": ["0"]}}',
     b'{"format": 1, "files": {"/etc/passwd": ["0"]}}', b'{"format": 2, "files": {"index.html": ["0"]}}', b"\xff"],
)  # fmt: skip
def test_a_marker_that_is_not_ours_proves_nothing(tmp_path: Path, marker: bytes) -> None:
    (tmp_path / "x").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / MARKER).write_bytes(marker)
    (out / "index.html").write_text("mine")
    with pytest.raises(UserError, match="html would be overwritten"):
        write(out, SECOND)
    assert (tmp_path / "x").read_text() == "mine"


@pytest.mark.parametrize("steps", range(4))
def test_a_report_that_was_cut_off_is_still_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    write(tmp_path, FIRST)
    left, really = steps, files.write_atomic

    def until_killed(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        really(path, data)

    monkeypatch.setattr(files, "write_atomic", until_killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, {**SECOND, "comparison.md": b"text"})
    monkeypatch.undo()
    write(tmp_path, SECOND)
    assert content_of(tmp_path) == SECOND


NAMES = st.sampled_from(["index.html", "comparison.md", "plots/a.png", "notes.txt", "plots/mine.png"])
STEPS = st.tuples(st.sampled_from(["report", "user", "removal"]), st.dictionaries(NAMES, st.binary(max_size=3)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=6))
def test_nothing_of_a_user_is_ever_lost(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, dict[str, bytes]]]
) -> None:
    """Reports and a user write in turns: what the user left is there until the user takes it away."""
    out, mine = tmp_path_factory.mktemp("out"), dict[str, bytes]()
    for who, content in steps:
        if who == "report":
            try:
                write(out, content)
            except UserError:
                assert mine.keys() & content.keys()
        for name, data in content.items() if who == "user" else ():
            (out / name).parent.mkdir(exist_ok=True)
            mine[name] = b"mine" + data
            (out / name).write_bytes(mine[name])
        for name in content if who == "removal" else ():
            (out / name).unlink(missing_ok=True)
            mine.pop(name, None)
        assert mine.items() <= content_of(out).items()


@pytest.mark.usefixtures("unrendered")
def test_earlier_reports_had_no_marker(tmp_path: Path) -> None:
    """What they show is recognised as theirs; a plot of the user's own under such a name is not."""
    out, source = tmp_path / "report", save(make_result(), tmp_path)
    assert call(source, "--out", out).exit_code == 0
    (out / MARKER).unlink()
    (out / "plots" / "cost.png").write_text("mine")
    done = call(save(make_result(phases=["conformance"]), tmp_path), "--out", out)
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in (out / "plots").iterdir()} == {"cost.png"}
    assert (out / "plots" / "cost.png").read_text() == "mine"


@pytest.mark.usefixtures("unrendered")
def test_a_page_of_ones_own_is_kept_and_force_takes_it(tmp_path: Path) -> None:
    out, source = tmp_path / "site", save(make_result(phases=["conformance"]), tmp_path)
    out.mkdir()
    (out / "index.html").write_text("my home page")
    done = call(source, "--out", out)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "index.html would be overwritten, and no report wrote what is there now" in done.stderr
    assert list(content_of(out)) == ["index.html"]
    assert call(source, "--out", out, "--force").exit_code == 0
    assert "my home page" not in (out / "index.html").read_text()
    assert folder.MARKER in {path.name for path in out.iterdir()}
