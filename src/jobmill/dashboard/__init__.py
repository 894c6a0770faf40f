"""The dashboard: what happens in some queues, what fails and why, and what to do about it.

An ASGI app (extra `dashboard`), alone or inside another one. See docs/dashboard.md.

    from jobmill.dashboard import create_app

    app = create_app([mails, reports])
"""

from __future__ import annotations

from jobmill.dashboard.app import create_app
from jobmill.dashboard.users import Role, User, Users

__all__ = ["Role", "User", "Users", "create_app"]
