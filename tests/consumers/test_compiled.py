import numba

from consumers.compiled import compiled


def test_where_no_cache_can_be_written_it_is_compiled_all_the_same(monkeypatch):
    real, caches = numba.njit, []

    def njit(*args, cache=False, **kwargs):
        caches.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **kwargs)

    monkeypatch.setattr(numba, "njit", njit)
    found = compiled(numba.int64, numba.int64)(lambda a, b: a + b)
    assert found(2, 3) == 5
    assert caches == [True, False]
