"""Where the broker is, from flags and the environment, and that no password is shown on the way."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.errors import TlsError, UsageError
from amqpflow.rabbitmq.address import BrokerAddress, redact, resolve_address

URL = "amqp://user:secret@broker:5673/shop"
CERTIFICATES = Path(__file__).parents[2] / "tls"


def resolved(url: str | None = None, management_url: str | None = None, **environ: str) -> BrokerAddress:
    return resolve_address(url, management_url, environ=environ)


def test_a_url_in_parts() -> None:
    address = resolved(URL)
    assert (address.user, address.password, address.host, address.port) == ("user", "secret", "broker", 5673)
    assert (address.vhost, address.tls, address.source) == ("shop", False, "--url")


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/a%2Fb", "a/b"),
        ("amqp://h/caf%C3%A9", "café"),
    ],
)
def test_the_virtual_host_is_unquoted(url: str, vhost: str) -> None:
    assert resolved(url).vhost == vhost


@pytest.mark.parametrize("vhost", ["/", "a/b", "café", "a b", "100%", "amqpflow-test-1"])
def test_another_virtual_host_on_the_same_broker(vhost: str) -> None:
    other = resolved(URL).with_vhost(vhost)
    assert other.vhost == vhost
    assert (other.user, other.password, other.port) == ("user", "secret", 5673)


def test_defaults_are_those_of_rabbitmq() -> None:
    address = resolved("amqp://h")
    assert (address.user, address.password, address.port) == ("guest", "guest", 5672)
    assert resolved("amqps://h").port == 5671


def test_credentials_are_unquoted() -> None:
    address = resolved("amqp://us%40er:p%2F%3A%23@h")
    assert (address.user, address.password) == ("us@er", "p/:#")


# -- which one


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({"AMQPFLOW_URL": URL, "RABBITMQ_URL": "amqp://b", "CLOUDAMQP_URL": "amqp://c"}, "AMQPFLOW_URL"),
        ({"RABBITMQ_URL": URL, "CLOUDAMQP_URL": "amqp://c"}, "RABBITMQ_URL"),
        ({"CLOUDAMQP_URL": URL}, "CLOUDAMQP_URL"),
        ({"AMQPFLOW_URL": "", "RABBITMQ_URL": URL}, "RABBITMQ_URL"),
    ],
)
def test_the_first_variable_that_is_set_counts(environ: dict[str, str], source: str) -> None:
    address = resolve_address(environ=environ)
    assert (address.host, address.source) == ("broker", source)


def test_what_is_given_counts_more_than_the_environment() -> None:
    assert resolved("amqp://given", AMQPFLOW_URL=URL).host == "given"


def test_without_any_it_is_guest_on_this_machine() -> None:
    address = resolved()
    assert (address.host, address.user, address.source) == ("localhost", "guest", "default")


def test_a_variable_may_be_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text(f"{URL}\n")
    assert resolved(AMQPFLOW_URL_FILE=str(secret)).password == "secret"
    with pytest.raises(UsageError, match="both AMQPFLOW_URL and AMQPFLOW_URL_FILE"):
        resolved(AMQPFLOW_URL=URL, AMQPFLOW_URL_FILE=str(secret))
    with pytest.raises(UsageError, match="cannot read"):
        resolved(AMQPFLOW_URL_FILE=str(tmp_path / "missing"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker",
        "http://h",
        "amqp://",
        "amqp://h:port",
        "amqp://h:99999",
        "amqp://h:0",
        "amqp://[::1",
        "localhost:5672",
        "amqp://u:4/secret@h/",
        "amqp://u:4?secret@h/",
        "amqp://u:4#secret@h/",
        "amqp://u:pass@word/secret@h/v",
        "amqp://u:p@h/v@w",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="amqp://USER:PASSWORD@HOST:PORT/VHOST") as refused:
        resolved(url)
    assert "secret" not in f"{refused.value}{refused.value.hint}"


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(UsageError) as refused:
        resolved("ampq://user:secret@host")
    assert "secret" not in str(refused.value) + refused.value.hint


# -- the management API


def test_a_given_management_url_is_the_only_one() -> None:
    address = resolved(URL, "http://admin:pass@m:1234/prefix/")
    assert address.management_candidates() == ("http://m:1234/prefix",)
    assert address.management_credentials() == ("admin", "pass")


def test_a_derived_management_url_uses_amqp_s_credentials() -> None:
    assert resolved(URL).management_candidates() == ("http://broker:15672",)
    assert resolved("amqp://[::1]").management_candidates() == ("http://[::1]:15672",)
    assert resolved("amqps://h").management_candidates() == ("https://h", "https://h:15671")
    assert resolved(URL).management_credentials() == ("user", "secret")
    assert resolved(URL, "http://m:1").management_credentials() == ("user", "secret")


def test_the_management_url_may_come_from_the_environment(tmp_path: Path) -> None:
    found = resolved(AMQPFLOW_URL=URL, AMQPFLOW_MANAGEMENT_URL="https://m")
    assert (found.management_candidates(), found.unused) == (("https://m",), None)
    file = tmp_path / "m"
    file.write_text("https://in-file")
    found = resolved(AMQPFLOW_URL=URL, AMQPFLOW_MANAGEMENT_URL_FILE=str(file))
    assert found.management_candidates() == ("https://in-file",)


@pytest.mark.parametrize("name", ["AMQPFLOW_MANAGEMENT_URL", "AMQPFLOW_MANAGEMENT_URL_FILE"])
def test_a_url_that_is_given_makes_the_management_url_of_the_environment_void(name: str) -> None:
    """It may be another broker's. It is not even read, and the caller can say so."""
    found = resolved(URL, AMQPFLOW_URL="amqp://staging/", **{name: "no URL and no file"})
    assert (found.management_candidates(), found.unused) == (("http://broker:15672",), name)
    found = resolved(URL, "http://given:1", **{name: "no URL and no file"})
    assert (found.management_candidates(), found.unused) == (("http://given:1",), None)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://m:1/", "http://m:1"),
        ("http://m:1/api", "http://m:1"),
        ("http://m:1/rabbit/api/", "http://m:1/rabbit"),
        ("http://m:1/#/queues", "http://m:1"),
        ("http://[::1]:1/rabbit?x=1", "http://[::1]:1/rabbit"),
    ],
)
def test_a_management_url_may_have_a_path_in_front_of_the_api(given: str, used: str) -> None:
    assert resolved(URL, given).management_candidates() == (used,)


def test_a_password_never_goes_over_http_when_amqp_is_tls() -> None:
    with pytest.raises(UsageError, match="password would travel in clear"):
        resolved("amqps://h", "http://h:15672")


# -- secrecy


def test_neither_str_nor_repr_shows_a_password() -> None:
    address = resolved(URL, "http://admin:hidden@m:1")
    for shown in (str(address), repr(address), address.redacted, f"{address}"):
        assert "secret" not in shown
        assert "hidden" not in shown
    assert address.redacted == "amqp://user:***@broker:5673/shop"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://h/v?secret=1", "amqp://h/v"),
        ("amqp://:pw@h", "amqp://h"),
        ("amqp://u@h", "amqp://u:***@h"),
        ("amqps://u:p@[::1]:1/", "amqps://u:***@[::1]:1/"),
        ("amqp://u:4/secret@h:1/v", "amqp://u:***@h:1/v"),
        ("amqp://u:4?secret@h", "amqp://u:***@h"),
        ("amqp://u:4#secret@h#x", "amqp://u:***@h"),
        ("amqp://u:se@cret@h/v", "amqp://u:***@h/v"),
        ("amqp://u:secret@pass/word@h/v", "amqp://u:***@h/v"),
        ("amqp://u%3Asecret@h", "amqp://u:***@h"),
        ("amqp://u%3asecret@h", "amqp://u:***@h"),
        ("amqp://u:p@h/v?token=secret@x", "amqp://u:***@x"),
        ("amqp://u:secret://x@h", "amqp://u:***@h"),
        ("amqp://u:secret,amqp://x@h", "amqp://u:***@h"),
        ("amqp://u:%73ecret@[::1", "amqp://u:***@[::1"),
        (" amqp://u:\nsecret@h\n", "amqp://u:***@h"),
        ("u:secret@h", "u:***@h"),
        ("/run/secrets/url", "/run/secrets/url"),
    ],
)
def test_redacted_urls(url: str, shown: str) -> None:
    assert redact(url) == shown


@given(
    st.text(st.sampled_from("ab0/?#@:%3A,;[] \\"), max_size=8).map(lambda text: f"{text}SECRET"),
    st.text(st.sampled_from("ab0/?#@:%3A,;[] \\"), max_size=8),
    st.sampled_from(("amqp", "amqps", "http", "https")),
)
def test_no_password_is_shown_whatever_a_parser_makes_of_it(before: str, after: str, scheme: str) -> None:
    url = f"{scheme}://user:{before}{after}@host:1/v"
    assert redact(url) == f"{scheme}://user:***@host:1/v"
    amqp, management = (url, None) if scheme.startswith("amqp") else (None, url)
    try:
        address = resolve_address(amqp, management, environ={})
        shown = f"{address!r} {address} {address.host} {address.vhost} {address.management_candidates()}"
    except UsageError as refused:
        shown = f"{refused} {refused.hint}"
    assert "SECRET" not in shown


def test_a_url_that_was_written_where_a_file_belongs_is_not_shown() -> None:
    with pytest.raises(UsageError, match="AMQPFLOW_URL_FILE: cannot read amqp://u:") as refused:
        resolved(AMQPFLOW_URL_FILE="amqp://u:secret@h/")
    assert "secret" not in str(refused.value)
    assert "belongs into AMQPFLOW_URL" in refused.value.hint


# -- TLS


def test_tls_verifies_unless_told_otherwise() -> None:
    verifying = resolved("amqps://h").ssl_context()
    assert (verifying.verify_mode, verifying.check_hostname) == (ssl.CERT_REQUIRED, True)
    insecure = resolve_address("amqps://h", insecure=True, environ={}).ssl_context()
    assert (insecure.verify_mode, insecure.check_hostname) == (ssl.CERT_NONE, False)


def test_tls_files_are_read_for_each_connection(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key")}
    for name, file in files.items():
        file.write_bytes((CERTIFICATES / f"{name}.pem").read_bytes())
    certificate, key = map(str, files.values())
    address = resolve_address("amqps://h", environ={}, ca_file=certificate, cert_file=certificate, key_file=key)
    before = address.ssl_context().get_ca_certs()
    files["certificate"].write_bytes((CERTIFICATES / "next-certificate.pem").read_bytes())
    with pytest.raises(TlsError, match="KEY_VALUES_MISMATCH"):  # half of it is replaced: the next try finds both
        address.ssl_context()
    files["key"].write_bytes((CERTIFICATES / "next-key.pem").read_bytes())
    assert address.ssl_context().get_ca_certs() != before


@pytest.mark.parametrize("files", [{"ca_file": "missing.pem"}, {"cert_file": "missing.pem"}])
def test_a_tls_file_that_cannot_be_read_is_named(files: dict[str, Any]) -> None:
    with pytest.raises(TlsError, match=r"missing\.pem"):
        resolve_address("amqps://h", environ={}, **files).ssl_context()


def test_tls_files_may_come_from_the_environment() -> None:
    certificate, key = str(CERTIFICATES / "certificate.pem"), str(CERTIFICATES / "key.pem")
    address = resolved("amqps://h", AMQPFLOW_CA_FILE=certificate, AMQPFLOW_CERT_FILE=certificate, AMQPFLOW_KEY_FILE=key)
    assert (address.ca_file, address.cert_file, address.key_file) == (certificate, certificate, key)
    assert address.ssl_context().get_ca_certs()


# -- several nodes

CLUSTER = "amqp://u:p,w@a:5001/v, amqp://u:p,w@b/v,amqp://u:p,w@c/v"


def test_several_urls_are_the_nodes_of_a_cluster() -> None:
    address = resolved(CLUSTER)
    assert [(node.host, node.port, node.password, node.vhost) for node in address.nodes] == [
        ("a", 5001, "p,w", "v"),
        ("b", 5672, "p,w", "v"),
        ("c", 5672, "p,w", "v"),
    ]
    assert {node.vhost for node in address.with_vhost("w/x").nodes} == {"w/x"}
    assert address.management_candidates() == ("http://a:15672", "http://b:15672", "http://c:15672")
    assert address.redacted == "amqp://u:***@a:5001/v, amqp://u:***@b/v, amqp://u:***@c/v"
    assert "p,w" not in f"{address!r} {address}"


def test_nodes_are_tried_from_any_of_them_on() -> None:
    hosts = [[node.host for node in resolved(CLUSTER).starting_with(number).nodes] for number in range(4)]
    assert hosts == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize("url", ["amqp://a,amqps://b", "amqp://a,amqp://", "amqp://a,http://b"])
def test_urls_that_are_not_nodes_of_one_cluster_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        resolved(url)


def test_heartbeats_are_those_of_the_url_and_short_by_default() -> None:
    assert resolved(URL).heartbeat == 5
    assert resolved(f"{URL}?heartbeat=60").heartbeat == 60
    assert resolved(f"{URL}?heartbeat=0").with_vhost("other").heartbeat == 0
    assert [each.heartbeat for each in resolved(f"{URL}?heartbeat=7,{URL}").nodes] == [7, 5]


@pytest.mark.parametrize("given", ["5s", "", "-1", "1.5", "65535", "abc"])
def test_a_heartbeat_that_is_not_a_number_of_seconds_is_refused(given: str) -> None:
    """aiormq would switch heartbeats off without a word."""
    with pytest.raises(UsageError, match="is not a number of seconds") as refused:
        resolved(f"{URL},{URL}?heartbeat={given}")
    assert "secret" not in str(refused.value)
    assert "heartbeat=5" in refused.value.hint
