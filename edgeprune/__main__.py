"""`python -m edgeprune` is the `edgeprune` command."""

from edgeprune.cli import main

main()
