"""Calls in the caller's own transaction, on the caller's own connection: nothing is committed here.

What the server says of that transaction (it cannot be serialized, its time is over, its connection is lost) is the
caller's to hear, in the words of his own library. What is refused with a receipt leaves his transaction as it was.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from holdfast.errors import ConfigError, StoreAway
from holdfast.job import TOMBSTONE, Draft, Outcome, QueueTerms, State
from holdfast.rulings import one_success
from holdfast.store import Answer, Receipt, Room, Settled
from holdfast.stores.lent import driver_error, name_of
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.connections import OwnersError, ask
from holdfast.stores.postgres.enqueue import within_text
from holdfast.stores.postgres.privileges import grant

_ROLL_BACK = "its transaction can only be rolled back now"


async def enqueue_within(
    connection: object, place: Place, jobs: Sequence[Draft], declared: Mapping[str, QueueTerms] = {}
) -> Sequence[Receipt]:
    """Stores all jobs, or none where one is refused: `created` is False for every job then."""
    text = within_text(place, jobs, declared)
    with _told(connection, place):
        return [_receipt(row) for row in await ask(connection, place, "enqueue", text)]


async def finish_within(connection: object, place: Place, outcomes: Sequence[Outcome]) -> Sequence[Settled]:
    """Writes one success. It waits a second at most for another transaction that has the job's row, then is `busy`."""
    outcome = one_success(outcomes)
    with _told(connection, place):
        [row] = await ask(connection, place, "finish_within", _text(outcome, place))
    return [Settled(Answer(row["answer"]), row["state"] and State(row["state"]))]


def _text(outcome: Outcome, place: Place) -> str:
    return json.dumps(
        {
            "store": place.store and str(place.store),
            "shift": place.shift,
            "id": str(outcome.id),
            "fence": outcome.fence,
            "worker": str(outcome.worker),
            "result": None if outcome.result is None else b64encode(outcome.result).decode(),
            "keep": None if outcome.keep is None else max(outcome.keep, TOMBSTONE),
            "attempt": outcome.attempt,
            "releases": outcome.releases,
            "losses": outcome.losses,
            "crashes": outcome.crashes,
            "alone": outcome.alone,
        }
    )


def _receipt(row: Mapping[str, Any]) -> Receipt:
    room = None
    if row["bound"] is not None:
        room = Room(row["depth"], row["bound"], row["when_full"], row["block_timeout"])
    return Receipt(UUID(row["id"]), row["answer"], row["created"], _maybe(row["holder"]), _maybe(row["dropped"]), room)


def _maybe(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


@contextmanager
def _told(connection: object, place: Place) -> Generator[None]:
    """What cannot be used, or is not there, as our errors; all others as they are."""
    try:
        yield
    except OwnersError as error:
        raise error.__cause__ or error from None
    except Exception as error:
        if (ours := _stated(error, name_of(connection), place)) is not None:
            raise ours from error
        raise


def _stated(error: Exception, name: str, place: Place) -> Exception | None:
    driver = driver_error(error) or error
    state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    match state:
        case "HF001":
            return ConfigError(f"connection={name}: {_words(driver)} at {place.url}; {_ROLL_BACK}")
        case "42883" | "42P01" | "3F000":
            return ConfigError(
                f"connection={name}: there is no Holdfast, or an older one, in schema {place.schema} of its database "
                f"({_words(driver)}): either it is another database than that of {place.url}, or `holdfast migrate` "
                f"was not run there; {_ROLL_BACK}"
            )
        case "25P02":
            return ConfigError(f"connection={name}: its transaction has failed, so that it can only be rolled back")
        case "25006":
            return ConfigError(f"connection={name}: its transaction is READ ONLY, so that it stores nothing")
        case "42501":
            return StoreAway(
                f"connection={name}: its role lacks a privilege ({_words(driver)}); as the owner: "
                f"{grant('tables', place.schema)}, and {grant('functions', place.schema)} if PUBLIC has it not; "
                f"{_ROLL_BACK}"
            )
        case None if any(kind.__name__ == "InterfaceError" for kind in type(driver).__mro__):
            return ConfigError(f"connection={name}: cannot be used here: {_words(driver)}")
        case _:
            return None


def _words(error: BaseException) -> str:
    """The first line of what the server or the driver says."""
    if type(error).__module__.startswith("sqlalchemy."):
        error = error.__cause__ or error  # it stands between asyncpg's error and SQLAlchemy's
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return str(primary or error).partition("\n")[0]
