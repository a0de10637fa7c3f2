"""Texts without the secrets of the addresses in them."""

from __future__ import annotations

import pytest

from training.shown import all_without_secrets, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:secret@host/a/b?token=secret#secret", "https://host/a/b"),
        (":s3,access_key_id=me,secret_access_key=secret:bucket/runs", ":s3:bucket/runs"),
        ('store,pass="secret":runs', "store:runs"),
        ("two, three: four", "two, three: four"),
        ("s3://bucket/runs", "s3://bucket/runs"),
    ],
)
def test_the_place_stays(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


def test_texts_in_lists_in_mappings_and_as_names() -> None:
    address, place = "https://u:secret@host/a", "https://host/a"
    value = {"a": [address, 1, None], address: {"b": (address,), "c": 0.5}}
    assert all_without_secrets(value) == {"a": [place, 1, None], place: {"b": [place], "c": 0.5}}
