"""A task: a function with its queue, limits and policy; and the handles of its jobs: NewJob, Job, JobStatus."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)
from uuid import UUID

from holdfast.clock import Duration, Instant, Span, instant, span
from holdfast.context import CurrentJob, current
from holdfast.errors import ConfigError
from holdfast.job import FINAL, Draft, JobError, State, Terms, new_id
from holdfast.policy import Retry

if TYPE_CHECKING:
    from contextvars import Token

    from holdfast.codec import Signature

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
PRIORITY_MOST = 100
TAGS_MOST, TAG_LENGTH_MOST = 20, 100


class EnqueueOptions(TypedDict, total=False):
    """Options for `@task` and for `using()`; "not given" differs from None."""

    queue: str
    priority: int  # -100..100, higher first
    retry: Retry
    timeout: Duration | None
    keep: Duration
    tags: Sequence[str]


class TaskOptions(EnqueueOptions, total=False):
    """Options for `@task` alone."""

    name: str  # default: module.qualname, __main__ resolved to the real module
    aliases: Sequence[str]  # names that old jobs may still carry
    run_in: Literal["thread", "process"]  # default: a thread for a plain function, the loop for an async one


class JobOptions(EnqueueOptions, total=False):
    """Options for `using()` alone: about one job, not about the task."""

    delay: Duration
    at: datetime  # aware
    connection: object


class Plan(NamedTuple):
    """Options, checked and merged: how the next job of a task will be."""

    queue: str = "default"
    priority: int = 0
    retry: Retry = Retry(max_attempts=1)
    timeout: Span | None = None
    keep: Span = 0
    tags: tuple[str, ...] = ()
    delay: Span = 0
    at: Instant | None = None
    connection: object = None

    @property
    def terms(self) -> Terms:
        return self.retry.terms(self.timeout, self.keep)

    def changed(self, options: Mapping[str, Any], where: str, known: frozenset[str]) -> Plan:
        """This plan with `options` over it. ConfigError naming the option, its value and what would work."""
        unknown = sorted(options.keys() - known)
        if unknown:
            raise ConfigError(f"{where}: no option {unknown[0]!r}; there are {', '.join(sorted(known))}")
        plan = self._replace(**{name: _CHECKS[name](value, name) for name, value in options.items()})
        if plan.delay and plan.at is not None:
            raise ConfigError(f"{where}: delay= and at= exclude each other")
        return plan


def named(value: object, parameter: str) -> str:
    """A name of a task, queue or schedule; ConfigError if it would need escaping anywhere."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ConfigError(f"{parameter}={value!r}: a name has 1 to 100 letters, digits, or any of _ . : -")


def _priority(value: object, parameter: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and -PRIORITY_MOST <= value <= PRIORITY_MOST:
        return value
    raise ConfigError(f"{parameter}={value!r}: a whole number from -100 to 100, higher first")


def _retry(value: object, parameter: str) -> Retry:
    if isinstance(value, Retry):
        return value
    raise ConfigError(f"{parameter}={value!r}: a Retry, for example Retry(max_attempts=5)")


def _timeout(value: Duration | None, parameter: str) -> Span | None:
    return None if value is None else span(value, parameter, positive=True)


def _tags(value: Any, parameter: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ConfigError(f"{parameter}={value!r}: a list of texts, for example ['eu', 'invoice']")
    tags = list(cast("Iterable[Any]", value))
    if len(tags) > TAGS_MOST or not all(isinstance(t, str) and 0 < len(t) <= TAG_LENGTH_MOST for t in tags):
        raise ConfigError(f"{parameter}={value!r}: at most {TAGS_MOST} texts of 1 to {TAG_LENGTH_MOST} characters")
    return tuple(dict.fromkeys(tags))


def _as_is(value: object, parameter: str) -> object:
    del parameter
    return value


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "queue": named,
    "priority": _priority,
    "retry": _retry,
    "timeout": _timeout,
    "keep": span,
    "tags": _tags,
    "delay": span,
    "at": instant,
    "connection": _as_is,
}
_ENQUEUE = frozenset(EnqueueOptions.__annotations__)
_USING = _ENQUEUE | frozenset(JobOptions.__annotations__)


class Client(Protocol):
    """What a task and its handles need from the app."""

    def store_one(self, job: NewJob[R], connection: object) -> Job[R]: ...
    async def astore_one(self, job: NewJob[R], connection: object) -> Job[R]: ...
    def status(self, job: Job[R]) -> JobStatus[R]: ...
    async def astatus(self, job: Job[R]) -> JobStatus[R]: ...
    def result(self, job: Job[R], timeout: Duration | None) -> R: ...
    async def aresult(self, job: Job[R], timeout: Duration | None) -> R: ...
    def cancel_one(self, id: UUID, reason: str) -> bool: ...
    async def acancel_one(self, id: UUID, reason: str) -> bool: ...
    def retry_one(self, id: UUID) -> None: ...
    async def aretry_one(self, id: UUID) -> None: ...


@dataclass(frozen=True)
class JobStatus(Generic[R_co]):
    """What one read found at one moment; it never changes. `errors` holds the kept errors, the oldest first."""

    id: UUID
    task: str
    queue: str
    state: State
    attempt: int
    enqueued_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    errors: Sequence[JobError]
    tags: Sequence[str]
    reason: str
    _job: Job[R_co]

    @property
    def finished(self) -> bool:
        """Whether the state is final: succeeded, dead or cancelled."""
        return self.state in FINAL

    @property
    def job(self) -> Job[R_co]:
        """The handle, to ask again."""
        return self._job


class NewJob(Generic[R_co]):
    """A bound job: its arguments are checked, it has its id, it is not stored yet. Storing it twice stores it once."""

    __slots__ = ("draft",)

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    @property
    def id(self) -> UUID:
        """The id that the job will have."""
        return self.draft.id

    def __repr__(self) -> str:
        return f"<NewJob {self.draft.task} {self.id}>"


class Job(Generic[R_co]):
    """A handle to a stored job: its identity and nothing else; every method asks the store."""

    __slots__ = ("_client", "created", "id")

    def __init__(self, client: Client, id: UUID, *, created: bool = True) -> None:
        self._client = client
        self.id = id
        self.created = created

    def status(self) -> JobStatus[R_co]:
        """The job as it is now. Raises JobNotFound."""
        return self._client.status(self)

    async def astatus(self) -> JobStatus[R_co]:
        """As `status`."""
        return await self._client.astatus(self)

    def result(self, timeout: Duration | None = None) -> R_co:
        """Waits for the end and returns what the handler returned.

        Raises JobFailed (dead), JobCancelled, JobNotFound, or TimeoutError when `timeout` passes first.
        """
        return self._client.result(self, timeout)

    async def aresult(self, timeout: Duration | None = None) -> R_co:
        """As `result`."""
        return await self._client.aresult(self, timeout)

    def cancel(self, reason: str = "") -> bool:
        """Cancels the job: at once if it is not running, else by asking its worker, within about a second.

        An async handler is cancelled then; a plain function stops only where it looks (`current_job().check()`), and
        one that returns all the same has succeeded. True if the job is cancelled or was asked to stop, False if it
        had ended already. Raises JobNotFound.
        """
        return self._client.cancel_one(self.id, reason)

    async def acancel(self, reason: str = "") -> bool:
        """As `cancel`."""
        return await self._client.acancel_one(self.id, reason)

    def retry(self) -> None:
        """Gives a dead or cancelled job a new life: same id, attempts from 0, its history kept.

        Raises JobNotFound, or StoreError if the job is in another state.
        """
        self._client.retry_one(self.id)

    async def aretry(self) -> None:
        """As `retry`."""
        await self._client.aretry_one(self.id)

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


class Task(Generic[P, R]):
    """A function that jobs run. The name to annotate with: `Task[[int], str]`."""

    fn: Callable[..., Any]
    name: str

    def __init__(
        self,
        client: Client,
        fn: Callable[..., Any],
        name: str,
        aliases: Sequence[str],
        plan: Plan,
        *,
        in_process: bool = False,
    ) -> None:
        functools.update_wrapper(cast("Any", self), fn)  # first: the function's own attributes must not become ours
        self.__dict__.pop("signature", None)
        self._client = client
        self.fn = fn
        self.name = name
        self.aliases = tuple(named(alias, "aliases") for alias in aliases)
        self.is_async = inspect.iscoroutinefunction(fn)
        self.in_process = in_process  # each of its jobs runs in a process of its own
        self.plan = plan
        self._terms = plan.terms

    @functools.cached_property
    def signature(self) -> Signature:
        """Encodes and decodes its calls and results."""
        from holdfast.codec import Signature  # at the first call: it costs what all the rest costs to import

        return Signature(self.fn)

    @property
    def queue(self) -> str:
        """The queue that its jobs go to."""
        return self.plan.queue

    @property
    def retry(self) -> Retry:
        """Which errors are tried again, and how often."""
        return self.plan.retry

    def using(self, **options: Unpack[JobOptions]) -> Self:
        """The same task with other options for the jobs made through it. Raises ConfigError naming a wrong one."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, signature=self.signature)  # made once here, not once in every twin
        twin.plan = self.plan.changed(options, f"{self.name}.using()", _USING)
        twin._terms = twin.plan.terms
        return twin

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> NewJob[R]:
        """A job with these arguments, not stored yet.

        Raises TypeError if they do not fit the signature, PayloadError if they cannot be stored as JSON.
        """
        if self.plan.connection is not None:
            raise ConfigError(f"{self.name}: bind() stores nothing; give connection= to enqueue_many()")
        return self._bound(args, kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Stores a job with these arguments; durable when it returns. Raises what `bind` raises, and StoreError."""
        return self._client.store_one(self._bound(args, kwargs), self.plan.connection)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `enqueue`, for async code."""
        return await self._client.astore_one(self._bound(args, kwargs), self.plan.connection)

    def job(self, id: UUID | str) -> Job[R]:
        """A handle for a known id; asks nothing yet."""
        return Job(self._client, as_id(id))

    def _bound(self, args: tuple[object, ...], kwargs: dict[str, object]) -> NewJob[R]:
        plan = self.plan
        payload = self.signature.encode(args, kwargs)
        return NewJob(
            Draft(
                new_id(),
                self.name,
                plan.queue,
                payload,
                self._terms,
                plan.priority,
                plan.delay,
                plan.at,
                plan.tags,
                alone=self.in_process,
            )
        )

    def _inside(self) -> Token[CurrentJob] | None:
        """Enters a detached job for a direct call outside of one."""
        if current.get(None) is not None:
            return None
        return current.set(CurrentJob.detached(self.name, self.queue))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class SyncTask(Task[P, R]):
    """A task made of a plain function; its jobs run in a thread, or each in a process of its own."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the function here and now; nothing is stored."""
        token = self._inside()
        try:
            result: R = self.fn(*args, **kwargs)
        finally:
            if token is not None:
                current.reset(token)
        return result


class AsyncTask(Task[P, R]):
    """A task made of an async function; its jobs run on the worker's event loop."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the function here and now; nothing is stored."""
        token = self._inside()
        try:
            result: R = await self.fn(*args, **kwargs)
        finally:
            if token is not None:
                current.reset(token)
        return result


class TaskDecorator(Protocol):
    """What `@jobs.task(...)` is before it meets its function."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]  # the sync/async overlap of API.md
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...


def define(client: Client, fn: Callable[..., Any], defaults: Plan, options: Mapping[str, Any]) -> Task[..., Any]:
    """Makes a task of a function. ConfigError for what cannot be one, naming the parameter and what would work."""
    if isinstance(fn, staticmethod):
        fn = fn.__func__
    _check_function(fn)
    options = dict(options)
    in_process = _in_process(fn, options.pop("run_in", None))
    name = options.pop("name", None)
    name = default_name(fn) if name is None else named(name, "name")
    aliases: Sequence[str] = options.pop("aliases", ())
    if not isinstance(aliases, (list, tuple)):
        raise ConfigError(f"aliases={aliases!r}: a list of names, for example aliases=('shop.old_name',)")
    plan = defaults.changed(options, f"@task on {name}", _ENQUEUE)
    kind = AsyncTask[..., Any] if inspect.iscoroutinefunction(fn) else SyncTask[..., Any]
    return kind(client, fn, name, aliases, plan, in_process=in_process)


def _in_process(fn: Callable[..., Any], run_in: object) -> bool:
    """Whether its jobs run in processes; these import the function, so it must be found by its name."""
    if run_in not in (None, "thread", "process"):
        raise ConfigError(f"run_in={run_in!r}: 'thread' or 'process'")
    if run_in == "thread" and inspect.iscoroutinefunction(fn):
        raise ConfigError(
            f"run_in='thread' on {fn!r}: an async function runs on the worker's loop; leave it out, or say 'process'"
        )
    qualname = str(getattr(fn, "__qualname__", ""))
    if run_in == "process" and ("<lambda>" in qualname or "<locals>" in qualname):
        what = "a lambda" if qualname.endswith("<lambda>") else "defined inside another function"
        raise ConfigError(
            f"run_in='process' on {qualname}: it is {what}, so another process cannot import it; "
            "define it with `def` at the top of a module"
        )
    return run_in == "process"


def _check_function(fn: object) -> None:
    if isinstance(fn, Task):
        raise ConfigError(f"{fn.name} is a task already")
    if isinstance(fn, (classmethod, property)) or not callable(fn) or inspect.isclass(fn):
        raise ConfigError(f"@task on {fn!r}: a task is a plain or async function")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigError(f"@task on {fn!r}: a generator yields, a task returns; collect the values in a list")
    try:
        parameters = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"@task on {fn!r}: its signature cannot be read: {error}") from error
    if parameters[:1] == ["self"]:
        raise ConfigError(
            f"@task on {fn!r}: a method needs its object, which cannot be stored; "
            "use a function or a staticmethod, and pass what identifies the object"
        )


def default_name(fn: Callable[..., Any]) -> str:
    """module.qualname, with `__main__` resolved to the module that a worker would import, and `<locals>` left out."""
    module = getattr(fn, "__module__", None) or "__main__"
    module = _main_module() if module == "__main__" else module.removesuffix(".__main__")
    qualname = getattr(fn, "__qualname__", "")
    name = f"{module}.{qualname}".replace(".<locals>", "")
    if not qualname or not _NAME.fullmatch(name):
        raise ConfigError(f"the name {name!r} does not fit (letters, digits, _ . : - up to 100): give name=")
    return name


def _main_module() -> str:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file and not file.startswith("<") else "__main__"  # <stdin> is no module's name


def as_id(id: UUID | str) -> UUID:
    """A job's id from its text. ConfigError if it is none."""
    if isinstance(id, UUID):
        return id
    try:
        return UUID(id)
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"id={id!r}: not a job id, such as 0197a1b2-…: 32 hexadecimal digits") from None
