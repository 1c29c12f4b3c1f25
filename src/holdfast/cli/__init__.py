"""The command line, `holdfast`: it parses, calls the app and prints."""


def main() -> None:
    """Runs the command that the arguments name, and exits with its code."""
    from holdfast.cli.shell import shell  # here, so that a worker's process does not import click

    shell(prog_name="holdfast")
