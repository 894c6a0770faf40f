"""The tutorial's steps work to the letter, on the servers that it names too."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from jobmill.stores import postgresql
from jobmill.stores.redis import Address
from tests.integrations.following import Follower
from tests.servers import emptied, emptied_postgres

DOCS = Path(__file__).parents[2] / "docs"
BIN = Path(sys.executable).parent


@pytest.mark.store("redis")
@pytest.mark.timeout(300)
def test_the_tutorial(
    tmp_path: Path, redis_address: Address, postgres_address: postgresql.Address
) -> None:
    redis = emptied(redis_address)
    postgres = emptied_postgres(postgres_address)
    login = (
        f"{postgres.username}:{postgres.password}" if postgres.password else str(postgres.username)
    )
    servers = {
        "redis": f"redis://{redis.host}:{redis.port}/{redis.db}",
        "postgresql": f"postgresql://{login}@{postgres.host}:{postgres.port}/{postgres.database}",
    }
    follower = Follower(tmp_path, BIN, servers)
    page = (DOCS / "tutorial.md").read_text()
    follower.follow(page)
    assert not follower.left_out
    commands = re.findall(r"^(?:python|jobmill) .*$", page, re.MULTILINE)
    assert follower.ran == commands
    assert len(commands) >= 8


def test_what_a_page_says_and_is_not_so_is_found(tmp_path: Path) -> None:
    follower = Follower(tmp_path, BIN, {})
    with pytest.raises(AssertionError, match=r"prints '1\\n', not '2\\n'"):
        follower.follow("```sh\necho 1\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match="false"):
        follower.follow("```sh\nfalse\n```\n")


def test_what_needs_a_server_that_is_not_there_is_left_out_and_told(tmp_path: Path) -> None:
    follower = Follower(tmp_path, BIN, {})
    follower.follow("```sh\nexport JOBMILL_URL=redis://localhost/0\nfalse\n```\n")
    assert follower.left_out == ["false"]
