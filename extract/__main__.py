"""``python -m extract``: the commands of this package only."""

from cg.cli import main
from extract.cli import register

if __name__ == "__main__":
    main([register], prog="python -m extract")
