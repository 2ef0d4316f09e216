# SPDX-License-Identifier: GPL-3.0-or-later
"""What pip installs is what the checkout holds: the pack's packages, all of them, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from comfyui_anydressing.training.cli import VERSION

LAYERS = ("anydressing_core", "nodes", "training")


def python(*arguments, cwd, **environment):
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def listed_packages(root):
    block = re.search(r"^packages = \[(.*?)\]", (root / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    return set(re.findall(r'"([\w.]+)"', block.group(1)))


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """A wheel built from a copy, since building leaves files behind, with the environment's own setuptools, so offline."""
    copy, out = tmp_path_factory.mktemp("copy") / "any folder-name", tmp_path_factory.mktemp("wheel")
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".*", "output", "build", "*.egg-info"))
    python("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, copy, cwd=copy)
    return next(out.glob("*.whl"))


def test_the_package_list_equals_the_folders(root):
    folders = {path.parent.relative_to(root) for layer in LAYERS for path in (root / layer).rglob("*.py")}
    expected = {"comfyui_anydressing", *(".".join(("comfyui_anydressing", *folder.parts)) for folder in folders)}
    assert listed_packages(root) == expected
    assert all((root / folder / "__init__.py").exists() for folder in folders)


def test_the_wheel_holds_every_module_preset_and_what_nodes_open_and_nothing_else(root, wheel):
    shipped = ("*.py", "*.toml", "*.json", "*.html")
    modules = [path.relative_to(root) for layer in LAYERS for kind in shipped for path in (root / layer).rglob(kind)]
    opened = [Path("demo/paper_doll_base.safetensors"), Path("demo/anydressing/paper_doll.safetensors")]
    opened += [path.relative_to(root) for path in (root / "demo" / "garments").glob("*.png")]
    expected = {f"comfyui_anydressing/{path.as_posix()}" for path in (Path("__init__.py"), *modules, *opened)}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected


@pytest.fixture(scope="module")
def archive(root, require):
    """What the Comfy Registry packs: every tracked file that .comfyignore, which is read like a .gitignore, lets through."""
    there = (root / ".git").exists() and shutil.which("git")
    require(there, "The archive can be told only in a git checkout, with git.")

    def listed(*more):
        command = ["git", "ls-files", "--cached", *more]
        return set(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines())

    return listed() - listed("--ignored", "--exclude-from=.comfyignore")


def test_an_artist_gets_all_that_a_node_opens(root, archive):
    wanted = [*root.glob("nodes/*.py"), *root.glob("anydressing_core/*.py"), *root.glob("demo/garments/*.png")]
    wanted += [*root.glob("workflows/*.json"), *root.glob("workflows/*.jpg"), *root.glob("demo/anydressing/*")]
    wanted += root.glob("subgraphs/*.json")
    wanted += [path for folder in ("web", "locales") for path in root.glob(f"{folder}/**/*.*")]
    wanted += [root / name for name in ("__init__.py", "requirements.txt", "pyproject.toml", "README.md", "LICENSE")]
    wanted += [root / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CITATION.cff")]  # the README leads there
    wanted += [root / "demo" / "paper_doll_base.safetensors"]
    assert {path.relative_to(root).as_posix() for path in wanted} <= archive


def test_an_artist_gets_nothing_that_no_node_opens(archive):
    weights = {name for name in archive if name.endswith(".safetensors")}
    assert weights == {"demo/paper_doll_base.safetensors", "demo/anydressing/paper_doll.safetensors"}
    assert not [name for name in archive if name.startswith(("tests/", "benchmarks/", "dev/", ".ci/", ".github/"))]


def test_the_command_runs_from_anywhere_and_imports_no_torch(wheel, tmp_path):
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path, wheel, cwd=tmp_path)
    path = {"PYTHONPATH": str(tmp_path)}
    assert python(tmp_path / "bin" / "anydressing", "--version", cwd="/", **path) == f"anydressing {VERSION}"
    code = "import sys, comfyui_anydressing.training.cli; print('torch' in sys.modules)"
    assert python("-c", code, cwd="/", **path) == "False"


def test_there_is_one_version(root):
    from dev.export_workflows import PACKS

    stated = re.search(r'^version = "(.*)"', (root / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    assert stated == VERSION == PACKS["AnyDressing"][1]


def test_the_packs_requirements_are_the_projects(root):
    text = (root / "pyproject.toml").read_text()
    dependencies = re.search(r"^dependencies = \[(.*?)\n\]", text, re.DOTALL | re.MULTILINE).group(1)
    assert set((root / "requirements.txt").read_text().split()) <= set(re.findall(r'"([\w-]+)', dependencies))


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt"])
def test_requirement_files_name_no_address(root, name):
    text = (root / name).read_text()
    assert "://" not in text
    assert "--" not in text
