"""Functions compiled by numba for one set of types each, when their module is imported.

What is compiled is kept beside its file, or where NUMBA_CACHE_DIR says; where nothing can be written it is compiled
at every start (seconds). A kept one is made anew when its own file changes, not when that of a function does which it
calls: whoever changes such a one touches the callers' files too.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(*types: Any) -> Callable[[_Function], _Function]:
    """Return the decorator that compiles a function of arguments of these `types`."""

    def decorate(function: _Function) -> _Function:
        try:
            return numba.njit(types, cache=True, nogil=True)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # No directory for the cache can be written.
            return numba.njit(types, nogil=True)(function)  # type: ignore[no-any-return]

    return decorate
