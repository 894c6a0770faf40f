"""`jobmill.enqueue(...)`: any client enqueues, and stores nothing that Python would refuse."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from jobmill import Queue, define_job, job
from jobmill.context import JobContext
from jobmill.errors import ConfigError, DefinitionError, PayloadError
from jobmill.fidelity import MAX_DEPTH
from jobmill.options import (
    MAX_DELAY,
    MAX_KEY,
    MAX_METADATA_BYTES,
    check_enqueue,
    check_job_name,
    check_queue_name,
)
from jobmill.policy import Policy
from jobmill.registry import isolated
from jobmill.store import Record
from jobmill.stores.postgresql import PostgresStore
from jobmill.stores.postgresql.channels import channels
from jobmill.stores.postgresql.programs import DIGEST, quoted
from jobmill.testing.contract.case import a_job
from tests.stores.postgresql.conftest import waits_for_a_lock
from tests.waiting import eventually

pytestmark = pytest.mark.store("postgresql")

PAGE = Path(__file__).parents[3] / "docs" / "postgresql.md"


async def enqueue(plain: Any, name: object = "a", schema: str = "jobmill", **given: Any) -> str:
    """Call the function with these arguments by name; what it answers."""
    names = ["job_name", *given]
    marks = ", ".join(f"{each} => ${n}" for n, each in enumerate(names, 1))
    values = [name, *given.values()]
    statement = f"SELECT {quoted(schema)}.enqueue({marks})"
    answer: str = await plain.fetchval(statement, *values)
    return answer


async def record(store: PostgresStore, job_id: str) -> Record:
    (found,) = await store.get([job_id])
    assert found is not None
    return found


async def test_what_is_left_out_is_as_in_python(store: PostgresStore, plain: Any) -> None:
    before = time.time()
    got = await record(store, await enqueue(plain))
    assert (got.name, got.state, got.payload, got.priority) == ("a", "pending", b"null", 0)
    assert (got.policy, got.metadata, got.unique_key) == (Policy(), {}, None)
    assert before - 5 < got.enqueued_at < time.time() + 5
    keeps = "SELECT keep_result, keep_failed, run_at = enqueued_at FROM jobmill.jobs"
    assert tuple(await plain.fetchrow(keeps)) == (Policy().keep_result, Policy().keep_failed, True)


async def test_what_is_given_is_stored(store: PostgresStore, plain: Any) -> None:
    options = {
        "retry_delay": 2.5,
        "backoff": "linear",
        "max_retry_delay": 9,
        "jitter": 0,
        "keep_result": 1.5,
        "keep_failed": 60,
        "max_lapses": 2,
        "on_lapse": "fail",
        "abort_grace": 0.25,
    }
    assert options.keys() == set(Policy.__struct_fields__) - {"max_attempts", "timeout"}
    job_id = await plain.fetchval(
        "SELECT jobmill.enqueue('a:b', $1, 'mail', delay => '1 hour 0.5 s', priority => -3, "
        "max_attempts => 7, timeout => '90.25 s', unique_key => $2, job_id => 'one', "
        "metadata => $3, options => $4)",
        json.dumps({"to": "ä", "n": [1, 2.5, None]}),
        "k\x1aä",
        json.dumps({"a": "b", "ä": "\x01"}),
        json.dumps(options),
    )
    assert job_id == "one"
    mail = store.handle("mail")
    await mail.open()
    try:
        got = await record(mail, "one")
        assert await store.get(["one"]) == [None]
    finally:
        await mail.close()
    assert msgspec.json.decode(got.payload) == {"to": "ä", "n": [1, 2.5, None]}
    assert (got.name, got.state, got.priority, got.unique_key) == ("a:b", "delayed", -3, "k\x1aä")
    assert abs(got.run_at - got.enqueued_at - 3600.5) < 1e-6
    assert got.metadata == {"a": "b", "ä": "\x01"}
    assert got.policy == msgspec.convert({**options, "max_attempts": 7, "timeout": 90.25}, Policy)
    assert tuple(await plain.fetchrow("SELECT keep_result, keep_failed FROM jobmill.jobs")) == (
        *(1.5, 60),
    )


async def test_run_at_is_an_instant(store: PostgresStore, plain: Any) -> None:
    for told, instant in (
        ("2100-01-01 00:00:00+00", 4_102_444_800.0),
        ("2099-12-31 19:00:00.25-05", 4_102_444_800.25),
        ("9999-12-31 23:59:59+00", 253_402_300_799.0),
    ):
        job_id = await plain.fetchval(
            f"SELECT jobmill.enqueue('a', run_at => '{told}'::timestamptz)"
        )
        got = await record(store, job_id)
        assert (got.state, got.run_at) == ("delayed", instant)
    past = await plain.fetchval("SELECT jobmill.enqueue('a', run_at => '0001-01-01 00:00:00+00')")
    got = await record(store, past)
    assert (got.state, got.run_at) == ("pending", got.enqueued_at)


# Each as SQL, with the field that the error names.
BAD = [
    ("NULL", "job_name"),
    ("'a', queue => NULL", "queue"),
    ("'a', job_id => ''", "job_id"),
    ("'a', job_id => 'a b'", "job_id"),
    ("'a', job_id => repeat('a', 201)", "job_id"),
    ("'a', unique_key => ''", "unique_key"),
    (f"'a', unique_key => repeat('ä', {MAX_KEY + 1})", "unique_key"),
    ("'a', delay => '1 s', run_at => now()", "run_at"),
    ("'a', delay => '-1 s'", "delay"),
    (f"'a', delay => make_interval(secs => {MAX_DELAY} + 1)", "delay"),
    ("'a', run_at => 'infinity'", "run_at"),
    ("'a', run_at => '-infinity'", "run_at"),
    ("'a', run_at => '0001-12-31 00:00:00+00 BC'", "run_at"),
    ("'a', run_at => '10000-01-01 00:00:00+00'", "run_at"),
    ("'a', priority => NULL", "priority"),
    ("'a', max_attempts => 0", "max_attempts"),
    ("'a', timeout => '0 s'", "timeout"),
    ("'a', timeout => '-1 s'", "timeout"),
    ("'a', max_payload_bytes => 0", "max_payload_bytes"),
    ("'a', max_payload_bytes => NULL", "max_payload_bytes"),
    ("'a', metadata => '[]'", "metadata"),
    ("'a', metadata => '3'", "metadata"),
    ("'a', metadata => 'null'", "metadata"),
    ("""'a', metadata => '{"a": 1}'""", "metadata"),
    ("""'a', metadata => '{"a": null}'""", "metadata"),
    (
        f"'a', metadata => jsonb_build_object('a', repeat('ä', {MAX_METADATA_BYTES // 2}))",
        "metadata",
    ),
    ("'a', options => '[]'", "options"),
    ("'a', options => 'null'", "options"),
    ("""'a', options => '{"retries": 3}'""", "options: retries"),
    ("""'a', options => '{"retry_delay": -1}'""", "options: retry_delay"),
    ("""'a', options => '{"retry_delay": "1"}'""", "options: retry_delay"),
    ("""'a', options => '{"retry_delay": 1e309}'""", "options: retry_delay"),
    ("""'a', options => '{"retry_delay": null}'""", "options: retry_delay"),
    ("""'a', options => '{"jitter": 1.01}'""", "options: jitter"),
    ("""'a', options => '{"max_lapses": 0}'""", "options: max_lapses"),
    ("""'a', options => '{"max_lapses": 2.0}'""", "options: max_lapses"),
    ("""'a', options => '{"max_lapses": 2147483648}'""", "options: max_lapses"),
    ("""'a', options => '{"backoff": "random"}'""", "options: backoff"),
    ("""'a', options => '{"on_lapse": true}'""", "options: on_lapse"),
    (f"'a', (repeat('[', {MAX_DEPTH + 1}) || repeat(']', {MAX_DEPTH + 1}))::jsonb", "payload"),
    (
        f"""'a', (repeat('{{"a":', {MAX_DEPTH}) || '[]' || repeat('}}', {MAX_DEPTH}))::jsonb""",
        "payload",
    ),
    ("'a', to_jsonb(repeat('ä', 524288))", "payload"),
    ("'a', '[1e309]'", "payload"),
    ("'a', '-1e5000'", "payload"),
]


async def test_bad_input_is_refused_with_its_field(store: PostgresStore, plain: Any) -> None:
    for arguments, field in BAD:
        with pytest.raises(asyncpg.InvalidParameterValueError) as refused:
            pytest.fail(await plain.fetchval(f"SELECT jobmill.enqueue({arguments})") or arguments)
        assert str(refused.value).startswith(f"{field}: "), arguments
    assert (await store.counts()).states == {}


GOOD = [
    f"'a', unique_key => repeat('ä', {MAX_KEY})",
    f"'a', delay => make_interval(secs => {MAX_DELAY})",
    "'a', priority => -2147483648",
    "'a', max_attempts => 2147483647",
    f"'a', metadata => jsonb_build_object('a', repeat('x', {MAX_METADATA_BYTES - 9}))",
    f"'a', (repeat('[', {MAX_DEPTH}) || repeat(']', {MAX_DEPTH}))::jsonb",
    f"""'a', (repeat('{{"a":', {MAX_DEPTH}) || '"[[["' || repeat('}}', {MAX_DEPTH}))::jsonb""",
    "'a', to_jsonb(repeat('x', 1048574))",
    "'a', to_jsonb(repeat('x', 2000000)), max_payload_bytes => 2000002",
    "'a', '[1e308, -1e308, 123456789012345678901234567890, 0.1, 1e-400]'",
]


async def test_what_is_at_the_limit_is_taken_and_decodes(store: PostgresStore, plain: Any) -> None:
    for arguments in GOOD:
        got = await record(store, await plain.fetchval(f"SELECT jobmill.enqueue({arguments})"))
        codec_takes(got.payload)


def codec_takes(payload: bytes) -> None:
    from jobmill.codec import codec

    codec(Any).decode(payload)


NAMES = [
    *("a", "A.b:c-d_9", "", "a b", "a\n", "\na", "ä", "a'b", 'a"b', "a%", "a/b", "a\\", "a$"),
    *("é", "A\u0301", "\u0661", "a" * 100, "a" * 101, "a" * 200, "a" * 201, ":", ".", "-"),
]


async def test_names_are_those_that_python_takes(plain: Any) -> None:
    """Of jobs, of queues, and ids of jobs."""

    def python(check: Any, *given: Any) -> bool:
        try:
            check(*given)
        except (ConfigError, DefinitionError):
            return False
        return True

    async def sql(**given: Any) -> bool:
        try:
            await enqueue(plain, **given)
        except asyncpg.InvalidParameterValueError:
            return False
        return True

    for name in NAMES:
        assert await sql(name=name) == python(check_job_name, name), name
        assert await sql(queue=name) == python(check_queue_name, name), name
        assert await sql(job_id=name) == python(check_enqueue, {"job_id": name}), name


async def test_what_no_json_can_say_is_refused_by_the_server(
    store: PostgresStore, plain: Any
) -> None:
    for payload in ('"\\u0000"', '"\\ud800"', "NaN", "[1,]", "'"):
        with pytest.raises(asyncpg.DataError):
            await enqueue(plain, payload=payload)
    assert (await store.counts()).states == {}


async def test_one_id_and_one_key_make_one_job(store: PostgresStore, plain: Any) -> None:
    """Whether they come by SQL or by Python."""
    assert await enqueue(plain, job_id="one", payload="[1, 2]") == "one"
    assert await enqueue(plain, job_id="one", payload="[1,2]") == "one"
    for given in ({"name": "b", "payload": "[1,2]"}, {"payload": "[2]"}):
        with pytest.raises(asyncpg.UniqueViolationError, match="job_id: one is taken"):
            await enqueue(plain, job_id="one", **given)
    holder = await enqueue(plain, unique_key="k\x1a\x1ae")
    assert await enqueue(plain, unique_key="k\x1a\x1ae", job_id="other") == holder
    (held,) = await store.add([a_job("j1", unique_key="k\x1a\x1ae")])
    assert (held.status, held.job_id) == ("held", holder)
    await store.add([a_job("j2", unique_key="py\x1a")])
    assert await enqueue(plain, unique_key="py\x1a") == "j2"
    assert await enqueue(plain, "b", unique_key="py\x1a") != "j2"
    assert (await store.counts()).states == {"pending": 4}


async def test_ids_are_uuids_of_version_7_that_rise(plain: Any) -> None:
    ids = []
    for _ in range(3):
        ids.append(uuid.UUID(await enqueue(plain)))
        await asyncio.sleep(0.002)
    assert ids == sorted(ids)
    for each in ids:
        assert (each.version, each.variant) == (7, uuid.RFC_4122)
        assert abs((each.int >> 80) / 1000 - time.time()) < 60
    assert len({await enqueue(plain) for _ in range(100)}) == 100


async def test_it_is_there_with_the_commit_and_wakes_where_asked(
    store: PostgresStore, plain: Any, other: Any
) -> None:
    heard: list[str] = []
    for queue in (store.queue, "mail"):
        channel = channels(store.address.schema, queue).jobs
        await other.add_listener(channel, lambda *said: heard.append(said[2]))
    await other.add_listener("end", lambda *_: heard.append("end"))
    transaction = plain.transaction()
    await transaction.start()
    gone = await enqueue(plain, wake=True)
    await transaction.rollback()
    await enqueue(plain, wake=None)
    await enqueue(plain, job_id="one")
    await enqueue(plain, job_id="one", wake=True)
    async with plain.transaction():
        there = await enqueue(plain, wake=True, queue="mail")
        await enqueue(plain, wake=True, queue="mail")
        assert await store.get([there]) == [None]
    await plain.execute('NOTIFY "end"')
    await eventually(lambda: "end" in heard, 30)
    assert heard == [channels(store.address.schema, "mail").jobs, "end"]
    assert await store.get([gone]) == [None]


async def test_time_is_the_stores_which_never_goes_back(store: PostgresStore, plain: Any) -> None:
    try:
        await plain.execute(
            "UPDATE jobmill.clock SET at = extract(epoch FROM clock_timestamp()) + 3600, "
            "wall = extract(epoch FROM clock_timestamp())"
        )
        ids = [await enqueue(plain) for _ in range(2)]
        await store.add([a_job("j1")])
        told = [(await record(store, each)).enqueued_at for each in (*ids, "j1")]
        assert told == sorted(told)
        assert 3_500 < told[0] - time.time() < 3_700
    finally:
        await plain.execute("UPDATE jobmill.clock SET at = 0, wall = 0")


async def test_it_outlives_the_functions_of_every_release(store: PostgresStore, plain: Any) -> None:
    """In a schema of its own: those of this release are gone."""
    address = msgspec.structs.replace(store.address, schema="Alone 'x' $y$")
    alone = PostgresStore(address)
    schema = quoted(address.schema)
    try:
        await alone.open()
        functions = await plain.fetch(
            "SELECT p.oid::regprocedure::text AS name FROM pg_proc AS p "
            "JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1 "
            "AND p.proname LIKE $2",
            *(address.schema, f"%{DIGEST}"),
        )
        assert len(functions) > 10
        async with plain.transaction():
            for (name,) in functions:
                await plain.execute(f"DROP FUNCTION {name}")
            assert await enqueue(plain, schema=address.schema, unique_key="k", wake=True)
            assert await enqueue(plain, schema=address.schema, unique_key="k")
            assert await plain.fetchval(f"SELECT count(*) FROM {schema}.jobs") == 1
    finally:
        await alone.close()
        await plain.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def test_who_may_call_it_needs_no_other_right(store: PostgresStore, plain: Any) -> None:
    await plain.execute(
        "DROP ROLE IF EXISTS teller; CREATE ROLE teller; GRANT USAGE ON SCHEMA jobmill TO teller"
    )
    try:
        async with plain.transaction():
            await plain.execute("SET LOCAL ROLE teller")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with plain.transaction():
                    await enqueue(plain)
            await plain.execute("RESET ROLE; GRANT EXECUTE ON FUNCTION jobmill.enqueue TO teller")
            await plain.execute("SET LOCAL ROLE teller")
            assert await enqueue(plain, wake=True, unique_key="k")
            for statement in ("SELECT * FROM jobmill.jobs", "DELETE FROM jobmill.jobs"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with plain.transaction():
                        await plain.execute(statement)
    finally:
        await plain.execute(
            "REVOKE ALL ON SCHEMA jobmill FROM teller;"
            "REVOKE ALL ON FUNCTION jobmill.enqueue FROM teller; DROP ROLE teller"
        )
    assert (await store.counts()).states == {"pending": 1}


async def test_the_callers_search_path_does_not_matter(plain: Any) -> None:
    await plain.execute("""
        CREATE SCHEMA sly;
        CREATE FUNCTION sly.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'sly'; END $$;
        CREATE FUNCTION sly.convert_to(text, text) RETURNS bytea LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'sly'; END $$;
        CREATE TEMPORARY TABLE jobs (id text);
    """)
    try:
        await plain.execute("SET search_path = sly, pg_temp, pg_catalog")
        assert await enqueue(plain, unique_key="k") == await enqueue(plain, unique_key="k")
    finally:
        await plain.execute("RESET search_path; DROP SCHEMA sly CASCADE")


async def test_an_uncommitted_key_is_waited_for(
    store: PostgresStore, plain: Any, other: Any
) -> None:
    for ends in ("COMMIT", "ROLLBACK"):
        await other.execute("BEGIN")
        first = await enqueue(other, unique_key=ends)
        waiting = asyncio.create_task(enqueue(plain, unique_key=ends))
        await waits_for_a_lock(plain, other)
        await other.execute(ends)
        async with asyncio.timeout(30):
            assert (await waiting == first) == (ends == "COMMIT")
    async with plain.transaction(isolation="repeatable_read"):
        await plain.fetchval("SELECT count(*) FROM jobmill.jobs")
        await enqueue(other, unique_key="unseen")
        with pytest.raises(asyncpg.SerializationError):
            await enqueue(plain, unique_key="unseen")


async def test_a_worker_runs_it(store: PostgresStore, plain: Any) -> None:
    """Functions with and without arguments, and handlers of a context."""
    with isolated():

        @job(name="sql.add")
        async def add(x: int, y: int = 2) -> int:
            return x + y

        @job(name="sql.nothing")
        async def nothing(x: int = 7) -> int:
            return x

        @define_job(name="sql.context")
        async def context(ctx: JobContext[None]) -> dict[str, str]:
            return dict(ctx.metadata)

        queue = Queue(PostgresStore(store.address), poll_interval=0.1)
        queue.process()
        try:
            ids = [
                await enqueue(plain, add.name, payload='{"x": 1}'),
                await enqueue(plain, nothing.name),
                await enqueue(plain, context.name, metadata='{"a": "b"}'),
                await enqueue(plain, add.name, payload='{"z": 1}'),
            ]
            ended = [await queue.wait_for_end(each, 30) for each in ids]
        finally:
            await queue.shutdown(timeout=0)
    assert [each and (each[0].status, each[0].result) for each in ended] == [
        ("completed", 3),
        ("completed", 7),
        ("completed", {"a": "b"}),
        ("failed", None),
    ]


async def test_the_trigger_of_the_page_works(store: PostgresStore, plain: Any) -> None:
    """It is run as it stands there."""
    blocks = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (trigger,) = [block for block in blocks if "CREATE TRIGGER" in block]
    await plain.execute("CREATE SCHEMA page; SET search_path = page, public")
    try:
        await plain.execute("CREATE TABLE orders (id bigint PRIMARY KEY, paid boolean)")
        await plain.execute(trigger)
        await plain.execute("INSERT INTO orders VALUES (1, false), (2, true)")
        assert (await store.counts()).states == {}
        await plain.execute("UPDATE orders SET paid = true")
        await plain.execute("UPDATE orders SET paid = true")
        (record,) = (await store.find(jobs_of("shop.send_receipt"), limit=9)).records
        assert msgspec.json.decode(record.payload) == {"order": 1}
    finally:
        await plain.execute("DROP SCHEMA page CASCADE; RESET search_path")


def jobs_of(name: str) -> Any:
    from jobmill.store import Query

    return Query(name=name)


def test_python_refuses_what_is_too_deep_at_the_same_depth() -> None:
    codec_takes(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(PayloadError):
        codec_takes(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
