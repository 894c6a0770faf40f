from __future__ import annotations

import random
from uuid import UUID

from jobmill.ids import JobIds

AT = 1_700_000_000.123


def test_ids_are_uuids_of_version_7_that_tell_their_millisecond() -> None:
    made = JobIds(lambda: AT, random.Random(1).getrandbits)()
    parsed = UUID(made)
    assert str(parsed) == made
    assert parsed.version == 7
    assert parsed.variant == "specified in RFC 4122"
    assert parsed.int >> 80 == int(AT * 1_000)


def test_ids_rise_whatever_the_clock_does() -> None:
    walls = iter([AT, AT, AT, AT + 1, AT - 3_600, AT + 1, AT + 2])
    source = JobIds(lambda: next(walls), random.Random(1).getrandbits)
    made = [source() for _ in range(7)]
    assert made == sorted(set(made))
    assert all(UUID(each).version == 7 for each in made)


def test_two_sources_make_no_id_twice_in_one_millisecond() -> None:
    dice = random.Random(1).getrandbits
    one, other = JobIds(lambda: AT, dice), JobIds(lambda: AT, dice)
    assert len({make() for make in (one, other) for _ in range(1_000)}) == 2_000
