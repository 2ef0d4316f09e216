# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom, and what the Comfy Registry forbids: read from the source, so that imports inside functions count."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfyui_anydressing.benchmarks.house import circles, module_arrows, room_arrows

LAYERS = ("anydressing_core", "nodes", "training")
ALLOWED = {"anydressing_core": set(), "nodes": {"anydressing_core"}, "training": {"anydressing_core"}}
CORE_PACKAGES = {"torch", "safetensors", "einops", "numpy"}
TRAINING_PACKAGES = {"diffusers", "accelerate", "transformers", "peft", "pydantic", "typer", "rich", "torchmetrics"}
COMFY = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server", "execution"}

CORE, GROUND = "anydressing_core", "training"
WALLS = {
    CORE: set(),
    "nodes": {CORE},
    "dev": set(),
    GROUND: {CORE},
    "training.run": {CORE, GROUND},
    "training.base": {CORE, GROUND},
    "training.losses": {CORE, GROUND},
    "training.data": {CORE, GROUND, "training.base"},
    "training.wardrobes": {CORE, GROUND, "training.data"},
    "training.model": {CORE, GROUND, "training.base", "training.run"},
    "training.dressing": {CORE, GROUND, *(f"training.{wing}" for wing in ("run", "base", "losses", "data", "model"))},
    "training.evaluation": {CORE, GROUND, *(f"training.{wing}" for wing in ("base", "losses", "data", "model"))},
    "training.paper_doll.world": {CORE, GROUND, "training.data"},
    "training.paper_doll.networks": {
        *(CORE, GROUND, "training.paper_doll.world"),
        *(f"training.{wing}" for wing in ("run", "base", "losses", "data", "model")),
    },
    "training.paper_doll.bench": {
        *(CORE, GROUND, "training.paper_doll.world", "training.paper_doll.networks"),
        *(f"training.{wing}" for wing in ("base", "losses", "model", "evaluation")),
    },
}
"""Whom each room may import. What stands above all of it, `commands`, `cli` and `benchmarks`, may import all below it."""

ABOVE = {
    "training.commands": {"training.cli", "benchmarks"},
    "training.cli": {"benchmarks"},
    "benchmarks": {"training.cli"},
}
"""Whom those above may not import."""

FORBIDDEN_MODULES = {"pickle", "marshal", "subprocess", "socket", "urllib", "requests", "huggingface_hub", "dill"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "os.system", "os.popen"}


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, int, str]]:
    """Yield every import: its statement, its number of leading dots, its dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, 0, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.level, node.module
        elif isinstance(node, ast.ImportFrom):  # from . import name, from .. import name
            yield from ((node, node.level, name.name) for name in node.names)


def layer_reached(path: Path, level: int, name: str) -> str | None:
    """Return the first folder below the checkout that a relative import names; None when it stays where it is.

    path: relative to the checkout.
    """
    package = path.parent.parts
    target = (*package[: len(package) - level + 1], *name.split("."))
    return target[0] if target[0] != path.parts[0] else None


def boundary_violations(path: Path, source: str) -> list[str]:
    """Return what a module of a layer imports but may not. path: relative to the checkout."""
    layer, tree = path.parts[0], ast.parse(source)
    at_top = set(map(id, tree.body))
    found = []
    for statement, level, name in imports(tree):
        where, top = f"{path}:{statement.lineno}", name.partition(".")[0]
        if level:
            reached = layer_reached(path, level, name)
            if reached and reached not in ALLOWED[layer]:
                found.append(f"{where}: {layer} imports {reached}")
        elif top in {"comfyui_anydressing", "anydressing_core", "training", "dev", "tests", "benchmarks"}:
            found.append(f"{where}: {name} must be a relative import of the pack, or none at all")
        elif layer == "anydressing_core" and top not in CORE_PACKAGES | sys.stdlib_module_names:
            found.append(f"{where}: core imports {top}")
        elif layer == "nodes" and top in TRAINING_PACKAGES:
            found.append(f"{where}: a node imports {top}, which artists do not have")
        elif layer == "training" and top in COMFY:
            found.append(f"{where}: training imports {top} of ComfyUI")
        elif top == "cv2" and id(statement) in at_top:
            found.append(f"{where}: cv2 is imported outside a function")
    return found


def registry_violations(path: Path, source: str) -> list[str]:
    """Return what the Comfy Registry, or our own promise never to run a file's code, forbids in nodes and core."""
    tree = ast.parse(source)
    found = [
        f"{path}:{statement.lineno}: imports {name}"
        for statement, level, name in imports(tree)
        if not level and name.partition(".")[0] in FORBIDDEN_MODULES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            found.append(f"{path}:{node.lineno}: calls {ast.unparse(node.func)}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            found.append(f"{path}:{node.lineno}: calls .cuda()")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{path}:{node.lineno}: bare except, which would catch ComfyUI's interrupt")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
            found.append(f"{path}:{node.lineno}: touches sys.path")
    return found


def modules(root: Path, *layers: str) -> Iterator[tuple[Path, str]]:
    """Yield the modules of some layers: path relative to the checkout, source."""
    for layer in layers:
        for path in sorted((root / layer).rglob("*.py")):
            yield path.relative_to(root), path.read_text(encoding="utf-8")


def test_nodes_and_training_meet_only_core(root):
    assert [text for path, source in modules(root, *LAYERS) for text in boundary_violations(path, source)] == []


def walls_broken(modules):
    """Every import of a module that leads from its room to one that it may not know, as text."""
    everywhere = {*WALLS, *ABOVE}
    allowed = WALLS | {room: everywhere - forbidden - {room} for room, forbidden in ABOVE.items()}
    rooms = room_arrows(modules)
    return [f"{room} imports {other}" for room in sorted(rooms) for other in sorted(rooms[room] - allowed[room])]


def test_every_wall_between_rooms_stands(root):
    assert walls_broken(module_arrows(root)) == []


def test_no_import_goes_in_a_circle_not_even_one_in_a_function(root):
    assert circles(module_arrows(root)) == []


def test_a_command_never_imports_a_command(root):
    arrows = module_arrows(root)
    commands = {file for file in arrows if file.startswith("training/commands/") and not file.endswith("__init__.py")}
    assert len(commands) >= 3
    assert [file for file in commands if arrows[file] & commands] == []


@pytest.mark.parametrize(
    ("file", "target"),
    [
        ("training/run/loop.py", "training/base/model.py"),
        ("training/losses/dists.py", "training/paper_doll/networks/recogniser.py"),
        ("training/data/cache.py", "training/model/adapter.py"),
        ("training/model/people.py", "training/data/pictures.py"),
        ("training/commands/sample.py", "benchmarks/house.py"),
        ("dev/server.py", "training/cli.py"),
        ("benchmarks/house.py", "training/cli.py"),
    ],
)
def test_a_planted_breach_is_found(root, file, target):
    arrows = module_arrows(root)
    assert len(walls_broken(arrows | {file: {*arrows[file], target}})) == 1


def test_a_planted_circle_is_found(root):
    arrows = module_arrows(root)
    (circle,) = circles(
        arrows | {"training/progress.py": {"training/sheets.py"}, "training/sheets.py": {"training/progress.py"}}
    )
    assert circle == "training/progress.py -> training/sheets.py -> training/progress.py"


def test_an_import_inside_a_function_is_an_arrow(tmp_path):
    for name, source in (("a", "def late():\n    from .b import thing"), ("b", "")):
        (tmp_path / "training").mkdir(exist_ok=True)
        (tmp_path / "training" / f"{name}.py").write_text(source)
    assert module_arrows(tmp_path)["training/a.py"] == {"training/b.py"}


def test_nodes_and_core_keep_the_registrys_rules(root):
    rules = modules(root, "anydressing_core", "nodes")
    assert [text for path, source in rules for text in registry_violations(path, source)] == []


def test_the_root_package_imports_nothing_before_it_is_called(root):
    tree = ast.parse((root / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nodes/apply.py", "from ..training import losses"),
        ("nodes/apply.py", "from .. import training"),
        ("nodes/apply.py", "def f():\n    from ..training.losses import l_loc"),
        ("nodes/apply.py", "import diffusers"),
        ("nodes/apply.py", "from comfyui_anydressing.anydressing_core import sites"),
        ("nodes/apply.py", "import cv2"),
        ("training/run/loop.py", "from ...nodes.apply import AnyDressingApply"),
        ("training/paper_doll/world/body.py", "from ....nodes import apply"),
        ("training/run/loop.py", "import folder_paths"),
        ("anydressing_core/lora.py", "from ..nodes import apply"),
        ("anydressing_core/lora.py", "import comfy.ops"),
        ("anydressing_core/lora.py", "def f():\n    import cv2"),
    ],
)
def test_a_planted_import_is_found(path, source):
    assert len(boundary_violations(Path(path), source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nodes/apply.py", "from ..anydressing_core.sites import SITES"),
        ("nodes/apply.py", "from . import errors"),
        ("nodes/apply.py", "import comfy.ops"),
        ("nodes/apply.py", "def f():\n    import cv2"),
        ("training/run/loop.py", "import diffusers"),
        ("training/paper_doll/world/body.py", "from ...losses.terms import l_loc"),
        ("training/paper_doll/world/body.py", "from ....anydressing_core import sites"),
        ("anydressing_core/lora.py", "import json, torch"),
    ],
)
def test_an_honest_import_is_not(path, source):
    assert boundary_violations(Path(path), source) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec('1')",
        "torch.load(path)",
        "os.system('ls')",
        "import pickle",
        "def f():\n    from subprocess import run",
        "tensor.cuda()",
        "try:\n    pass\nexcept:\n    pass",
        "sys.path.insert(0, '.')",
        "import urllib.request",
    ],
)
def test_a_planted_forbidden_thing_is_found(source):
    assert len(registry_violations(Path("nodes/apply.py"), source)) == 1


@pytest.mark.parametrize("source", ["model.eval()", "torch.nn.Module.load_state_dict(a, b)", "except_ = 1"])
def test_an_honest_line_is_not(source):
    assert registry_violations(Path("nodes/apply.py"), source) == []
