"""The command `erg`: finds every package's subcommands, and `erg serve`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from erg_server import __version__
from erg_server.build import build_kind
from erg_server.errors import ErgError
from erg_server.settings import ENV_PREFIX, is_repeatable, merge, read_settings_file, setting_fields, setting_type

COMMAND_GROUP = "erg.commands"


class PluginGroup(click.Group):
    """Subcommands come from the entry-point group `erg.commands`; one whose package lacks an extra says so."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of every installed subcommand."""
        return sorted({point.name for point in entry_points(group=COMMAND_GROUP)} | set(super().list_commands(ctx)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a subcommand when it is asked for, so that `erg serve` never imports the converters."""
        for point in entry_points(group=COMMAND_GROUP, name=cmd_name):
            try:
                command = point.load()
            except ImportError as error:
                return _unavailable(cmd_name, error)
            return command if isinstance(command, click.Command) else None
        return super().get_command(ctx, cmd_name)


def _unavailable(name: str, error: ImportError) -> click.Command:
    extra = {"convert": "convert", "load": "loadtest"}.get(name, "cpu")

    def fail() -> None:
        raise click.ClickException(f"'erg {name}' needs {error.name}: pip install 'erg[{extra}]'")

    return click.Command(
        name,
        callback=fail,
        help=f"(not installed: pip install 'erg[{extra}]')",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=PluginGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="erg", message=f"%(prog)s %(version)s ({build_kind()})")
def main() -> None:
    """Convert trained models into cheaper ones, serve them over gRPC, and say what a prediction costs."""


class GroupedCommand(click.Command):
    """A command whose help lists its options under the headings of their settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a group, in the order of declaration."""
        groups: dict[str, list[tuple[str, str]]] = {}
        headings = {item.name: item.metadata["group"] for item in setting_fields()}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(headings.get(parameter.name or "", "General"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option a setting. Their defaults stay with the settings, so that a flag left out is told from one given."""
    for item in reversed(setting_fields()):
        flag = f"--{item.name.replace('_', '-')}"
        kind: Any = click.Choice(item.metadata["choices"]) if item.metadata["choices"] else setting_type(item.name)
        default = () if is_repeatable(item.name) else item.default
        text = item.metadata["help"]
        if not is_repeatable(item.name) and default != "":
            text += f" [default: {str(default).lower() if isinstance(default, bool) else default}]"
        names = (f"{flag}/--no-{item.name.replace('_', '-')}",) if setting_type(item.name) is bool else (flag,)
        command = click.option(
            *names,
            item.name,
            type=None if setting_type(item.name) is bool else kind,
            multiple=is_repeatable(item.name),
            default=None,
            envvar=ENV_PREFIX + item.name.upper(),
            show_envvar=True,
            help=text,
        )(command)
    return command


_SERVE_HELP = """Serve the models of a repository over the Open Inference Protocol (gRPC).

\b
Examples:
  erg serve --model-repository model_repo
  erg serve --model-repository model_repo --model-control-mode poll
  ERG_GRPC_PORT=9000 erg serve --settings erg.toml

SIGTERM turns health to NOT_SERVING, lets accepted requests finish and exits with 0; --drain-delay-secs takes
new ones for a while, until balancers have heard of it.
"""
"""The \\b has click keep the lines as they are."""


@click.command(cls=GroupedCommand, short_help="Serve a model repository over gRPC.", help=_SERVE_HELP)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=f"{ENV_PREFIX}SETTINGS",
    show_envvar=True,
    help="TOML file of settings, keys as the flags (grpc_port = 8001). A variable overrides it, a flag overrides both.",
)
@_setting_options
def serve(settings_file: Path | None, **stated: Any) -> None:
    """Run the server until it is told to stop; its exit status is the process's."""
    try:
        values = read_settings_file(settings_file) if settings_file else {}
        values |= {name: value for name, value in stated.items() if value is not None and value != ()}
        settings = merge(values)
    except ErgError as error:
        raise click.UsageError(error.message) from error
    # Imported here: `erg serve --help` should not wait for gRPC and numpy.
    from erg_server.lifecycle import run_server  # noqa: PLC0415

    try:
        status = run_server(settings)
    except ErgError as error:
        raise click.ClickException(error.message) from error
    sys.stdout.flush()
    sys.exit(status)
