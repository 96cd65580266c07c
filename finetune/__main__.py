"""``python -m finetune``: the commands of this package only."""

from cg.cli import main
from finetune.cli import register

if __name__ == "__main__":
    main([register], prog="python -m finetune")
