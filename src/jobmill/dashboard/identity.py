"""Who asks: by a session's cookie, by name and password, or by what the host application says."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from starlette.requests import Request

from jobmill.dashboard.guesses import Guesses
from jobmill.dashboard.logouts import Logouts
from jobmill.dashboard.sessions import Session, Sessions
from jobmill.dashboard.users import MOST_PASSWORD, User, Users
from jobmill.dashboard.visit import Visit

log: Final = logging.getLogger("jobmill.dashboard")

Login: TypeAlias = Callable[[Request], User | Awaitable[User | None] | None]

ANYBODY: Final = User("anybody", "operator")
"""Who comes over loopback, where there is no login."""
_KNOWN_FOR: Final = 300.0
_MOST_KNOWN: Final = 1_000
_REFRESH: Final = 1.0


class Identity:
    """Tells who asks. With neither `users` nor `login` it is anybody."""

    def __init__(
        self,
        sessions: Sessions,
        users: Users | None,
        login: Login | None,
        logouts: Logouts,
        *,
        read_only: bool,
    ) -> None:
        self.sessions: Final = sessions
        self.users: Final = users
        self.guesses: Final = Guesses()
        self._login = login
        self._logouts = logouts
        self._read_only = read_only
        self._basic: dict[str, tuple[str, str, float]] = {}
        self._looked = 0.0
        self._hashing = asyncio.Semaphore(2)

    @property
    def is_asked(self) -> bool:
        """Whether somebody has to say who they are."""
        return self.users is not None or self._login is not None

    def seconds_to_wait(self, visit: Visit, name: str = "") -> float:
        """Seconds until the next guess from there, or at this name, is looked at."""
        return self.guesses.wait(*_keys(visit, name))

    def seconds_to_guess(self, visit: Visit, basic: str) -> float:
        """The same for an Authorization header; one that was right of late is no guess."""
        if self._user_before(basic) is not None:
            return 0.0
        return self.seconds_to_wait(visit, (_name_and_password(basic) or ("", ""))[0])

    async def of(self, request: Request, visit: Visit, basic: str | None) -> User | None:
        """Who asks; `basic` is an Authorization header with name and password."""
        if basic is not None and self.users is not None:
            user = await self._by_password(basic, visit)
        elif self._login is not None:
            found = self._login(request)
            user = await found if inspect.isawaitable(found) else found
        else:
            user = await self._by_session(visit.session)
        return User(user.name, "viewer") if user is not None and self._read_only else user

    async def check(self, name: str, password: str, visit: Visit) -> User | None:
        """The user of this name and password; wrong guesses are counted."""
        if self.users is None:
            return None
        keys = _keys(visit, name)
        # Counted before it is looked at: many guesses at once are many, too.
        self.guesses.wrong(*keys)
        async with self._hashing:
            user = await asyncio.to_thread(self.users.check, name, password)
        if user is None:
            log.warning("a wrong name or password from %s", visit.ip)
        else:
            self.guesses.right(*keys)
        return user

    def begin(self, visit: Visit, user: User) -> None:
        """Log the user in, under another session id than before."""
        stamp = "" if self.users is None else self.users.stamp(user.name)
        self._replace(visit, self.sessions.new(user.name, stamp))

    async def end(self, visit: Visit) -> None:
        """Log out, in every process that shares the secret."""
        over = visit.session
        self._replace(visit, self.sessions.new())
        if over.user is not None:
            await self._logouts.tell(over)

    def _replace(self, visit: Visit, session: Session) -> None:
        self.sessions.end(visit.session.id)
        visit.session = session
        visit.changed = True

    async def _by_session(self, session: Session) -> User | None:
        if self.users is None:
            return ANYBODY
        await self._refresh(self.users)
        if session.user is None:
            return None
        await self._logouts.refresh()
        if self.sessions.is_over(session) or session.stamp != self.users.stamp(session.user):
            return None
        return self.users.get(session.user)

    async def _by_password(self, header: str, visit: Visit) -> User | None:
        """The user that a program names; what was right once is not hashed again for a while."""
        if self.users is None:
            return None
        await self._refresh(self.users)
        user = self._user_before(header)
        told = _name_and_password(header)
        if user is not None or told is None:
            return user
        name, password = told
        # Also after what was awaited: others may have guessed meanwhile.
        if self.seconds_to_wait(visit, name) > 0:
            return None
        user = await self.check(name, password[:MOST_PASSWORD], visit)
        if user is not None:
            while len(self._basic) >= _MOST_KNOWN:
                del self._basic[next(iter(self._basic))]
            self._basic[_digest(header)] = (
                name,
                self.users.stamp(name),
                time.monotonic() + _KNOWN_FOR,
            )
        return user

    def _user_before(self, header: str) -> User | None:
        """The user whose name and password this header was found to be, a while ago."""
        name, stamp, until = self._basic.get(_digest(header), ("", "", 0.0))
        if self.users is None or until <= time.monotonic() or stamp != self.users.stamp(name):
            return None
        return self.users.get(name)

    async def _refresh(self, users: Users) -> None:
        now = time.monotonic()
        if now - self._looked > _REFRESH:
            self._looked = now
            await asyncio.to_thread(users.refresh)


def _digest(header: str) -> str:
    return hashlib.sha256(header.encode()).hexdigest()


def _name_and_password(header: str) -> tuple[str, str] | None:
    try:
        told = base64.b64decode(header.split(" ", 1)[1].strip(), validate=True).decode()
    except (binascii.Error, UnicodeError):
        return None
    name, _, password = told.partition(":")
    return name, password


def _keys(visit: Visit, name: str) -> tuple[str, ...]:
    keys = [f"ip:{visit.ip}"]
    if name:
        keys.append(f"user:{name[:MOST_PASSWORD]}")
    return tuple(keys)
