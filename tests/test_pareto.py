from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nasfuse.pareto import Point, dominates, front, hypervolume

points = st.lists(
    st.builds(
        Point,
        st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9]),
        st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0]),
    ),
    max_size=20,
)


@given(points)
def test_front_is_what_nothing_dominates(all_points: list[Point]) -> None:
    kept = {all_points[i] for i in front(all_points)}
    assert kept == {p for p in all_points if not any(dominates(q, p) for q in all_points)}


@given(points)
def test_front_goes_up(all_points: list[Point]) -> None:
    chosen = [all_points[i] for i in front(all_points)]
    assert chosen == sorted(chosen, key=lambda p: p.cost)
    assert chosen == sorted(chosen, key=lambda p: p.accuracy)


@given(points, points)
def test_more_points_never_cover_less(some: list[Point], more: list[Point]) -> None:
    assert hypervolume(some + more, budget=8) >= hypervolume(some, budget=8) - 1e-12


def test_hypervolume_of_two_points() -> None:
    assert (
        hypervolume([Point(0.5, 2), Point(0.9, 6), Point(0.4, 3)], budget=10)
        == (0.5 * 8 + 0.4 * 4) / 10
    )
