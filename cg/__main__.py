"""``python -m cg``: the same as the command ``cg``."""

from cg.cli import main

if __name__ == "__main__":
    main()
