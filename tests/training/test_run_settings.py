from __future__ import annotations

from pathlib import Path

import pytest

from rabtriever.errors import InputError
from rabtriever.training.run_settings import check_settings

SETTINGS = {"config": {"teacher": {"learning_rate": 1e-4, "lora": None}}, "seed": 0, "budget": {}}


def test_the_same_settings_go_on(tmp_path: Path) -> None:
    check_settings(tmp_path / "run", SETTINGS)
    check_settings(tmp_path / "run", SETTINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"config": {"teacher": {"learning_rate": 3e-4, "lora": None}}}, "teacher.learning_rate was 0.0001"),
        ({"config": {"teacher": {"learning_rate": 1e-4, "lora": {"rank": 4}}}}, "teacher.lora.rank was None"),
        ({"budget": {"seconds": 60.0}}, "budget.seconds was None and is now 60.0"),
    ],
)
def test_others_are_named_and_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    check_settings(tmp_path, SETTINGS)
    with pytest.raises(InputError) as caught:
        check_settings(tmp_path, {**SETTINGS, **change}, shown=Path("household"))
    assert said in caught.value.message
    assert caught.value.message.startswith("household holds a run")
