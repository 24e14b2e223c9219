"""Starting up without what our libraries import for the sake of others. Touches Python's import system, and numba's
and Arrow's view of what is installed; only for processes that are Textmill's own.

Arrow imports pandas to see whether a list is a pandas one; numba imports SciPy to see whether BLAS is there, and every
package that registers itself as an extension of numba (gigatoken brings one, awkward). Textmill uses none of it, and
it takes longer to load than all the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import Any


class _Hidden(MetaPathFinder):
    """Answers that some packages are not installed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Nothing, so that the next finder is asked, unless the package is one of these."""
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{fullname} is not wanted while Textmill starts", name=fullname)


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Within it, importing one of these packages fails as if it were not installed; those imported before stay."""
    finder = _Hidden(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def start_lean() -> None:
    """Load Arrow and numba without pandas, SciPy and numba's extensions.

    Not for a process in which other code may run: its own kernels could not multiply matrices after it. pandas and
    SciPy themselves can be imported afterwards as ever.
    """
    with hidden("pandas", "scipy"):
        import pyarrow as pa

        pa.array([""])  # looks for pandas once
        import numba.core.entrypoints
        import numba.np.arraymath  # looks for SciPy once
    if hasattr(numba.core.entrypoints, "_already_initialized"):
        numba.core.entrypoints._already_initialized = True
