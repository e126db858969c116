"""`python -m erg_server`: the same command as `erg`, for where scripts are not on the path."""

from erg_server.cli import main

main(prog_name="erg")
