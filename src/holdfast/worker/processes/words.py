"""What a worker and its slot processes say to each other, as JSON: a claim in, notes and a verdict out."""

from __future__ import annotations

from base64 import b64decode
from typing import Any
from uuid import UUID

from holdfast.job import Cancelled, Claim, Failed, Failure, Note, Released, Snoozed, Succeeded, Terms, Verdict


def claim_of(words: list[Any]) -> Claim:
    """The claim that was sent as it is: a named tuple becomes a list, bytes become base64."""
    id, fence, worker, task, queue, payload, terms, *rest = words  # noqa: A001
    claim = Claim(UUID(id), fence, UUID(worker), task, queue, b64decode(payload), Terms(*terms), *rest)
    return claim if claim.saved is None else claim._replace(saved=b64decode(claim.saved))


def note_from(words: list[Any], claim: Claim) -> Note:
    """The note that was sent as it is, under the claim's own word."""
    _, _, _, progress, text, lines, saved = words
    last = None if saved is None else b64decode(saved)
    return Note(claim.id, claim.fence, claim.worker, progress, text, tuple((age, line) for age, line in lines), last)


def words_of(verdict: Verdict | None) -> dict[str, Any]:
    """A verdict for the channel. None: the claim was lost, nothing may be written."""
    return {"kind": type(verdict).__name__, "verdict": verdict}


def verdict_from(words: dict[str, Any]) -> Verdict | None:
    """The verdict that `words_of` spelt. ValueError if it is none that a runner can give."""
    fields = words["verdict"]
    match words["kind"]:
        case "Succeeded":
            return Succeeded(b64decode(fields["result"]))
        case "Failed":
            return Failed(**fields | {"error": Failure(*fields["error"])})
        case "Snoozed":
            return Snoozed(**fields)
        case "Cancelled":
            return Cancelled(**fields)
        case "Released":
            return Released(**fields)
        case "NoneType":
            return None
        case kind:
            raise ValueError(f"no verdict: {kind!r}")
