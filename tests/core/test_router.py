from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel._core.router import CACHE_SIZE, Router, check_pattern, is_exact, pattern_matches

PATTERN_WORDS = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=6)
SUBJECT_WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)


def oracle(pattern: list[str], subject: list[str]) -> bool:
    if not pattern:
        return not subject
    if pattern[0] == "#":
        return any(oracle(pattern[1:], subject[taken:]) for taken in range(len(subject) + 1))
    return bool(subject) and pattern[0] in {"*", subject[0]} and oracle(pattern[1:], subject[1:])


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#", "", True),
        ("*", "", False),
        ("#.b", "a.a.b", True),
        ("#.b", "a.b.a", False),
        ("*.#.b", "b", False),
        ("*.#.b", "a.b", True),
        ("a.b", "a.b.", False),
        ("a.b", "A.b", False),
    ],
)
def test_a_pattern_matches_what_amqp_says(pattern: str, subject: str, expected: bool) -> None:
    assert pattern_matches(pattern, subject) is expected


@given(PATTERN_WORDS, SUBJECT_WORDS)
def test_matching_agrees_with_the_naive_definition(pattern: list[str], subject: list[str]) -> None:
    assert pattern_matches(".".join(pattern), ".".join(subject)) is oracle(pattern, subject)


def test_many_hashes_take_no_exponential_time() -> None:
    started = time.perf_counter()

    matched = pattern_matches("#." * 200 + "z", "a." * 400 + "a")

    assert not matched
    assert time.perf_counter() - started < 1.0


@given(st.lists(PATTERN_WORDS, min_size=1, max_size=6), SUBJECT_WORDS)
def test_a_router_finds_a_target_exactly_if_a_pattern_matches(patterns: list[list[str]], words: list[str]) -> None:
    unique = {".".join(pattern) for pattern in patterns}
    subject = ".".join(words)

    target = Router.of((pattern, pattern) for pattern in unique).match(subject)

    assert (target is not None) is any(pattern_matches(pattern, subject) for pattern in unique)
    assert target is None or pattern_matches(target, subject)


@given(st.lists(PATTERN_WORDS, min_size=1, max_size=6), SUBJECT_WORDS)
def test_the_order_of_declaration_never_matters(patterns: list[list[str]], words: list[str]) -> None:
    unique = sorted({".".join(pattern) for pattern in patterns})
    subject = ".".join(words)

    forward = Router.of((pattern, pattern) for pattern in unique)
    backward = Router.of((pattern, pattern) for pattern in reversed(unique))

    assert forward.match(subject) == backward.match(subject)


@pytest.mark.parametrize(
    ("patterns", "winner"),
    [
        (["#", "a.b.c"], "a.b.c"),
        (["#", "*.*.*"], "*.*.*"),
        (["a.*.*", "a.b.*"], "a.b.*"),
        (["a.#", "a.*.*"], "a.*.*"),
        (["a.#", "a.*.#"], "a.*.#"),
        (["a.*.*", "a.b.#"], "a.b.#"),
        (["*.b.*", "a.*.*"], "a.*.*"),
    ],
)
def test_the_most_specific_pattern_wins(patterns: list[str], winner: str) -> None:
    assert Router.of((pattern, pattern) for pattern in patterns).match("a.b.c") == winner


def test_no_pattern_no_target() -> None:
    assert Router.of([("a", 1)]).match("b") is None


def test_more_subjects_than_the_cache_holds_are_all_matched() -> None:
    router = Router.of([("a.*", 1), ("b.*", 2)])

    targets = {router.match(f"a.{number}") for number in range(3 * CACHE_SIZE)}

    assert targets == {1}
    assert router.match("a.0") == 1


@pytest.mark.parametrize("pattern", ["a", "a.b", "*", "#", "a.*.#", "ä.b-c_d", "a b.c"])
def test_a_good_pattern_has_nothing_wrong(pattern: str) -> None:
    assert check_pattern(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [("", "empty"), ("a..b", "empty word"), (".a", "empty word"), (" a", "white space"), ("ord*.x", '"ord*"')],
)
def test_a_bad_pattern_is_described(pattern: str, fault: str) -> None:
    text = check_pattern(pattern)

    assert text is not None
    assert fault in text


def test_only_patterns_without_wildcards_are_exact() -> None:
    assert is_exact("a.b")
    assert not is_exact("a.*")
    assert not is_exact("#")
