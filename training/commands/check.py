# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing data check`: a data set as a run will see it, or at the resolution that is named."""

from __future__ import annotations

from pathlib import Path

from ...anydressing_core.defaults import RESOLUTION
from ...anydressing_core.latents import Size
from ..data.check import check_data
from ..data.manifest import read_manifest
from ..dressing.build import lack_in_manifest
from ..dressing.config import TrainConfig
from ..progress import Progress, untold
from ..run.config import load_config

UNSAID = (
    f"Judged at {RESOLUTION[0]} x {RESOLUTION[1]}, since nothing else was said: --config FILE judges as that run will "
    "train, --resolution HxW at another size."
)


def check_for_run(
    manifest: Path,
    resolution: Size | None,
    config: Path | None,
    *,
    root: Path | None = None,
    tokenizer: Path | None = None,
    sheet: Path | None = None,
    progress: Progress = untold,
) -> tuple[str, int]:
    """What is wrong with a data set, as text, and the exit status: 1 when a run would be refused.

    resolution: None takes that of the configuration, or the default. config: of the run that will train; its tokenizer,
    its slots and its data's root count, too. root: where pictures lie that are not beside the manifest. The rest, and what is raised, as `check_data` has it.
    """
    settings = None if config is None else load_config(config, TrainConfig)
    size = resolution or (RESOLUTION if settings is None else settings.data.resolution)
    words = tokenizer or (None if settings is None else settings.base.tokenizer)
    root = root or (None if settings is None else settings.data.root)
    report = check_data(manifest, size, root=root, tokenizer=words, sheet=sheet, progress=progress)
    lack = None if settings is None else lack_in_manifest(settings, read_manifest(manifest, root))
    unsaid = UNSAID if resolution is None and settings is None else None
    more = [str(part) for part in (lack, unsaid) if part is not None]
    return "\n\n".join([report.render(), *more]), max(report.status, int(lack is not None))
