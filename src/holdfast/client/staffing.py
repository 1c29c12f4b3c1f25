"""Makes the workers of an app: embedded in the caller's process, or supervised by the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakSet

from holdfast.around import Around
from holdfast.client.declaring import Declarations
from holdfast.client.link import Link, not_while_loading
from holdfast.client.queues import Queues
from holdfast.client.registry import Registry
from holdfast.clock import Duration, Instant
from holdfast.observe.tally import Totals
from holdfast.resource import Resources
from holdfast.store import Store
from holdfast.task import Task
from holdfast.worker.embedded import Worker

if TYPE_CHECKING:
    from holdfast.worker.blackbox import BlackBox
    from holdfast.worker.crew import Crew


class Staffing:
    """Gives each worker the tasks, a store of its own, and what its slot processes must load."""

    def __init__(
        self,
        app: object,
        link: Link,
        registry: Registry,
        queues: Queues,
        declarations: Declarations,
        resources: Resources,
        around: Around,
    ) -> None:
        self._app = app
        self._link = link
        self._registry = registry
        self._resources = resources
        self._around = around
        self._queues = queues
        self._declarations = declarations
        self.totals = Totals()  # of all workers in this process
        self.crews: WeakSet[Crew] = WeakSet()

    def embedded(
        self, *, queues: Sequence[str] | None, concurrency: int, deadline: Duration, strict: bool = False
    ) -> Worker:
        from holdfast.worker.crew import Crew  # with all its roles, as all of a worker here: at its start
        from holdfast.worker.processes.launch import launch_of

        crew = Crew(
            self._supply,
            queues=queues,
            strict=strict,
            concurrency=concurrency,
            deadline=deadline,
            clock=self._link.clock,
            launch=lambda: launch_of(self._app, self._registry.tasks, self._link.url),
            declared=self._queues.terms,
            reconcile=self.reconcile,
            resources=self._resources,
            around=self._around,
            totals=self.totals,
        )
        taken = {other.number for other in self.crews}
        crew.number = next(number for number in count() if number not in taken)
        self.crews.add(crew)
        return Worker(crew)

    def supervised(self, options: Mapping[str, Any], supervisor: UUID, box: BlackBox) -> Crew:
        """A worker whose lease `supervisor` keeps, which reads its black box."""
        from holdfast.worker.crew import Crew
        from holdfast.worker.processes.launch import Launch

        return Crew(
            self._supply,
            queues=options["queues"],
            strict=options["strict"],
            concurrency=options["concurrency"],
            deadline=options["deadline"],
            clock=self._link.clock,
            supervisor=supervisor,
            box=box,
            max_jobs=options["max_jobs"],
            max_memory=options["max_memory"],
            launch=lambda: Launch(options["app"], self._link.url, options["style"], options["level"]),
            declared=self._queues.terms,
            reconcile=self.reconcile,
            declares=options["declares"],
            resources=self._resources,
            around=self._around,
        )

    async def reconcile(self, store: Store) -> Mapping[str, Instant | None]:
        """Brings what code declares of schedules to the store; returns their next ticks."""
        return await self._declarations.reconcile(store, self._registry)

    def _supply(self) -> tuple[Store, dict[str, Task[..., Any]]]:
        not_while_loading()
        self._registry.load()
        self._link.workers += 1
        return self._link.store.twin(), self._registry.names
