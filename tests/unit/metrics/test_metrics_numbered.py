"""Numbers for things, which are never given twice."""

from flowfast.metrics.numbered import Numbered


def test_a_thing_keeps_its_number_and_what_is_forgotten_gets_another() -> None:
    names: Numbered[str] = Numbered()
    one, two = names.number("one"), names.number("two")
    assert (names.number("one"), names.things[two]) == (one, "two")
    before = names.things
    names.keep({two})
    assert (len(names), names.number("two"), before[one]) == (1, two, "one")
    assert names.number("one") not in (one, two)
