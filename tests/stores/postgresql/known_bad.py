"""Faults planted in the functions, each of which breaks one promise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobmill.stores.postgresql import programs

_FUNCTION = re.compile(r"^CREATE FUNCTION ", re.MULTILINE)


def functions(schema: str, text: str) -> list[str]:
    """The statements that put each function in the place of that of this release."""
    return _FUNCTION.sub("\0CREATE OR REPLACE FUNCTION ", programs.program(schema, text)).split(
        "\0"
    )[1:]


@dataclass(frozen=True)
class Fault:
    """What stands in the functions, and what is planted in its place.

    `by` names the tests of the contract that must fail.
    """

    name: str
    patches: Mapping[str, str] = field(repr=False)
    by: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def planted(self, schema: str) -> tuple[list[str], list[str]]:
        """The functions with the fault, and the same without."""
        text = programs.PROGRAM
        for there, instead in self.patches.items():
            assert text.count(there) == 1, (
                f"{self.name}: {there!r} stands there {text.count(there)} times"
            )
            text = text.replace(there, instead)
        good, bad = functions(schema, programs.PROGRAM), functions(schema, text)
        changed = [pair for pair in zip(bad, good, strict=True) if pair[0] != pair[1]]
        return [pair[0] for pair in changed], [pair[1] for pair in changed]


_FENCE = "ruled.token IS DISTINCT FROM ruled.last_token"
_RENEWED = "WHERE j.state = 'processing' AND j.token = l.token"
_READY = """\
AND j.state = 'pending' AND NOT j.suspect AND j.seq > 0
            ORDER BY j.priority, j.run_at, j.seq LIMIT p_limit FOR UPDATE SKIP LOCKED"""
_TAKEN = """\
token = p_token, worker = p_worker, lease_until = v_now + p_lease,
                taken_over = TRUE"""

FENCES = (
    Fault(
        "settles without token",
        {_FENCE: "FALSE"},
        (
            "test_a_stale_token_writes_nothing",
            "test_what_was_taken_over_is_anothers",
            "test_a_settle_from_before_the_revive_writes_nothing",
        ),
    ),
    Fault(
        "fences by state only",
        {_FENCE: f"ruled.state <> 'processing' AND {_FENCE}"},
        ("test_a_stale_token_writes_nothing", "test_what_was_taken_over_is_anothers"),
    ),
    Fault(
        "renews without token",
        {_RENEWED: "WHERE j.state = 'processing'"},
        ("test_a_renewal_answers_each_lease_in_order", "test_a_lost_lease_is_not_held"),
    ),
    Fault(
        "refuses late renewals",
        {_RENEWED: f"{_RENEWED} AND j.lease_until > jobmill.instant(p_now)"},
        ("test_a_lease_that_ran_out_and_was_not_taken_is_held_again",),
    ),
    Fault(
        "settles a settled job again",
        {"WHEN ruled.needs_token AND ruled.state <> 'processing' THEN 'already'": ""},
        ("test_a_settle_repeated_is_already_done", "test_two_settles_of_one_token_in_one_call"),
    ),
)

CLAIMS = (
    Fault(
        "hands out delayed jobs early",
        {
            "IF v_due <= v_now THEN": "IF v_due <= v_now + 60 THEN",
            "AND d.run_at <= v_now\n": "AND d.run_at <= v_now + 60\n",
        },
        (
            "test_a_job_is_not_claimed_before_it_is_due",
            "test_a_retry_is_not_claimed_before_its_delay",
        ),
    ),
    Fault(
        "lets no job mature",
        {"IF v_due <= v_now THEN": "IF FALSE THEN"},
        ("test_a_claim_makes_a_thousand_due_jobs_pending_at_most",),
    ),
    Fault(
        "is deaf to priority",
        {_READY: _READY.replace("j.priority, ", "")},
        (
            "test_the_lower_priority_number_goes_first",
            "test_priority_goes_before_age_and_across_names",
        ),
    ),
    Fault(
        "hands out by acceptance, not by due instant",
        {_READY: _READY.replace("j.run_at, ", "")},
        (
            "test_at_equal_priority_the_first_due_goes_first",
            "test_a_retried_job_stands_where_it_came_due",
        ),
    ),
    Fault(
        "hands out one job too many",
        {_READY: _READY.replace("p_limit", "p_limit + 1")},
        ("test_no_more_than_the_limit",),
    ),
    Fault(
        "hands out what is handed out",
        {
            "state = 'processing', token = p_token, worker = p_worker,": "token = p_token, "
            "worker = p_worker,"
        },
        ("test_a_claimed_job_is_not_claimed_again",),
    ),
    Fault(
        "claims of some names in their order, not in that of priority",
        {"ORDER BY l.priority, l.run_at, l.seq LIMIT v_left": "ORDER BY l.seq LIMIT v_left"},
        ("test_the_order_holds_among_some_names",),
    ),
    Fault(
        "claims anew on a repeat",
        {"    IF p_repeat THEN": "    IF FALSE THEN"},
        (
            "test_a_repeat_collects_and_claims_nothing_new",
            "test_a_repeat_of_what_was_never_done_gives_nothing",
        ),
    ),
    Fault(
        "collects lapses among claims",
        {"CASE WHEN t.taken_over THEN 2 ELSE 1 END": "1"},
        ("test_a_repeat_collects_lapses_apart",),
    ),
    Fault(
        "ignores a pause of the queue",
        {"IF '*' = ANY (v_paused) THEN": "IF FALSE THEN"},
        ("test_a_paused_queue_hands_out_nothing",),
    ),
    Fault(
        "ignores a pause of a name",
        {
            "WHERE there.name IS NOT NULL AND 'job:' || there.name <> ALL (v_paused)": "WHERE "
            "there.name IS NOT NULL"
        },
        ("test_a_paused_name_is_passed_over",),
    ),
    Fault(
        "gives suspects to the busy",
        {"IF p_room <> 'busy' THEN": "IF TRUE THEN"},
        ("test_a_busy_worker_leaves_suspects",),
    ),
    Fault(
        "runs suspects in company",
        {_READY: _READY.replace("AND NOT j.suspect ", "")},
        ("test_a_busy_worker_leaves_suspects",),
    ),
)

LAPSES = (
    Fault(
        "takes nothing over",
        {"ORDER BY l.lease_until, l.seq LIMIT 100": "ORDER BY l.lease_until, l.seq LIMIT 0"},
        ("test_a_lapsed_lease_is_taken_over_as_it_is", "test_lapses_end_a_job_as_failed"),
    ),
    Fault(
        "takes leases over early",
        {"AND l.lease_until <= v_over\n": "AND l.lease_until <= v_over + 5\n"},
        ("test_a_lapsed_lease_is_taken_over_as_it_is",),
    ),
    Fault(
        "takes over with the old token",
        {_TAKEN: _TAKEN.replace("token = p_token, ", "")},
        ("test_a_lapsed_lease_is_taken_over_as_it_is", "test_what_was_taken_over_is_anothers"),
    ),
    Fault(
        "takes over for no time",
        {_TAKEN: _TAKEN.replace("lease_until = v_now + p_lease,", "")},
        ("test_a_takeover_happens_once",),
    ),
    Fault(
        "spends an attempt at a lapse",
        {
            "ELSE j.attempts + d.attempt END": "ELSE j.attempts + CASE d.event "
            "WHEN 'lapse' THEN 0 ELSE d.attempt END END"
        },
        (
            "test_a_lapse_gives_the_attempt_back_and_counts",
            "test_the_attempt_after_a_lapse_is_the_same_again",
        ),
    ),
    Fault(
        "forgets how often a job lapsed",
        {"ELSE j.lapses + greatest(d.lapses, d.lapsed::integer) END": "ELSE j.lapses END"},
        ("test_lapses_end_a_job_as_failed", "test_a_lapse_gives_the_attempt_back_and_counts"),
    ),
)

MOVES = (
    Fault(
        "retries what was cancelled",
        {"held.asked AND r.if_asked IS NOT NULL AS diverted": "FALSE AS diverted"},
        (
            "test_an_asked_job_that_is_put_off_ends_cancelled",
            "test_a_lapse_of_an_asked_job_ends_it_cancelled",
        ),
    ),
    Fault(
        "keeps the attempt of a snooze",
        {
            "ELSE j.attempts + d.attempt END": "ELSE j.attempts + CASE d.event "
            "WHEN 'snooze' THEN 0 ELSE d.attempt END END"
        },
        ("test_a_snooze_gives_the_attempt_back",),
    ),
    Fault(
        "stores lines twice",
        {"WHERE (j.last_line IS NULL OR e.number > j.last_line)": "WHERE TRUE"},
        ("test_a_line_is_stored_once",),
    ),
    Fault(
        "does not count outcomes",
        {"WHERE d.changes AND (d.fenced OR d.over)": "WHERE FALSE"},
        ("test_each_settle_is_counted", "test_a_success_is_counted_with_its_times"),
    ),
    Fault(
        "does not tell ends",
        {"WHERE d.over OR d.changes AND d.event = 'retry'": "WHERE FALSE"},
        ("test_ends_and_retries_are_told_in_order",),
    ),
    Fault(
        "groups no errors",
        {"WHERE e.fingerprint IS NOT NULL": "WHERE FALSE"},
        ("test_errors_are_grouped_by_fingerprint",),
    ),
    Fault(
        "does not count who ends",
        {"1 AS by FROM decided AS d WHERE d.over": "0 AS by FROM decided AS d WHERE d.over"},
        ("test_counts_are_by_state_and_by_name",),
    ),
)

KEYS = (
    Fault(
        "ignores unique keys",
        {
            "greatest(n.due, v_now), v_now, n.unique_key, n.policy": "greatest(n.due, v_now), "
            "v_now, NULL, n.policy"
        },
        (
            "test_a_held_unique_key_answers_with_its_holder",
            "test_ten_producers_with_one_unique_key_make_one_job",
            "test_jobs_of_one_call_count_among_themselves",
        ),
    ),
    Fault(
        "takes every job of an id for the same",
        {"THEN 'same' ELSE 'conflict' END": "THEN 'same' ELSE 'same' END"},
        ("test_an_id_with_another_name_or_payload_is_a_conflict",),
    ),
    Fault(
        "adds half of a whole",
        {"IF p_whole AND v_added IS NOT NULL": "IF FALSE"},
        ("test_whole_stores_nothing_where_one_is_a_conflict",),
    ),
)

DOCUMENTS = (
    Fault(
        "ticks without compare-and-set",
        {
            "\n        AND d.version = p_version;": ";",
            "p_value, p_version) AS w": "p_value, NULL) AS w",
        },
        ("test_a_tick_of_another_version_writes_nothing", "test_of_ten_ticks_one_fires"),
    ),
    Fault(
        "writes without compare-and-set",
        {"IF p_version IS NOT NULL AND p_version <> v_there THEN": "IF FALSE THEN"},
        ("test_a_write_by_version_is_compare_and_set", "test_of_ten_writers_one_wins"),
    ),
    Fault(
        "uses versions again",
        {"written := jobmill.new_version(p_queue, p_now, wakes);": "written := v_there + 1;"},
        ("test_a_version_changes_with_each_write_and_never_comes_again",),
    ),
    Fault(
        "is led back by the server's clock",
        {"RETURN coalesce(v_at, v_wall);": "RETURN v_wall;"},
        ("test_the_time_does_not_go_back_with_the_server",),
    ),
)

REST = (
    Fault(
        "forgets starts",
        {
            "forget_starts(p_queue, p_key, v_now)": (
                "forget_starts(p_queue, p_key, v_now + v_longest / 2)"
            )
        },
        ("test_no_window_is_ever_overfull",),
    ),
    Fault(
        "starts by the slot",
        {
            "    IF v_at <= v_now THEN": "    IF v_come OR v_at <= v_now THEN",
            "    PERFORM jobmill.forget_slots(p_queue, p_key, v_now);\n": "",
        },
        ("test_slots_missed_in_an_outage_do_not_start_together",),
    ),
    Fault(
        "takes no start back",
        {"AND o.token = p_token": "AND o.token > p_token"},
        ("test_a_start_that_is_given_back_never_was",),
    ),
    Fault(
        "counts one place too few",
        {"v_left integer := p_place;": "v_left integer := p_place + 1;"},
        ("test_no_window_is_ever_overfull", "test_answers_are_those_of_the_rule"),
    ),
    Fault(
        "prunes ends at once",
        {"THEN p_now + CASE d.new_state": "THEN p_now + 0 * CASE d.new_state"},
        ("test_an_end_is_kept_for_its_time",),
    ),
    Fault(
        "drops what runs",
        {
            "ARRAY['delayed', 'pending'] ||": "ARRAY['delayed', 'pending', 'processing'] ||",
            "WHERE s <> 'processing'": "",
        },
        ("test_what_runs_is_never_dropped",),
    ),
    Fault(
        "counts what is due as delayed",
        {
            "CASE WHEN j.run_at <= v_now THEN 'pending' ELSE 'delayed' END AS told": "'delayed' "
            "AS told"
        },
        ("test_due_jobs_are_found_and_counted_as_pending",),
    ),
    Fault(
        "has one queue for all",
        {"AND j.queue BETWEEN p_queue AND p_queue": ""},
        ("test_queues_do_not_see_each_other",),
    ),
    Fault(
        "sleeps through adds",
        {"IF p_jobs IS NOT NULL THEN": "IF FALSE THEN"},
        ("test_an_added_job_wakes", "test_a_job_added_before_the_wait_wakes"),
    ),
    Fault(
        "tells nobody of ends",
        {"OR pg_try_advisory_xact_lock(p_lock_class, p_lock_number)": "OR TRUE"},
        ("test_the_end_of_a_job_wakes_who_waits_for_it",),
    ),
)

FAULTS: tuple[Fault, ...] = FENCES + CLAIMS + LAPSES + MOVES + KEYS + DOCUMENTS + REST
