"""Opening a place in Redis or Valkey: what is refused, with which words, and what is left untouched then."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.store import Where
from holdfast.stores import open_store
from holdfast.stores.redis.permissions import _needed
from holdfast.stores.redis.scripts import commands
from tests import servers
from tests.flows.resp import frame, words
from tests.servers.prefixes import Prefix
from tests.stores.redis_places import (
    draft,
    listening,
    live,
    opened,
    operator,
    place,
    refusal,
    run,
    said,
    saying,
)
from tools.servers import Valkey
from tools.servers import redis as debian_redis
from tools.servers.processes import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    """A prefix that nobody has used."""
    with servers.valkey().bare() as prefix:
        yield prefix


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """A server whose settings and users may be changed."""
    with Valkey() as server:
        yield server


def keys(prefix: Prefix) -> dict[str, str]:
    """All keys under the prefix, with their types."""
    with operator(prefix.server) as connection:
        names = connection.keys(f"{{{prefix.name}[:}}]*")
        return {name: connection.type(name) for name in names}


# --- the URL


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://app:s3cret@cache.example:6380/2?prefix=shop", "redis://app@cache.example:6380/2?prefix=shop"),
        ("valkeys://:s3cret@[::1]/0", "valkeys://[::1]:6379"),
        ("rediss://h?ssl_cert_reqs=none", "rediss://h:6379"),
        ("unix:///run/redis.sock?db=3&prefix=a%20b", "unix:///run/redis.sock?db=3&prefix=a%20b"),
        ("unix://app:s3cret@/run/redis.sock", "unix://app@/run/redis.sock"),
        ("redis://h?wait=2&wait_timeout=50&protocol=2&allow_eviction=allkeys-lru&connect_timeout=3", "redis://h:6379"),
    ],
)
def test_a_url_names_a_store_and_is_shown_without_secrets(url: str, shown: str) -> None:
    store = open_store(url)
    assert (store.url, store.shared) == (shown, True)
    assert "s3cret" not in repr(place(url))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://h?durability=full", "there is no option durability=; there are prefix"),
        ("redis://h?prefix=a:b", "prefix='a:b': 1 to 64"),
        ("redis://h?prefix=", "prefix='': 1 to 64"),
        ("redis://h?prefix=a{b}", "1 to 64"),
        ("redis://h?prefix=a&prefix=b", "prefix= is given twice"),
        ("redis://h?wait=x", "wait=x: a whole number"),
        ("redis://h?wait=-1", "wait=-1: a whole number"),
        ("redis://h?wait_timeout=0", "wait_timeout=0: a whole number of milliseconds"),
        ("redis://h?connect_timeout=0", "connect_timeout=0: a whole number of seconds"),
        ("redis://h?protocol=4", "protocol=4: 2 or 3"),
        ("redis://h:port", "its port is a number"),
        ("redis://h:99999", "up to 65535"),
        ("redis://h?allow_eviction=foo", "such as allkeys-lru"),
        ("redis://h/jobs", "the database=jobs"),
        ("redis://h/0#x", "%23"),
        ("redis://:a@b@h", "%40"),
        ("redis://h/0?ssl_password=a@b", "%40"),
        ("redis://h?ssl_ca_certs=ca.pem", "rediss:// or valkeys://"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs=maybe: required, optional or none"),
        ("rediss://h?ssl_check_hostname=no", "ssl_check_hostname=no: true or false"),
        ("rediss://h?ssl_ca_certs=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("redis:/h", "two slashes"),
        ("redis:h", "two slashes"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///", "three slashes"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused_before_anything_is_opened(url: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://app:s3cret@h?nonsense=1&ssl_password=s3cret",
        "redis://app:s3cr?et@h/0",
        "redis://app:s3cr?prefix=et@h/0",
        "redis://app:p@s3cr?x=et@h/0",
        "redis://app:s3cr#et@h/0",
        "redis://app:s3cr/et@h/0",
        "redis://app:s3cr[et@h/0",
        "redis://app:s3cr\u2100et@h/0",
        "postgresql://app:s3cr\u2100et@h/0",
    ],
)
def test_the_password_of_a_url_that_is_refused_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    for secret in ("s3cr", "et@", "=et"):
        assert secret not in everything(refused.value)
    if "s3cret" not in url:
        assert "%3F" in str(refused.value)


def everything(error: BaseException | None) -> str:
    """What a log may say of an error, and of those that it came from."""
    chain = list[BaseException]()
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return " | ".join(f"{it} {it!r} {it.__dict__}" for it in chain)


# --- nobody there, or somebody else


async def test_a_server_that_cannot_be_reached_is_away() -> None:
    async with listening(lambda *_: None) as url:
        pass  # nobody listens there any more
    message = await refusal(f"{url.replace('://', '://app:s3cret@')}", StoreAway)
    assert "cannot be reached" in message
    assert "s3cret" not in message


async def test_a_host_without_an_address_is_away_and_named() -> None:
    assert "nowhere.invalid" in await refusal("redis://nowhere.invalid", StoreAway)


async def test_a_server_that_says_nothing_is_away_when_its_time_is_over() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(silent) as url:
        assert "no answer within 1 s" in await refusal(f"{url}?connect_timeout=1", StoreAway)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_what_is_no_redis_is_refused(answer: bytes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        await reader.read()
        writer.close()

    async with listening(other) as url:
        message = await refusal(url)
        assert "no Redis or Valkey" in message
        assert "another protocol" in message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("MASTERDOWN Link with MASTER is down", "replica that has lost its primary"),
        ("MISCONF Errors writing to the AOF file", "cannot save to its disk"),
        ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
        ("BUSY Redis is busy running a script.", "SCRIPT KILL"),
        ("CLUSTERDOWN Hash slot not served", "cluster is down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "move to another server"),
        ("ASK 866 127.0.0.1:7001", "move to another server"),
        ("ERR max number of clients reached", "maxclients"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "out of memory"),
    ],
)
async def test_a_server_that_cannot_serve_just_now_is_away_and_its_words_are_told(answer: str, words: str) -> None:
    async with saying(f"-{answer}\r\n".encode()) as url:
        message = await refusal(url, StoreAway)
        assert words in message
        assert answer.removeprefix("ERR ") in message


async def test_a_server_that_knows_no_hello_is_told_which_option_helps() -> None:
    async with saying(b"-ERR unknown command 'HELLO', with args beginning with: '3' \r\n", to=(b"HELLO",)) as url:
        assert "?protocol=2" in await refusal(url)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize(
    "answer",
    [
        "-ERR unknown command '{0}', with args beginning with: {1}",
        "-ERR unknown command `{0}`, with args beginning with: {1}",
        "-ERR you said {1}",
        "-NOPERM {1}",
        "+{1}",
        "*1\r\n+{1}",
        "you said {1}",
    ],
)
async def test_no_answer_brings_the_password_to_light(answer: str, protocol: int) -> None:
    """Servers, and proxies, repeat what they do not know; with hiredis and without it."""
    async with echoing(answer) as url:
        with pytest.raises(StoreError) as refused:
            async with opened(f"{url.replace('://', '://app:s3cret@')}?protocol={protocol}"):
                pass
    assert "s3cret" not in everything(refused.value)
    assert type(refused.value) is StoreError


@asynccontextmanager
async def echoing(answer: str) -> AsyncIterator[str]:
    """Something that answers with these words, and the command and its arguments in them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while True:
                name, *arguments = [word.decode() for word in words(await frame(reader))]
                writer.write(answer.format(name, " ".join(f"'{word}'" for word in arguments)).encode() + b"\r\n")
        writer.close()

    async with listening(serve) as url:
        yield url


async def test_a_server_that_is_too_old_is_refused() -> None:
    info = b"# Server\r\nredis_version:5.0.14\r\n"
    async with saying(b"$%d\r\n%b\r\n" % (len(info), info), to=(b"INFO",)) as url:
        message = await refusal(url)
        assert "redis 5.0.14" in message
        assert "6.2 or newer" in message


async def test_a_replica_is_away_also_for_those_who_only_look(own: Valkey) -> None:
    with Valkey() as primary:
        said(own, "REPLICAOF", "127.0.0.1", primary.port)
        try:
            for create in (True, False):
                assert "replica and takes no writes" in await refusal(own.url, StoreAway, create=create)
        finally:
            said(own, "REPLICAOF", "NO", "ONE")


# --- who we are


@pytest.fixture
def guarded(own: Valkey) -> Iterator[Valkey]:
    said(own, "CONFIG", "SET", "requirepass", "s3cret")
    own.settings["requirepass"] = "s3cret"
    try:
        yield own
    finally:
        said(own, "CONFIG", "SET", "requirepass", "")
        del own.settings["requirepass"]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_wrong_password_is_refused_and_not_shown(guarded: Valkey, protocol: int) -> None:
    bare = f"127.0.0.1:{guarded.port}?protocol={protocol}"
    for login in (":wr0ng@", "nobody:wr0ng@"):
        message = await refusal(f"redis://{login}{bare}")
        assert "refuses the user or the password" in message
        assert "wr0ng" not in message
    assert "wants a password" in await refusal(f"redis://{bare}")
    for login in (":s3cret@", "default:s3cret@"):
        async with opened(f"redis://{login}{bare}") as store:
            assert "s3cret" not in store.url


async def test_what_a_user_lacks_is_named_and_the_words_that_help_are_enough(own: Valkey) -> None:
    said(own, "ACL", "SETUSER", "app", "reset", "on", ">pw")
    url = f"redis://app:pw@127.0.0.1:{own.port}?prefix=lacking"
    granted: list[str] = []
    while True:
        try:
            async with opened(url) as store:
                await live(store)
        except StoreError as error:
            assert len(granted) < 4, granted
            [grant] = re.findall(r"say: (ACL SETUSER app [^(]*) \(", str(error))
            assert set(grant.split()) - set(" ".join(granted).split()), (grant, granted)
            assert "lacking" not in said(own, "KEYS", "*"), "something was written before it was looked at"
            said(own, *grant.split())
            granted.append(grant)
        else:
            break
    assert "+hset" in " ".join(granted)
    assert "~{lacking}:*" in " ".join(granted)


async def test_a_permission_that_is_taken_away_later_is_away_and_names_the_command(own: Valkey) -> None:
    said(own, "ACL", "SETUSER", "app", "reset", "on", ">pw", "+@all", "~*", "&*")
    async with opened(f"redis://app:pw@127.0.0.1:{own.port}?prefix=later") as store:
        said(own, "ACL", "SETUSER", "app", "-evalsha")
        with pytest.raises(StoreAway, match="evalsha"):
            await store.enqueue([draft()])
        said(own, "ACL", "SETUSER", "app", "+evalsha")
        [receipt] = await store.enqueue([draft()])
        assert receipt.created


def test_each_command_of_the_scripts_is_looked_at() -> None:
    """Fails where a script calls a command that permissions.py does not know."""
    asked = {str(parts[0]) for parts in _needed(place("redis://h"))}
    assert asked >= set(commands()) - {"PUBLISH"}
    assert {"HSET", "ZADD", "EVALSHA", "SCRIPT"} <= asked


# --- what is there already


async def test_those_who_only_look_make_nothing(prefix: Prefix) -> None:
    assert "holdfast migrate" in await refusal(prefix.url, create=False)
    assert keys(prefix) == {}
    async with opened(prefix.url):
        pass
    async with opened(prefix.url, create=False) as store:
        assert await store.find(Where()) == []


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"layout": "0", "oldest_code": "0", "lease": "15000", "store": str(uuid4())}, "layout 0, this code needs 2"),
        ({"layout": "9", "oldest_code": "9", "lease": "15000", "store": str(uuid4())}, "need a newer Holdfast"),
        ({"name": "Alice"}, "is not as Holdfast writes it"),
        ({"layout": "1", "oldest_code": "1", "lease": "soon", "store": "x"}, "is not as Holdfast writes it"),
        ({"layout": "1", "oldest_code": "1", "lease": "-5", "store": str(uuid4())}, "is not as Holdfast writes it"),
    ],
)
async def test_keys_that_are_not_ours_to_serve_are_left_alone(prefix: Prefix, meta: dict[str, str], words: str) -> None:
    with operator(prefix.server) as connection:
        connection.hset(f"{{{prefix.name}}}:meta", mapping=meta)
        for create in (True, False):
            assert words in await refusal(prefix.url, create=create)
        with pytest.raises(StoreError):
            await open_store(prefix.url).migrate()
        assert connection.hgetall(f"{{{prefix.name}}}:meta") == meta
    assert list(keys(prefix)) == [f"{{{prefix.name}}}:meta"]


async def test_an_older_layout_is_migrated_and_its_jobs_are_served(prefix: Prefix) -> None:
    async with opened(prefix.url) as store:
        await store.enqueue([draft()])
    with operator(prefix.server) as connection:
        meta = f"{{{prefix.name}}}:meta"
        connection.hset(meta, "layout", "1")
        assert "this code needs 2: run `holdfast migrate`" in await refusal(prefix.url)
        for dry_run in (True, False):
            ran = await open_store(prefix.url).migrate(dry_run=dry_run)
            assert ran == [f"layout 1 to 2 under prefix {prefix.name}"]
        assert await open_store(prefix.url).migrate() == []
        assert connection.hmget(meta, "layout", "oldest_code") == ["2", "1"], "older code goes on"
    async with opened(prefix.url) as store:
        assert len(await store.find(Where())) == 1


async def test_a_newer_layout_that_this_code_can_serve_is_opened(prefix: Prefix) -> None:
    meta = {"layout": "3", "oldest_code": "1", "lease": "7000", "store": str(uuid4())}
    with operator(prefix.server) as connection:
        connection.hset(f"{{{prefix.name}}}:meta", mapping=meta)
    async with opened(prefix.url) as store:
        assert (await store.register(uuid4(), None, {})).lease == 7000


@pytest.mark.parametrize("name", ["meta", "queues", "workers", "facts"])
async def test_another_programs_key_under_the_prefix_is_refused(prefix: Prefix, name: str) -> None:
    with operator(prefix.server) as connection:
        connection.set(f"{{{prefix.name}}}:{name}", "theirs")
    assert "another program" in await refusal(prefix.url)
    assert keys(prefix) == {f"{{{prefix.name}}}:{name}": "string"}


async def test_two_prefixes_are_two_stores() -> None:
    with servers.valkey().bare() as one, servers.valkey().bare() as other:
        async with opened(one.url) as mine, opened(other.url) as theirs:
            [receipt] = await mine.enqueue([draft()])
            assert [record.id for record in await mine.find(Where())] == [receipt.id]
            assert await theirs.find(Where()) == []


# --- the server's settings


async def test_a_full_server_is_away_and_nothing_is_half_made(own: Valkey) -> None:
    said(own, "CONFIG", "SET", "maxmemory", "1")
    try:
        message = await refusal(f"{own.url}?prefix=full", StoreAway)
        assert "out of memory (maxmemory)" in message
        assert "{full" not in said(own, "KEYS", "*")
    finally:
        said(own, "CONFIG", "SET", "maxmemory", "0")


async def test_a_server_that_evicts_jobs_is_refused_unless_it_is_allowed_by_name(own: Valkey) -> None:
    said(own, "CONFIG", "SET", "maxmemory", "1gb")
    said(own, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        for options in ("", "&allow_eviction=volatile-ttl"):
            message = await refusal(f"{own.url}?prefix=evicted{options}")
            assert "?allow_eviction=allkeys-lru" in message
            assert "noeviction" in message
        async with opened(f"{own.url}?prefix=evicted&allow_eviction=allkeys-lru"):
            pass
        said(own, "CONFIG", "SET", "maxmemory", "0")  # nothing is evicted where there is no limit
        async with opened(f"{own.url}?prefix=evicted"):
            pass
    finally:
        said(own, "CONFIG", "SET", "maxmemory", "0")
        said(own, "CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_a_database_that_the_server_does_not_have_is_refused(own: Valkey) -> None:
    assert "no database of this number" in await refusal(f"redis://127.0.0.1:{own.port}/99")
    async with opened(f"redis://127.0.0.1:{own.port}/3?prefix=third") as store:
        await store.enqueue([draft()])
    assert "{third" not in said(own, "KEYS", "*")


async def test_a_database_number_on_a_cluster_is_refused() -> None:
    with servers.slots().bare() as prefix:
        message = await refusal(prefix.url.replace("/0?", "/1?"))
        assert "cluster" in message
        assert "0 alone" in message


# --- ways to the server


@pytest.mark.parametrize("protocol", [2, 3])
async def test_both_protocols_are_spoken(prefix: Prefix, protocol: int) -> None:
    async with opened(f"{prefix.url}&protocol={protocol}") as store:
        await live(store)


WITHOUT_HIREDIS = """
    import asyncio, sys
    sys.modules["hiredis"] = None
    from tests.stores.redis_places import live, opened

    async def main():
        for protocol in (2, 3):
            async with opened(f"{sys.argv[1]}-{protocol}&protocol={protocol}") as store:
                await live(store)

    asyncio.run(main())
"""


async def test_both_protocols_are_spoken_without_hiredis_too(prefix: Prefix) -> None:
    await run(WITHOUT_HIREDIS, prefix.url)


async def test_a_socket_of_the_system_will_do() -> None:
    server = Valkey()
    server.settings["unixsocket"] = path = server.folder / "s"
    with server:
        async with opened(f"unix://{path}?prefix=socket") as store:
            await live(store)
            assert store.url == f"unix://{path}?prefix=socket"


CURVE = "ec_paramgen_curve:prime256v1"  # made in no time


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkey, Path]]:
    """A server that speaks TLS on a second port, and the folder with its authority's certificate."""
    program = debian_redis()
    if program is None or shutil.which("openssl") is None:
        pytest.skip("this machine has no redis-server with TLS, or no openssl: not run over TLS")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("authority", "stranger"):
        _openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes", "-days", "2",
                 "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    _openssl(folder, "req", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes", "-subj", "/CN=localhost",
             "-keyout", "server.key", "-out", "server.csr")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    _openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "authority.pem", "-CAkey", "authority.key",
             "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.pem")  # fmt: skip
    server = Valkey(program)
    for file in ("authority.pem", "server.pem", "server.key"):
        shutil.copy(folder / file, server.folder)
        (server.folder / file).chmod(0o644)
    server.settings |= {
        "tls-port": free_port(),
        "tls-cert-file": server.folder / "server.pem",
        "tls-key-file": server.folder / "server.key",
        "tls-ca-cert-file": server.folder / "authority.pem",
        "tls-auth-clients": "no",
    }
    with server:
        yield server, folder


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


async def test_tls_is_spoken_and_the_certificate_is_checked(certified: tuple[Valkey, Path]) -> None:
    server, folder = certified
    port = server.settings["tls-port"]
    async with opened(f"rediss://localhost:{port}?ssl_ca_certs={folder}/authority.pem") as store:
        await live(store)
    for trusted in ("", f"?ssl_ca_certs={folder}/stranger.pem"):
        message = await refusal(f"rediss://localhost:{port}{trusted}")
        assert "certificate is not trusted" in message
        assert "?ssl_ca_certs=" in message
    named = f"?ssl_ca_certs={folder}/authority.pem"
    assert "certificate is for another name" in await refusal(f"rediss://127.0.0.1:{port}{named}")
    assert "does it want TLS (rediss://)?" in await refusal(f"redis://localhost:{port}", StoreAway)
    async with opened(f"valkeys://127.0.0.1:{port}{named}&ssl_check_hostname=false"):
        pass
    async with opened(f"rediss://localhost:{port}?ssl_cert_reqs=none"):
        pass


@pytest.mark.soak  # a handshake that is given up leaves its transport to the collector, which warns of it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_tls_where_none_is_spoken_is_told(own: Valkey) -> None:
    """It may take what we say for the beginning of a command and wait for more, or for nonsense."""
    with pytest.raises(StoreError, match=r"does it speak TLS\?|TLS is not what it speaks"):
        async with opened(f"rediss://127.0.0.1:{own.port}?connect_timeout=1"):
            pass


async def test_connection_is_refused_and_names_the_outbox(prefix: Prefix) -> None:
    async with opened(prefix.url) as store:
        for call in (store.enqueue([draft()], connection=object()), store.finish([], connection=object())):
            with pytest.raises(ConfigError, match=r"connection=object: .*outbox"):
                await call
