"""`python -m asymlib`, where the command is not on the path."""

from asymlib.cli import run

run()
