"""What phase processes tell their parent."""

import io
import os
from pathlib import Path
from typing import Any

from shared_spec.run.events import Listener, introduce, last_words, reporter


def heard(*pieces: bytes) -> tuple[list[Any], set[int]]:
    events: list[Any] = []
    listener = Listener(lambda done, text, **figures: events.append((done, text, figures)))
    for piece in pieces:
        listener.hear(piece)
    return events, listener.pids


def test_what_is_reported_is_heard() -> None:
    pipe = io.StringIO()
    introduce(pipe)
    report = reporter(pipe)
    report(0.25, "epoch 1", loss=4.5, top1=float("nan"))
    report(0.5, "too soon after the last one")
    events, pids = heard(pipe.getvalue().encode())
    assert events == [(0.25, "epoch 1", {"loss": 4.5})]
    assert pids == {os.getpid()}


def test_lines_may_come_in_pieces_and_broken_ones_are_passed_over() -> None:
    whole = b'{"done": 1, "text": "a", "figures": {}}\n'
    broken = b'{"done": 0.5, "te{"done": 1}\n[]\n7\nnull\n{"done": 1, "text": "b", "figures": 3}\n\xff\n{"pid": "x"}\n'
    events, pids = heard(whole[:10], whole[10:] + broken + whole, whole[:-1])
    assert events == [(1.0, "a", {})] * 2
    assert pids == set()


def test_a_parent_that_is_gone_disturbs_nobody() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    reporter(Broken())(0.5, "nobody listens")


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n  ImportError: no \xff module  \n\n \n")
    assert last_words(log) == "ImportError: no \ufffd module"
    log.write_bytes(b"\n")
    assert last_words(log) == "none"
