"""An order and its job appear together, or not at all: `tx=` with a session of SQLAlchemy.

    python sqlalchemy_tx.py postgresql://localhost/app

Whatever happens between the two lines of a transaction, there is no order without its job and no
job without its order.
"""

import asyncio
import sys

from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobmill import JobContext, create_queue, define_job
from jobmill.testing import drain


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(String(50))


@define_job(name="confirm")
async def confirm(ctx: JobContext[int]) -> str:
    return f"order {ctx.payload} is confirmed"


async def main(url: str) -> None:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    queue = create_queue(url)
    async with queue, engine.connect() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.commit()
        for customer in ("Ada", "Nobody"):
            async with AsyncSession(connection) as session, session.begin() as transaction:
                order = Order(customer=customer)
                session.add(order)
                await session.flush()
                handle = await queue.enqueue(confirm, order.id, tx=session)
                if customer == "Nobody":
                    await transaction.rollback()
            kept = await queue.get_job(handle.id)
            print(customer, "->", "no job" if kept is None else kept.status)
        print(await drain(queue), "job ran")
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
