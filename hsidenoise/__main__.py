"""``python -m hsidenoise``."""

from .cli import main

main()
