"""Puts the demo beside the code of a wheel; everything else about packaging is in pyproject.toml.

`agents/`, `agent_cards/` and `docs/` (which the demo's librarian reads) are top-level folders of the repository,
because a reader should meet them first. A wheel must not own top-level names as common as these, so there they
travel inside `gateway/_demo`. An editable install (`make install`) copies nothing: the program finds no
`gateway/_demo` and uses the folders of the repository.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DEMO = ("agents", "agent_cards", "docs")
ROOT = Path(__file__).parent


class BuildWithDemo(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in DEMO:
                target = Path(self.build_lib, "gateway", "_demo", folder)
                shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)

    def get_source_files(self) -> list[str]:
        """What an sdist must hold, so that a wheel built from it has the demo too."""
        demo = [p.relative_to(ROOT).as_posix() for f in DEMO for p in (ROOT / f).rglob("*") if p.is_file()]
        return [*super().get_source_files(), *(p for p in demo if "__pycache__" not in p)]


setup(cmdclass={"build_py": BuildWithDemo})
