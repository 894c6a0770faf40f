"""The contract of `jobmill.store.Store` as tests, for every store and its author.

Subclass it in a test module, say how your store is opened, and run pytest with a plugin that
runs `async def` tests, such as pytest-asyncio in auto mode:

    class TestMyStore(StoreContract):
        async def open_store(self, clock: Clock) -> Store:
            store = MyStore("mydb://127.0.0.1/test", clock=clock)
            await store.open()
            return store

Each test opens a store of its own, which must be empty, and closes it. No test waits for time
to pass: instants are given to the verbs as `now`.
"""

from __future__ import annotations

from jobmill.testing.contract.adding import AddContract
from jobmill.testing.contract.asking import AskContract
from jobmill.testing.contract.claiming import ClaimContract
from jobmill.testing.contract.documents import DocumentContract
from jobmill.testing.contract.figures import FigureContract
from jobmill.testing.contract.leasing import LeaseContract
from jobmill.testing.contract.limiting import LimitContract
from jobmill.testing.contract.moving import MoveContract
from jobmill.testing.contract.removing import RemoveContract
from jobmill.testing.contract.sharing import ShareContract
from jobmill.testing.contract.waiting import WaitContract

__all__ = ["StoreContract"]


class StoreContract(
    AddContract,
    ClaimContract,
    LeaseContract,
    MoveContract,
    RemoveContract,
    AskContract,
    FigureContract,
    LimitContract,
    DocumentContract,
    WaitContract,
    ShareContract,
):
    """Every promise of every verb, one test each."""
