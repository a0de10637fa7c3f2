"""Every kind of leak is found by itself, and only where both sides know enough."""

from __future__ import annotations

import random

import pytest

from training.leaks.find import find_leaks
from training.leaks.members import Member

HOUR = 3600.0


def kinds(seen: Member, examined: Member, near: float = 6 * HOUR) -> dict[str, int]:
    leaks = find_leaks([seen], [examined], near)
    assert leaks.tainted == (frozenset({0}) if any(leaks.found.values()) else frozenset())
    return {kind: len(found) for kind, found in leaks.found.items() if found}


def test_each_kind() -> None:
    assert kinds(Member("a"), Member("a")) == {"item": 1}
    assert kinds(Member("a", group="storm"), Member("b", group="storm")) == {"group": 1}
    assert kinds(Member("a", content=("1", "2")), Member("b", content=("2", "3"))) == {"content": 1}
    assert kinds(Member("a", span=(0, HOUR)), Member("b", span=(2 * HOUR, 3 * HOUR))) == {"time": 1}


def test_what_is_independent_is_left_alone() -> None:
    seen = Member("a", "storm", (0, HOUR), ("1",))
    assert kinds(seen, Member("b", "other", (7 * HOUR, 8 * HOUR), ("2",))) == {}
    assert kinds(seen, Member("b", "other", (-7 * HOUR, -6 * HOUR), ("2",))) == {}  # the distance itself is far enough
    assert kinds(seen, Member("b", "other", (-7 * HOUR, -6 * HOUR + 1), ("2",))) == {"time": 1}


def test_what_one_side_does_not_know_is_not_compared_and_said() -> None:
    leaks = find_leaks([Member("a", "g", (0, 1), ("1",))], [Member("b")], HOUR)
    assert leaks.compared == ("item",)
    assert leaks.line() == "train and test: nothing in common (item compared)"
    assert "cannot be compared" in find_leaks([], [Member("b")], HOUR).line()


def test_the_clean_part_and_the_words() -> None:
    examined = [Member("x", "storm"), Member("y", "calm"), Member("z", "storm")]
    leaks = find_leaks([Member("a", "storm")], examined, HOUR, ("train of one", "test of other"))
    assert leaks.clean == [1]
    assert leaks.line() == (
        "train of one and test of other: 2 of 3 in test of other are not independent (the same group 2)"
    )
    assert leaks.examples()[0] == "the same group: x (test of other), a (train of one)"
    assert leaks.to_json()["kinds"] == {"item": 0, "group": 2}


@pytest.mark.parametrize("seed", range(20))
def test_near_in_time_is_what_comparing_all_pairs_finds(seed: int) -> None:
    draw = random.Random(seed)

    def members(count: int) -> list[Member]:
        starts = [draw.uniform(0, 1000) for _ in range(count)]
        return [Member(str(i), span=(start, start + draw.choice([0, 5, 200]))) for i, start in enumerate(starts)]

    seen, examined, near = members(6), members(12), 20.0

    def is_near(one: Member, other: Member) -> bool:
        return max(one.span[0], other.span[0]) - min(one.span[1], other.span[1]) < near  # type: ignore[index]

    expected = {i for i, one in enumerate(examined) if any(is_near(one, other) for other in seen)}
    leaks = find_leaks(seen, examined, near)
    assert {leak.tainted for leak in leaks.found["time"]} == expected
    for leak in leaks.found["time"]:
        assert is_near(examined[leak.tainted], seen[int(leak.known)])
