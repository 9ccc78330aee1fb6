import pytest

from consumers.lake.layout import open_lake
from consumers.lake.storage import MemoryStorage


@pytest.fixture
def memory():
    storage = MemoryStorage()
    yield storage
    storage.close()


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path):
    if request.param == "memory":
        yield request.getfixturevalue("memory")
    else:
        yield open_lake(tmp_path / "lake", create=True)
