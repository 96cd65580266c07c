"""The torch modules of the search spaces. Only these files import torch; import them inside ``to_torch``."""
