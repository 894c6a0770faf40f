from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobmill import CronExpression

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())


def test_each_vector_gives_the_times_that_it_lists() -> None:
    assert len(VECTORS) == 1183
    wrong = list[str]()
    for vector in VECTORS:
        cron, at = CronExpression(vector["expr"]), datetime.fromisoformat(vector["start"])
        for expected in vector["expected"]:
            at = cron.next(at, vector["tz"])
            if at.isoformat() != expected:
                wrong.append(f"{vector['expr']} in {vector['tz']}: {at}, not {expected}")
                break
    assert not wrong


def test_each_vector_reads_the_same_backwards() -> None:
    for vector in VECTORS:
        cron = CronExpression(vector["expr"])
        for before, after in pairwise(vector["expected"]):
            at = datetime.fromisoformat(after)
            assert cron.previous(at, vector["tz"]).isoformat() == before
            assert cron.matches(at, vector["tz"])
