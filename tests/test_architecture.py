"""Who may import whom. The table is the one of the design, in rows: imports go only to rows above."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import bulkjobs

ROOT = Path(bulkjobs.__file__).parent

ROWS = (
    # Words and values that stand for themselves.
    (
        "errors",
        "model",
        "clock",
        "ids",
        "_scan",
        "_table",
        "channel",
        "exits",
        "jsonlines",
        "forking",
        "groups",
        "version",
    ),
    # What the pieces agree on, and pure rules over these values.
    (
        "settings",
        "events",
        "ports",
        "endpoints",
        "lifecycle",
        "chunking",
        "splitting",
        "halt",
        "budget",
        "rundir",
    ),
    # Pure rules that know the wire and the account; the ends of the way of an id; the durable account.
    (
        "checkpoint",
        "wire",
        "backoff",
        "throttle",
        "polling",
        "breaker",
        "planning",
        "matching",
        "sources",
        "sinks",
        "ledger",
    ),
    ("verdict", "account", "api", "nonce", "pool", "reading"),
    # The life of one id coming in, one record going out, one job; what people read of it, and whether it is true.
    (
        "opening",
        "ending",
        "intake",
        "delivery",
        "tracker",
        "outage",
        "outlook",
        "forecasting",
        "baseline",
        "reconciler",
        "outcomes",
        "reports",
    ),
    # The life of one chunk, which takes over from the intake.
    ("worker", "access", "control"),
    ("engine", "audit"),
    ("client", "observers", "simulator", "testing"),
    ("cli",),
    ("__main__",),
)
"""A row lists modules and packages directly under `bulkjobs`; modules of one package may import each other."""

RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}

PURE = {
    "errors", "model", "events", "ports", "endpoints", "lifecycle", "ids", "chunking", "splitting", "wire", "verdict",
    "backoff", "throttle", "polling", "breaker", "matching", "planning", "nonce", "exits",
}  # fmt: skip
"""What can be decided from values alone: clock readings and randomness are arguments."""

HEAVY = {
    "numpy",
    "aiohttp",
    "lxml",
    "click",
    "rich",
    "orjson",
    "sqlite3",
    "uvloop",
    "asyncio",
    "prometheus_client",
    "pyarrow",
}


def modules():
    """Gives each module's dotted name and path."""
    for path in sorted([*ROOT.rglob("*.py"), *ROOT.rglob("*.pyi")]):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def home(module: str) -> str:
    """Gives the name in the table: the module or package directly under `bulkjobs`."""
    return module.split(".")[1] if "." in module else module


@cache
def imports(path: Path) -> list[tuple[str, str | None]]:
    """Gives what a module imports, anywhere in it, also for type checking only: dotted names with what is taken."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found += ((node.module, alias.name) for alias in node.names)
    return found


def inner_imports():
    """Gives each import of one piece of the table from another."""
    for module, path in modules():
        for imported, _ in imports(path):
            if imported.split(".")[0] == "bulkjobs" and home(imported) != home(module):
                yield module, imported


def test_every_module_has_its_row_and_every_row_its_modules():
    assert {home(module) for module, _ in modules()} - {"bulkjobs"} == set(RANK)


def test_imports_go_only_to_rows_above():
    face = {"bulkjobs"}  # it brings a module along when a name is first used, so it may name any of them
    wrong = [
        f"{module} imports {imported}"
        for module, imported in inner_imports()
        if home(module) not in face and imported != "bulkjobs" and RANK[home(imported)] >= RANK[home(module)]
    ]
    assert wrong == []


def test_only_the_command_line_knows_the_packages_face():
    """It shows the version; everyone else imports a module for what it needs."""
    assert {home(module) for module, imported in inner_imports() if imported == "bulkjobs"} <= {
        "cli",
        "__main__",
    }


def test_the_table_has_no_row_more_than_it_needs():
    """Each row has a member that could not stand one row higher."""
    pairs = {(home(module), home(imported)) for module, imported in inner_imports()}
    for rank, row in enumerate(ROWS[1:], 1):
        above = {imported for module, imported in pairs if module in row}
        assert above & set(ROWS[rank - 1]), f"row {rank} ({', '.join(row)})"


def test_the_simulator_shares_nothing_with_the_client_but_the_errors():
    shared = {imported for module, imported in inner_imports() if home(module) == "simulator"}
    assert shared == {"bulkjobs.errors"}


def test_pure_modules_know_no_clock_no_loop_no_network_and_no_log():
    impure = {
        "asyncio",
        "aiohttp",
        "time",
        "logging",
        "socket",
        "random",
        "threading",
        "os",
        "pathlib",
        "sqlite3",
    }
    wrong = [
        f"{module} imports {imported}"
        for module, path in modules()
        for imported, _ in imports(path)
        if home(module) in PURE and imported.split(".")[0] in impure
    ]
    assert wrong == []


def test_the_http_client_is_used_in_one_place():
    """The simulator is a server: from aiohttp it takes `web` and the type of a stream."""
    users = {
        (module, f"{imported}.{name}" if name else imported)
        for module, path in modules()
        for imported, name in imports(path)
        if imported.split(".")[0] == "aiohttp"
    }
    client = {(module, what) for module, what in users if module == "bulkjobs.api"}
    assert client
    assert users - client == {
        ("bulkjobs.simulator.server", "aiohttp.web"),
        ("bulkjobs.simulator.server", "aiohttp.streams.StreamReader"),
    }


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("aiolimiter", {"account"}),
        ("backports", {"sources"}),
        ("isal", {"sources"}),
        ("lxml", {"wire"}),
        ("numpy", {"simulator"}),
        ("prometheus_client", {"observers"}),
        ("asyncpg", {"sources"}),
        ("obstore", {"sources"}),
        ("pyarrow", {"sources"}),
        ("sqlite3", {"account", "ledger", "sources"}),
        ("click", {"cli"}),
        ("uvloop", {"cli"}),
    ],
)
def test_each_library_has_its_place(library, users):
    assert {
        home(module)
        for module, path in modules()
        for imported, _ in imports(path)
        if imported.split(".")[0] == library
    } <= users


def run_python(script: str, *arguments: str) -> str:
    done = subprocess.run(  # noqa: PLW1510 - the assertion shows what was said
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy():
    loaded = run_python("import bulkjobs, sys; print(*sys.modules)").split()
    assert set(loaded) & HEAVY == set()


def test_every_module_can_be_imported_first():
    """In a process of its own each, forked from one that has loaded the libraries but nothing of ours.

    What a package loads by itself needs no process: whoever imports it first imports the package before it.
    """
    script = """
import importlib, os, sys
for library in ("asyncio", "numpy", "aiohttp.web", "lxml.etree", "orjson", "click", "rich.live"):
    importlib.import_module(library)
come_along = set()
for module in sys.argv[1:]:
    assert not any(name.startswith("bulkjobs") for name in sys.modules)
    if module in come_along:
        continue
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            importlib.import_module(module)
            os.write(tell, " ".join(name for name in sys.modules if name.startswith(module + ".")).encode())
        except BaseException as error:
            print(f"{module}: {error!r}", flush=True)
        os._exit(0)
    os.close(tell)
    with open(told) as names:
        come_along.update(names.read().split())
    os.waitpid(child, 0)
"""
    assert run_python(script, *(module for module, _ in modules())) == ""


def test_every_module_says_what_it_offers():
    """`__all__` stands in each that holds more than a docstring."""
    silent = [
        module
        for module, path in modules()
        if ast.parse(path.read_bytes()).body[1:] and b"\n__all__ = [" not in path.read_bytes()
    ]
    assert silent == []


def test_modules_stay_small():
    long = {module: lines for module, path in modules() if (lines := path.read_bytes().count(b"\n")) > 450}
    assert long == {}
