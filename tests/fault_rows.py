"""The faults that jobmill is to survive, and which tests bring them about.

A test is named by its file and function, or by its file alone where all of it is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SERVERS: Final = ("redis", "postgresql")
PROCESSES: Final = ("sqlite", *SERVERS)
ALL: Final = ("memory", *PROCESSES)

_SIM: Final = (
    "tests/sim/test_worker_sim.py::test_the_invariants_hold_on_memory",
    "tests/sim/test_worker_sim.py::test_the_invariants_hold_on_sqlite",
    "tests/sim/test_worker_sim.py::test_the_invariants_hold_on_redis",
    "tests/sim/test_worker_sim.py::test_the_invariants_hold_on_postgresql",
    "tests/sim/test_store_sim.py::test_the_invariants_hold_on_memory",
    "tests/sim/test_store_sim.py::test_the_invariants_hold_on_sqlite",
    "tests/sim/test_store_sim.py::test_the_invariants_hold_on_redis",
    "tests/sim/test_store_sim.py::test_the_invariants_hold_on_postgresql",
)


@dataclass(frozen=True)
class Row:
    """A fault: the stores that it can befall, what must hold, and the tests of it.

    `but`: what a store cannot promise there, and why.
    """

    fault: str
    stores: tuple[str, ...]
    holds: str
    tests: tuple[str, ...]
    but: dict[str, str] = field(default_factory=dict[str, str])


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple([f"tests/{file}.py::test_{name}" for name in names])


ROWS: Final = (
    Row(
        "a worker is killed (-9) in the middle of jobs, ten times over 1,000 jobs",
        PROCESSES,
        "its jobs are pending again within their lease and 2 s; no more second runs than jobs in "
        "flight at the kills; no attempt is spent",
        _in("faults/test_kill", "kill_9_ten_times_over_1000_jobs"),
    ),
    Row(
        "a worker is killed between claim and start, or between done and settled; a producer and "
        "its worker are killed",
        PROCESSES,
        "a job runs twice only where it was done and not settled",
        _in(
            "faults/test_kill",
            "kill_9_between_the_steps_of_a_run",
            "what_a_dead_program_enqueued_is_run_by_the_next",
            "a_job_outlives_both_its_program_and_its_worker",
        ),
    ),
    Row(
        "a worker is frozen for longer than its lease, and goes on (a zombie)",
        PROCESSES,
        "its settle is refused, its handler is told `lease_lost`, its result is dropped; nothing "
        "is given to a frozen process",
        _in(
            "faults/test_freeze",
            "a_frozen_worker_is_told_that_it_lost_its_job",
            "the_settle_of_a_frozen_worker_is_refused",
            "a_job_claimed_by_a_frozen_worker_does_not_start_there",
            "a_frozen_worker_without_another_goes_on_where_it_was",
        ),
        {
            "sqlite": "A worker that is frozen in the middle of a transaction holds the file's "
            "lock: all others wait until it goes on or is killed. Nothing is lost by that.",
        },
    ),
    Row(
        "a handler blocks the event loop for four leases",
        ALL,
        "no second run; a warning names the handler",
        (
            *_in("faults/test_freeze", "a_handler_that_blocks_the_loop_for_four_leases_runs_once"),
            *_in("api/running/test_leases", "a_handler_that_blocks_the_loop_keeps_its_job"),
        ),
    ),
    Row(
        "a job that runs for ten leases",
        ALL,
        "one run",
        (
            *_in("faults/test_freeze", "a_job_of_ten_leases_runs_once"),
            *_in("api/running/test_leases", "a_job_of_ten_leases_runs_once"),
        ),
    ),
    Row(
        "poison: a job that ends its process, by exit, by a segfault, by eating all memory",
        PROCESSES,
        "it runs `max_lapses` times and then fails; its neighbours complete, and no attempt of "
        "theirs is spent",
        _in(
            "faults/test_poison",
            "poison_fails_and_spares_its_neighbours",
            "the_death_of_a_child_process_is_a_failed_attempt",
            "a_job_that_eats_all_memory_fails_as_poison_and_spares_its_neighbours",
            "a_job_that_is_refused_memory_fails_its_attempts_only",
        ),
    ),
    Row(
        "a handler in a thread ignores its timeout",
        ALL,
        "its lease is kept while the thread lives, its slot stays taken, it is reported as stuck",
        (
            *_in("faults/test_deaf", "a_thread_deaf_to_its_timeout_keeps_its_lease_and_its_slot"),
            *_in(
                "api/running/test_stopping",
                "a_thread_that_cannot_be_stopped_keeps_its_slot_and_lease",
            ),
        ),
    ),
    Row(
        "a handler swallows its cancellation",
        ALL,
        "it is never completed after a timeout or a cancel",
        (
            *_in("faults/test_deaf", "a_handler_that_swallows_its_cancellation_never_completes"),
            *_in(
                "api/running/test_attempts",
                "a_handler_that_swallows_its_cancellation_never_completes",
            ),
        ),
    ),
    Row(
        "a hook, listener or monitor raises; a result cannot be encoded; a monitor is killed",
        ALL,
        "no job is left without its end, no worker goes down, no event is missed",
        (
            *_in(
                "faults/test_deaf",
                "raising_hooks_and_unsayable_results_leave_no_job_without_its_end",
            ),
            *_in(
                "faults/test_monitor",
                "figures_and_events_are_those_of_the_records",
                "a_monitor_that_is_killed_misses_nothing",
            ),
            *_in(
                "api/running/test_hooks",
                "a_hook_that_fails_changes_nothing_and_is_logged_and_counted",
            ),
            *_in("api/running/test_attempts", "a_result_that_is_no_json_fails_without_retry"),
        ),
    ),
    Row(
        "SIGTERM, a second SIGTERM, a stop during start-up",
        ALL,
        "no claim after it; all that was claimed is settled or handed back unspent; the exit "
        "comes within the grace time",
        (
            "tests/faults/test_stop.py",
            *_in("api/running/test_stopping", "shutdown_aborts_and_hands_back_unspent"),
            *_in("api/running/test_stopping", "a_stop_during_start_up_is_heard"),
        ),
    ),
    Row(
        "a rolling deploy: a job whose name this worker does not know, a payload of another type",
        ALL,
        "it waits, or is set aside with its reason; the log and the health say so; nothing is lost",
        (
            "tests/faults/test_deploy.py",
            *_in(
                "api/running/test_bad_input",
                "an_unknown_job_is_put_off_unspent_and_longer_each_time",
            ),
            *_in(
                "api/running/test_bad_input",
                "a_payload_that_does_not_decode_fails_at_once_with_its_bytes_kept",
            ),
        ),
    ),
    Row(
        "the store is killed (-9), and is back after 2 s, or after longer than a lease",
        PROCESSES,
        "workers stay up and resume within 2 s of its return; `enqueue` raises meanwhile and "
        "never lies",
        (
            *_in(
                "faults/test_server",
                "workers_outlast_a_killed_server_and_enqueue_never_lies",
                "a_stop_is_heard_while_the_server_is_away",
            ),
            *_in("faults/test_monitor", "a_server_that_is_away_is_unhealthy"),
            *_in("faults/test_sqlite_file", "kill_9_in_commit_loses_nothing_that_was_answered"),
        ),
        {
            "sqlite": "There is no server to kill: it is whoever writes to the file, in the "
            "middle of a commit.",
            "redis": "As here, with `appendfsync always`. With other settings a kill or a power "
            "cut loses what [its page](redis.md) says.",
            "postgresql": "Claims and renewals wait for no disk: those of the last 0.6 s before "
            "the kill may be undone, and their jobs run twice.",
        },
    ),
    Row(
        "the store stands still for longer than a call waits",
        PROCESSES,
        "every call is bounded; no storm of second runs when it wakes",
        (
            *_in(
                "faults/test_server",
                "a_frozen_server_bounds_every_call_and_wakes_without_a_storm",
                "a_claim_that_a_frozen_server_runs_late_takes_nothing_over",
            ),
            *_in(
                "faults/test_sqlite_file",
                "a_worker_outlasts_a_locked_file",
                "workers_that_outlast_a_lock_do_not_rob_each_other",
            ),
        ),
        {"sqlite": "It is another program that holds the file's lock."},
    ),
    Row(
        "TCP connections go half-open: everything is swallowed",
        SERVERS,
        "resumed within 15 s",
        _in(
            "faults/test_network",
            "workers_and_producers_resume_after_their_connections_went_half_open",
            "every_call_is_bounded_while_all_is_swallowed_and_the_worker_resumes",
        ),
    ),
    Row(
        "a connection is reset at any byte; a request is lost; a reply is lost",
        SERVERS,
        "an enqueue that is sent again makes one job; a settle that is sent again is harmless",
        _in(
            "faults/test_network",
            "a_reset_at_any_byte_of_an_enqueue_makes_one_job",
            "a_lost_request_or_reply_of_an_enqueue_makes_one_job",
            "a_lost_request_or_reply_of_a_settle_is_harmless",
            "workers_outlast_resets_at_random_bytes",
        ),
    ),
    Row(
        "latency of up to a third of the lease",
        SERVERS,
        "no lease is lost",
        _in("faults/test_network", "latency_below_a_third_of_the_lease_loses_no_lease"),
    ),
    Row(
        "failover: a Sentinel's promotion, a standby's promotion",
        SERVERS,
        "lost is only what the store's own setting can lose; nothing with `wait_replicas` of all "
        "replicas, or a synchronous standby",
        (
            "tests/faults/test_failover.py",
            "tests/stores/redis/test_sentinel.py",
            "tests/faults/test_standby.py",
        ),
        {
            "redis": "Without `wait_replicas`, what the replica had not received. With it a "
            "primary that is cut off, not killed, can still take what nobody else will know: WAIT "
            "narrows the loss and does not exclude it.",
            "postgresql": "With an asynchronous standby, what it had not received.",
        },
    ),
    Row(
        "READONLY, LOADING, BUSY, OOM, NOSCRIPT, MOVED, a wrong password",
        ("redis",),
        "sorted into what is tried again and what is fatal; the message says what to do",
        ("tests/stores/redis/test_refusals.py", "tests/stores/redis/test_cluster.py"),
    ),
    Row(
        "a deadlock, a serialization failure, a terminated backend, dead rows that an old "
        "snapshot keeps, PgBouncer in transaction mode, a lost NOTIFY",
        ("postgresql",),
        "tried again where that helps; 99 of 100 claims take under 20 ms beside dead rows",
        (
            "tests/stores/postgresql/test_troubles.py",
            "tests/stores/postgresql/test_dead_rows.py",
            *_in(
                "stores/postgresql/test_dead_rows",
                "claims_are_quick_beside_dead_rows_that_an_old_snapshot_keeps",
            ),
            "tests/faults/test_transactions.py",
        ),
    ),
    Row(
        "SQLITE_BUSY, a full disk, a read-only file, a kill in the middle of a commit, several "
        "processes on one file",
        ("sqlite",),
        "clear errors; what was answered is there; the file is whole",
        ("tests/faults/test_sqlite_file.py", "tests/stores/sqlite/test_faults.py"),
    ),
    Row(
        "the store is emptied (FLUSHALL, TRUNCATE) while workers run",
        SERVERS,
        "no crash; every worker says so, an idle one too; new jobs run",
        _in("faults/test_server", "an_emptied_store_is_told_and_work_goes_on"),
    ),
    Row(
        "clocks: workers and producers ten minutes ahead and behind, an hour back and forward "
        "while they run; daylight saving both ways; leap days",
        ALL,
        "no job early, no lease lost, each tick once",
        (
            *_in(
                "faults/test_clocks",
                "the_clocks_of_workers_and_producers_change_nothing",
                "a_clock_set_back_by_an_hour_makes_nothing_run_twice_on_a_file",
                "a_clock_set_forward_by_an_hour_ends_leases_on_a_file_and_nothing_worse",
            ),
            *_in("sim/test_scheduler_sim", "a_clock_that_is_set_fires_no_tick_twice"),
            *_in(
                "sim/test_scheduler_sim",
                "a_year_of_ten_schedules_fires_exactly_what_the_calendar_says",
            ),
            "tests/unit/cron/test_vectors.py",
            *_in("unit/cron/test_grammar", "a_leap_day_is_waited_for"),
        ),
        {
            "sqlite": "A file has the time of its machine. Where that is set forward by more than "
            "a lease, a job that runs may be taken for dead and run again; its first run is told "
            "`lease_lost` and writes nothing.",
            "memory": "It has the time of its process, with the same end.",
            "redis": "Where the clock of the *server* is set forward by more than a lease, the "
            "same happens as with a file.",
            "postgresql": "The same, by the clock of its server.",
        },
    ),
    Row(
        "five schedulers, one of them killed every 500 ms; real ones, one of them killed",
        ALL,
        "each tick fires once, none is left out",
        (
            *_in(
                "sim/test_scheduler_sim",
                "ten_thousand_ticks_fire_once_while_schedulers_die_on_memory",
            ),
            *_in("sim/test_scheduler_sim", "ticks_fire_once_while_schedulers_die_on_sqlite"),
            *_in("sim/test_scheduler_sim", "ticks_fire_once_while_schedulers_die_on_redis"),
            *_in("sim/test_scheduler_sim", "ticks_fire_once_while_schedulers_die_on_postgresql"),
            "tests/faults/test_schedules.py",
        ),
    ),
    Row(
        "ten producers at once with one unique key, and with one job id",
        ALL,
        "one job; the key is free again after its end",
        ("tests/faults/test_producers.py", *_SIM[4:5]),
        {"memory": "Many processes cannot share it; the simulation's producers do."},
    ),
    Row(
        "a rate limit over eight workers, some of which are killed",
        ALL,
        "in no window more starts than the limit",
        (
            "tests/faults/test_limits.py",
            *_in("api/running/test_middleware", "no_sliding_window_has_more_starts_than_the_limit"),
        ),
    ),
    Row(
        "a crowd of jobs that all fail at once",
        ALL,
        "jitter spreads their retries, and a healthy job waits less than twice as long as ever",
        ("tests/sim/test_crowd_sim.py",),
    ),
    Row(
        "payloads: empty, at the limit, one byte over, NUL, a lone surrogate, NaN, 2^63, a "
        "nesting of 1,000",
        ALL,
        "a typed error at `enqueue`, or the exact value in the handler",
        ("tests/faults/test_payloads.py", "tests/unit/test_codec.py"),
    ),
    Row(
        "very many jobs, workers recycled",
        ALL,
        "keys, rows, threads, descriptors and memory stay flat",
        (
            *_in("api/running/test_leaks", "thousands_of_jobs_leave_nothing_behind"),
            *_in("cli/test_supervisor", "a_process_past_its_jobs_is_replaced"),
            *_in(
                "cli/test_supervisor",
                "a_rolling_restart_under_load_loses_nothing_and_spends_no_attempt",
            ),
        ),
    ),
    Row(
        "all of them at once, in virtual time: calls and replies lost, workers killed, frozen, "
        "stopped, cut off, clocks set, operators at work",
        ALL,
        "the invariants I1 to I7, I9, I10, I12 to I14 and I16, for each seed",
        _SIM,
    ),
)
"""Numbered from 1, in this order."""
