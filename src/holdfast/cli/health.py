"""`holdfast health`: whether a worker is ready, as its own endpoint says, or whether anybody serves the store."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any, cast

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli.ends import Unreachable
from holdfast.cli.options import length, listening_at, operated, url_option
from holdfast.client.reasons import live_workers
from holdfast.clock import short
from holdfast.observe.endpoint import located
from holdfast.observe.visible import visible
from holdfast.store import Roster

WELL, ILL = 0, 1


@click.command(short_help="Tell whether a worker is ready.")
@click.option("--at", metavar="HOST:PORT", help="A worker's --metrics address; default: HOLDFAST_METRICS.")
@click.option("--live", is_flag=True, help="Whether it lives, not whether it is ready.")
@click.option("--timeout", metavar="DURATION", default="5", callback=length, help="For an answer; default: 5 seconds.")
@click.option("--json", "as_json", is_flag=True, help="The answer as it came, or one object.")
@url_option
def health(*, at: str | None, live: bool, timeout: float, as_json: bool, url: str | None) -> int:
    """Ask a worker how it is; without an address, ask the store whether any worker serves it.

    Exit codes: 0 well, 1 not, 3 no answer.
    """
    address = None if url and not at else listening_at(at, "--at")
    if address is not None:
        return _of_worker(address, "/live" if live else "/ready", timeout, as_json=as_json)
    return _of_store(operated(url), as_json=as_json)


def _of_worker(address: str, path: str, seconds: float, *, as_json: bool) -> int:
    status, said = _asked(address, path, seconds)
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        good = bool(said.get("ready", said.get("live", False)))
        click.echo(f"{'✓' if good else '✕'} {address} is {'' if good else 'not '}{path[1:]}")
        for check in said.get("checks", []):
            click.echo(f"  {_mark(check)} {visible(str(check.get('check')))}{_why(check)}")
    return WELL if status == 200 else ILL


def _asked(address: str, path: str, seconds: float) -> tuple[int, Mapping[str, Any]]:
    host, port = located(address, "--at")
    connection = HTTPConnection(_reached(host), port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = json.loads(answer.read(64 * 1024))
    except (OSError, HTTPException, ValueError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else visible((str(error) or repr(error)).strip())
        raise _nobody(address, why) from None
    finally:
        connection.close()
    if not isinstance(said, dict):
        raise _nobody(address, "something else answers there")
    return answer.status, cast("dict[str, Any]", said)


def _nobody(address: str, why: str) -> Unreachable:
    return Unreachable(f"no answer from a worker at {address}: {why}; is one started with --metrics {address}?")


def _reached(host: str) -> str:
    """Who listens at every address is asked at this machine's own."""
    with suppress(OSError):
        if socket.inet_aton(host) == b"\0\0\0\0":
            return "127.0.0.1"
    return "::1" if host == "::" else host


def _mark(check: Mapping[str, Any]) -> str:
    return "▲" if check.get("degraded") else "✓" if check.get("ok") else "✕"


def _why(check: Mapping[str, Any]) -> str:
    return f": {visible(str(check['why']))}" if check.get("why") else ""


def _of_store(app: Holdfast, *, as_json: bool) -> int:
    async def ask() -> Roster:
        return await (await parts_of(app).link.opened()).store.workers()

    roster = parts_of(app).link.run(ask)
    alive = live_workers(roster)
    store = parts_of(app).link.store.url
    if as_json:
        click.echo(json.dumps({"ready": bool(alive), "store": store, "workers": len(alive)}, ensure_ascii=False))
    elif alive:
        youngest = max(row.beat_at for row in alive)
        ago = short(max(0, roster.now - youngest))
        word = "worker" if len(alive) == 1 else "workers"
        click.echo(f"✓ {store} answers; {len(alive)} {word}, the last beat {ago} ago")
    else:
        click.echo(f"✕ {store} answers, but no live worker serves it: start one with holdfast worker")
    return WELL if alive else ILL
