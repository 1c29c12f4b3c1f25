"""A task: a function with its queue, limits and policy, and how one is made of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload
from uuid import UUID

from holdfast.clock import Instant
from holdfast.context import CurrentJob, current, detached
from holdfast.errors import ConfigError
from holdfast.handles import Job, NewJob
from holdfast.headers import Headers
from holdfast.job import Draft, new_id
from holdfast.naming import default_name, named
from holdfast.options import ENQUEUE, TASK, USING, JobOptions, Plan
from holdfast.policy import Retry
from holdfast.unique import Keying, not_one_for_all

if TYPE_CHECKING:
    from contextvars import Token

    from holdfast.codec import Signature

P = ParamSpec("P")
R = TypeVar("R")


class Maker(Protocol):
    """What a task needs from its app: to store its jobs, and to make handles of them."""

    def headers(self, own: Headers | None) -> str: ...
    def now(self) -> Instant: ...
    def store(self, job: NewJob[R], connection: object) -> Job[R]: ...
    async def astore(self, job: NewJob[R], connection: object) -> Job[R]: ...
    def job(self, id: UUID | str) -> Job[Any]: ...


class Task(Generic[P, R]):
    """A function that jobs run. The name to annotate with: `Task[[int], str]`."""

    fn: Callable[..., Any]
    name: str

    def __init__(
        self,
        maker: Maker,
        fn: Callable[..., Any],
        name: str,
        aliases: Sequence[str],
        plan: Plan,
        *,
        in_process: bool = False,
    ) -> None:
        functools.update_wrapper(cast("Any", self), fn)  # first: the function's own attributes must not become ours
        self.__dict__.pop("signature", None)
        self._maker = maker
        self.fn = fn
        self.name = name
        self.aliases = tuple(named(alias, "aliases") for alias in aliases)
        self.is_async = inspect.iscoroutinefunction(fn)
        self.in_process = in_process  # each of its jobs runs in a process of its own
        self.plan = plan
        self._terms = plan.terms
        self._keying = self._keyed(plan)

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
        twin.plan = self.plan.changed(options, f"{self.name}.using()", USING)
        twin._terms = twin.plan.terms
        if "unique" in options:
            twin._keying = twin._keyed(twin.plan)
        return twin

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> NewJob[R]:
        """A job with these arguments, not stored yet.

        Raises TypeError if they do not fit the signature, PayloadError if they cannot be stored as JSON.
        """
        if self.plan.connection is not None:
            raise ConfigError(f"{self.name}: bind() stores nothing; give connection= to enqueue_many()")
        return self._bound(args, kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Stores a job with these arguments; durable when it returns.

        Raises what `bind` raises, StoreError, and by its options UniqueConflict or QueueFull.
        """
        return self._maker.store(self._bound(args, kwargs), self.plan.connection)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `enqueue`, for async code."""
        return await self._maker.astore(self._bound(args, kwargs), self.plan.connection)

    def job(self, id: UUID | str) -> Job[R]:
        """A handle for a known id; asks nothing yet. JobNotFound for a text that is no id."""
        return self._maker.job(id)

    def _bound(self, args: tuple[object, ...], kwargs: dict[str, object]) -> NewJob[R]:
        plan = self.plan
        if plan.ends:
            plan.check_ends(self.name, self._maker.now())
        payload = self._encoded(args, kwargs)
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
                unique=self._keying.of(payload, self.signature) if self._keying else None,
                headers=self._maker.headers(plan.headers),
                expires=plan.expires,
                deadline=plan.deadline,
            )
        )

    def _keyed(self, plan: Plan) -> Keying | None:
        return Keying(plan.unique, self.name, self.fn) if plan.unique else None

    def _encoded(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
        try:
            return self.signature.encode(args, kwargs)
        except TypeError as error:
            named = [name for name in kwargs if name in USING and name not in inspect.signature(self.fn).parameters]
            if not named:
                raise
            options = ", ".join(f"{name}=..." for name in named)
            what = f"{named[0]}= is an option" if len(named) == 1 else "these are options"
            raise TypeError(f"{error}; {what}: {self.name}.using({options}).enqueue(...)") from None

    def _inside(self) -> Token[CurrentJob] | None:
        """Enters a detached job for a direct call outside of one."""
        if current.get(None) is not None:
            return None
        return current.set(detached(self.name, self.queue, on_loop=self.is_async))

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


def define(maker: Maker, fn: Callable[..., Any], defaults: Plan, options: Mapping[str, Any]) -> Task[..., Any]:
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
    unique = not_one_for_all(options.pop("unique", None), "unique")
    plan = defaults.changed(options, f"@task on {name}", ENQUEUE, TASK)._replace(unique=unique)
    kind = AsyncTask[..., Any] if inspect.iscoroutinefunction(fn) else SyncTask[..., Any]
    return kind(maker, fn, name, aliases, plan, in_process=in_process)


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
        raise ConfigError(f"{fn.name} is a task already; @jobs.cron and @jobs.every stand above @jobs.task, not below")
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
