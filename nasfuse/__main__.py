"""`python -m nasfuse` is the command `nasfuse`."""

from nasfuse.cli.app import program

program()
