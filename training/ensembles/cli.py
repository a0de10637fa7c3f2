"""The commands `ensemble` and `sweep`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.errors import UsageError
from training.cli_options import Data, Datasets, Detach, Output
from training.commands.detach import detach as start_detached
from training.requests import DATASETS, OUTPUT, EnsembleRequest, SweepRequest


class Images(StrEnum):
    """Which images an ensemble is scored on."""

    TEST = "test"
    VAL = "val"
    TRAIN = "train"
    ALL = "all"


Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN…", help="Two runs or more: an id or its unique beginning, a folder, a checkpoint."),
]
File = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML or JSON with models: [RUN, …] instead of RUN….")
]
Tta = Annotated[
    bool | None,
    typer.Option("--tta/--no-tta", help="Average with the mirror image's prediction; on where pairs are known."),
]
Clahe = Annotated[
    bool | None, typer.Option("--clahe/--no-clahe", help="Checked against what the members were trained with.")
]
ClaheClip = Annotated[float | None, typer.Option("--clahe-clip", help="Likewise.")]
ClaheTile = Annotated[int | None, typer.Option("--clahe-tile", help="Likewise.")]
SplitSeed = Annotated[int | None, typer.Option("--split-seed", help="Evaluate this split, if not the first run's own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")]
Name = Annotated[str | None, typer.Option("--name", help="What the result is called.")]


def ensemble(
    runs: Runs = None,
    config: File = None,
    split: Annotated[Images, typer.Option("--split", help="Which images; all is every split's.")] = Images.TEST,
    data: Data = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W,W,…", help="How much each counts, in their order; else alike.")
    ] = None,
    tta: Tta = None,
    clahe: Clahe = None,
    clahe_clip: ClaheClip = None,
    clahe_tile: ClaheTile = None,
    split_seed: SplitSeed = None,
    allow_leaks: Annotated[
        bool,
        typer.Option("--allow-leaks", help="Go on where members have learned from every image; marks each number."),
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the JSON there too.")] = None,
    name: Name = None,
    as_json: Json = False,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> int:
    """Score the mean of several landmark models on images that none of them has learned from."""
    from training.ensembles.ensemble import ensemble as score
    from training.ensembles.spec import make_spec

    return score(
        EnsembleRequest(
            spec=make_spec(
                runs or (),
                config,
                weights=_weights(weights),
                tta=tta,
                split_seed=split_seed,
                claims=_claims(clahe, clahe_clip, clahe_tile),
                name=name,
            ),
            split=split.value,
            data=data,
            out=out,
            allow_leaks=allow_leaks,
            as_json=as_json,
            output=output,
            datasets=datasets,
        )
    )


def sweep(
    context: typer.Context,
    runs: Runs = None,
    config: File = None,
    sizes: Annotated[str, typer.Option("--k", metavar="K[,K…]", help="Members of a combination.")] = "4",
    data: Data = None,
    tta: Tta = None,
    clahe: Clahe = None,
    clahe_clip: ClaheClip = None,
    clahe_tile: ClaheTile = None,
    split_seed: SplitSeed = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write all combinations there, the best first.")
    ] = None,
    name: Name = None,
    as_json: Json = False,
    detach: Detach = False,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> int:
    """Choose the best combination of landmark models on validation images, and report it once on test."""
    if detach:
        return start_detached(context.obj or (), output)
    from training.ensembles.spec import make_spec
    from training.ensembles.sweep import sweep as search

    return search(
        SweepRequest(
            spec=make_spec(
                runs or (),
                config,
                tta=tta,
                split_seed=split_seed,
                claims=_claims(clahe, clahe_clip, clahe_tile),
                called="sweep",
                name=name,
            ),
            sizes=_sizes(sizes),
            data=data,
            out=out,
            as_json=as_json,
            output=output,
            datasets=datasets,
        )
    )


def _claims(clahe: bool | None, clip: float | None, tile: int | None) -> dict[str, Any]:
    said = {"clahe": clahe, "clahe_clip": clip, "clahe_tile": tile}
    return {key: value for key, value in said.items() if value is not None}


def _weights(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--weights {text!r}: expected numbers with commas between them, such as 2,1,1") from None


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise UsageError(f"--k {text!r}: expected whole numbers with commas between them, such as 4 or 2,3,4") from None
