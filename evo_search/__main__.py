"""``python -m evo_search``: the commands of this package only."""

from cg.cli import main
from evo_search.cli import register

if __name__ == "__main__":
    main([register], prog="python -m evo_search")
