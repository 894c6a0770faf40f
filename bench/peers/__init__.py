"""The peers: what each needs, and one measurement of one of them in a process of its own.

    python -m bench.peers FOLDER

makes an environment for each of them in the folder, which is not to be in the repository. A program
per peer, `with_*`, sets it up as its documentation advises for throughput.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

HERE: Final = Path(__file__).parent
PLACE: Final = Path(tempfile.gettempdir()) / "jobmill-peers"
_PATIENCE: Final = 420.0


class Peer(NamedTuple):
    """A peer on a store; `needs` are what pip, or npm, installs. `survives`: a crash."""

    name: str
    store: Literal["redis", "postgresql", "sqlite"]
    needs: tuple[str, ...]
    survives: bool = True
    python: tuple[int, int] = (3, 11)
    """The least that it runs on."""
    share: float = 1.0
    """Of the jobs that others get, so that the slow ones do not take all the time."""


PEERS: Final = (
    Peer("arq", "redis", ("arq", "hiredis"), share=0.2),
    Peer("saq", "redis", ("saq[redis,hiredis]", "typing_extensions"), share=0.2),
    Peer("taskiq", "redis", ("taskiq", "taskiq-redis", "hiredis"), share=0.2),
    Peer("dramatiq", "redis", ("dramatiq[redis]", "hiredis"), share=0.2),
    Peer("rq", "redis", ("rq", "hiredis"), survives=False, share=0.05),
    Peer("celery", "redis", ("celery[redis]", "hiredis"), share=0.1),
    Peer("streaq", "redis", ("streaq",), share=0.2),
    Peer("bullmq", "redis", ("bullmq", "ioredis")),
    Peer("pgqueuer", "postgresql", ("pgqueuer[asyncpg]",)),
    Peer("procrastinate", "postgresql", ("procrastinate",), share=0.05),
    Peer("oban", "postgresql", ("oban",), python=(3, 12), share=0.2),
    Peer("chancy", "postgresql", ("chancy",), share=0.1),
    Peer("huey", "sqlite", ("huey",), survives=False),
)


def made(place: Path, peer: Peer) -> bool:
    """Whether the environment of the peer is there."""
    return (place / peer.name / ("made" if peer.name == "bullmq" else "bin/made")).exists()


def make(place: Path, peer: Peer) -> None:
    """Make the environment of a peer; raises CalledProcessError where that fails."""
    folder = place / peer.name
    if peer.name == "bullmq":
        folder.mkdir(parents=True, exist_ok=True)
        _run("npm", "install", "--no-audit", "--no-fund", *peer.needs, cwd=folder)
        (folder / "made").touch()
        return
    python = _python(peer.python)
    if python is None:
        message = f"it needs Python {peer.python[0]}.{peer.python[1]}"
        raise OSError(message)
    _run(python, "-m", "venv", str(folder))
    _run(str(folder / "bin/python"), "-m", "pip", "-q", "install", *peer.needs)
    (folder / "bin/made").touch()


def _python(least: tuple[int, int]) -> str | None:
    """The Python that runs this, or where it is too old the newest that is there."""
    if sys.version_info >= least:
        return sys.executable
    newer = (shutil.which(f"python3.{minor}") for minor in range(20, least[1] - 1, -1))
    return next((each for each in newer if each is not None), None)


def version(place: Path, peer: Peer) -> str:
    """What was installed."""
    folder = place / peer.name
    if peer.name == "bullmq":
        package = folder / "node_modules/bullmq/package.json"
        return str(json.loads(package.read_text())["version"])
    ask = f"from importlib.metadata import version; print(version('{peer.name}'))"
    return _run(str(folder / "bin/python"), "-c", ask).strip()


def measured(
    place: Path, peer: Peer, verb: str, url: str, *, jobs: int, concurrency: int
) -> dict[str, Any]:
    """One measurement; what goes wrong with it raises CalledProcessError or TimeoutExpired."""
    words = [verb, url, str(jobs), str(concurrency)]
    folder = place / peer.name
    if peer.name == "bullmq":
        program = folder / "with_bullmq.mjs"
        program.write_text((HERE / "with_bullmq.mjs").read_text())
        told = _run("node", str(program), *words, cwd=folder)
    else:
        told = _run(str(folder / "bin/python"), str(HERE / f"with_{peer.name}.py"), *words)
    answer: dict[str, Any] = json.loads(told.splitlines()[-1])
    return answer


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(  # noqa: S603  commands of this module's own
        command, cwd=cwd, check=True, capture_output=True, text=True, timeout=_PATIENCE
    )
    return done.stdout


def make_all(place: Path) -> None:
    """Make the environments that are not there; one that cannot be made is said, and left out."""
    for peer in PEERS:
        if made(place, peer):
            continue
        try:
            make(place, peer)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"{peer.name} could not be installed: {error}", file=sys.stderr)
