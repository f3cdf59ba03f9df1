"""What a function gave is remembered, and not for ever."""

from flowfast.model.remembered import Remembered


def test_each_key_is_made_once_until_there_are_too_many() -> None:
    asked: list[int] = []

    def double(key: int) -> int:
        asked.append(key)
        return 2 * key

    doubled = Remembered(double, limit=3)
    assert [doubled[key] for key in (1, 2, 1, 3, 2)] == [2, 4, 2, 6, 4]
    assert asked == [1, 2, 3]
    assert doubled[4] == 8
    assert dict(doubled) == {4: 8}
