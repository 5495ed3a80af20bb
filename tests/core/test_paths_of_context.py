"""Where files are that a configuration names."""

from __future__ import annotations

import pytest

from kernel.errors import StartupError
from kernel.testing import fake_context


def test_a_name_that_no_file_can_have_is_no_reason_to_try_again() -> None:
    with pytest.raises(StartupError, match="driver/d: a name of a file has the character NUL"):
        fake_context("driver/d").path("ca\0.pem")
