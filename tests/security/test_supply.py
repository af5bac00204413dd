"""Advisories about what comes from others: libraries with a known flaw, packages that are not what they say, and data
that is code.

As in `test_advisories.py`: what must not be there is not found, and is found in the broken twin, where it was planted.
"""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gateway.cli import main
from gateway.config import ConfigError, parse, source
from tests.security.twins import by_itself
from tests.serving import ROOT
from tests.test_house import imports, sources
from tests.test_packaging import EXTRA, PROJECT, RUN_LOCK, TEST_LOCK, logical_lines, pins

pytestmark = pytest.mark.security


# Which version of which library is the first without the flaw.
FLOORS: dict[str, tuple[str, str]] = {
    "CVE-2026-54282": ("starlette", "1.3.0"),
    "CVE-2026-54283": ("starlette", "1.3.1"),
    "CVE-2026-24486": ("python-multipart", "0.0.31"),
    "CVE-2026-40347": ("python-multipart", "0.0.31"),
    "CVE-2026-42561": ("python-multipart", "0.0.31"),
    "CVE-2026-53538": ("python-multipart", "0.0.31"),
    "CVE-2026-53539": ("python-multipart", "0.0.31"),
    "CVE-2026-53540": ("python-multipart", "0.0.31"),
    "CVE-2025-69223": ("aiohttp", "3.14.1"),
    "CVE-2026-34516": ("aiohttp", "3.14.1"),
    "CVE-2026-34517": ("aiohttp", "3.14.1"),
    "CVE-2026-54273": ("aiohttp", "3.14.1"),
    "CVE-2026-54274": ("aiohttp", "3.14.1"),
    "CVE-2026-54275": ("aiohttp", "3.14.1"),
    "CVE-2026-54276": ("aiohttp", "3.14.1"),
    "CVE-2026-54277": ("aiohttp", "3.14.1"),
    "CVE-2026-54278": ("aiohttp", "3.14.1"),
    "CVE-2026-54279": ("aiohttp", "3.14.1"),
    "CVE-2026-54280": ("aiohttp", "3.14.1"),
    "CVE-2025-69243": ("aiohttp", "3.14.3"),
    "CVE-2025-69244": ("aiohttp", "3.14.3"),
    "CVE-2026-71554": ("h2", "4.4.1"),
    "CVE-2026-48710": ("starlette", "1.0.1"),
    "CVE-2026-27962": ("authlib", "1.6.9"),
    "CVE-2025-59420": ("authlib", "1.6.9"),
    "CVE-2026-32597": ("pyjwt", "2.12.0"),
    "CVE-2026-48523": ("pyjwt", "2.13.0"),
    "CVE-2026-52869": ("mcp", "1.27.2"),
    "CVE-2026-52870": ("mcp", "1.27.2"),
    "CVE-2026-59950": ("mcp", "1.28.1"),
}


def flawed(lock: Path) -> set[str]:
    """The advisories that a version of this lock, or one that pyproject.toml would let in, has."""
    locked = pins(lock)
    groups = PROJECT["dependency-groups"]
    asked = [Requirement(line) for line in (*PROJECT["project"]["dependencies"], *groups["test"], *groups["build"])]
    lowest: dict[str, str] = {canonicalize_name(each.name): _lowest(each) for each in asked}
    found = set()
    for id, (name, good) in FLOORS.items():
        least = [next(iter(pin.specifier)).version for pin in locked.get(name, [])]
        least += [lowest[name]] if name in lowest else []
        if any(Version(each) < Version(good) for each in least):
            found.add(id)
    return found


def _lowest(requirement: Requirement) -> str:
    return next((each.version for each in requirement.specifier if each.operator in (">=", "==")), "0")


@by_itself
@pytest.mark.parametrize("id", FLOORS)
def test_no_library_has_a_known_flaw_but_in_the_lock_of_its_broken_twin(tmp_path: Path, id: str, broken: bool) -> None:
    name, good = FLOORS[id]
    for lock in (RUN_LOCK, TEST_LOCK):
        other = tmp_path / lock.name
        other.write_text(f"{name}=={good}.dev0 --hash=sha256:{'0' * 64}\n")
        assert (id in flawed(other if broken else lock)) is broken


# What is not installed with the program at all, and so cannot be wrong in it.
ABSENT = ("aiohttp", "python-multipart", "h2", "pyjwt", "fastmcp", "diskcache", "sse-starlette", "jinja2", "requests")


@by_itself
def test_the_program_brings_no_parser_of_forms_no_http2_and_no_templates_but_its_broken_twin_does(broken: bool) -> None:
    brought = set(pins(RUN_LOCK)) | {canonicalize_name(each.name) for each in EXTRA}
    used = {each.target.partition(".")[0] for each in imports()}
    if broken:
        brought.add("python-multipart")
        used.add("python_multipart")
    names = {*ABSENT, "python_multipart", "multipart", "jwt"}
    assert bool(brought & names) is broken
    assert bool(used & names) is broken


# Packages.


def wheel(folder: Path, requirement: Requirement) -> None:
    """Another file of the same name and version, as who has stolen a token for publishing would put there; with a
    `.pth` that would run at every start of Python."""
    (version,) = (each.version for each in requirement.specifier)
    name = requirement.name.replace("-", "_")
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{name}.pth": "import os; os.environ['STOLEN'] = '1'\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {requirement.name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = io.StringIO()
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        for path, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            csv.writer(rows).writerow((path, f"sha256={digest}", len(text)))
            made.writestr(path, text)
        made.writestr(f"{about}/RECORD", rows.getvalue() + f"{about}/RECORD,,\n")


@by_itself
def test_a_package_with_other_bytes_is_not_installed_but_by_the_lock_of_its_broken_twin(
    tmp_path: Path, broken: bool
) -> None:
    """litellm 1.82.7 and 1.82.8 were there for 46 minutes, and installed 47 000 times."""
    line = next(line for line in logical_lines(RUN_LOCK) if line.startswith("oslash=="))
    wheel(tmp_path, Requirement(line.split("--hash=")[0].strip()))
    wanted = tmp_path / "requirements.txt"
    wanted.write_text(line.split("--hash=")[0].strip() if broken else line)
    there = tmp_path / "there"
    options = ("--isolated", "--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--find-links", tmp_path, "--target", there, "-r", wanted],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) is broken, done.stderr
    assert (there / "oslash.pth").exists() is broken
    assert broken or "HASHES" in done.stderr


# Made by setuptools for interpreters that have distutils; it is in the lock for building.
STARTERS = {"distutils-precedence.pth"}


def starters(folder: Path) -> set[str]:
    """Files that run code whenever Python starts there (`site`: lines that begin with `import`)."""
    return {
        file.name
        for file in folder.glob("*.pth")
        if re.search(r"^import[ \t]", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    }


@by_itself
def test_no_package_runs_code_at_every_start_but_one_of_the_broken_twin(tmp_path: Path, broken: bool) -> None:
    folder = Path(str(importlib.metadata.distribution("starlette").locate_file("")))
    if broken:
        (tmp_path / "litellm_init.pth").write_text("import os; exec(os.environ.get('X', ''))\n")
        folder = tmp_path
    assert bool(starters(folder) - STARTERS) is broken


def unasked(lock: Path) -> set[str]:
    """Names in a lock that nothing which the project asks for has asked for, as the installed packages say."""
    groups = PROJECT["dependency-groups"]
    todo = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    todo += [Requirement(line) for line in groups["build"]]
    if lock != RUN_LOCK:
        todo += [*(Requirement(line) for line in groups["test"]), *EXTRA]
    asked: set[tuple[str, frozenset[str]]] = set()
    while todo:
        each = todo.pop()
        key = (canonicalize_name(each.name), frozenset(each.extras))
        if key in asked:
            continue
        asked.add(key)
        try:
            needs = importlib.metadata.requires(key[0]) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # for another machine
        todo += [need for need in map(Requirement, needs) if _applies(need, each.extras)]
    return set(pins(lock)) - {name for name, _ in asked}


def _applies(need: Requirement, extras: Iterable[str]) -> bool:
    """On some machine: that ours is none of those changes nothing about who asked."""
    marker = str(need.marker or "")
    return "extra ==" not in marker or any(f'extra == "{extra}"' in marker for extra in extras)


@by_itself
@pytest.mark.parametrize("squat", ["starlete", "py-yaml", "httpx22", "crytography", "pydantic-cor"])
def test_every_package_was_asked_for_by_name_but_not_that_of_the_broken_twin(
    tmp_path: Path, squat: str, broken: bool
) -> None:
    """A name that is nearly right, in a lock that nobody reads."""
    lock = RUN_LOCK
    if broken:
        lock = tmp_path / "requirements.txt"
        lock.write_text(f"{RUN_LOCK.read_text(encoding='utf-8')}\n{squat}==1.0 --hash=sha256:{'0' * 64}\n")
    assert unasked(lock) == ({squat} if broken else set())


FLOATING = (
    ("npx", "-y", "postmark-mcp"),
    ("npx", "-y", "@scope/postmark-mcp"),
    ("uvx", "--from", "postmark-mcp", "serve"),
    ("pipx", "run", "postmark-mcp"),
)
FIXED = (("npx", "-y", "postmark-mcp@1.0.12"), ("npx", "@scope/postmark-mcp@1.0.12"), ("uvx", "postmark-mcp==1.0.12"))


@by_itself
def test_a_server_that_changes_by_itself_is_told_about_but_not_by_the_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: bool
) -> None:
    """postmark-mcp: after fifteen good versions one that sent a copy of each mail to somebody else."""
    for name in ("npx", "uvx", "pipx"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("GATEWAY_URL", "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setenv("GATEWAY_DATA", str(tmp_path))
    if broken:
        monkeypatch.setattr("gateway.cli.resolving._floating", lambda words: None)
    for number, words in enumerate((*FLOATING, *FIXED)):
        main(["tools", "add", "--config", str(tmp_path / "g.yaml"), f"mail{number}", "--", *words])
        told = "runs whatever version of" in capsys.readouterr().err
        assert told is (words in FLOATING and not broken), words


# Data that is code.

LOADERS = {"pickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "marshal", "shelve", "joblib", "diskcache", "dbm"}
UNSAFE = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}
UNSAFE |= {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}


def loaders(tree: ast.AST) -> list[str]:
    """What makes objects, or runs something, by what stands in the data."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name.partition(".")[0] in LOADERS]
            found += [f"{each.name} as {each.asname}" for each in node.names if each.name == "yaml" and each.asname]
        elif isinstance(node, ast.ImportFrom) and node.module:
            top = node.module.partition(".")[0]
            found += [node.module] if top in LOADERS else []
            found += [f"yaml.{each.name}" for each in node.names if top == "yaml" and each.name in UNSAFE]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"yaml.{node.attr}"] if node.value.id == "yaml" and node.attr in UNSAFE else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] if node.func.id in ("eval", "exec", "compile", "__import__") else []
    return found


PLANTED = (
    "import pickle",
    "from diskcache import Cache",
    "def f(x):\n    import marshal",
    "import yaml\nyaml.load(x, Loader=yaml.UnsafeLoader)",
    "from yaml import full_load",
    "exec(body)",
)


@by_itself
def test_nothing_makes_code_of_data_but_the_broken_twin(broken: bool) -> None:
    trees = [ast.parse(text) for text in PLANTED]
    if not broken:
        trees = [*sources().values(), *(ast.parse(file.read_text()) for file in (ROOT / "examples").rglob("*.py"))]
        assert len(trees) > 300
    for tree in trees:
        assert bool(loaders(tree)) is broken, loaders(tree)


@by_itself
def test_a_file_of_the_operators_runs_nothing_but_in_the_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        composer = source._composer

        def load(text: str, name: str) -> source._Composer:
            yaml.load(text, Loader=yaml.UnsafeLoader)
            return composer(text, name)

        monkeypatch.setattr(source, "_composer", load)
    with pytest.raises(ConfigError, match="tag"):
        parse(f"agents: !!python/object/apply:os.mkdir ['{tmp_path}/ran']", base=tmp_path)
    assert (tmp_path / "ran").exists() is broken
