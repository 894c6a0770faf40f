"""The schema is made once, brought up to date when asked, and never by surprise."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from jobmill.errors import SchemaMismatch, StoreUnavailable
from jobmill.stores.postgresql import Address, PostgresStore, migrations_of
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.migrating import as_sql, status, up
from jobmill.stores.postgresql.programs import DIGEST, LATEST, quoted
from jobmill.testing.contract.case import T0, a_job, claim, ids
from jobmill.urls import StoreURL

pytestmark = pytest.mark.store("postgresql")
_numbers = itertools.count()


@pytest.fixture
async def plain(postgres_address: Address) -> AsyncIterator[Any]:
    connection = await connect(**postgres_address.options(), ssl=False)
    yield connection
    await connection.close()


@pytest.fixture
async def address(postgres_address: Address, plain: Any) -> AsyncIterator[Address]:
    """A schema that is not there yet, with a name that has to be quoted."""
    schema = f'Mill\'s "{next(_numbers)}" jobmill.x'
    yield msgspec.structs.replace(postgres_address, schema=schema)
    await plain.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")


async def opened(address: Address) -> PostgresStore:
    store = PostgresStore(address)
    await store.open()
    return store


async def works(address: Address) -> None:
    store = await opened(address)
    try:
        await store.add([a_job()], now=T0)
        assert ids((await claim(store)).claims) == ["j1"]
    finally:
        await store.close()


async def test_a_database_without_the_schema_gets_it(address: Address, plain: Any) -> None:
    found = await status(plain.fetch, address)
    assert (found.applied, found.programs, found.current) == (0, False, False)
    await works(address)
    found = await status(plain.fetch, address)
    assert (found.applied, found.programs, found.current) == (LATEST, True, True)


async def test_many_at_once_make_it_once(address: Address, plain: Any) -> None:
    stores = await asyncio.gather(*[opened(address) for _ in range(8)])
    for store in stores:
        await store.close()
    schema = quoted(address.schema)
    assert await plain.fetchval(f"SELECT count(*) FROM {schema}.migrations") == LATEST
    assert await plain.fetchval(f"SELECT count(*) FROM {schema}.programs") == 1


async def older(address: Address, plain: Any, *, again: bool = False) -> None:
    """As an earlier release left it: this one's functions are not there."""
    await (await opened(address)).close()
    schema = quoted(address.schema)
    if again:
        await plain.execute(f"DELETE FROM {schema}.programs WHERE digest = 'earlier'")
    await plain.execute(f"UPDATE {schema}.programs SET digest = 'earlier'")
    functions = await plain.fetch(
        "SELECT p.oid::regprocedure::text AS name FROM pg_proc AS p "
        "JOIN pg_namespace AS n ON n.oid = p.pronamespace "
        "WHERE n.nspname = $1 AND p.proname NOT IN ('enqueue', 'count_rate')",  # no release's
        address.schema,
    )
    for (name,) in functions:
        assert DIGEST in name
        await plain.execute(f"DROP FUNCTION {name}")


async def test_an_older_schema_is_told_with_the_command(address: Address, plain: Any) -> None:
    await older(address, plain)
    store = PostgresStore(address)
    with pytest.raises(SchemaMismatch, match="jobmill migrate up"):
        await store.open()
    await store.close()
    assert not (await status(plain.fetch, address)).current


async def test_an_older_schema_is_brought_up_to_date_where_that_is_asked(
    address: Address, plain: Any
) -> None:
    await older(address, plain)
    await works(msgspec.structs.replace(address, auto_migrate=True))
    await older_programs_stay(address, plain)


async def older_programs_stay(address: Address, plain: Any) -> None:
    """Workers of the release before go on."""
    rows = await plain.fetch(f"SELECT digest FROM {quoted(address.schema)}.programs")
    assert {digest for (digest,) in rows} == {"earlier", DIGEST}


async def test_a_newer_schema_is_fine_while_the_functions_are_there(
    address: Address, plain: Any
) -> None:
    await (await opened(address)).close()
    schema = quoted(address.schema)
    await plain.execute(f"INSERT INTO {schema}.migrations (number) VALUES ({LATEST + 1})")
    await works(address)
    await plain.execute(f"UPDATE {schema}.programs SET digest = 'later'")
    with pytest.raises(SchemaMismatch, match="update jobmill"):
        await opened(address)


async def test_up_and_its_text_do_the_same(address: Address, plain: Any) -> None:
    await plain.execute(as_sql(address.schema))
    assert (await status(plain.fetch, address)).current
    assert (await up(plain, address)).current
    await works(address)


async def test_an_operator_looks_and_brings_up_to_date(address: Address, plain: Any) -> None:
    ours = migrations_of(PostgresStore(address))
    assert (await ours.status()).applied == 0
    assert "CREATE SCHEMA" in await ours.sql()
    await older(address, plain)
    found = await ours.status()
    assert (found.applied, found.programs, found.current) == (LATEST, False, False)
    text = await ours.sql()
    assert "CREATE SCHEMA" not in text
    assert "CREATE TABLE" not in text
    assert DIGEST in text
    await plain.execute(text)
    assert (await ours.status()).current
    assert await ours.sql() == ""
    await older(address, plain, again=True)
    assert (await ours.up()).current
    await works(address)


async def test_an_operator_is_told_what_is_wrong(unused_tcp_port: int) -> None:
    url = StoreURL.parse(f"postgresql://u:hunter2@127.0.0.1:{unused_tcp_port}/d?sslmode=disable")
    with pytest.raises(StoreUnavailable) as told:
        await migrations_of(url).status()
    assert "hunter2" not in str(told.value)
