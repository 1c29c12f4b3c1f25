"""How a command ends: exit codes, and the errors that carry them."""

from __future__ import annotations

import click

WRONG_USAGE, AWAY, NOTHING_MATCHED, REFUSED = 2, 3, 4, 5
INTERRUPTED = 130


class Unreachable(click.ClickException):
    exit_code = AWAY


class Wrong(click.ClickException):
    exit_code = WRONG_USAGE


class NothingMatched(click.ClickException):
    exit_code = NOTHING_MATCHED


class Refused(click.ClickException):
    exit_code = REFUSED
