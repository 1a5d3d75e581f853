"""`python -m aloha_runtime.cli` is `aloha`."""

from aloha_runtime.cli import main

main()
