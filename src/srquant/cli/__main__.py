"""``python -m srquant.cli``, for instance under torchrun."""

from srquant.cli.main import main

main()
