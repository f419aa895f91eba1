"""An api-server with a run that has images, and tokens of users: Airflow reads its settings once a process.

    python -m tests.integration.plugin_server

Prints one line of JSON, the address and a token for each user, and serves until its input ends. The users
are those of the auth manager that the environment sets: FAB's are real ones, in its database.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any

import uvicorn
from airflow.api_fastapi.app import create_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.configuration import conf

from tests.integration.plugin_rows import DAG_ID, a_run, write_xcom

XCOMS = ("can_read", "XComs")
ROLES: dict[str, list[tuple[str, str]]] = {
    "of-the-dag": [XCOMS, ("can_read", f"DAG:{DAG_ID}")],
    "of-another-dag": [XCOMS, ("can_read", "DAG:another")],
    "without-xcoms": [("can_read", "DAGs")],
    "nobody": [],
}
"""Roles that FAB has not of its own, and what they may do."""


def main() -> None:
    """Serve until the input ends."""
    app = create_app(apps="core")
    with a_run():
        for key, value in json.loads(sys.argv[1]).items():
            write_xcom(value, key=key)
        manager = app.state.auth_manager
        users = _simple_users() if isinstance(manager, SimpleAuthManager) else _fab_users()
        tokens = {name: manager.generate_jwt(user) for name, user in users.items()}
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level=logging.CRITICAL))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        print(json.dumps({"port": port, "tokens": tokens}), flush=True)
        sys.stdin.read()
        server.should_exit = True
        thread.join()


def _simple_users() -> dict[str, Any]:
    roles = {"Admin": "admin", "Viewer": "viewer", "nobody": None}
    return {name: SimpleAuthManagerUser(username=name, role=role) for name, role in roles.items()}


def _fab_users() -> dict[str, Any]:
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    assert conf.get("core", "auth_manager").endswith("FabAuthManager")
    with get_application_builder() as builder:
        manager = builder.sm
        manager.sync_roles()
        for name, permissions in ROLES.items():
            role = manager.add_role(name)
            for permission in permissions:
                manager.add_permission_to_role(role, manager.create_permission(*permission))
        return {
            name: manager.add_user(
                name, name, name, f"{name}@example.org", manager.find_role(name), "a password of a test"
            )
            for name in ("Admin", "Viewer", *ROLES)
        }


if __name__ == "__main__":
    main()
