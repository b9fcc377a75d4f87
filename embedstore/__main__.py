"""``python -m embedstore``."""

from embedstore.cli import main

main()
