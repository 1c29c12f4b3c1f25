"""The mail provider, on loopback: SMTP in, one file per accepted mail, and an HTTP API to ask what it has taken.

`GET /messages/{message-id}` is 200 for an accepted message, else 404. `GET /mailbox` counts them and names the fault.
`PUT /faults` makes its bad moments:
{"busy": true} answers "451 try again later"; {"hold": true} takes messages but keeps its reply to itself.
Everything that happens is a line of `log.jsonl` beside the mails.
"""

import argparse
import asyncio
import json
import socket
import time
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

REPLY_DELAY = 0.08  # seconds between taking a message and saying so: real servers write to a disk here


class Mailbox:
    """Accepted mails as files, and the log of everything that happened."""

    def __init__(self, folder: Path) -> None:
        for name in ("tmp", "new"):
            (folder / name).mkdir(parents=True)
        self._folder = folder
        self._log = (folder / "log.jsonl").open("a", encoding="utf-8", buffering=1)
        self._accepted: dict[str, int] = {}
        self._count = 0

    def keep(self, message_id: str, content: bytes) -> None:
        self._count += 1
        draft = self._folder / "tmp" / f"{self._count:05}.eml"
        draft.write_bytes(content)
        draft.rename(self._folder / "new" / draft.name)
        self._accepted[message_id] = self._count
        self.log("accepted", message_id=message_id)

    def has(self, message_id: str) -> bool:
        return message_id in self._accepted

    def __len__(self) -> int:
        return self._count

    def log(self, event: str, **facts: object) -> None:
        self._log.write(json.dumps({"at": time.time(), "event": event} | facts) + "\n")


class Provider:
    """Both doors of the mail provider: SMTP commands (as aiosmtpd calls them) and HTTP routes."""

    def __init__(self, mailbox: Mailbox, refused: frozenset[str]) -> None:
        self._mailbox = mailbox
        self._refused = refused
        self._busy = False
        self._answering = asyncio.Event()
        self._answering.set()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self._refused:
            self._mailbox.log("refused", address=address)
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 recipient accepted"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.original_content or b""
        message_id = BytesHeaderParser().parsebytes(content)["Message-ID"]
        if self._busy:
            self._mailbox.log("busy", message_id=message_id)
            return "451 4.3.2 try again later"
        self._mailbox.keep(message_id, content)
        try:
            await self._reply_moment(message_id)
        except asyncio.CancelledError:
            self._mailbox.log("reply lost", message_id=message_id)
            raise
        return "250 2.0.0 message accepted"

    async def _reply_moment(self, message_id: str) -> None:
        await asyncio.sleep(REPLY_DELAY)
        if not self._answering.is_set():
            self._mailbox.log("held", message_id=message_id)
            await self._answering.wait()

    async def message(self, request: Request) -> Response:
        message_id = request.path_params["message_id"]
        found = self._mailbox.has(message_id)
        self._mailbox.log("asked", message_id=message_id, found=found)
        return JSONResponse({"message_id": message_id, "accepted": found}, status_code=200 if found else 404)

    async def mailbox(self, _request: Request) -> Response:
        held = not self._answering.is_set()
        return JSONResponse({"accepted": len(self._mailbox), "busy": self._busy, "hold": held})

    async def faults(self, request: Request) -> Response:
        wanted: dict[str, Any] = await request.json()
        self._busy = bool(wanted.get("busy"))
        if wanted.get("hold"):
            self._answering.clear()
        else:
            self._answering.set()
        self._mailbox.log("faults", **wanted)
        return JSONResponse(wanted)


async def serve(folder: Path, refused: frozenset[str], smtp: socket.socket, http: socket.socket) -> None:
    """Both servers on the given listening sockets, until a signal comes."""
    provider = Provider(Mailbox(folder), refused)
    app = Starlette(
        routes=[
            Route("/messages/{message_id}", provider.message),
            Route("/mailbox", provider.mailbox),
            Route("/faults", provider.faults, methods=["PUT"]),
        ]
    )
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(provider, hostname="mail.example"), sock=smtp)
    try:
        await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[http])
    finally:
        server.close()


def _listening(where: str) -> socket.socket:
    """A listening socket: 'fd:N' is one that the parent process has opened, else HOST:PORT."""
    host, _, port = where.rpartition(":")
    return socket.socket(fileno=int(port)) if host == "fd" else socket.create_server((host, int(port)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A mail provider on loopback.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smtp", type=_listening, default="127.0.0.1:1025")
    parser.add_argument("--http", type=_listening, default="127.0.0.1:8025")
    parser.add_argument("--refuse", action="append", default=[], help="an address that never gets mail")
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.folder, frozenset(chosen.refuse), chosen.smtp, chosen.http))
