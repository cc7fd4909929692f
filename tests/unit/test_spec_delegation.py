"""How an executed plugin answered: spec.md sections 12.1, 12.4 and 12.6."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec import delegation
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Result

quick = settings(max_examples=150, deadline=None)
STATUS = "exit status 3"


def outcome(function, *arguments):
    """What the call returned, and the CniError that it raised instead."""
    try:
        return function(*arguments), None
    except CniError as error:
        return None, error


@pytest.mark.parametrize("name", ["host-local", "a", "...", "my.plugin", "a:b"])
def test_plugin_name(name):
    """[F-01] [F-05] One path component is a name, used as it is."""
    assert delegation.validate_plugin_name(name) is None


@pytest.mark.parametrize("name", ["a/b", "/bin/sh", "../x", ".", "..", "a\0b", "/"])
def test_invalid_plugin_name(name):
    """[F-01] [F-03] [GE-05] A separator, a folder's name or NUL."""
    with pytest.raises(CniError) as caught:
        delegation.validate_plugin_name(name)
    assert caught.value.code == Code.INVALID_CONFIG
    assert caught.value.msg == f"invalid plugin name: {name}"


def test_no_plugin_name():
    """[F-01] An empty name comes first."""
    with pytest.raises(CniError) as caught:
        delegation.validate_plugin_name("")
    assert (caught.value.code, caught.value.msg) == (7, "no plugin name provided")


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        pytest.param("", [], id="[F-04] empty"),
        pytest.param("/a:/b", ["/a", "/b"], id="[F-02] in their order"),
        pytest.param("/a::/b:", ["/a", "/b"], id="[F-04] empty elements"),
        pytest.param("a:./b:../c:/d", ["/d"], id="[F-04] relative elements"),
    ],
)
def test_search_folders(path, folders):
    assert delegation.search_folders(path) == folders


def test_not_found():
    """[F-01] The folders are listed with blanks between them."""
    error = delegation.not_found("host-local", "/opt/cni/bin:/usr/lib/cni")
    assert error.code == Code.INTERNAL
    assert error.msg == 'failed to find plugin "host-local" in path [/opt/cni/bin /usr/lib/cni]'


def test_silent_failure():
    """[X-12] Neither stdout nor stderr."""
    error = delegation.failure(STATUS, b"", b"")
    assert (error.code, error.msg, error.details) == (
        0,
        "netplugin failed with no error message: exit status 3",
        "",
    )


def test_failure_with_stderr():
    """[X-12] [trap 22] The text on stderr, quoted."""
    error = delegation.failure(STATUS, b"", 'no "pool"\nsorry \u00e9'.encode())
    assert error.code == Code.UNKNOWN
    assert error.msg == 'netplugin failed: "no \\"pool\\"\\nsorry \u00e9": exit status 3'


@pytest.mark.parametrize("code", [1, 7, 11, 50, 51, 100, 999])
def test_failure_with_an_error_object(code):
    """[X-12] [21.20] The delegate's own error, private codes too; stderr is not quoted."""
    reported = {"cniVersion": "1.0.0", "code": code, "msg": "m", "details": "d", "x": 1}
    error = delegation.failure(STATUS, json.dumps(reported).encode(), b"log")
    assert (error.code, error.msg, error.details) == (code, "m", "d")
    assert str(error) == "m; d"


@pytest.mark.parametrize("reported", [{}, {"ips": []}, {"code": None, "msg": None}])
def test_failure_with_an_object_that_is_no_error(reported):
    """[X-12] Code 0; the text is never empty."""
    error = delegation.failure(STATUS, json.dumps(reported).encode(), b"")
    assert (error.code, error.msg) == (0, "the plugin failed without a message")


@pytest.mark.parametrize(
    ("stdout", "cause"),
    [
        ("panic: x", "JSON is malformed: "),
        ('{"code":1}{"code":2}', "JSON is malformed: trailing characters"),
        ("[]", "not a JSON object"),
        ('{"code":true,"msg":"m"}', "code is True"),
        ('{"code":"7","msg":"m"}', "code is '7'"),
        ('{"code":7.0,"msg":"m"}', "code is 7.0"),
        ('{"code":-1,"msg":"m"}', "code is -1"),
        ('{"code":7,"msg":5}', "msg or details is not a string"),
        ('{"code":7,"details":[]}', "msg or details is not a string"),
    ],
)
def test_failure_with_something_else(stdout, cause):
    """[X-12] [trap 6] [4.1] What is not an error object is quoted, with the reason."""
    error = delegation.failure(STATUS, stdout.encode(), b"")
    quoted = json.dumps(stdout)
    assert error.code == Code.UNKNOWN
    assert error.msg.startswith(
        f"netplugin failed but error parsing its diagnostic message {quoted}: {cause}"
    )


@quick
@given(st.binary(), st.binary(max_size=10))
def test_any_failure(stdout, stderr):
    """[X-12] [4.1] Any output becomes an error with a text and a code that is not negative."""
    error = delegation.failure(STATUS, stdout, stderr)
    assert error.code >= 0
    assert error.msg


def test_result():
    """[X-31] [DG-04] The result's own version counts, even against the configuration's."""
    stdout = b'{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.5/24"}}'
    assert str(delegation.result(stdout, "1.1.0").ips[0].address) == "10.0.0.5/24"


@pytest.mark.parametrize("version", ["", ',"cniVersion":""', ',"cniVersion":5'])
def test_result_without_a_version(version):
    """[X-31] [7.1] Read in the configuration's version, which is 0.1.0 when that is missing too."""
    stdout = b'{"ip4":{"ip":"10.0.0.5/24"}%s}' % version.encode()
    assert len(delegation.result(stdout, "0.2.0").ips) == 1
    assert len(delegation.result(stdout, "").ips) == 1
    assert delegation.result(stdout, "1.1.0") == Result()


@pytest.mark.parametrize("stdout", [b"null", b"{}"])
def test_null_result(stdout):
    """[X-30] `null` is an empty object."""
    assert delegation.result(stdout, "1.1.0") == Result()


def test_error_with_exit_status_zero():
    """[X-13] The exit status alone decides: it is an empty result."""
    assert delegation.result(b'{"code":7,"msg":"m"}', "1.1.0") == Result()


def test_ipam_result():
    """[8.8] No interfaces, no indexes."""
    stdout = b'{"ips":[{"address":"10.0.0.5/24"}],"dns":{"domain":"d"}}'
    result = delegation.result(stdout, "1.0.0")
    assert result.interfaces == ()
    assert result.ips[0].interface is None
    assert result.dns.domain == "d"


@pytest.mark.parametrize(
    ("stdout", "cause"),
    [
        (b"", "Input data was truncated"),
        (b'{}{"code":8}', "JSON is malformed: trailing characters"),
        (b"[]", "expected a result object, got array"),
        (b'{"cniVersion":"9.9.9"}', 'unsupported CNI result version "9.9.9"'),
        (b'{"ips":[{"address":"x"}]}', "$.ips[0].address: invalid CIDR address: x"),
    ],
)
def test_bad_result(stdout, cause):
    """[X-30] [P-06] [N-06] Code 6 with the reason; two documents are not a result."""
    with pytest.raises(CniError) as caught:
        delegation.result(stdout, "1.1.0")
    assert caught.value.code == Code.DECODING_FAILURE
    assert caught.value.msg.startswith(f"failed to unmarshal raw result: {cause}")


@quick
@given(
    st.binary() | st.builds(lambda x: json.dumps(x).encode(), st.lists(st.none() | st.text())),
    st.sampled_from(["", "0.2.0", "0.4.0", "1.1.0", "x"]),
)
def test_any_result(stdout, version):
    """[X-30] Any output is a result or code 6."""
    result, error = outcome(delegation.result, stdout, version)
    assert isinstance(result, Result) or error.code == Code.DECODING_FAILURE
    assert result is not None or error.msg.startswith("failed to unmarshal raw result: ")
