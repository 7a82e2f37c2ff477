"""Progress goes to stderr only, and looks right on a terminal, in a log and when quiet."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from hsidenoise.progress import _Lines, _span, track

WORK = """
from hsidenoise.progress import track
print("answer")
with track(40, "denoise [x]", unit="tile") as progress:
    for i in range(40):
        progress.advance(loss=0.5 / (i + 1))
"""


def test_a_log_gets_one_line_a_tenth(capsys):
    with track(200, "denoise", unit="tile") as progress:
        for _ in range(200):
            progress.advance()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 10
    assert lines[0].startswith("denoise: 10 % (20 of 200 tile), elapsed ")
    assert lines[-1].startswith("denoise: 100 % (200 of 200 tile)")
    assert "left" in lines[0]
    assert "left" not in lines[-1]


def test_few_and_large_steps_give_few_lines(capsys):
    with track(3, "read") as progress:
        for _ in range(3):
            progress.advance()
    assert [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()] == [
        "read: 30 %", "read: 60 %", "read: 100 %"
    ]  # fmt: skip


def test_fields_and_remaining_time_are_shown(capsys):
    now = iter([0.0, 30.0, 7200.0])
    lines = _Lines(4, "train", "step", clock=lambda: next(now))
    lines.advance(1, loss=0.0123456, solver="ok")
    lines.advance(1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "train: 20 % (1 of 4 step), elapsed 30.0 s, left 1:30, loss 0.01235 solver ok"
    assert second == "train: 50 % (2 of 4 step), elapsed 2:00:00, left 2:00:00"


def test_quiet_is_silent(capsys):
    with track(5, "denoise", quiet=True) as progress:
        progress.advance(5, loss=1.0)
    assert capsys.readouterr() == ("", "")


def test_nothing_to_do_is_no_error(capsys):
    with track(0, "denoise") as progress:
        progress.advance(0)
    assert "denoise: 100 %" in capsys.readouterr().err


def test_errors_pass_through():
    with pytest.raises(KeyError), track(5, "denoise"):
        raise KeyError("x")


@pytest.mark.parametrize(("seconds", "text"), [(7.31, "7.3 s"), (245, "4:05"), (7384, "2:03:04"), (59.99, "60.0 s")])
def test_spans_of_time(seconds, text):
    assert _span(seconds) == text


def test_a_terminal_gets_a_bar_and_stdout_stays_clean():
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, stderr=theirs, env=env) as child:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the terminal closes with its last writer
                break
            if not piece:
                break
            drawn += piece
        out = child.stdout.read() if child.stdout else b""
    os.close(ours)
    assert child.returncode == 0
    assert out == b"answer\n"
    text = drawn.decode()
    assert "denoise [x]" in text  # not taken for markup
    assert "100%" in text
    assert "loss 0.0125" in text
    assert "tile" in text
