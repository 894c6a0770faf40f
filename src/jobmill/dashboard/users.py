"""Who may look, and who may act: a file of users with scrypt hashes of their passwords.

A line for each: `name:role:scrypt$N$r$p$salt$hash`, the last two in base64. Lines that begin with
`#` are passed over. `jobmill dashboard --add-user NAME` writes one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from jobmill.errors import ConfigError

Role: TypeAlias = Literal["viewer", "operator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_NAME: Final = re.compile(r"[A-Za-z0-9_.@+-]{1,100}")
_N, _R, _P = 1 << 15, 8, 1
_BYTES: Final = 32
_MEMORY: Final = 1 << 27
_LEAST: Final = 8
"""Characters of a password."""
MOST_PASSWORD: Final = 1_000


@dataclass(frozen=True, slots=True)
class User:
    """Somebody: a viewer may look, an operator may also act."""

    name: str
    role: Role = "viewer"

    @property
    def can_operate(self) -> bool:
        """Whether they may change anything."""
        return self.role == "operator"


def hash_password(password: str) -> str:
    """What is kept of a password.

    Raises: ConfigError for one of fewer than 8 characters.
    """
    if len(password) < _LEAST or len(password) > MOST_PASSWORD:
        message = f"password: give {_LEAST} to {MOST_PASSWORD:,} characters"
        raise ConfigError(message, field="password")
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, _N, _R, _P)
    return "$".join(["scrypt", str(_N), str(_R), str(_P), _text(salt), _text(key)])


def is_password(password: str, kept: str) -> bool:
    """Whether it is the password of which this was kept; it takes as long for any."""
    try:
        _, n, r, p, salt, key = kept.split("$")
        made = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
        return hmac.compare_digest(made, base64.b64decode(key))
    except ValueError:
        return False


class Users:
    """The users of a file, read anew when it changes.

    Raises: ConfigError where the file cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Final = Path(path)
        self._seen: tuple[int, int] | None = None
        self._known: dict[str, tuple[Role, str]] = {}
        self._nobody = hash_password(secrets.token_urlsafe(16))
        self.refresh()

    def refresh(self) -> None:
        """Read the file where it has changed."""
        try:
            status = self.path.stat()
            seen = status.st_mtime_ns, status.st_size
            if seen != self._seen:
                self._known = dict(_read(self.path))
                self._seen = seen
        except (OSError, UnicodeError) as error:
            message = f"users: {self.path} cannot be read: {error}"
            raise ConfigError(message, field="users") from error

    def check(self, name: str, password: str) -> User | None:
        """The user of this name and password; it takes as long for a name that is none."""
        role, kept = self._known.get(name, ("viewer", self._nobody))
        right = is_password(password[:MOST_PASSWORD], kept)
        return User(name, role) if right and name in self._known else None

    def get(self, name: str) -> User | None:
        """The user of this name."""
        known = self._known.get(name)
        return None if known is None else User(name, known[0])

    def stamp(self, name: str) -> str:
        """What changes with the user's password."""
        return hashlib.sha256(self._known.get(name, ("", ""))[1].encode()).hexdigest()[:16]


def add_user(path: Path, name: str, password: str, role: Role) -> bool:
    """Write a user into the file, which only its owner may read; whether it was there before.

    Raises: ConfigError.
    """
    if not _NAME.fullmatch(name):
        message = f"name: {name!r} will not do; give letters, digits and _.@+- (100 at most)"
        raise ConfigError(message, field="name")
    kept = hash_password(password)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    others = [line for line in lines if line.partition(":")[0] != name]
    text = "\n".join([*others, f"{name}:{role}:{kept}", ""])
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
    return len(others) < len(lines)


def _read(path: Path) -> list[tuple[str, tuple[Role, str]]]:
    found: list[tuple[str, tuple[Role, str]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        role, _, kept = rest.partition(":")
        if not _NAME.fullmatch(name) or role not in ROLES or not kept.startswith("scrypt$"):
            # The line itself has a hash in it: it is not shown.
            message = (
                f"users: line {number} of {path} is no name:role:scrypt$...; the roles are "
                f"{', '.join(ROLES)}. jobmill dashboard --add-user NAME writes one"
            )
            raise ConfigError(message, field="users")
        found.append((name, (role, kept)))
    return found


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    data = password.encode(errors="surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, dklen=_BYTES, maxmem=_MEMORY)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
