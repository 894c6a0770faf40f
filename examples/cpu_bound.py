"""Work that computes, in child processes: the event loop stays free, a timeout kills for real."""

from __future__ import annotations

import asyncio
import os

from jobmill import JobFailed, create_queue, job


@job(executor="process")
def count_primes(below: int) -> tuple[int, int]:
    primes = [n for n in range(2, below) if all(n % d for d in range(2, int(n**0.5) + 1))]
    return len(primes), os.getpid()


@job(executor="process", timeout=1, retries=0, abort_grace=0.1)
def never_ends() -> None:
    while True:
        pass


async def main() -> None:
    async with create_queue(concurrency=2) as queue:
        queue.process()
        endless = await queue.enqueue(never_ends)
        primes = await queue.enqueue(count_primes.call(50_000))
        number, pid = await primes.result(timeout=30)
        elsewhere = "another process" if pid != os.getpid() else "this process"
        print(f"{number} primes below 50,000, counted in {elsewhere}")
        try:
            await endless.result(timeout=30)
        except JobFailed as failed:
            print(failed.error.type, "ended the endless one:", failed.error.message)


# A child process loads this file to find its job; what starts the work is not for it.
if __name__ == "__main__":
    asyncio.run(main())
