"""The error object and the mapping of exceptions: spec.md sections 2.3 and 4."""

import errno
import os
from itertools import pairwise

import pytest

from cni_py.spec.errors import CniError, Code, cni_error_of


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0, "UNKNOWN"),
        (1, "INCOMPATIBLE_VERSION"),
        (2, "UNSUPPORTED_FIELD"),
        (3, "UNKNOWN_CONTAINER"),
        (4, "INVALID_ENVIRONMENT"),
        (5, "IO_FAILURE"),
        (6, "DECODING_FAILURE"),
        (7, "INVALID_CONFIG"),
        (8, "INVALID_NETNS"),
        (11, "TRY_AGAIN_LATER"),
        (50, "PLUGIN_NOT_AVAILABLE"),
        (51, "LIMITED_CONNECTIVITY"),
        (999, "INTERNAL"),
    ],
)
def test_code(code, name):
    """[4.2] [S-02] [19.9] The catalogue, with 8 and 999 of the reference."""
    assert Code[name] == code
    assert len(Code) == 13


@pytest.mark.parametrize(
    ("details", "text"), [("", "no address"), ("pool is full", "no address; pool is full")]
)
def test_text_form(details, text):
    """[4.1] `msg` or `msg; details` when one error stands inside another."""
    assert str(CniError(100, "no address", details)) == text


def test_private_code():
    """[4.1] Codes from 100 on belong to the plugins and are kept."""
    error = CniError(4711, "mine")
    assert (error.code, error.msg, error.details) == (4711, "mine", "")
    assert type(CniError(Code.UNKNOWN, "x").code) is int


def raised(*errors):
    """The last error, each caused by the one before it."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


def test_plain_error_is_internal():
    """[D-05] [C-03] [21.11] Anything else is code 999 with its text."""
    mapped = cni_error_of(ValueError("what"))
    assert (mapped.code, mapped.msg) == (Code.INTERNAL, "what")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EEXIST, Code.INTERNAL),
        (errno.ENOSPC, Code.IO_FAILURE),
        (errno.EIO, Code.IO_FAILURE),
        (errno.EROFS, Code.IO_FAILURE),
        (errno.EMFILE, Code.TRY_AGAIN_LATER),
        (errno.ENOBUFS, Code.TRY_AGAIN_LATER),
    ],
)
def test_what_the_system_refuses(number, code):
    """[C-03] The path, and what the system says of it."""
    mapped = cni_error_of(OSError(number, os.strerror(number), "/run/x"))
    assert (mapped.code, mapped.msg) == (code, f"/run/x: {os.strerror(number)}")
    assert cni_error_of(OSError(number, "")).msg == os.strerror(number)


def test_error_without_text():
    """[D-05] The message is never empty: the type's name stands in."""
    assert cni_error_of(KeyError()).msg == "KeyError"
    assert cni_error_of(RuntimeError()).code == Code.INTERNAL


def test_nested_error_comes_out_as_it_is():
    """[D-05] [21.11] The CNI error inside speaks; the words around it are lost."""
    inner = CniError(11, "busy", "again")
    assert cni_error_of(raised(inner, ValueError("a"), RuntimeError("b"))) is inner


def test_outermost_error_wins():
    """[D-05] The first CNI error along the chain."""
    outer = raised(CniError(11, "inner"), ValueError("x"), CniError(7, "outer"))
    assert cni_error_of(outer) is outer


def test_unrelated_context_does_not_speak():
    """[D-05] Only explicit causes count."""
    error = RuntimeError("boom")
    error.__context__ = CniError(11, "handled before")
    assert cni_error_of(error).code == Code.INTERNAL
    assert cni_error_of(error).msg == "boom"
