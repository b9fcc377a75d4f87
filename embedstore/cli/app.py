"""The command line application: its help panels and what all verbs share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import embedstore as es
from embedstore.cli import options as o

DESCRIPTION = "Embed an image collection once; search it, probe it and label it from the cached features."


class Panel(StrEnum):
    """The groups of verbs in ``embedstore --help``, by what a person wants to do."""

    PUT_IN = "Embed and import"
    SEARCH = "Search"
    CLASSIFY = "Classify"
    LABEL = "Label and clean"
    CHANGE = "Change"
    FINETUNE = "Fine-tune"
    KEEP_SAFE = "Keep safe"
    MEASURE = "Measure"


_TOO_MANY = "Got unexpected extra argument"  # as Typer begins the message
_QUOTES = 'put quotes around words that belong together ("a dog")'
_BACKBONE = "a backbone is named with --backbone NAME"

FIRST_VERBS = frozenset({"quickstart", "create", "embed", "search", "probe", "checkup"})  # of their panels


class PanelGroup(TyperGroup):
    """A group that lists its verbs by panel, in plain text; those that a newcomer needs come first."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; if there is a word too many, say how words are joined and how a backbone is named."""
        try:
            return super().invoke(ctx)
        except Exception as e:
            error: Any = e
            if str(getattr(e, "message", "")).startswith(_TOO_MANY):
                error.message += f"; {_QUOTES}"
                if any(parameter.name == "backbone" for parameter in error.ctx.command.params):
                    error.message += f"; {_BACKBONE}"
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section per panel."""
        for panel in Panel:
            verbs = [
                (name, command.get_short_help_str(limit=200))
                for name, command in sorted(self.commands.items(), key=lambda verb: verb[0] not in FIRST_VERBS)
                if getattr(command, "rich_help_panel", None) == panel
            ]
            if verbs:
                with formatter.section(panel):
                    formatter.write_dl(verbs)


app = typer.Typer(
    cls=PanelGroup,
    help=DESCRIPTION,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"embedstore {es.__version__}")
        raise typer.Exit


@app.callback(help=DESCRIPTION)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    show_timing: o.Timing = False,
) -> None:
    """Handle the options of the program itself."""
