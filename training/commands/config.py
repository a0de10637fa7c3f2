"""`config …`: what the settings are, for editors and programs."""

from __future__ import annotations

from typing import Annotated

import typer

config_app = typer.Typer(
    add_completion=False, rich_markup_mode="rich", help="The settings: `config schema` is what editors read."
)


@config_app.callback()
def _config() -> None:
    """Keep `schema` a command of its own, although there is no other."""


@config_app.command()
def schema(
    task: Annotated[
        str | None, typer.Option("--task", envvar="TASK", help="The task whose settings are shown.")
    ] = None,
) -> None:
    """Print a task's settings as JSON Schema: keys, types, limits, defaults, and what each means."""
    from training.config import name_of_task
    from training.config.json_schema import schema_text

    typer.echo(schema_text(name_of_task(task)), nl=False)
