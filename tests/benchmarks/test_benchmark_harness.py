"""The benchmark's arithmetic and its table; nothing here is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.harness import Claim, Record, Spread, claim, in_fresh_process, interleave, spread
from benchmarks.report import END, START, load, render, save, write_between_markers


def test_spread_is_the_median_and_the_outer_deciles() -> None:
    values = [10.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]

    assert spread(values) == Spread(median=5.0, low=1.0, high=9.0, rounds=11)


def test_ratios_are_formed_within_a_round() -> None:
    # A machine that slows down: both take three times as long in the last round.
    times = {"slow": [4.0, 4.0, 12.0], "fast": [2.0, 2.0, 6.0]}

    assert claim(times, "slow", "fast").ratio == Spread(2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        ({"at_least": 2.0}, True),
        ({"at_least": 2.1}, False),
        ({"at_most": 2.0}, True),
        ({"at_most": 1.9}, False),
        ({}, None),
    ],
)
def test_a_goal_is_reached_by_the_median(goal: dict[str, float], reached: bool | None) -> None:
    assert claim({"a": [1.0, 2.0, 9.0], "b": [1.0, 1.0, 1.0]}, "a", "b", **goal).reached is reached


def test_contenders_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ABC"}

    times = interleave(contenders, rounds=3, warm_up=2)

    assert {name: len(values) for name, values in times.items()} == {"A": 3, "B": 3, "C": 3}
    rounds = ["".join(calls[i : i + 3]) for i in range(0, 15, 3)]
    assert rounds == ["BCA", "CAB", "ABC", "BCA", "CAB"]


def test_a_failing_process_shows_its_error() -> None:
    assert in_fresh_process("-c", "print('noise'); print('{\"seconds\": 1.5}')") == {"seconds": 1.5}
    with pytest.raises(RuntimeError, match="no such thing"):
        in_fresh_process("-c", "raise SystemExit('no such thing')")


def _record() -> Record:
    figures = {"ours": Spread(1.0, 0.9, 1.2, 5), "theirs": Spread(1234.0, 1200.0, 1300.0, 5)}
    claims = [
        Claim("theirs", "ours", Spread(5.678, 5.0, 6.0, 5), at_least=8.0),
        Claim("ours", "theirs", Spread(0.5, 0.4, 0.6, 5), at_most=0.6),
        Claim("ours", "theirs", Spread(0.5, 0.4, 0.6, 5)),
    ]
    return Record("some work", "ms", figures, claims, ["a note"])


def test_saved_results_come_back(tmp_path: Path) -> None:
    save(tmp_path, "suite", [_record()], load_before=0.25, command="the command")

    [result] = load(tmp_path, ["missing", "suite"])
    assert result["records"] == [_record()]
    assert result["load_average"][0] == 0.25
    assert [p.name for p in tmp_path.iterdir()] == ["suite.json"]
    assert json.loads((tmp_path / "suite.json").read_text())["machine"]["packages"]["torch"]


def test_the_table_says_what_was_reached_and_what_was_missed(tmp_path: Path) -> None:
    save(tmp_path, "suite", [_record()], load_before=0.25, command="the command")

    text = render(load(tmp_path, ["suite"]))

    assert "| some work | theirs ÷ ours | ≥ 8 | 5.68 (5–6) | **missed** |" in text
    assert "| some work | ours ÷ theirs | ≤ 0.6 | 0.5 (0.4–0.6) | reached |" in text
    assert "| some work | ours ÷ theirs | – | 0.5 (0.4–0.6) | – |" in text
    assert "| some work | theirs | 1234 ms | 1200–1300 | 5 |" in text
    assert "- some work: a note" in text
    assert "`the command`" in text
    assert "`suite` (load 0.2 before" in text


def test_only_what_stands_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")

    write_between_markers(page, "new\n")

    assert page.read_text() == f"before\n{START}\nnew\n{END}\nafter\n"
    page.write_text("no markers\n")
    with pytest.raises(ValueError, match="put them back"):
        write_between_markers(page, "new\n")
    assert page.read_text() == "no markers\n"
