"""What a training tells the registry. Nothing here can fail or hold up the training."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from training.registry.index import CopyError, Registry
from training.registry.place import registry_place

_PATIENCE_SECONDS = 2.0  # a machine that is about to go away gives ten for everything


def register_run(folder: Path, output: Path, say: Callable[[str], None]) -> None:
    """Put the run on the list as it is now; where that does not work, a warning, since `runs` finds it anyway.

    The list is that of ``output`` or, for a run in another output folder, that folder's.
    """
    path = registry_place(output, os.environ)
    try:
        own = _output_of(folder, output)
        path = registry_place(own, os.environ)
        Registry(path, own, say).register(folder, _PATIENCE_SECONDS)
    except CopyError as error:
        say(f"note: the scores stay out of {path}: {error}")
    except Exception as error:  # whatever it is: the training is worth more than its line in a list
        say(f"warning: the run is not noted in {path} ({error}); the training goes on, and `runs list` finds it anyway")


def _output_of(folder: Path, output: Path) -> Path:
    """Where the runs lie that ``folder`` is one of: ``<output>/<task>/<run>``; by itself it counts to ``output``."""
    from training.reporting.run_folder import RunFolder

    place = folder.resolve()
    if place.is_relative_to(output.resolve()) or RunFolder(folder).metadata.get("task") != place.parent.name:
        return output
    return place.parent.parent
