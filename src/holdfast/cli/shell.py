"""The group of all commands, and the one place where an error becomes a line on stderr and an exit code."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import click

from holdfast import __version__
from holdfast.cli.act import cancel, delete, retry
from holdfast.cli.dead import dead
from holdfast.cli.ends import AWAY, INTERRUPTED, NOTHING_MATCHED, REFUSED, WRONG_USAGE
from holdfast.cli.enqueue import enqueue
from holdfast.cli.health import health
from holdfast.cli.job import job
from holdfast.cli.jobs import jobs
from holdfast.cli.migrate import migrate
from holdfast.cli.pause import pause, resume
from holdfast.cli.queues import queues
from holdfast.cli.schedules import schedules
from holdfast.cli.worker import worker
from holdfast.cli.workers import workers
from holdfast.errors import ConfigError, HoldfastError, JobNotFound, PayloadError, Refused, ScheduleNotFound, StoreError

_CODES: dict[type[HoldfastError], int] = {
    ConfigError: WRONG_USAGE,
    PayloadError: WRONG_USAGE,
    StoreError: AWAY,
    JobNotFound: NOTHING_MATCHED,
    ScheduleNotFound: NOTHING_MATCHED,
    Refused: REFUSED,
}


class Shell(click.Group):
    """A group whose commands return their exit code or None, and whose errors take one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        with suppress(AttributeError):  # a stream that somebody put in place of stdout
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        sys.exit(self._code(*args, **{**extra, "standalone_mode": False}))

    def _code(self, *args: Any, **extra: Any) -> int:
        try:
            code = super().main(*args, **extra)
        except click.exceptions.Abort:
            return INTERRUPTED
        except click.ClickException as error:
            _complain(_usage(error))
            return error.exit_code
        except HoldfastError as error:
            _complain(str(error))
            return next((code for kind, code in _CODES.items() if isinstance(error, kind)), WRONG_USAGE)
        return code if isinstance(code, int) else 0


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    more = f" ({context.command_path} --help tells more)" if context is not None else ""
    return error.format_message() + more


def _complain(text: str) -> None:
    click.echo(f"holdfast: {text}", err=True)


@click.group(cls=Shell, name="holdfast", invoke_without_command=True)
@click.version_option(__version__, prog_name="holdfast")
@click.pass_context
def shell(context: click.Context) -> None:
    """Background jobs: run them, look at them, act on them.

    The store comes from --url, HOLDFAST_URL, or url under [tool.holdfast] in pyproject.toml; without any of these from
    the app (HOLDFAST_APP, or app under [tool.holdfast]).

    Exit codes: 0 done, 2 wrong usage or setting, 3 store unreachable, 4 nothing matched, 5 refused.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_COMMANDS = (
    *(worker, enqueue, jobs, job, dead, retry, cancel, delete),
    *(queues, pause, resume, schedules, workers, migrate, health),
)
for command in _COMMANDS:
    shell.add_command(command)
