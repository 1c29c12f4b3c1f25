"""The endpoint over a real socket: probes and scrapers get their answers, and nobody can hold it up."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from holdfast.errors import ConfigError
from holdfast.observe import endpoint
from holdfast.observe.endpoint import CONNECTIONS_MOST, HEAD_MOST, Server, Watched, located
from holdfast.observe.health import Seen, Vitals
from tests.worker.rig import events, soon, until

WELL = Seen([Vitals(0, 10, 0, 1, 0.0, 0.1, 0.1, held=True, unheard=False)], answers=True)


class Service:
    def __init__(self) -> None:
        self.seen = WELL
        self.accepted: list[str] = []
        self.hang: asyncio.Event | None = None
        self.error: Exception | None = None

    async def looked(self) -> Seen:
        return self.seen

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        self.accepted.append(accept)
        if self.error:
            raise self.error
        if self.hang:
            await self.hang.wait()
        return "text/plain; version=0.0.4", b"worker_ready 1\n"


@asynccontextmanager
async def served(service: Service | None = None) -> AsyncIterator[Server]:
    service = service or Service()
    server = Server.bound("127.0.0.1:0")
    await server.start(Watched(lambda: service.seen, service.looked, service.metrics))
    try:
        yield server
    finally:
        await soon(server.close(), "the endpoint does not close")


async def said(server: Server, request: str | bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a raw request, read to the connection's end."""
    host, port = located(server.address, "")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request if isinstance(request, bytes) else request.encode())
    answer = await soon(reader.read(), "no answer")
    writer.close()
    top, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = top.decode().split("\r\n")
    return int(line.split()[1]), dict(header.split(": ", 1) for header in headers), body


def get(path: str, *headers: str, method: str = "GET") -> str:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""])


async def test_probes_are_answered_with_each_check() -> None:
    service = Service()
    async with served(service) as server:
        status, headers, body = await said(server, get("/ready"))
        assert status == 200
        assert headers["Content-Type"] == "application/json"
        assert int(headers["Content-Length"]) == len(body)
        assert json.loads(body)["ready"] is True
        assert all(check["ok"] for check in json.loads(body)["checks"])
        service.seen = WELL._replace(answers=False, away="connection refused: 10.0.0.1")
        status, _, body = await said(server, get("/ready?verbose=1"))
        assert status == 503
        store = next(check for check in json.loads(body)["checks"] if check["check"] == "store")
        assert store == {"check": "store", "ok": False, "degraded": False, "why": "connection refused: 10.0.0.1"}
        status, _, body = await said(server, get("/live"))
        assert (status, json.loads(body)["live"]) == (200, True)


async def test_a_scrape_gets_the_text_and_its_accept_header_is_heard() -> None:
    service = Service()
    async with served(service) as server:
        status, headers, body = await said(server, get("/metrics", "aCCept: application/openmetrics-text"))
        assert (status, body) == (200, b"worker_ready 1\n")
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert service.accepted == ["application/openmetrics-text"]


async def test_head_is_answered_without_a_body() -> None:
    async with served() as server:
        status, headers, body = await said(server, get("/metrics", method="HEAD"))
        assert (status, body) == (200, b"")
        assert headers["Content-Length"] == "15"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 404),
        (get("/metrics/../etc/passwd"), 404),
        (get("/ready", method="POST"), 405),
        ("GET /ready\r\n\r\n", 400),
        ("\x16\x03\x01 tls?\r\n\r\n", 400),
        (b"\xff\xfe / HTTP/1.1\r\n\r\n", 405),
        (get("/ready", "X: " + "a" * HEAD_MOST), 431),
        ("GET /" + "a" * (2 * HEAD_MOST), 431),
    ],
)
async def test_what_is_no_proper_request_is_refused(request_: str | bytes, status: int) -> None:
    async with served() as server:
        assert (await said(server, request_))[0] == status
        assert (await said(server, get("/live")))[0] == 200, "it answers no more"


async def test_without_the_extra_it_says_how_to_get_it() -> None:
    service = Service()
    service.error = ImportError("/metrics needs prometheus-client: pip install 'holdfast[metrics]'")
    async with served(service) as server:
        status, _, body = await said(server, get("/metrics"))
        assert status == 501
        assert b"holdfast[metrics]" in body
        assert (await said(server, get("/ready")))[0] == 200


async def test_a_bug_in_an_answer_is_told_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    service.error = ZeroDivisionError()
    async with served(service) as server:
        for _ in range(2):
            with pytest.raises((IndexError, ConnectionError)):  # the connection just ends
                await said(server, get("/metrics"))
        assert (await said(server, get("/live")))[0] == 200
    assert events(caplog, "endpoint-failed") == ["endpoint-failed"]


async def test_whoever_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.05)
    async with served() as server:
        host, port = located(server.address, "")
        reader, writer = await asyncio.open_connection(host, port)
        with suppress(ConnectionError):
            assert await soon(reader.read(), "it waits for ever") == b""
        writer.close()


async def test_too_many_at_once_are_turned_away_and_room_comes_back() -> None:
    service = Service()
    service.hang = asyncio.Event()
    async with served(service) as server:
        busy = [asyncio.create_task(said(server, get("/metrics"))) for _ in range(CONNECTIONS_MOST)]
        await until(lambda: len(service.accepted) == CONNECTIONS_MOST, "not all are being served")
        with pytest.raises((IndexError, ConnectionError)):
            await said(server, get("/live"))
        service.hang.set()
        assert {status for status, _, _ in await asyncio.gather(*busy)} == {200}
        await until(lambda: not server._open, "their places are not free again")  # noqa: SLF001
        assert (await said(server, get("/live")))[0] == 200


async def test_whoever_says_nothing_keeps_no_probe_out() -> None:
    async with served() as server:
        host, port = located(server.address, "")
        silent = [await asyncio.open_connection(host, port) for _ in range(CONNECTIONS_MOST)]
        await until(lambda: len(server._open) == CONNECTIONS_MOST, "not all are connected")  # noqa: SLF001
        for _ in range(3):
            assert (await said(server, get("/live")))[0] == 200
        first, last = silent[0], silent[-1]
        with suppress(ConnectionError):
            assert await soon(first[0].read(), "the eldest is still there") == b""
        last[1].write(get("/ready").encode())
        assert b" 200 " in await soon(last[0].readline(), "the youngest was let go, too")
        for _, writer in silent:
            writer.close()


async def test_it_closes_while_it_is_asked() -> None:
    service = Service()
    service.hang = asyncio.Event()
    async with served(service) as server:
        asking = asyncio.create_task(said(server, get("/metrics")))
        await until(lambda: service.accepted, "it is not being served")
    with pytest.raises((IndexError, ConnectionError)):
        await asking


def test_a_port_in_use_is_refused_with_one_that_may_be_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^--metrics 127.0.0.1:{port}: cannot listen there: Address al"):
            Server.bound(f"127.0.0.1:{port}")


def test_a_name_that_nobody_knows_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: str, *__: object, **___: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(ConfigError, match=r"cannot listen there: no address is known of 'a\.\.b'"):
        Server.bound("a..b:9100")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(socket.socket, "bind", unknown)
    with pytest.raises(ConfigError, match=r"cannot listen there: no address is known of 'shop\.example'"):
        Server.bound("shop.example:9100")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="an address of this machine"):
        Server.bound("192.0.2.1:9100")


@pytest.mark.parametrize(
    "address", ["", "9100", ":9100", "127.0.0.1", "127.0.0.1:", "host:x", "host:65536", "host:-1", "::1:9100", "host:٩"]
)
def test_an_address_that_is_none_is_refused_with_one_that_is(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^--at .*give HOST:PORT, such as 127.0.0.1:9100"):
        located(address, "--at")


def test_addresses_are_read() -> None:
    assert located("0.0.0.0:9100", "--at") == ("0.0.0.0", 9100)
    assert located(" localhost:0 ", "--at") == ("localhost", 0)
    assert located("[::1]:9100", "--at") == ("::1", 9100)
