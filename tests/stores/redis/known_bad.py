"""Faults planted in the scripts, each of which breaks one promise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobmill.stores.redis.scripts import SCRIPTS, Script, spelled


@dataclass(frozen=True)
class Fault:
    """What stands in the scripts, and what is planted in its place.

    `by` names the tests of the contract that must fail. `breaks`: the invariant of which a
    simulation must see that it is broken, where it can.
    """

    name: str
    patches: Mapping[str, str] = field(repr=False)
    by: tuple[str, ...] = field(repr=False)
    breaks: str | None = None

    def __str__(self) -> str:
        return self.name

    def scripts(self) -> dict[str, Script]:
        """The scripts with the fault."""
        texts = {name: script.text for name, script in SCRIPTS.items()}
        for written, planted in self.patches.items():
            there, instead = spelled(written), spelled(planted)
            found = [name for name, text in texts.items() if there in text]
            assert found, f"{self.name}: no script has {there!r}"
            for name in found:
                assert texts[name].count(there) == 1, f"{self.name}: {name} has {there!r} twice"
                texts[name] = texts[name].replace(there, instead)
        return {
            name: Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
            for name, text in texts.items()
        }


_FENCE = "if not move.token or move.token ~= job[TOKEN] then"
# The commonest move has a fence of its own.
_ITS_FENCE = "or its_token ~= token or"

FENCES = (
    Fault(
        "settles without token",
        {_FENCE: "if false then", _ITS_FENCE: "or"},
        (
            "test_a_stale_token_writes_nothing",
            "test_what_was_taken_over_is_anothers",
            "test_a_settle_from_before_the_revive_writes_nothing",
        ),
        breaks="I4",
    ),
    Fault(
        "fences by state only",
        {
            _FENCE: "if job[STATE] ~= 'processing' and move.token ~= job[TOKEN] then",
            _ITS_FENCE: "or",
        },
        ("test_a_stale_token_writes_nothing", "test_what_was_taken_over_is_anothers"),
        breaks="I4",
    ),
    Fault(
        "renews without token",
        {"or job[TOKEN] ~= token then": "then"},
        ("test_a_renewal_answers_each_lease_in_order", "test_a_lost_lease_is_not_held"),
        breaks="I4",
    ),
    Fault(
        "refuses late renewals",
        {"or job[TOKEN] ~= token then": "or job[TOKEN] ~= token or job[LEASE] <= now then"},
        ("test_a_lease_that_ran_out_and_was_not_taken_is_held_again",),
    ),
    Fault(
        "settles a settled job again",
        {
            "if job[STATE] ~= 'processing' then return 'already '": "if false then "
            "return 'already '",
        },
        ("test_a_settle_repeated_is_already_done", "test_two_settles_of_one_token_in_one_call"),
    ),
)

CLAIMS = (
    Fault(
        "hands out delayed jobs early",
        {
            "local function mature()": "local function mature()\n"
            "  local now, now_score = now + 60, score_of(now + 60)"
        },
        (
            "test_a_job_is_not_claimed_before_it_is_due",
            "test_a_retry_is_not_claimed_before_its_delay",
        ),
        breaks="I10",
    ),
    Fault(
        "is deaf to priority",
        {
            "digits(priority)": "'0'",
        },
        (
            "test_the_lower_priority_number_goes_first",
            "test_priority_goes_before_age_and_across_names",
        ),
        breaks="I10",
    ),
    Fault(
        "hands out by acceptance, not by due instant",
        {"'%016.0f', due * 1000000)": "'%016.0f', 0)"},
        (
            "test_at_equal_priority_the_first_due_goes_first",
            "test_a_retried_job_stands_where_it_came_due",
        ),
        breaks="I10",
    ),
    Fault(
        "hands out one job too many",
        {
            "first_members('ready', names, limit)": "first_members('ready', names, limit + 1)",
        },
        ("test_no_more_than_the_limit",),
        breaks="I10",
    ),
    Fault(
        "hands out what is handed out",
        {"  drop_rank(base, member)\n  if not got[1]": "  if not got[1]"},
        ("test_a_claimed_job_is_not_claimed_again", "test_concurrent_claims_share_the_jobs"),
        breaks="I5",
    ),
    Fault(
        "leaves what is handed out in its lane",
        {"drop_rank(lane_of(base, name), member)": ""},
        ("test_a_claimed_job_is_claimed_neither_with_its_name_nor_without",),
        breaks="I5",
    ),
    Fault(
        "pops, then registers",
        {"put_rank('leases', until_score, member)\n  count(": "count("},
        (
            "test_a_repeat_collects_and_claims_nothing_new",
            "test_a_lapsed_lease_is_taken_over_as_it_is",
        ),
        breaks="I1",
    ),
    Fault(
        "claims anew on a repeat",
        {"if again then": "if false then"},
        (
            "test_a_repeat_collects_and_claims_nothing_new",
            "test_a_repeat_of_what_was_never_done_gives_nothing",
        ),
    ),
    Fault(
        "collects lapses among claims",
        {"each.job[TAKEN] == 1 and lapsed or claims": "claims"},
        ("test_a_repeat_collects_lapses_apart",),
    ),
    Fault(
        "ignores a pause of the queue",
        {"if key == '*' then return {} end": ""},
        ("test_a_paused_queue_hands_out_nothing",),
        breaks="I10",
    ),
    Fault(
        "ignores a pause of a name",
        {"if not paused['job:' .. name] and": "if"},
        ("test_a_paused_name_is_passed_over",),
        breaks="I10",
    ),
    Fault(
        "runs suspects in company",
        {"job[SUSPECT] == 1 and 'suspects' or 'ready'": "'ready'"},
        (
            "test_a_busy_worker_leaves_suspects",
            "test_an_idle_worker_takes_a_suspect_alone_when_it_is_its_turn",
            "test_suspects_go_one_by_one_in_order",
        ),
        breaks="I10",
    ),
    Fault(
        "gives suspects to the busy",
        {"if suspect and room ~= 'busy' then": "if suspect then"},
        ("test_a_busy_worker_leaves_suspects",),
        breaks="I10",
    ),
)

LAPSES = (
    Fault(
        "takes nothing over",
        {"'LIMIT', '0', TAKEOVER_LIMIT": "'LIMIT', 0, 0"},
        ("test_a_lapsed_lease_is_taken_over_as_it_is", "test_lapses_end_a_job_as_failed"),
        breaks="I1",
    ),
    Fault(
        "takes leases over early",
        {"P .. 'leases', '-inf', over_until(),": "P .. 'leases', '-inf', score_of(now + 5),"},
        ("test_a_lapsed_lease_is_taken_over_as_it_is",),
        breaks="I5",
    ),
    Fault(
        "takes over with the old token",
        {"job[TOKEN] = token\n": "\n"},
        ("test_a_lapsed_lease_is_taken_over_as_it_is", "test_what_was_taken_over_is_anothers"),
        breaks="I5",
    ),
    Fault(
        "takes over for no time",
        {"put_rank('leases', until_score, member)\n      lapsed": "lapsed"},
        ("test_a_takeover_happens_once",),
        breaks="I5",
    ),
    Fault(
        "spends an attempt at a lapse",
        {"if rule.attempt ~= 0 then": "if rule.attempt ~= 0 and move.event ~= 'lapse' then"},
        (
            "test_a_lapse_gives_the_attempt_back_and_counts",
            "test_the_attempt_after_a_lapse_is_the_same_again",
        ),
        breaks="I3",
    ),
    Fault(
        "counts a takeover as an attempt",
        {"job[TAKEN] = 1\n": "job[TAKEN] = 1\n      job[ATTEMPTS] = job[ATTEMPTS] + 1\n"},
        ("test_a_lapsed_lease_is_taken_over_as_it_is",),
        breaks="I3",
    ),
    Fault(
        "forgets how often a job lapsed",
        {"if lapses ~= 0 then": "if false then"},
        ("test_lapses_end_a_job_as_failed", "test_a_lapse_gives_the_attempt_back_and_counts"),
        breaks="I3",
    ),
    Fault(
        "leaves the cancel of a lapsed job with the dead",
        {
            "if job[ASKED] == 1 then\n        call('SMOVE'": "if false then\n        call('SMOVE'",
        },
        ("test_a_lapsed_lease_that_was_asked_to_cancel_is_the_takers",),
    ),
)

MOVES = (
    Fault(
        "retries what was cancelled",
        {"local diverted = job[ASKED] == 1 and rule.if_asked": "local diverted = false"},
        (
            "test_an_asked_job_that_is_put_off_ends_cancelled",
            "test_a_lapse_of_an_asked_job_ends_it_cancelled",
        ),
        breaks="I16",
    ),
    Fault(
        "keeps the attempt of a snooze",
        {"if rule.attempt ~= 0 then": "if rule.attempt ~= 0 and move.event ~= 'snooze' then"},
        ("test_a_snooze_gives_the_attempt_back",),
        breaks="I3",
    ),
    Fault(
        "keeps the lines of the next run out",
        {"    set(job, 'line', nil)\n  end": "  end"},
        ("test_the_next_run_numbers_its_lines_anew",),
    ),
    Fault(
        "stores lines twice",
        {"not job.line or line > tonumber(job.line)": "true"},
        ("test_a_line_is_stored_once",),
    ),
    Fault(
        "does not count outcomes",
        {
            "    tally(job[NAME], move.event, after, job[STARTED], job[DUE], move.lapsed, "
            "move.untried, now)\n": "",
            "  tally(name, 'succeed', after, started, due, false, false, now)\n": "",
        },
        ("test_each_settle_is_counted", "test_a_success_is_counted_with_its_times"),
    ),
    Fault(
        "counts a repeated settle twice",
        {
            "return 'already ' .. job[STATE]": "tally(job[NAME], move.event, job[STATE], "
            "job[STARTED], job[DUE], false, false, now) return 'already ' .. job[STATE]"
        },
        ("test_a_settle_repeated_is_already_done",),
    ),
    Fault(
        "does not write its figures",
        {"write_figures(now)\nfinish()": "finish()"},
        ("test_each_settle_is_counted", "test_buckets_are_by_minute_and_name"),
    ),
    Fault(
        "does not tell ends",
        {
            "  tell_event(job.id, job[NAME], after, now)\n": "",
            "  tell_event(id, name, after, now)\n": "",
        },
        ("test_ends_and_retries_are_told_in_order",),
    ),
    Fault(
        "groups no errors",
        {"if fingerprint then group(": "if false then group("},
        ("test_errors_are_grouped_by_fingerprint",),
    ),
    Fault(
        "does not count who comes",
        {"count(job[NAME], state, 1)": "", "count(name, state, 1)": ""},
        ("test_counts_are_by_state_and_by_name",),
    ),
    Fault(
        "does not count who leaves",
        {"count(job[NAME], state, -1)": ""},
        ("test_counts_are_by_state_and_by_name",),
    ),
)

KEYS = (
    Fault(
        "leaks unique keys",
        {"call('HDEL', P .. 'unique', key_of(job[NAME], job.unique))": "local _"},
        (
            "test_the_key_is_free_after_every_end",
            "test_the_key_is_free_after_a_cancel_without_a_run",
            "test_the_key_is_free_after_an_asked_run_was_put_off",
        ),
        breaks="I7",
    ),
    Fault(
        "ignores unique keys",
        {"local holder = holders[key] or": "local holder = nil and"},
        (
            "test_a_held_unique_key_answers_with_its_holder",
            "test_ten_producers_with_one_unique_key_make_one_job",
            "test_jobs_of_one_call_count_among_themselves",
        ),
        breaks="I7",
    ),
    Fault(
        "revives against a held key",
        {"if ENDED[job[STATE]] and job.unique then": "if false then"},
        ("test_a_revive_whose_key_is_held_is_held", "test_two_revives_of_one_key_in_one_call"),
        breaks="I7",
    ),
    Fault(
        "makes its own id on a repeat",
        {
            "return same and 'same' or 'conflict'": "if not same then "
            "return 'conflict' end\n    id = id .. '+'\n    arguments[at] = id"
        },
        (
            "test_the_same_id_name_and_payload_again_is_the_same",
            "test_ten_producers_with_one_id_make_one_job",
        ),
        breaks="I6",
    ),
    Fault(
        "adds half of a whole",
        {"local keep = not (whole and conflict)": "local keep = true"},
        ("test_whole_stores_nothing_where_one_is_a_conflict",),
    ),
)

DOCUMENTS = (
    Fault(
        "ticks without compare-and-set",
        {"if version == 0 or version ~= version_of('schedules', schedule) then": "if false then"},
        ("test_a_tick_of_another_version_writes_nothing", "test_of_ten_ticks_one_fires"),
    ),
    Fault(
        "writes without compare-and-set",
        {"~= version_of(space, key) then": "== nil then"},
        ("test_a_write_by_version_is_compare_and_set", "test_of_ten_writers_one_wins"),
    ),
    Fault(
        "uses versions again",
        {"local version = next_number('doc')": "local version = version_of(space, key) + 1"},
        ("test_a_version_changes_with_each_write_and_never_comes_again",),
    ),
    Fault(
        "counts from one where writes were lost",
        {"last = math.max(last, math.floor((given or server_time()) * 1000000) - 1)": ""},
        ("test_no_version_comes_again_where_the_server_lost_all",),
    ),
    Fault(
        "is led back by the server's clock",
        {
            "if mark >= time then return mark end": "",
            "math.max(mark_of_time(), server_time())": "server_time()",
        },
        ("test_the_time_does_not_go_back_with_the_server",),
    ),
)

LIMITS = (
    Fault(
        "forgets starts",
        {"forget_old(STARTS, now)\n": "forget_old(STARTS, now + longest / 2)\n"},
        ("test_no_window_is_ever_overfull",),
        breaks="I9",
    ),
    Fault(
        "starts by the slot",
        {
            "forget_old(SLOTS, now)\n": "",
            "if earliest(not come, 0) <= now then": "if come or earliest(true, 0) <= now then",
        },
        (
            "test_slots_missed_in_an_outage_do_not_start_together",
            "test_no_window_is_ever_overfull",
        ),
    ),
    Fault(
        "records a start twice",
        {
            "if call('ZSCORE', STARTS, start) then return '0' end": "start = start .. "
            "call('ZCARD', STARTS)"
        },
        ("test_the_same_token_again_starts_once",),
    ),
    Fault(
        "takes no start back",
        {"  call('ZREM', STARTS, start)\n": ""},
        ("test_a_start_that_is_given_back_never_was",),
    ),
)

REST = (
    Fault(
        "prunes ends at once",
        {
            "job[EXPIRES] = now + kept": "job[EXPIRES] = now",
            "expires = now + keep_result": "expires = now",
        },
        ("test_an_end_is_kept_for_its_time",),
        breaks="I1",
    ),
    Fault(
        "drops what runs",
        {"if found and state ~= 'processing' then": "if found then"},
        ("test_what_runs_is_never_dropped",),
    ),
    Fault(
        "counts what is due as delayed",
        {"        plus('delayed', job[NAME], -1)\n        plus('pending', job[NAME], 1)\n": ""},
        ("test_due_jobs_are_found_and_counted_as_pending",),
    ),
    Fault(
        "has one queue for all",
        {"local P = KEYS[1] .. ':'": "local P = '{jobmill:default}:'"},
        ("test_queues_do_not_see_each_other",),
    ),
    Fault(
        "sleeps through adds",
        {"if wake and added then": "if false then"},
        ("test_an_added_job_wakes", "test_a_job_added_before_the_wait_wakes"),
    ),
    Fault(
        "wakes where it should not",
        {"if wake and added then": "if added then"},
        ("test_an_added_job_does_not_wake_where_it_should_not",),
    ),
    Fault(
        "tells nobody of ends",
        {"if (#ends_told > 0 or events_told) and": "if false and"},
        (
            "test_the_end_of_a_job_wakes_who_waits_for_it",
            "test_an_end_or_a_retry_wakes_who_follows_all",
        ),
    ),
    Fault(
        "wakes for every document",
        {"if HEEDED[space] then": "if true then"},
        (
            "test_another_document_wakes_nobody",
            "test_docs_heeds_no_document_that_workers_do_not_act_on",
        ),
    ),
)

FAULTS: tuple[Fault, ...] = FENCES + CLAIMS + LAPSES + MOVES + KEYS + DOCUMENTS + LIMITS + REST
