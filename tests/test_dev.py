# SPDX-License-Identifier: GPL-3.0-or-later
"""How a ComfyUI is found, fetched and trusted, and when set-up has something to do. No network: packages are made up here."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from comfyui_anydressing.training.cli import VERSION

from dev import comfyui, setup
from dev.comfyui import ComfyUIMissingError, Release
from dev.export_workflows import differences
from dev.prompts import undressed


def make_comfyui(home: Path, version: str = "0.30.0") -> Path:
    (home / "comfy").mkdir(parents=True)
    for name in ("main.py", "nodes.py", "comfy/sd.py"):
        (home / name).touch()
    (home / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    (home / "requirements.txt").write_text("torch\nSQLAlchemy>=2.0.0  # comment\ncomfy-kitchen==0.2.26\n")
    return home


def make_package(path: Path, *more: tuple[str, str]) -> Release:
    """A source package as the index would serve it; `more` are further members, name and content."""
    names = ("main.py", "nodes.py", "comfy/sd.py")
    members = [(f"fake-1.0/vendor/ComfyUI/{name}", "") for name in names]
    members += [("fake-1.0/vendor/ComfyUI/comfyui_version.py", '__version__ = "9.9.9"'), ("fake-1.0/setup.py", "raise")]
    with tarfile.open(path, "w:gz") as package:
        for name, content in (*members, *more):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            package.addfile(info, io.BytesIO(content.encode()))
    return Release("9.9.9", "fake==1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A checkout and a home folder with no ComfyUI anywhere near."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(comfyui, "CHECKOUT", tmp_path / "checkout")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return tmp_path


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store whose downloads are served from `tmp_path / "fake.tar.gz"`."""

    def download(release, folder, python):
        copy = folder / "fake.tar.gz"
        copy.write_bytes((tmp_path / "fake.tar.gz").read_bytes())
        return copy

    monkeypatch.setattr(comfyui, "download", download)
    return tmp_path / "store"


# --- finding --------------------------------------------------------------------------------------------------------


def test_the_named_comfyui_comes_first_then_the_one_around_then_the_one_at_home(alone, monkeypatch):
    at_home = make_comfyui(alone / "home" / "comfy" / "ComfyUI")
    assert comfyui.find() == at_home
    around = make_comfyui(alone / "around")
    monkeypatch.setattr(comfyui, "CHECKOUT", around / "custom_nodes" / "any name")
    assert comfyui.find() == around
    named = make_comfyui(alone / "named")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert comfyui.find() == named


def test_a_checkout_linked_into_custom_nodes_is_found_there(alone, monkeypatch):
    around = make_comfyui(alone / "around")
    (around / "custom_nodes").mkdir()
    (alone / "real").mkdir()
    (around / "custom_nodes" / "link").symlink_to(alone / "real")
    monkeypatch.setattr(comfyui, "CHECKOUT", around / "custom_nodes" / "link")
    assert comfyui.find() == around


def test_without_any_the_pinned_release_is_fetched(alone, monkeypatch):
    monkeypatch.setattr(comfyui, "fetch", lambda release, python: alone / release.version)
    assert comfyui.find() is None
    assert comfyui.find_or_fetch() == alone / "0.30.0"


def test_the_oldest_release_is_fetched_even_where_a_newer_one_lies(alone, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(make_comfyui(alone / "named")))
    monkeypatch.setattr(comfyui, "fetch", lambda release, python: alone / release.version)
    assert comfyui.find_or_fetch(comfyui.OLDEST) == alone / "0.16.3"


def test_a_comfyui_path_without_comfyui_is_refused(alone, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(alone))
    with pytest.raises(ComfyUIMissingError, match=r"no ComfyUI lies there\.\nSet it to the folder that holds"):
        comfyui.find()


def test_a_comfyui_path_to_an_old_one_is_refused(alone, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(make_comfyui(alone / "old", "0.3.64")))
    with pytest.raises(ComfyUIMissingError, match=r"names ComfyUI 0\.3\.64, but AnyDressing needs 0\.16\.3 or newer"):
        comfyui.find()


def test_an_old_comfyui_at_home_is_passed_over(alone):
    make_comfyui(alone / "home" / "comfy" / "ComfyUI", "0.3.64")
    assert comfyui.find() is None


# --- fetching -------------------------------------------------------------------------------------------------------


def test_a_fetched_release_holds_comfyui_alone(store, tmp_path):
    release = make_package(tmp_path / "fake.tar.gz")
    home = comfyui.fetch(release, store)
    assert home == store / "9.9.9"
    assert {path.name for path in home.iterdir()} == {"main.py", "nodes.py", "comfy", "comfyui_version.py"}
    assert list(store.iterdir()) == [home]


def test_a_release_is_fetched_once(store, tmp_path):
    release = make_package(tmp_path / "fake.tar.gz")
    comfyui.fetch(release, store)
    (tmp_path / "fake.tar.gz").unlink()
    assert comfyui.fetch(release, store) == store / "9.9.9"


def test_a_package_with_another_hash_is_refused_and_nothing_stays(store, tmp_path):
    release = make_package(tmp_path / "fake.tar.gz")
    make_package(tmp_path / "fake.tar.gz", ("fake-1.0/vendor/ComfyUI/evil.py", "evil"))
    with pytest.raises(ComfyUIMissingError, match="not the one we know"):
        comfyui.fetch(release, store)
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["fake-1.0/vendor/ComfyUI/../../../evil.py", "/evil.py", "../evil.py", "fake-1.0\\..\\evil.py"]
)
def test_a_member_outside_its_folder_is_refused_and_nothing_stays(store, tmp_path, name):
    release = make_package(tmp_path / "fake.tar.gz", (name, "evil"))
    with pytest.raises(ComfyUIMissingError, match="outside its folder"):
        comfyui.fetch(release, store)
    assert list(store.iterdir()) == []
    assert not list(tmp_path.rglob("evil.py"))


def test_a_link_in_a_package_is_not_made(store, tmp_path):
    path = tmp_path / "fake.tar.gz"
    make_package(path)
    contents = [("fake-1.0/vendor/ComfyUI/" + name, "") for name in ("main.py", "nodes.py", "comfy/sd.py")]
    with tarfile.open(path, "w:gz") as package:
        for name, _ in [*contents, ("fake-1.0/vendor/ComfyUI/comfyui_version.py", "")]:
            package.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("fake-1.0/vendor/ComfyUI/passwords")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        package.addfile(link)
    release = Release("9.9.9", "fake==1.0", hashlib.sha256(path.read_bytes()).hexdigest())
    assert not (comfyui.fetch(release, store) / "passwords").exists()


def test_a_package_without_comfyui_is_refused(store, tmp_path):
    path = tmp_path / "fake.tar.gz"
    with tarfile.open(path, "w:gz") as package:
        package.addfile(tarfile.TarInfo("fake-1.0/setup.py"))
    release = Release("9.9.9", "fake==1.0", hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ComfyUIMissingError, match="holds no ComfyUI"):
        comfyui.fetch(release, store)
    assert list(store.iterdir()) == []


# --- setting up -----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A checkout that looks completely set up, but for its stamp."""
    checkout = tmp_path / "checkout"
    (checkout / "dev").mkdir(parents=True)
    for name in setup.INPUTS:
        (checkout / name).write_text("numpy==2.4.6\ncomfy-kitchen==0.2.26\nsqlalchemy==2.1.9\n")
    home = make_comfyui(tmp_path / "store" / "0.30.0")
    make_comfyui(tmp_path / "store" / "0.16.3")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "bin" / "anydressing").touch()
    places = {"CHECKOUT": checkout, "VENV": venv, "PYTHON": venv / "bin" / "python", "STAMP": venv / "stamp"}
    places |= {"COMMAND": venv / "bin" / "anydressing", "TOOLS_STAMP": venv / "tools"}
    for name, value in {**places, "STORE": tmp_path / "store", "find": lambda: None}.items():
        monkeypatch.setattr(setup, name, value)
    (venv / "stamp").write_text(setup.stamp_for(home))
    return checkout


def test_a_complete_set_up_has_nothing_to_do(environment):
    assert setup.is_set_up()


def test_a_missing_command_is_written_by_another_set_up(environment):
    setup.COMMAND.unlink()
    assert not setup.is_set_up()


def test_the_command_runs_the_checkout_whatever_its_path(tmp_path, monkeypatch):
    python = tmp_path / "with space" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(setup, "PYTHON", python)
    monkeypatch.setattr(setup, "COMMAND", tmp_path / "with space" / "anydressing")
    setup.write_command()
    told = subprocess.run([setup.COMMAND, "--version"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert told.stdout == f"anydressing {VERSION}\n"


@pytest.mark.parametrize("name", setup.INPUTS)
def test_another_input_means_another_set_up(environment, name):
    (environment / name).write_text("changed")
    assert not setup.is_set_up()


def test_another_comfyui_means_another_set_up(environment, tmp_path, monkeypatch):
    own = make_comfyui(tmp_path / "own")
    monkeypatch.setattr(setup, "find", lambda: own)
    assert not setup.is_set_up()


def test_new_requirements_of_comfyui_mean_another_set_up(environment, tmp_path):
    (tmp_path / "store" / "0.30.0" / "requirements.txt").write_text("torch\nnew-thing\n")
    assert not setup.is_set_up()


def test_the_tools_are_in_a_complete_set_up(environment, monkeypatch):
    monkeypatch.setattr(setup, "run", lambda command, *_: pytest.fail(f"ran {command}"))
    assert setup.main(["--tools"]) == 0


def test_the_tools_are_set_up_without_comfyui_and_once(environment, monkeypatch):
    setup.STAMP.unlink()
    ran = []
    monkeypatch.setattr(setup, "make_venv", lambda: None)
    monkeypatch.setattr(setup, "get_comfyui", lambda: pytest.fail("fetched ComfyUI"))
    monkeypatch.setattr(setup, "run", lambda command, *_: ran.append([str(word) for word in command]))
    assert setup.main(["--tools"]) == setup.main(["--tools"]) == 0
    assert len(ran) == 1
    assert [word for word in ran[0] if word.endswith("requirements.txt")] == [str(environment / "requirements.txt")]
    assert not setup.is_set_up()


def test_a_step_that_fails_leaves_no_stamp(environment, monkeypatch, capsys):
    (environment / "constraints.txt").write_text("changed")
    monkeypatch.setattr(setup, "make_venv", lambda: None)
    monkeypatch.setattr(setup, "get_comfyui", lambda: setup.STORE / "0.30.0")
    monkeypatch.setattr(setup, "run", lambda *_: (_ for _ in ()).throw(setup.SetupError("uv failed\nrun it again")))
    assert setup.main() == 1
    assert capsys.readouterr().err == "\nuv failed\nrun it again\n"
    assert not setup.STAMP.exists()


def test_a_developers_own_comfyui_keeps_the_versions_it_asks_for(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "PINNED_PYTHON", (3, 0))
    pinned = setup.constraints_file(tmp_path / "store" / "0.30.0").read_text()
    assert pinned == "numpy==2.4.6\ncomfy-kitchen==0.2.26\nsqlalchemy==2.1.9\n"
    assert setup.constraints_file(make_comfyui(tmp_path / "own")).read_text() == "numpy==2.4.6\n"


def test_an_old_python_is_told_which_it_must_be(monkeypatch, capsys):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 1))
    assert setup.main() == 1
    assert "This is Python 3.9, but AnyDressing needs 3.10 or newer." in capsys.readouterr().err


# --- prompts --------------------------------------------------------------------------------------------------------


def test_undressing_feeds_the_sampler_with_the_bare_model():
    prompt = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
        "2": {"class_type": "AnyDressingApply", "inputs": {"model": ["1", 0]}},
        "3": {"class_type": "AnyDressingApply", "inputs": {"model": ["2", 0]}},
        "4": {"class_type": "KSampler", "inputs": {"model": ["3", 0], "seed": 1}},
    }
    assert undressed(prompt) == {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
        "4": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 1}},
    }


def test_differences_between_prompts_are_told_by_node_and_input():
    before = {"1": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2}}}
    after = {"1": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 3}}}
    assert list(differences(before, before)) == []
    assert list(differences(before, after)) == ["node 1 (KSampler), steps: the file has 2, the frontend 3"]
