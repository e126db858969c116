"""`erg load` and its subcommands."""

from __future__ import annotations

import click

from erg_loadtest.compare_command import compare_runs
from erg_loadtest.run_command import run
from erg_loadtest.search_command import search
from erg_loadtest.sweep_command import sweep


class _RunByDefault(click.Group):
    """A group whose `run` may be left out: the first word is a model where it is no subcommand's name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` first unless a subcommand or the group's own help is asked for."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def load() -> None:
    """Load a v2 server and say what it did: `erg load MODEL` is `erg load run MODEL`."""


load.add_command(run)
load.add_command(compare_runs)
load.add_command(search)
load.add_command(sweep)
