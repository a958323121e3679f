"""`python -m asymlib.cli`, where the command is not on the path."""

from asymlib.cli import run

run()
