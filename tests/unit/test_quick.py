"""What imports rest from, other code gets back."""

from __future__ import annotations

import gc

import pytest

from replstore.cli.quick import importing


def test_garbage_is_not_searched_for_while_a_command_imports_and_is_afterwards() -> None:
    frozen = gc.get_freeze_count()
    try:
        with importing(), importing():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError
    gc.unfreeze()
    assert gc.isenabled()


def test_a_program_that_has_switched_the_collector_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.unfreeze()
        gc.enable()
