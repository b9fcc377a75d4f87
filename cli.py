"""``python cli.py …`` equals ``embedstore …``."""

from embedstore.cli import main

main()
