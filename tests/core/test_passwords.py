"""What `kernel plan` shows of strings that hold a password."""

from __future__ import annotations

import pytest

from kernel._core.passwords import masked, masked_prose, names_a_password, passwords_in
from kernel._manifest.values import toml_text

CANARY = "canary"


def test_what_is_behind_an_at_in_a_password_is_one_as_well() -> None:
    """Who ends a password at its first one takes the rest for the name of a host, and quotes it."""
    assert "cleartext" in set(passwords_in("postgresql://app:p@cleartext@127.0.0.1/shop"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://u:canary@h:5672/v", "amqp://***@h:5672/v"),
        ("amqp://u:can/canary@h", "amqp://***@h"),
        ("amqp://u:can@canary@h", "amqp://***@h"),
        ("amqp://u:can:can?canary#@h/x", "amqp://***@h/x"),
        ("amqp://:canary@h", "amqp://***@h"),
        ("amqp://canary@h", "amqp://***@h"),
        ("amqp://u:ca nary@h", "amqp://***@h"),
        ("postgresql+psycopg://u:canary@[::1]:5/db", "postgresql+psycopg://***@[::1]:5/db"),
        ("amqp://u:canary@a,amqp://u:canary@b", "amqp://***@b"),
        ("jdbc:mysql://u:canary@h/db", "jdbc:mysql://***@h/db"),
        ("root:canary@tcp(127.0.0.1:3306)/db", "***@tcp(127.0.0.1:3306)/db"),
        ("u:canary@h/db", "***@h/db"),
        ("u:c@nary@h/db", "***@h/db"),
        ("https://h/x?password=canary", "https://h/x?password=***"),
        ("https://h/x?a=1&access_token=canary&b=2", "https://h/x?a=1&access_token=***&b=2"),
        ("https://h/x?api_key=canary", "https://h/x?api_key=***"),
        ("https://h/x?X-Amz-Signature=canary&y=1", "https://h/x?X-Amz-Signature=***&y=1"),
        ("host=h user=u password=canary dbname=d", "host=h user=u password=*** dbname=d"),
        ("host=h password='can\\' ary' dbname=d", "host=h password=*** dbname=d"),
        ("host=h password = canary", "host=h password = ***"),
        ("sslpassword=canary sslmode=require", "sslpassword=*** sslmode=require"),
        ("Server=h;Password=canary;Uid=u", "Server=h;Password=***;Uid=u"),
        ("Server=h;PWD={can;ary};Uid=u", "Server=h;PWD=***;Uid=u"),
        ("Endpoint=sb://h/;SharedAccessKey=canary==", "Endpoint=sb://h/;SharedAccessKey=***"),
        ("AccountName=a;AccountKey=canary", "AccountName=a;AccountKey=***"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("http://127.0.0.1:8080/a:b", "http://127.0.0.1:8080/a:b"),
        ("shop:Packer", "shop:Packer"),
        ("order.*", "order.*"),
        ("compass=1 tokens=2 passenger=x", "compass=1 tokens=2 passenger=x"),
        ("me@example.com", "me@example.com"),
        ("/srv/shop@2", "/srv/shop@2"),
    ],
)
def test_no_password_is_shown(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert CANARY not in masked(text)


@pytest.mark.parametrize(
    ("key", "is_masked"),
    [
        ("password", True),
        ("db_password", True),
        ("passwd", True),
        ("api_key", True),
        ("client_secret", True),
        ("auth.token", True),
        ("partition_key", False),
        ("tokens", False),
        ("routing_key", False),
        ("url", False),
    ],
)
def test_a_key_that_is_called_like_a_password_holds_one(key: str, is_masked: bool) -> None:
    assert names_a_password(key) is is_masked
    assert (CANARY in toml_text({"x": {key: CANARY}})) is not is_masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach amqp://u:can@nary@h: timed out, ask a@b", "cannot reach amqp://***@h: timed out, ask a@b"),
        ('{"url": "amqp://u:canary@h", "to": "a@b"}', '{"url": "amqp://***@h", "to": "a@b"}'),
        ("see http://h:80/x and mail a@b", "see http://h:80/x and mail a@b"),
        ("nothing", "nothing"),
    ],
)
def test_an_address_in_prose_loses_its_user_and_password(text: str, shown: str) -> None:
    assert masked_prose(text) == shown
