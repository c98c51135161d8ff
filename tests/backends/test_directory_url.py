"""URLs of directories: what is read of them, what is refused, and what is shown."""

from __future__ import annotations

import pytest

from aldis.backends.directory_url import check_url, path_of, without_password
from aldis.backends.redis_url import RedisUrl


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisUrl("single", (("h", 6379),))),
        ("rediss://u:p@[::1]:1/3", RedisUrl("single", (("::1", 1),), database=3, user="u", password="p", tls=True)),
        ("redis://:p%40%2F@h", RedisUrl("single", (("h", 6379),), password="p@/")),
        (
            "redis+sentinel://u@a,b:5/main/2?tls=yes&ca_file=/ca.pem",
            RedisUrl("sentinel", (("a", 26379), ("b", 5)), "main", 2, "u", tls=True, ca_file="/ca.pem"),
        ),
        ("redis+cluster://a,b", RedisUrl("cluster", (("a", 6379), ("b", 6379)))),
    ],
)
def test_a_url_is_read(url: str, expected: RedisUrl) -> None:
    assert RedisUrl.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://s3cret@h", "redis://"),
        ("redis://s3cret@h:0", "a port from 1 to 65535"),
        ("redis://s3cret@h:x", "a port from 1 to 65535"),
        ("redis://s3cret@", "a host"),
        ("redis://s3cret@a,b", "one host"),
        ("redis://s3cret@h/name", "number of a database"),
        ("redis://s3cret@h#1", "without #"),
        ("redis://s3cret@h?tls=yes", "rediss://"),
        ("redis://s3cret@h?color=red", "one of the options"),
        ("redis+cluster://s3cret@h?tls=maybe", "tls=yes or tls=no"),
        ("redis+cluster://s3cret@h/1", "no databases"),
        ("redis+sentinel://s3cret@h", "the name of the master"),
        ("rediss://s3cret@h?cert_file=a", "together"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        check_url(url)
    assert "s3cret" not in str(refused.value)


def test_what_is_no_url_of_a_server_is_a_path() -> None:
    assert [path_of(text) for text in ("/a/b", "sqlite:/a", "c:/a", ":memory:", "redis://h")] == [
        *("/a/b", "/a", "c:/a", None, None)
    ]


def test_user_and_password_are_not_shown() -> None:
    assert without_password("redis+sentinel://u:p@a,b/main?tls=yes") == "redis+sentinel://a,b/main?tls=yes"
    assert without_password("redis://u:p@x@a/0") == "redis://a/0"
    assert "s3cret" not in repr(RedisUrl.parse("redis://:s3cret@h"))
    assert "s3cret" not in str(RedisUrl.parse("redis://:s3cret@h"))
