"""What a device knows about its own agent, read from outside: the lock, the status file, the state file.

Works whether the agent runs or not, and never disturbs it: the database is opened read-only.
"""

import hashlib
import json
import sqlite3
from contextlib import closing
from typing import Any, Final

from edge import locks
from edge.agent.config import AgentConfig
from edge.agent.trust_file import load_trust
from edge.errors import StoreError
from edge.model.describe import describe_task
from edge.model.runtime_update import AgentSeen
from edge.model.task import task_from_json
from edge.model.trust import TrustedSet

_SILENT: Final = {True: "the agent has just begun", False: "the agent does not run"}


def local_status(config: AgentConfig) -> dict[str, Any]:
    """Return `{running, pid, connection, device, cluster, revision, outcome, tasks}`.

    Raises:
        StoreError: The state file is there and cannot be read.
    """
    pid = _holder(config)
    said = _said(config, pid)
    revision, outcome, tasks = _stored(config)
    return {
        "cluster": config.cluster,
        "device": config.device,
        "running": pid is not None,
        "pid": said.get("pid"),
        "startedAt": said.get("startedAt"),
        "agentVersion": said.get("version"),
        "connection": said.get("connection", {"connected": False, "reason": _SILENT[pid is not None]}),
        "revision": revision,
        "outcome": outcome,
        "tasks": tasks,
    }


def agent_seen(config: AgentConfig) -> AgentSeen | None:
    """Return the agent as an update judges it; None when none runs, or it has not said anything yet."""
    said = _said(config, _holder(config))
    if not said:
        return None
    connected = bool(said.get("connection", {}).get("connected"))
    return AgentSeen(int(said["pid"]), str(said.get("version")), bool(said.get("ready")), connected)


def agent_pid(config: AgentConfig) -> int | None:
    """Return the process that works on the state directory."""
    pid = _holder(config)
    return int(pid) if pid and pid.isascii() and pid.isdigit() else None


def trust_in_force(config: AgentConfig) -> TrustedSet:
    """Return whom this device believes: the bundle its agent follows, or else the one beside the configuration.

    Raises:
        InvalidInputError, TrustError: There is none that can be used.
    """
    handed_over = load_trust(config.trust_bundle)
    digest = hashlib.sha256(handed_over.bundle).hexdigest().encode()
    try:
        with closing(sqlite3.connect(f"file:{config.database}?mode=ro", uri=True, timeout=5.0)) as connection:
            names = "('trust', 'trust_handed_over')"
            meta = dict(connection.execute(f"SELECT key, value FROM meta WHERE key IN {names}"))  # noqa: S608
    except sqlite3.Error:
        return handed_over
    # The same rule as the agent's (`edge.agent.engine.believing`): a bundle handed over since is meant.
    if meta.get("trust_handed_over") == digest and "trust" in meta:
        return TrustedSet.from_bundle(bytes(meta["trust"]))
    return handed_over


def _holder(config: AgentConfig) -> str | None:
    """The process that works on the state directory; empty before it has written who it is."""
    try:
        with config.pid_file.open("r+") as file:
            return file.read().strip() if locks.is_held(file) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot look at {config.pid_file}: {error.strerror}", hint="Ask as root.") from error


def _said(config: AgentConfig, pid: str | None) -> dict[str, Any]:
    """What that process said; what one before it had said is not true any more."""
    try:
        said = json.loads(config.status_file.read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) and str(said.get("pid")) == pid else {}


def _stored(config: AgentConfig) -> tuple[int, str, list[dict[str, Any]]]:
    if not config.database.exists():
        return 0, "", []
    try:
        with closing(sqlite3.connect(f"file:{config.database}?mode=ro", uri=True, timeout=5.0)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                return 0, "", []  # an agent is making it this very moment
            meta = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('revision', 'outcome')"))
            records = connection.execute("SELECT record FROM task ORDER BY task_id").fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {config.database}: {error}", hint="Ask as root.") from error
    tasks = [describe_task(task_from_json(json.loads(record)), config.cluster, config.device) for (record,) in records]
    return int(meta.get("revision", b"0")), bytes(meta.get("outcome", b"")).decode(), tasks
