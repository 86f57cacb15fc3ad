"""One process for all files that kill runs: its imports are the dearest part of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.test_p23_kill_anywhere import Killer


@pytest.fixture(scope="session")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("killer"))
    yield killer
    killer.close()
