"""Mean and standard deviation as the tables write them."""

from __future__ import annotations

import numpy as np


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Mean ± standard deviation (n - 1) of ``[n]``, n > 0; of one value without."""
    return f"{values.mean():.{digits}f}" + (f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else "")
