"""A shop whose orders and jobs go together: `python -m tests.faults.shop_app JSON`.

For each line of its input, a number, it forks a child and writes the child's pid. A child places
orders, one transaction each, until it is killed. Children are forked from what is imported by
then, because an interpreter takes longer to start than one of them is to live.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator

import asyncpg
import msgspec
import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from jobmill import Queue, job
from jobmill.stores.postgresql import Address, PostgresStore
from tests.callers import dsn, url, words
from tests.faults.worker_app import prepare

NAME = "shop"
"""As the server knows the connections that place orders."""
SET_NAME = {"application_name": NAME}
INSERT = sa.text("INSERT INTO orders (id) VALUES (:order)")


@job(name="shop.ship")
async def ship(order: str) -> None: ...


class Shop:
    """The ways to place orders, one after another: the order first, or its job."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._queue = Queue(PostgresStore(address))

    @property
    def ways(self) -> list[Callable[[Iterator[str]], None]]:
        return [
            lambda orders: asyncio.run(self._by_asyncpg(orders)),
            self._by_psycopg,
            lambda orders: asyncio.run(self._by_async_session(orders)),
            self._by_session,
        ]

    async def _by_asyncpg(self, orders: Iterator[str]) -> None:
        connection = await asyncpg.connect(**words(self._address), server_settings=SET_NAME)
        for order in orders:
            async with connection.transaction():
                await self._queue.enqueue(ship.call(order), tx=connection, job_id=order)
                await connection.execute("INSERT INTO orders (id) VALUES ($1)", order)

    def _by_psycopg(self, orders: Iterator[str]) -> None:
        connection = psycopg.connect(dsn(self._address), application_name=NAME)
        for order in orders:
            connection.execute("INSERT INTO orders (id) VALUES (%s)", [order])
            self._queue.enqueue_sync(ship.call(order), tx=connection, job_id=order)
            connection.commit()

    async def _by_async_session(self, orders: Iterator[str]) -> None:
        engine = create_async_engine(
            url(self._address, "asyncpg"), connect_args={"server_settings": SET_NAME}
        )
        for order in orders:
            async with AsyncSession(engine) as session, session.begin():
                await self._queue.enqueue(ship.call(order), tx=session, job_id=order)
                await session.execute(INSERT, {"order": order})

    def _by_session(self, orders: Iterator[str]) -> None:
        engine = sa.create_engine(url(self._address, "psycopg"), connect_args=SET_NAME)
        for order in orders:
            with Session(engine) as session, session.begin():
                session.execute(INSERT, {"order": order})
                self._queue.enqueue_sync(ship.call(order), tx=session, job_id=order)


def main() -> None:
    prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks what became of a child
    shop = Shop(msgspec.json.decode(sys.argv[1], type=Address))
    for line in sys.stdin:
        number = int(line)
        pid = os.fork()
        if pid == 0:
            prepare()
            shop.ways[number % len(shop.ways)](f"{number}-{n}" for n in itertools.count())
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
