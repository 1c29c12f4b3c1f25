"""Tasks: their names, what cannot be one, options, direct calls, and what binding a job promises."""

import asyncio
import functools
import inspect
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast import ConfigError, Holdfast, Retry, current_job
from holdfast.app import parts_of
from holdfast.clock import DAY, HOUR, MINUTE, SECOND
from holdfast.context import CurrentJob
from holdfast.errors import JobNotFound, PayloadError
from holdfast.handles import as_id
from holdfast.job import Terms
from holdfast.task import AsyncTask, SyncTask, Task


@pytest.fixture
def app() -> Holdfast:
    """An app that is never opened: defining, binding and calling a task need no store."""
    return Holdfast("memory://")


def send(to: str, *, html: bool = False) -> str:
    return f"<{to}>" if html else to


async def asend(to: str) -> str:
    return to


class Mailer:
    def method(self, x: int) -> int:
        return x

    @staticmethod
    def static(x: int) -> int:
        return x

    @classmethod
    def of_class(cls, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x


# --- names


def test_a_task_is_named_for_its_module_and_function(app: Holdfast) -> None:
    assert app.task(send).name == f"{__name__}.send"
    assert app.task(Mailer.static).name == f"{__name__}.Mailer.static"


def test_a_function_made_inside_another_loses_the_locals_part(app: Holdfast) -> None:
    def inner() -> None: ...

    here = test_a_function_made_inside_another_loses_the_locals_part.__name__
    assert app.task(inner).name == f"{__name__}.{here}.inner"


def test_a_name_of_ones_own_and_names_of_old(app: Holdfast) -> None:
    task = app.task(name="mail:send-1", aliases=("shop.old_send", "shop.older_send"))(send)
    assert (task.name, task.aliases) == ("mail:send-1", ("shop.old_send", "shop.older_send"))
    assert set(parts_of(app).registry.names) == {"mail:send-1", "shop.old_send", "shop.older_send"}
    assert set(parts_of(app).registry.names.values()) == {task}


SHOP = """
from holdfast import Holdfast
jobs = Holdfast()

@jobs.task
def send_invoice(n: int) -> None: ...

if __name__ == "__main__":
    print(send_invoice.name, send_invoice.bind(1).draft.task)
"""


@pytest.mark.parametrize(
    ("place", "command", "name"),
    [
        ("shop.py", ["shop.py"], "shop.send_invoice"),
        ("shop.py", ["-m", "shop"], "shop.send_invoice"),
        ("web/shop.py", ["-m", "web.shop"], "web.shop.send_invoice"),
        ("web/__main__.py", ["-m", "web"], "web.send_invoice"),
    ],
    ids=["python shop.py", "python -m shop", "python -m web.shop", "python -m web"],
)
def test_main_is_resolved_to_the_module_that_a_worker_imports(
    tmp_path: Path, place: str, command: list[str], name: str
) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(SHOP, "utf-8")
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name, name]


BAD_NAMES = ["", " ", "send invoice", "größe", "a/b", "a\n", "x" * 101, "<lambda>", "a\x00b"]


@pytest.mark.parametrize("name", [*BAD_NAMES, 5, b"send", ["send"]])
def test_a_name_that_would_need_escaping_is_refused(app: Holdfast, name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^name=.*letters, digits"):
        app.task(name=name)(send)
    assert parts_of(app).registry.names == {}


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name != "<lambda>"])
def test_a_queue_of_such_a_name_is_refused(app: Holdfast, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^queue="):
        app.task(queue=name)(send)
    with pytest.raises(ConfigError, match=r"^queue="):
        app.task(send).using(queue=name)


@pytest.mark.parametrize("aliases", ["shop.old", ["bad name"], [5], 5, None, [""]])
def test_aliases_are_a_list_of_names(app: Holdfast, aliases: Any) -> None:
    with pytest.raises(ConfigError, match=r"^aliases="):
        app.task(aliases=aliases)(send)
    assert parts_of(app).registry.names == {}


def test_the_longest_name_fits(app: Holdfast) -> None:
    assert len(app.task(name="x" * 100)(send).name) == 100


def test_a_default_name_that_does_not_fit_asks_for_one(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match=r"give name="):
        app.task(lambda: None)
    assert app.task(name="nothing")(lambda: None).name == "nothing"


def test_what_has_no_name_of_its_own_asks_for_one(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match=r"give name="):
        app.task(functools.partial(send, "ann"))
    assert app.task(name="send.ann")(functools.partial(send, "ann"))() == "ann"


def test_two_tasks_of_one_name_are_refused(app: Holdfast) -> None:
    first = app.task(name="mail")(send)
    with pytest.raises(ConfigError, match=r"two tasks are named 'mail'.*send.*asend.*name="):
        app.task(name="mail")(asend)
    with pytest.raises(ConfigError, match=r"two tasks are named 'mail'"):
        app.task(name="other", aliases=("mail",))(asend)
    assert parts_of(app).registry.names == {"mail": first}, "a refused task must leave nothing behind"


def test_a_function_loaded_once_more_takes_its_tasks_place(app: Holdfast) -> None:
    namespace: dict[str, Any] = {"__name__": "shop"}
    source = "def send(): return 1"
    exec(compile(source, "shop.py", "exec"), namespace)
    app.task(namespace["send"])
    exec(compile(source, "shop.py", "exec"), namespace)  # as importlib.reload does
    again = app.task(namespace["send"])
    assert parts_of(app).registry.names == {"shop.send": again}


def test_a_factory_that_defines_two_tasks_of_one_name_is_refused(app: Holdfast) -> None:
    def make(country: str) -> Task[[], str]:
        @app.task(name="shop.send")
        def send() -> str:
            return country

        return send

    make("eu")
    with pytest.raises(ConfigError, match=r"two tasks are named 'shop\.send'"):
        make("us")


def test_one_function_may_be_a_task_of_two_apps(app: Holdfast) -> None:
    other = Holdfast("memory://")
    assert app.task(send).name == other.task(send).name


# --- what cannot be a task


def _unreadable() -> None: ...


_unreadable.__dict__["__signature__"] = "nonsense"


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (Mailer.method, "a method needs its object"),
        (Mailer.__dict__["of_class"], "a plain or async function"),
        (property(send), "a plain or async function"),
        (Mailer, "a plain or async function"),
        (5, "a plain or async function"),
        ("shop.send", "a plain or async function"),
        (_unreadable, "its signature cannot be read"),
        (_generator, "a generator yields"),
        (_async_generator, "a generator yields"),
    ],
    ids=["method", "classmethod", "property", "class", "number", "text", "unreadable", "generator", "async generator"],
)
def test_what_cannot_be_a_task_is_refused_and_told_why(app: Holdfast, what: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        app.task(what)
    with pytest.raises(ConfigError, match=why):
        app.task(name="named")(what)
    assert parts_of(app).registry.names == {}


def test_a_task_is_not_made_a_task_twice(app: Holdfast) -> None:
    task = app.task(send)
    with pytest.raises(ConfigError, match=r"is a task already"):
        app.task(task)


def test_a_static_method_is_taken_in_either_order(app: Holdfast) -> None:
    class Shop:
        @app.task
        @staticmethod
        async def above(x: int) -> int:
            return x

        @staticmethod
        @app.task
        def below(x: int) -> int:
            return x

    assert isinstance(Shop.above, AsyncTask)
    assert isinstance(Shop.below, SyncTask)
    assert Shop.below(3) == 3
    assert asyncio.run(Shop.above(3)) == 3
    assert Shop.below.bind(3).draft.task.endswith(".Shop.below")
    assert Shop.above.bind(3).draft.task.endswith(".Shop.above")


# --- options


@pytest.mark.parametrize(
    "make", [lambda app: app.task(queu="mail")(send), lambda app: app.task(send).using(queu="mail")]
)
def test_an_unknown_option_is_named_and_the_known_ones_listed(app: Holdfast, make: Any) -> None:
    with pytest.raises(ConfigError, match=r"no option 'queu'.*\bpriority\b.*\bqueue\b.*\btimeout\b"):
        make(app)


@pytest.mark.parametrize("option", ["delay", "at", "connection"])
def test_what_is_about_one_job_is_no_option_of_a_task(app: Holdfast, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"no option '{option}'"):
        app.task(**{option: 5})(send)


@pytest.mark.parametrize("option", ["name", "aliases"])
def test_what_is_about_the_task_is_no_option_of_a_job(app: Holdfast, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"no option '{option}'"):
        app.task(send).using(**{option: "x"})


NONSENSE: list[tuple[str, Any]] = [
    *[("priority", value) for value in (101, -101, 1.5, "high", None, True)],
    *[("timeout", value) for value in (0, -1, "soon", True, float("nan"), "0s", timedelta(0))],
    *[("keep", value) for value in (-1, "soon", None)],
    *[("retry", value) for value in (5, None, True, Retry, {"max_attempts": 3})],
    *[("tags", value) for value in ("eu", 5, None, {"eu"}, ["eu", 5], [""], ["x" * 101], [str(n) for n in range(21)])],
    *[("queue", value) for value in (None, 5, "two words")],
]
NONSENSE_OF_A_JOB: list[tuple[str, Any]] = [
    *[("delay", value) for value in (-1, "soon", None, timedelta(seconds=-1), float("inf"))],
    *[("at", value) for value in (datetime(2030, 1, 1), "2030-01-01", 5, None)],  # noqa: DTZ001  # naive on purpose
]


@pytest.mark.parametrize(("option", "value"), NONSENSE, ids=lambda value: repr(value)[:25])
def test_nonsense_is_refused_at_definition_by_the_name_of_its_option(app: Holdfast, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}="):
        app.task(**{option: value})(send)
    assert parts_of(app).registry.names == {}


@pytest.mark.parametrize(("option", "value"), NONSENSE + NONSENSE_OF_A_JOB, ids=lambda value: repr(value)[:25])
def test_nonsense_is_refused_by_using(app: Holdfast, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}="):
        app.task(send).using(**{option: value})


@pytest.mark.parametrize(("option", "value"), [("retry", 3), ("timeout", -1), ("keep", "soon"), ("modules", "shop")])
def test_nonsense_defaults_of_an_app_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}="):
        Holdfast("memory://", **{option: value})


def test_delay_and_at_exclude_each_other(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match=r"delay= and at= exclude each other"):
        app.task(send).using(delay=5, at=datetime(2030, 1, 1, tzinfo=UTC))


def test_options_arrive_in_the_job(app: Holdfast) -> None:
    retry = Retry(max_attempts=4, base_delay=2, jitter=0)
    task = app.task(queue="mail", priority=-100, retry=retry, timeout="5m", keep="2d", tags=["eu", "eu", "b2b"])(send)
    draft = task.using(delay="1h").bind("ann").draft
    assert (draft.queue, draft.priority, draft.tags, draft.delay, draft.at) == (
        "mail",
        -100,
        ("eu", "b2b"),
        HOUR,
        None,
    )
    assert draft.terms == Terms(4, 2 * SECOND, 300 * SECOND, 0.0, 3, 5 * MINUTE, 2 * DAY)
    due = datetime(2030, 1, 1, tzinfo=UTC)
    assert task.using(at=due).bind("ann").draft.at == round(due.timestamp() * 1000)


def test_an_app_gives_its_tasks_their_defaults() -> None:
    jobs = Holdfast("memory://", retry=Retry(max_attempts=7), timeout="1m", keep=0)
    plain, own = jobs.task(send), jobs.task(retry=Retry(max_attempts=2), timeout=None, name="own")(send)
    assert plain.bind("a").draft.terms == Terms(7, SECOND, 300 * SECOND, 0.2, 3, MINUTE, 0)
    assert own.bind("a").draft.terms == Terms(2, SECOND, 300 * SECOND, 0.2, 3, None, 0)


def test_without_retry_a_task_has_one_attempt_and_the_crash_budget() -> None:
    assert Holdfast("memory://").task(send).bind("a").draft.terms == Terms(1, SECOND, 300 * SECOND, 0.2, 3, None, DAY)


def test_using_leaves_the_task_as_it_was(app: Holdfast) -> None:
    task = app.task(queue="mail")(send)
    before = task.bind("ann").draft
    other = task.using(queue="slow", priority=10, timeout=5, tags=["eu"]).using(delay=5)
    after = task.bind("ann").draft
    assert (after.queue, after.priority, after.terms, after.tags, after.delay) == (
        before.queue,
        before.priority,
        before.terms,
        before.tags,
        before.delay,
    )
    twin = other.bind("ann").draft
    assert (twin.queue, twin.priority, twin.terms.timeout, twin.tags, twin.delay) == (
        "slow",
        10,
        5 * SECOND,
        ("eu",),
        5 * SECOND,
    )
    assert (type(other), other.name, other.fn) == (type(task), task.name, task.fn)
    assert parts_of(app).registry.names == {task.name: task}, "a twin is no task of its own"


def test_a_functions_own_attributes_do_not_become_the_tasks(app: Holdfast) -> None:
    def marked() -> int:
        return 1

    marked.__dict__.update(name="theirs", plan="theirs", fn="theirs", signature="theirs", short_description="kept")
    task = app.task(marked)
    assert task.name.endswith(".marked")
    assert (task.fn, task()) == (marked, 1)
    assert task.bind().draft.task == task.name
    assert task.short_description == "kept"


def test_a_task_looks_like_its_function(app: Holdfast) -> None:
    task = app.task(send)
    assert (task.__name__, task.__doc__, task.__module__) == (send.__name__, send.__doc__, __name__)
    assert inspect.signature(task) == inspect.signature(send)
    assert repr(task) == f"<SyncTask {__name__}.send>"


def test_a_task_says_its_queue_and_its_policy(app: Holdfast) -> None:
    retry = Retry(max_attempts=3)
    task: Task[..., Any] = app.task(queue="mail", retry=retry)(asend)
    assert (task.queue, task.retry, task.is_async) == ("mail", retry, True)


# --- direct calls


def test_a_direct_call_runs_here_and_now(app: Holdfast) -> None:
    assert app.task(send)("ann", html=True) == "<ann>"
    assert asyncio.run(app.task(asend)("ann")) == "ann"


def test_a_direct_call_has_a_detached_job_and_leaves_none_behind(app: Holdfast) -> None:
    @app.task(queue="mail")
    def look() -> CurrentJob:
        job = current_job()
        job.check()
        return job

    one, two = look(), look()
    assert (one.attempt, one.fence, one.queue, one.task) == (1, 0, "mail", look.name)
    assert (one.cancelled, one.held, one.time_left) == (False, True, None)
    assert one.id != two.id
    with pytest.raises(LookupError):
        current_job()


async def test_an_async_direct_call_has_one_too(app: Holdfast) -> None:
    @app.task
    async def look() -> CurrentJob:
        await asyncio.sleep(0)
        return current_job()

    one, two = await asyncio.gather(look(), look())
    assert one.id != two.id
    with pytest.raises(LookupError):
        current_job()


def test_a_call_inside_a_job_keeps_the_outer_one(app: Holdfast) -> None:
    @app.task
    def inner() -> CurrentJob:
        return current_job()

    @app.task
    def outer() -> tuple[CurrentJob, CurrentJob, CurrentJob]:
        return current_job(), inner(), current_job()

    assert len({job.id for job in outer()}) == 1


async def test_an_async_call_inside_a_job_keeps_the_outer_one(app: Holdfast) -> None:
    @app.task
    async def inner() -> CurrentJob:
        return current_job()

    @app.task
    async def outer() -> tuple[CurrentJob, CurrentJob]:
        return current_job(), await inner()

    mine, theirs = await outer()
    assert mine is theirs


def test_a_direct_call_that_raises_leaves_no_job_behind(app: Holdfast) -> None:
    @app.task
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    with pytest.raises(LookupError):
        current_job()


def test_a_thread_of_ones_own_is_not_inside_the_job(app: Holdfast) -> None:
    found: list[object] = []

    def look() -> None:
        try:
            found.append(current_job())
        except LookupError as error:
            found.append(str(error))

    @app.task
    def start() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), "the thread hangs"

    start()
    assert found == ["not inside a job; threads you start yourself do not inherit it"]


# --- bind, and handles


def test_a_bound_job_has_its_id_and_keeps_it(app: Holdfast) -> None:
    bound = app.task(send).bind("ann")
    assert bound.id == bound.id == bound.draft.id
    assert app.task(name="b")(send).bind("ann").id != bound.id
    with app:
        assert [job.id for job in app.enqueue_many([bound])] == [bound.id]
    assert repr(bound) == f"<NewJob {bound.draft.task} {bound.id}>"


def test_arguments_that_do_not_fit_are_refused_at_once(app: Holdfast) -> None:
    task = app.task(send)
    for args, kwargs in [((), {}), (("a", "b"), {}), (("a",), {"htlm": True})]:
        for call in (task.bind, task.enqueue):
            with pytest.raises(TypeError, match=r"send\(\)"):
                call(*args, **kwargs)
    with pytest.raises(PayloadError, match=r"\bto\b"):
        task.enqueue(5)


def test_what_cannot_be_json_is_refused_naming_the_path(app: Holdfast) -> None:
    @app.task
    def take(orders: Any) -> None: ...

    with pytest.raises(PayloadError, match=r"orders.*\[1\].*price"):
        take.bind([{}, {"price": object()}])


def test_a_payload_that_is_too_large_is_refused(app: Holdfast) -> None:
    with pytest.raises(PayloadError, match=r"MiB|KiB|bytes"):
        app.task(send).bind("x" * (1024 * 1024 + 1))


def test_binding_stores_nothing_so_a_connection_is_refused(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match=r"bind\(\) stores nothing; give connection= to enqueue_many"):
        app.task(send).using(connection=object()).bind("ann")


def test_an_option_among_the_arguments_is_told_where_it_belongs(app: Holdfast) -> None:
    task = app.task(name="shop.send")(send)
    with pytest.raises(TypeError, match=r"'delay'; delay= is an option: shop\.send\.using\(delay=\.\.\.\)\.enqueue"):
        task.bind("ann", delay="1h")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"these are options: shop\.send\.using\(queue=\.\.\., unique=\.\.\.\)"):
        task.bind("ann", queue="mail", unique="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError) as other:
        task.bind("ann", colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert "using" not in str(other.value)


def test_a_parameter_that_is_named_like_an_option_is_a_parameter(app: Holdfast) -> None:
    @app.task(name="shop.later")
    def later(delay: int, queue: str) -> None: ...

    assert b'"delay":5' in later.bind(delay=5, queue="q").draft.payload
    with pytest.raises(TypeError) as missing:
        later.bind(delay=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert "using" not in str(missing.value)


def test_an_unknown_option_of_a_task_names_all_that_there_are(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match="no option 'max_retries'") as refused:
        app.task(max_retries=3)(send)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    told = str(refused.value)
    assert all(
        option in told for option in ("name", "aliases", "run_in", "unique", "queue", "retry", "timeout", "keep")
    )
    assert "delay" not in told


def test_no_connection_is_no_connection(app: Holdfast) -> None:
    assert app.task(send).using(connection=None).bind("ann").draft.task == f"{__name__}.send"


@pytest.mark.parametrize("nonsense", ["", "x", "123", "0197a1b2-", "\0", "é" * 32, "\ud800" * 32])
def test_no_job_has_what_is_no_id(app: Holdfast, nonsense: str) -> None:
    for ask in (app.job, app.task(send).job):
        with pytest.raises(JobNotFound, match=r"^id=.*not a job id"):
            ask(nonsense)


@pytest.mark.parametrize("nonsense", [5, None, b"0" * 32])
def test_an_id_that_is_no_text_is_the_callers_mistake(app: Holdfast, nonsense: Any) -> None:
    for ask in (app.job, app.task(send).job):
        with pytest.raises(ConfigError, match=r"^id=.*not a job id"):
            ask(nonsense)


def test_a_handle_is_known_by_its_id_and_asks_nothing(app: Holdfast) -> None:
    known = uuid4()
    one, other = app.task(send).job(str(known)), app.job(known)
    assert one.id == other.id == as_id(str(known).upper()) == known
    assert one == other
    assert len({one, other}) == 1
    assert one != app.job(uuid4())
    assert one != known
    assert repr(one) == f"<Job {known}>"


def test_a_task_of_a_program_read_from_stdin_is_named_after_main() -> None:
    program = "from holdfast import Holdfast\njobs = Holdfast()\n@jobs.task\ndef send(): ...\nprint(send.name)\n"
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "__main__.send\n"


class Press:
    @staticmethod
    def run(sheet: int) -> int:
        return sheet


@pytest.mark.parametrize("fn", [send, asend, Press.run, Press.__dict__["run"]], ids=["plain", "async", "static", "raw"])
def test_jobs_of_a_task_in_a_process_run_alone(app: Holdfast, fn: Any) -> None:
    task = app.task(run_in="process")(fn).using(priority=1)
    assert task.bind(1 if fn not in (send, asend) else "ann").draft.alone


def test_jobs_run_in_the_workers_own_process_unless_told_otherwise(app: Holdfast) -> None:
    assert not app.task(send).bind("ann").draft.alone
    assert not app.task(run_in="thread", name="in-a-thread")(send).bind("ann").draft.alone
    assert not app.task(asend).bind("ann").draft.alone


@pytest.mark.parametrize("nonsense", ["fork", "", "Process", True, ["process"], 0])
def test_a_wrong_run_in_is_refused(app: Holdfast, nonsense: Any) -> None:
    with pytest.raises(ConfigError, match=r"^run_in=.*'thread' or 'process'"):
        app.task(run_in=nonsense)(send)


def test_an_async_function_has_no_thread(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match=r"run_in='thread' on .*asend.*runs on the worker's loop"):
        app.task(run_in="thread")(asend)


def test_what_another_process_cannot_import_is_refused(app: Holdfast) -> None:
    def inner() -> None: ...

    for fn, what in ((inner, "inner: it is defined inside another function"), (lambda: None, "it is a lambda")):
        with pytest.raises(ConfigError, match=rf"run_in='process' on .*{what}.*at the top of a module"):
            app.task(run_in="process", name="named")(fn)
        app.task(name=f"in-a-thread-{what[:2]}")(fn)


def test_the_main_module_of_a_package_gives_the_same_names_however_it_is_imported(app: Holdfast) -> None:
    def elsewhere() -> None: ...

    elsewhere.__module__, elsewhere.__qualname__ = "shop.__main__", "elsewhere"
    assert app.task(elsewhere).name == "shop.elsewhere"
