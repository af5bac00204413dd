"""What is installed is what is written down: locks, reasons, licences, the wheel, the environment."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN_LOCK = ROOT / "requirements.txt"
TEST_LOCK = ROOT / "requirements-test.txt"
LOCKS = pytest.mark.parametrize("lock", [RUN_LOCK, TEST_LOCK], ids=lambda lock: lock.name)

RUN = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
BUILD = [Requirement(line) for line in PROJECT["dependency-groups"]["build"]]
TEST = [Requirement(line) for line in PROJECT["dependency-groups"]["test"]]
EXTRA = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["grpc"]]


def logical_lines(lock: Path) -> list[str]:
    """One line per requirement, its hashes included; comments left out."""
    text = re.sub(r"\\\n", " ", lock.read_text())
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins(lock: Path) -> dict[str, list[Requirement]]:
    """The requirements of a lock by name; a name may stand there twice, with different markers."""
    found: dict[str, list[Requirement]] = {}
    for line in logical_lines(lock):
        requirement = Requirement(line.split("--hash=")[0].strip())
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"{pin} is not pinned"
    return specifier.version


@LOCKS
def test_every_line_of_a_lock_is_one_pinned_version_with_hashes(lock: Path) -> None:
    lines = logical_lines(lock)
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.\[\]-]+==\S+ +(; [^#]+? +)?(--hash=sha256:[0-9a-f]{64}\s*)+", line), line[:120]


@LOCKS
def test_a_lock_names_no_registry_and_no_machine(lock: Path) -> None:
    text = lock.read_text()
    for word in (
        "://",
        "--index",
        "--extra-index",
        "--find-links",
        "--trusted-host",
        "file:",
        " @ ",
    ):
        assert word not in text, word
    assert not re.search(r"(^|[\s=])(/|~/|\.\./)\w", text, re.MULTILINE), "a path of some machine"


@LOCKS
def test_a_lock_serves_all_supported_interpreters_and_machines(lock: Path) -> None:
    """Each name resolves to exactly one version, or none, wherever the lock may be used."""
    for name, candidates in pins(lock).items():
        for python in ("3.11", "3.12", "3.13", "3.14"):
            for system, machine in (
                ("linux", "x86_64"),
                ("linux", "aarch64"),
                ("darwin", "arm64"),
                ("darwin", "x86_64"),
            ):
                place = {
                    "implementation_name": "cpython",
                    "platform_python_implementation": "CPython",
                    "python_version": python,
                    "python_full_version": f"{python}.0",
                    "sys_platform": system,
                    "platform_machine": machine,
                }
                chosen = [pin for pin in candidates if pin.marker is None or pin.marker.evaluate(place)]
                assert len(chosen) <= 1, f"{name} twice for {place}"
                if any(direct.name == name and direct.marker is None for direct in RUN):
                    assert chosen, f"no {name} for {place}"


def test_the_test_lock_is_the_runtime_lock_and_more() -> None:
    run, test = pins(RUN_LOCK), pins(TEST_LOCK)
    for name, wanted in run.items():
        assert [version(pin) for pin in test[name]] == [version(pin) for pin in wanted], name
    assert len(test) > len(run)


@pytest.mark.parametrize(
    ("wanted", "lock"),
    [(RUN, RUN_LOCK), (BUILD, RUN_LOCK), (RUN + BUILD + TEST + EXTRA, TEST_LOCK)],
    ids=["dependencies", "build", "test"],
)
def test_what_the_project_asks_for_is_in_the_lock(wanted: list[Requirement], lock: Path) -> None:
    locked = pins(lock)
    for requirement in wanted:
        candidates = locked[canonicalize_name(requirement.name)]
        assert any(requirement.specifier.contains(version(pin)) for pin in candidates), f"{requirement}: run make lock"


def test_the_build_back_end_is_the_one_in_the_lock() -> None:
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


def test_every_direct_dependency_has_its_reason_on_the_page() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    told = re.findall(r"^\| `([\w.-]+)` \| \S.*\. \| \S.* \| \S.* \|$", page, re.MULTILINE)
    assert sorted(told) == sorted({requirement.name for requirement in RUN + BUILD + TEST + EXTRA})


def test_every_package_of_the_named_stack_has_its_place_on_the_page() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    stack = page.split("## The named stack")[1].split("## ")[0]
    for name in (
        "starlette",
        "uvicorn",
        "jsonrpcserver",
        "mcp",
        "httpx",
        "httpx2",
        "pydantic",
        "authlib",
        "pytest",
        "respx",
    ):
        assert re.search(rf"^\|[^|]*\b{name}\b[^|]*\| \S", stack, re.MULTILINE), name


def test_nothing_at_run_time_is_under_a_gpl() -> None:
    runtime, tested = pins(RUN_LOCK), pins(TEST_LOCK)
    runtime.update((name, tested[name]) for name in (canonicalize_name(each.name) for each in EXTRA))
    for name, locked in runtime.items():
        try:
            about = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            assert all(pin.marker and not pin.marker.evaluate() for pin in locked), f"{name} is not installed"
            continue
        licence = [line.split("\n")[0] for key in ("License-Expression", "License") for line in about.get_all(key, [])]
        licence += [line for line in about.get_all("Classifier", []) if line.startswith("License ::")]
        told = " / ".join(word for word in licence if word)
        assert told, f"{name} does not say its licence"
        assert not re.search(r"\b[AL]?GPL|General Public", told), f"{name}: {told}"


def test_the_wheel_holds_the_package_and_the_demo_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("gateway", "agents", "agent_cards", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_demo"))
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").write_text("for the build\n")
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()
    expected = {p.relative_to(source).as_posix() for p in (source / "gateway").rglob("*") if p.is_file()}
    for folder in ("agents", "agent_cards", "docs"):
        (source / folder / "deep").mkdir()
        (source / folder / "deep" / "probe.txt").touch()
        expected |= {
            f"gateway/_demo/{p.relative_to(source).as_posix()}" for p in (source / folder).rglob("*") if p.is_file()
        }
    (source / "agents" / "__pycache__").mkdir()
    (source / "agents" / "__pycache__" / "old.pyc").touch()

    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    assert "gateway = gateway.cli:main" in zipfile.ZipFile(wheel).read(entry_points).decode()


# --- the environment that make builds. No network, no packages: the interpreter is a script with a diary ---


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with what the Makefile reads, and a folder `path` that comes first on PATH."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "requirements.txt", "requirements-test.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "path").mkdir()
    return tmp_path


def command(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def interpreter(tree: Path, name: str) -> None:
    """Runs `-c` for real and writes the rest into `diary`; while `fail` exists, pip fails."""
    command(
        tree / "path" / name,
        f"""
        case "$1 $2" in "-c "*) exec "{sys.executable}" "$@" ;; esac
        echo "$@" >> "{tree}/diary"
        case "$*" in
          "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
          "-m pip --version") ;;
          "-m pip "*) sleep 0.05; test ! -e "{tree}/fail" ;;
        esac""",
    )


def start(tree: Path, *arguments: str) -> subprocess.Popen[str]:
    path = f"{tree}/path:/usr/bin:/bin"
    return subprocess.Popen(
        ["make", *arguments],
        cwd=tree,
        env={"PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def make(tree: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(tree, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.strip(), err.strip()


def diary(tree: Path) -> list[str]:
    """What was asked of the interpreter since the last look, in words as short as possible."""
    file = tree / "diary"
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    words = {
        "-m venv": "venv",
        "setuptools.txt": "setuptools",
        "-r requirements": "lock",
        "--editable": "project",
    }
    seen = [next((word for sign, word in words.items() if sign in line), "") for line in text.splitlines()]
    return [word for word in seen if word]


EVERYTHING = ["venv", "setuptools", "lock", "project"]


def test_make_takes_the_first_interpreter_that_runs_and_is_new_enough(tree: Path) -> None:
    command(tree / "path" / "python3.13", "echo 'command not found' >&2; exit 127")
    command(tree / "path" / "python3.12", "exit 1  # what a Python that is too old answers")
    command(tree / "path" / "python3.11", f'exec "{sys.executable}" "$@"')
    command(tree / "path" / "python3", "exit 127")
    assert make(tree, "which-python") == (0, sys.executable, "")


def test_make_takes_the_interpreter_it_is_told_and_says_so_when_that_one_does_not_run(tree: Path) -> None:
    mine = tree / "path" / "mine"
    command(mine, f'exec "{sys.executable}" "$@"')
    command(tree / "path" / "python3.13", "echo another")
    assert make(tree, "which-python", f"PYTHON={mine}") == (0, sys.executable, "")

    command(mine, "exit 127")
    status, out, err = make(tree, "which-python", f"PYTHON={mine}")
    assert (status, out) == (0, "another")
    assert "mine does not run" in err


def test_make_says_what_to_do_when_no_interpreter_runs(tree: Path) -> None:
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        command(tree / "path" / name, "exit 127")
    status, out, err = make(tree, "install")
    assert (status, out) == (2, "")
    assert "No Python 3.11 or newer that runs was found on PATH" in err
    assert not (tree / ".venv").exists()


def test_a_second_install_asks_nothing_of_anybody(tree: Path) -> None:
    interpreter(tree, "python3.13")
    assert make(tree, "install")[0] == 0
    assert diary(tree) == EVERYTHING
    assert make(tree, "install") == (0, "", "")
    assert diary(tree) == []


def test_serve_installs_the_runtime_lock_only_and_a_later_test_adds_to_it(tree: Path) -> None:
    interpreter(tree, "python3.13")
    (tree / ".venv" / "bin").mkdir(parents=True)
    make(tree, "serve")  # fails at the end: this environment has no gateway
    assert "requirements.txt" in (tree / "diary").read_text()
    assert "requirements-test.txt" not in (tree / "diary").read_text()
    assert diary(tree) == EVERYTHING
    assert make(tree, "test")[0] == 0
    assert diary(tree) == ["setuptools", "lock", "project"]
    make(tree, "serve")
    assert diary(tree) == []


def test_a_changed_lock_builds_anew_and_a_changed_project_file_only_the_project(tree: Path) -> None:
    interpreter(tree, "python3.13")
    make(tree, "install")
    diary(tree)
    with (tree / "pyproject.toml").open("a") as file:
        file.write("\n")
    assert make(tree, "install")[0] == 0
    assert diary(tree) == ["project"]
    for lock in (RUN_LOCK, TEST_LOCK):
        with (tree / lock.name).open("a") as file:
            file.write("\n")
    assert make(tree, "install")[0] == 0
    assert diary(tree) == EVERYTHING


def test_a_tree_that_was_copied_builds_its_own_environment(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    interpreter(tree, "python3.13")
    make(tree, "install")
    diary(tree)
    copy = shutil.copytree(tree, tmp_path_factory.mktemp("copy") / "tree")
    make(copy, "install")
    assert diary(tree) == EVERYTHING  # the scripts still write to the first diary


@pytest.mark.parametrize("level", ["install", "serve"])
def test_a_build_that_was_cut_short_does_not_count_and_the_next_one_starts_from_nothing(tree: Path, level: str) -> None:
    interpreter(tree, "python3.13")
    (tree / "fail").touch()
    assert make(tree, level)[0] != 0
    assert diary(tree) == ["venv", "setuptools"]
    assert not list((tree / ".venv").glob(".stamp-*"))
    (tree / ".venv" / "half").touch()
    (tree / "fail").unlink()
    make(tree, level)
    assert diary(tree) == EVERYTHING
    assert not (tree / ".venv" / "half").exists()


def test_without_ensurepip_the_pip_of_the_interpreter_does_the_work(tree: Path) -> None:
    command(tree / "path" / "broken", "exit 1")
    command(
        tree / "path" / "python3.13",
        f"""
        case "$1 $2" in "-c "*) exec "{sys.executable}" "$@" ;; esac
        echo "$@" >> "{tree}/diary"
        case "$*" in
          *"venv --without-pip .venv") mkdir -p .venv/bin; cp "{tree}/path/broken" .venv/bin/python ;;
          *"venv .venv") mkdir -p .venv/bin; echo "ensurepip is not available"; exit 1 ;;
        esac""",
    )
    assert make(tree, "install")[0] == 0
    text = (tree / "diary").read_text()
    assert text.count("-m pip --python .venv/bin/python") == 3
    assert diary(tree) == ["venv", *EVERYTHING]


def test_two_installs_at_once_build_once(tree: Path) -> None:
    interpreter(tree, "python3.13")
    both = [start(tree, "install"), start(tree, "install")]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert diary(tree) == EVERYTHING
