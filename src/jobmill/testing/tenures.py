"""Leases as those saw them who held them: at no instant has a job two, and no token comes twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import combinations
from typing import Final

from jobmill.testing.eventlog import Begins, Holds, Yields
from jobmill.testing.ledger import Report

_SLACK: Final = 0.05
"""Seconds by which the store's clock and that of the machine may drift apart in a lease."""


class Tenures:
    """What workers told of their leases; it reports I5.

    A lease was held from when its worker heard of it until the instant up to which the worker
    could count on it: less than it was by the store. So what overlaps here did so in the store.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._holders: dict[str, str] = {}
        self._holds: defaultdict[str, defaultdict[str, list[Holds]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._yielded: dict[tuple[str, str], float] = {}
        self._begun: list[Begins] = []

    def holds(self, event: Holds) -> None:
        """A lease was given, or held longer."""
        holder = self._holders.setdefault(event.token, event.by)
        if holder != event.by:
            sentence = f"was given to {event.by} with the token {event.token} of {holder}"
            self._report("I5", event.job_id, sentence)
        before = self._holds[event.job_id][event.token]
        if event.how == "claimed" and before:
            self._report("I5", event.job_id, f"was given the token {event.token} twice")
        before.append(event)

    def yields(self, event: Yields) -> None:
        """A lease is given up."""
        self._yielded.setdefault((event.job_id, event.token), event.boot)

    def begins(self, event: Begins) -> None:
        """A handler began to run."""
        self._begun.append(event)

    def check(self, forgotten: Collection[str]) -> None:
        """Compare the leases of each job; `forgotten`: jobs whose claims the store lost."""
        for job_id in self._holds.keys() - set(forgotten):
            for one, other in combinations(self._holds[job_id], 2):
                self._check_pair(job_id, one, other)
        tellers = set(self._holders.values())
        for run in self._begun:
            if run.token and run.by in tellers and run.token not in self._holds[run.job_id]:
                self._report("I5", run.job_id, f"began to run on {run.by}, which has no lease")

    def _check_pair(self, job_id: str, one: str, other: str) -> None:
        for since, until in self._spans(job_id, one):
            for other_since, other_until in self._spans(job_id, other):
                both = min(until, other_until) - max(since, other_since)
                if both > _SLACK:
                    holders = f"{self._holders[one]} and {self._holders[other]}"
                    self._report("I5", job_id, f"was held by {holders} at once for {both:.3f} s")
                    return

    def _spans(self, job_id: str, token: str) -> list[tuple[float, float]]:
        end = self._yielded.get((job_id, token), float("inf"))
        return [(each.boot, min(each.until, end)) for each in self._holds[job_id][token]]
