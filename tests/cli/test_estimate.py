"""Progress says how much is done and how long the rest will take."""

from __future__ import annotations

import io
import sys
import time

import pytest

from onnx_inspect.cli import _dataset
from onnx_inspect.cli._options import Settings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def said(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, settings: Settings, steps: list[tuple[float, int]]
) -> list[str]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with _dataset.estimate(settings) as report:
        for clock.now, done in steps:
            report(done, 1000)
    return stream.getvalue().splitlines()


def test_lines_come_every_ten_seconds_with_the_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(0.5, 100), (5, 200), (11, 320), (12, 340), (22, 540), (40, 1000)]
    lines = said(clock, monkeypatch, Settings(), steps)
    assert lines == [
        "320 of 1,000 samples, 20 a second, about 34 s left",  # 220 since the first report, in 11 s
        "540 of 1,000 samples, 20 a second, about 23 s left",
    ]


def test_what_an_earlier_run_did_does_not_count_for_the_rate(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = said(clock, monkeypatch, Settings(), [(1, 900), (20, 910)])
    assert "0.5 a second, about 3 min left" in line


def test_quiet_is_quiet_and_short_work_says_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(clock, monkeypatch, Settings(quiet=True), [(0, 1), (100, 500)]) == []
    assert said(clock, monkeypatch, Settings(), [(100, 1), (101, 1000)]) == []


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (89, "89 s"), (100, "2 min"), (5400, "1 h 30 min")])
def test_durations_are_rounded_as_people_say_them(seconds: float, text: str) -> None:
    assert _dataset.duration(seconds) == text
