"""Rules about the repository itself: exports, docstrings, what an import costs, what no file may name."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).resolve().parent.parent

EXPORTS = [
    "AsyncTask",
    "Cancel",
    "ConfigError",
    "CurrentJob",
    "Duration",
    "EnqueueOptions",
    "Filter",
    "Holdfast",
    "HoldfastError",
    "IdConflict",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "JobOptions",
    "JobStatus",
    "NewJob",
    "Permanent",
    "Pool",
    "PoolJob",
    "PoolOptions",
    "PoolStats",
    "QueueFull",
    "Refused",
    "Resource",
    "ResourceError",
    "Retry",
    "ScheduleNotFound",
    "ScheduleStatus",
    "ScheduleTick",
    "Snooze",
    "State",
    "Stop",
    "StoreError",
    "SyncTask",
    "Task",
    "TaskOptions",
    "Unique",
    "UniqueConflict",
    "Worker",
    "current_job",
]

HEAVY = [
    "aiosmtpd",
    "click",
    "cronsim",
    "holdfast.pool",
    "http",
    "httpx",
    "msgspec",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pysqlite3",
    "redis",
    "sqlite3",
    "starlette",
    "uvicorn",
    "zoneinfo",
]

# Written with brackets, so that this file does not name what it forbids.
FORBIDDEN = {
    "a package index": re.compile(r"py[p]i\.org|python[h]osted\.org|np[m]js\.(org|com)", re.IGNORECASE),
    "a home folder": re.compile(r"(?<![\w.-])/(h[o]me|U[s]ers)/\w|(?<![\w.-])/r[o]ot/"),
    "the folder of this checkout": re.compile(rf"(?<![\w.-]){re.escape(str(ROOT))}(?![\w-])"),
}


def _tracked() -> list[Path]:
    """Every file that git has or would take; a source archive without git is skipped."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        [
            "git",
            "-c",
            f"safe.directory={ROOT}",
            "-C",
            str(ROOT),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def _modules() -> list[Path]:
    folders = ["src", "examples", "bench", "tests"]
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_exports_are_pinned() -> None:
    assert sorted(holdfast.__all__) == EXPORTS


@pytest.mark.parametrize("name", EXPORTS)
def test_export_exists(name: str) -> None:
    assert hasattr(holdfast, name)


def _documented(name: str, it: object) -> bool:
    # A class without a docstring inherits none but, if a dataclass, is given its own signature as one.
    text = vars(it).get("__doc__") if inspect.isclass(it) else it.__doc__
    return bool(text) and not text.startswith(f"{name}(")


def test_exported_classes_and_functions_have_a_docstring_of_their_own() -> None:
    exported = [(name, getattr(holdfast, name)) for name in holdfast.__all__]
    public = [(name, it) for name, it in exported if inspect.isclass(it) or inspect.isfunction(it)]
    assert len(public) > 20
    assert [name for name, it in public if not _documented(name, it)] == []


def test_public_methods_of_exported_classes_have_a_docstring() -> None:
    bare = [
        f"{name}.{method}"
        for name in holdfast.__all__
        if inspect.isclass(cls := getattr(holdfast, name))
        for method, function in vars(cls).items()
        if inspect.isfunction(function) and not method.startswith("_") and not function.__doc__
    ]
    assert bare == []


def test_import_pulls_in_no_driver_and_no_command_line() -> None:
    program = f"import sys, holdfast; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == []


def test_every_module_opens_with_its_role() -> None:
    modules = _modules()
    assert modules, "no modules found: the test looks in the wrong folder"
    silent = [
        str(path.relative_to(ROOT))
        for path in modules
        if (text := path.read_text(encoding="utf-8")) and not text.startswith('"""')
    ]
    assert silent == []


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    named = []
    for path in _tracked():
        text = path.read_bytes().decode("utf-8", errors="replace")
        named += [f"{path.relative_to(ROOT)}: {found[0]}" for found in FORBIDDEN[what].finditer(text)]
    assert named == []
