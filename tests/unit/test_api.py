"""Addresses and keys of servers as people write them."""

from __future__ import annotations

import pytest

from rollout.api import Api, address


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://host/api/paas/v4/completions", "https://host/api/paas/v4"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_what_people_write_for_it(url, root):
    assert address(url) == root


@pytest.mark.parametrize(
    "url", ["host:8000", "", "ftp://host", "http://", "http://host:port", "http://user:word@host/v1", "https://host/v1?key=x"]
)
def test_what_is_no_address_or_holds_a_key_is_refused(url):
    with pytest.raises(ValueError, match="--engine-url"):
        address(url)


def test_a_key_that_no_header_takes_is_refused_without_saying_it():
    with pytest.raises(ValueError, match="LACONIC_ENGINE_KEY") as caught:
        Api("http://host", "schlüssel")
    assert "schlüssel" not in str(caught.value)
