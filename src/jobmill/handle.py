"""What `enqueue` gives back: a hold on one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from jobmill.errors import JobCancelled, JobFailed, JobNotFound

if TYPE_CHECKING:
    from datetime import timedelta

    from jobmill.job import JobDefinition
    from jobmill.queue import Queue
    from jobmill.records import JobInfo

R_co = TypeVar("R_co", covariant=True)


class JobHandle(Generic[R_co]):
    """One job in its queue.

    `deduplicated`: it was there before, under the same job_id or unique key.
    """

    __slots__ = ("_job", "_queue", "deduplicated", "id")

    def __init__(
        self,
        queue: Queue,
        job: JobDefinition[object, R_co],
        job_id: str,
        *,
        deduplicated: bool,
    ) -> None:
        self.id: Final = job_id
        self.deduplicated: Final = deduplicated
        self._queue = queue
        self._job = job

    async def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job has ended, and give what its handler returned.

        Raises: JobFailed, JobCancelled; JobNotFound where its record is gone; TimeoutError
        after `timeout` seconds, which changes nothing for the job.
        """
        ended = await self._queue.wait_for_end(self.id, timeout)
        if ended is None:
            message = f"the store has no record of the job {self.id}"
            raise JobNotFound(message, job_id=self.id)
        info, result = ended
        message = info.error.message if info.error else ""
        if info.status == "cancelled":
            raise JobCancelled(
                f"the job {self.id} was cancelled: {message}", job_id=self.id, reason=message
            )
        if info.status == "failed":
            kind = info.error.type if info.error else "an unknown error"
            text = f"the job {self.id} failed with {kind}: {message}"
            raise JobFailed(text, job_id=self.id, error=info.error)
        return self._job.decode_result(result)

    async def info(self) -> JobInfo:
        """The job as it is now.

        Raises: JobNotFound where its record is gone.
        """
        info = await self._queue.get_job(self.id)
        if info is None:
            message = f"the store has no record of the job {self.id}"
            raise JobNotFound(message, job_id=self.id)
        return info

    async def cancel(self, reason: str = "") -> bool:
        """Cancel the job; False where it has ended or is not there."""
        return await self._queue.cancel(self.id, reason)

    def __repr__(self) -> str:
        return f"JobHandle({self._job.name!r}, id={self.id!r})"
