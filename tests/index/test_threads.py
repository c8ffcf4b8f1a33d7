"""Work in several threads is the work of one, in its order."""

from __future__ import annotations

import threading

import pytest

from rabtriever.index.threads import in_parallel, processors


def test_results_keep_their_order_and_errors_come_through() -> None:
    assert in_parallel(lambda number: number**2, range(50)) == [number**2 for number in range(50)]
    assert in_parallel(str, []) == []
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda number: 1 // number, [1, 0, 2])


def test_a_single_part_needs_no_thread() -> None:
    assert in_parallel(lambda _: threading.current_thread(), [None]) == [threading.current_thread()]
    assert threading.current_thread() not in in_parallel(lambda _: threading.current_thread(), [None, None])


@pytest.mark.parametrize(("value", "limited"), [("1", True), ("0", False), ("", False), ("4,2", False)])
def test_the_environment_may_ask_for_fewer(monkeypatch: pytest.MonkeyPatch, value: str, limited: bool) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    there = processors()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert processors() == (1 if limited else there)
