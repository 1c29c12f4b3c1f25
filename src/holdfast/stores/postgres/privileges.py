"""What a role lacks, and the statements that give it: the server names only the first table that it met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.stores.postgres.statements import quoted

SHOWN = 3  # names


def missing(rows: Sequence[Sequence[Any]], schema: str) -> str:
    """For people, from the rows of lacking.sql: what is missing, and what its owner runs then."""
    if not rows:
        return f"a privilege is missing; as the owner: {grant('tables', schema)}"
    role = rows[0][0]
    wanted = dict[tuple[str, tuple[str, ...]], list[str]]()
    for _, kind, privilege, names in rows:
        wanted.setdefault((kind, tuple(names)), []).append(privilege)
    lacks = "; ".join(
        f"{', '.join(privileges)} on {_named(kind, names)}" for (kind, names), privileges in wanted.items()
    )
    grants = "; ".join(grant(kind, schema, role) for kind in dict.fromkeys(kind for kind, _ in wanted))
    return f"the role {role} lacks {lacks}; as the owner: {grants}"


def _named(kind: str, names: Sequence[str]) -> str:
    if kind == "schema":
        return f"schema {quoted(names[0])}"
    more = f" and {len(names) - SHOWN} more {kind}" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def grant(kind: str, schema: str, role: str | None = None) -> str:
    """The statement that gives a role all that a worker needs of the schema, its tables or its functions."""
    to = f"TO {quoted(role) if role else '<role>'}"
    match kind:
        case "schema":
            return f"GRANT USAGE ON SCHEMA {quoted(schema)} {to}"
        case "tables":
            return f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {quoted(schema)} {to}"
        case _:
            return f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {quoted(schema)} {to}"
