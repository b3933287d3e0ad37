"""The pure parts of the harness: orders, ratios, bars, tables, the page, what a round must have brought."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import compare, results
from benchmarks.__main__ import between_markers, main
from benchmarks.model import Bar, Case, Contender, Figures, Place, WrongResult
from benchmarks.page import page, table_of
from benchmarks.ratios import Spread, order, ratios, spread
from benchmarks.rounds import absent, play
from benchmarks.server import Counts, Service
from benchmarks.suites.submit import CHUNK_IDS, Work, every_id
from benchmarks.table import bars_table, case_table, number

FASTER = Bar(says="times faster", figure="wall_s", above="other", below="ours", bar=2, aim=4)
CHEAPER = Bar(says="CPU", figure="cpu_s", above="ours", below="other", bar=2.5, aim=1.6, most=True)


def line(contender: str, number: int, wall_s: float) -> dict:
    return {
        "kind": "round",
        "case": "c",
        "contender": contender,
        "round": number,
        "wall_s": wall_s,
        "cpu_s": wall_s,
        "peak_rss_mib": None,
    }


def case(*contenders: Contender) -> Case:
    return Case(name="c", title="The work", contenders=contenders, ids=10, chunks=1, bars=(FASTER,))


def contender(name: str, played: list, missing: str | None = None) -> Contender:
    def one(place: Place) -> Figures:
        assert list(place.folder.iterdir()) == []
        played.append((name, place.warm_up))
        (place.folder / "left").touch()
        return Figures(wall_s=1.0, more={"ids_per_s": 10.0})

    return Contender(name=name, title=name.upper(), play=one, missing=lambda: missing)


def test_the_order_within_a_round_is_drawn_and_repeatable():
    names = list("abcdefgh")
    orders = [order(names, case="c", number=number, seed=1) for number in range(6)]
    assert all(sorted(one) == names for one in orders)
    assert len({tuple(one) for one in orders}) == 6
    assert orders[3] == order(names, case="c", number=3, seed=1)
    assert orders[3] != order(names, case="c", number=3, seed=2)


def test_only_figures_of_the_same_round_are_divided():
    """The second round took ten times as long for everybody, and in the third one is missing."""
    lines = [line("ours", 1, 1), line("other", 1, 3), line("other", 2, 40), line("ours", 2, 10)]
    lines.append(line("ours", 3, 5))
    assert ratios(lines, FASTER) == [3, 4]


def test_a_bar_of_one_contender_is_its_figure_in_each_round():
    bar = Bar(says="seconds", figure="wall_s", above="ours")
    assert ratios([line("ours", 1, 2), line("other", 1, 5), line("ours", 2, 3)], bar) == [2, 3]


def test_the_rounds_come_to_their_median_their_least_and_their_most():
    assert spread([5, 1, 2]) == Spread(2, 1, 5)
    assert spread([4]) == Spread(4, 4, 4)


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (FASTER, 4, "aim met"),
        (FASTER, 2, "met"),
        (FASTER, 1.9, "not met"),
        (CHEAPER, 1.5, "aim met"),
        (CHEAPER, 2.5, "met"),
        (CHEAPER, 2.6, "not met"),
        (Bar(says="", figure="wall_s", above="ours"), 7, "reported"),
        (Bar(says="", figure="wall_s", above="ours", aim=3), 2, "not met"),
    ],
)
def test_a_bar_is_met_or_not_and_neither_raises(bar, value, verdict):
    assert bar.verdict(value) == verdict


def test_everybody_plays_in_every_round_in_an_empty_folder_and_the_warm_up_is_dropped(tmp_path):
    played, told = [], []
    work = case(contender("a", played), contender("b", played), contender("c", played, missing="a library"))
    play(work, tmp_path, rounds=3, seed=1, tell=told.append)
    assert absent(work) == {"c": "a library"}
    assert sorted(played[:2]) == [("a", True), ("b", True)]
    assert sorted(played[2:]) == [("a", False)] * 3 + [("b", False)] * 3
    assert sorted((one["round"], one["contender"]) for one in told) == [
        (number, name) for number in (1, 2, 3) for name in "ab"
    ]
    assert list(tmp_path.iterdir()) == []


def test_without_counted_rounds_the_warm_up_is_what_is_told(tmp_path):
    told: list = []
    play(case(contender("a", [])), tmp_path, rounds=0, seed=1, tell=told.append)
    assert [one["round"] for one in told] == [0]


@pytest.mark.parametrize(
    "came",
    [
        Counts(2, None, None, None),
        Counts(3, 3 * 90_000 - 3 - 1, 30_000, 0.1),
        Counts(3, 3 * 90_000 - 3, 29_999, 0.1),
    ],
    ids=["a request too few", "a byte too few", "an id too few"],
)
def test_a_round_in_which_something_did_not_arrive_is_no_result(came):
    work = Work(source=Path("ids.txt"), ids=3 * CHUNK_IDS, digits=8)
    with pytest.raises(WrongResult):
        every_id(work, Place(folder=Path(), warm_up=True), came)


def test_a_round_in_which_everything_arrived_is_one():
    work = Work(source=Path("ids.txt"), ids=3 * CHUNK_IDS, digits=8)
    assert every_id(work, Place(folder=Path(), warm_up=True), Counts(3, 3 * 90_000 - 3, 30_000, 0.1)) is None


def test_what_came_since_leaves_out_what_came_before_and_the_question_itself(monkeypatch):
    """nginx counts the question; its sums are those of its status page."""
    status = b"Active connections: 1 \nserver accepts handled requests\n 9 9 %d \nReading: 0\n"
    answers = iter([status % 5, status % 16])
    monkeypatch.setattr(Service, "_ask", lambda _service: next(answers))
    service = Service("nginx", 1, -1)
    assert service.since(service.counts()) == Counts(10, None, None, None)


def test_tables_show_medians_spread_verdicts_and_who_was_left_out():
    told = [line("ours", 1, 1), line("other", 1, 3), line("ours", 2, 2), line("other", 2, 8)]
    work = case(*(contender(name, []) for name in ("ours", "other", "gone")))
    summary = results.case_line(work, told, {"gone": "wrk"})
    assert case_table(summary, told).splitlines()[2:] == [
        "| OURS | 1.5 (1 to 2) | 1.5 (1 to 2) |",
        "| OTHER | 5.5 (3 to 8) | 5.5 (3 to 8) |",
        "| GONE | wrk is not installed |  |",
    ]
    assert bars_table([summary]).splitlines()[2:] == [
        "| times faster | 3.5 times | 3 to 4 | ≥ 2 | ≥ 4 | met |"
    ]


def test_a_bar_that_nobody_measured_says_so():
    summary = results.case_line(case(contender("ours", [])), [line("ours", 1, 1)], {})
    assert bars_table([summary]).splitlines()[2:] == ["| times faster | | | ≥ 2 | ≥ 4 | not measured |"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001234, "0.00123"), (1.5, "1.5"), (99.96, "100"), (123.4, "123"), (1_234_567, "1,230,000")],
)
def test_numbers_have_three_digits_that_mean_something(value, text):
    assert number(value) == text


def test_the_page_stands_alone_and_escapes_what_it_shows(tmp_path):
    picture = tmp_path / "submit.png"
    picture.write_bytes(b"picture")
    told = [{"suite": "submit", **line("ours", 1, 1)}]
    summary = results.case_line(case(contender("a<b", [])), told, {})
    summary |= {"suite": "submit", "suite_title": "Whole runs"}
    text = page([summary, *told], [picture])
    assert "data:image/png;base64,cGljdHVyZQ==" in text
    assert "A&lt;B" in text
    assert "http" not in text


def test_a_table_in_html_marks_what_was_met():
    assert table_of("| a | |\n| --- | --- |\n| 1 | not met |\n").count('<td class="missed">not met</td>') == 1


def test_results_are_read_as_they_were_written(tmp_path):
    lines = [line("ours", 1, 1.5), {"kind": "about", "when": "µ"}]
    results.write(lines, tmp_path / "results.jsonl")
    assert results.read(tmp_path / "results.jsonl") == lines


def test_figures_go_between_the_markers_and_nothing_else_changes():
    marked = between_markers((Path(__file__).parents[1] / "benchmarks" / "README.md").read_text(), "new")
    assert between_markers(marked, "newer") == marked.replace("\n\nnew\n\n", "\n\nnewer\n\n")
    with pytest.raises(ValueError, match="There must be"):
        between_markers("no markers", "new")


def test_a_comparison_is_of_two_revisions_with_options_for_both():
    plan = compare.read_plan(["v1", "HEAD", "--ids", "500", "--", "--workers", "64"])
    assert (plan.revisions, plan.ids, plan.rounds) == (("v1", "HEAD"), 500, 9)
    assert plan.options == ("--workers", "64")


@pytest.mark.parametrize("words", [["v1"], ["v1", "v2", "--rounds", "0"], ["v1", "v2", "--ids", "-1"]])
def test_a_comparison_that_makes_no_sense_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        compare.read_plan(words)
    assert "usage" in capsys.readouterr().err


def test_suites_are_listed_and_unknown_ones_refused(capsys):
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["submit", "chunk"]
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
