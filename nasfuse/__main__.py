"""`python -m nasfuse` is the command `nasfuse`."""

from nasfuse.cli import main

main()
