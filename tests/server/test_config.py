"""The settings: precedence, and an error in words for everything that cannot be used."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_data_path

from aldis.errors import ConfigError
from aldis.server.config import SETTINGS, ServerConfig, help_of, load_config


def written(folder: Path, text: str) -> Path:
    path = folder / "aldis.toml"
    path.write_text(text)
    return path


def test_the_defaults_are_those_of_a_server_for_one_machine() -> None:
    config = load_config({}, {}, None)
    assert config == ServerConfig()
    assert (config.host, config.port, config.admin_host, config.admin_port) == ("127.0.0.1", 8080, "127.0.0.1", 9080)
    assert (config.auth, config.stun, config.turn, config.origins) == ("verify", (), (), ())
    assert config.data == str(user_data_path("aldis", appauthor=False))


def test_flags_win_over_the_environment_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, 'port = 1111\nhost = "h1"\nauth = "open"\n')
    environ = {"ALDIS_PORT": "2222", "ALDIS_HOST": "h2"}
    assert load_config({}, {}, None).port == 8080
    config = load_config({"port": 3333, "host": None}, environ, file)
    assert (config.port, config.host, config.auth, config.admin_port) == (3333, "h2", "open", 9080)


def test_every_setting_can_come_from_every_source(tmp_path: Path) -> None:
    samples: dict[str, str] = {
        "host": "::1",
        "port": "1",
        "admin_host": "::",
        "admin_port": "none",
        "admin_token": "a secret of the operator",
        "auth": "token",
        "data": ":memory:",
        "directory": "redis+sentinel://aldis:s3cret@10.0.0.5,10.0.0.6/mymaster",
        "redis": "rediss://aldis:s3cret@10.0.0.7/1",
        "redis_prefix": "town:",
        "workers": "4",
        "redis_password_file": str(tmp_path / "password"),
        "web": "no",
        "names": "a.example,b.example:8443",
        "base_path": "/a/b",
        "origins": "https://a.example, https://b.example",
        "trusted_proxies": "10.0.0.0/8, ::1",
        "proxy_protocol": "yes",
        "stun": "stun:a.example:3478",
        "stun_port": "3479",
        "stun_address": "signal.example",
        "stun_per_second": "100",
        "stun_per_address": "10",
        "turn": "turn:a.example?transport=udp, turns:b.example:443?transport=tcp",
        "turn_secret": "s3cret",
        "turn_check": "turn:127.0.0.1:3478",
        "turn_credential_lifetime": "3600",
        "turn_server": "yes",
        "relay": "no",
        "turn_address": "turn.example.com",
        "turn_port": "3479",
        "turn_tls_port": "5350",
        "turn_relay_ports": "50000-50100",
        "max_connections": "5",
        "handshakes": "3",
        "handshake_timeout": "2.5",
        "tls_handshakes": "10",
        "partial_requests_bytes": "65536",
        "registration_timeout": "9",
        "connections_per_address": "4",
        "connects_per_address": "5",
        "connects_per_second": "6",
        "max_message_bytes": "1024",
        "messages_per_second": "10",
        "new_names_per_address": "3",
        "bytes_per_second": "2048",
        "user_messages_per_second": "20",
        "user_bytes_per_second": "4096",
        "user_relayed_bytes_per_second": "4096",
        "user_discovers_per_second": "2",
        "user_sealed_bytes_per_second": "2048",
        "pair_sealed_bytes_per_second": "1024",
        "max_relay_file_bytes": "0",
        "resume_window": "0",
        "detached_bytes": "65536",
        "detached_bytes_per_user": "65536",
        "outgoing_queue_bytes": "600000",
        "presence_interval": "0.5",
        "memory_budget": "1000000",
        "devices_per_user": "3",
        "watches_per_session": "25",
        "watches_per_user": "30",
        "watchers_per_user": "40",
        "watches_bytes": "65536",
        "privacy_bytes": "65536",
        "privacy_names_per_user": "50",
        "failed_proofs_per_address": "7",
        "failed_proofs_per_name": "8",
        "failed_proofs_per_connection": "2",
        "ping_interval": "1.5",
        "drain_seconds": "0.5",
        "watchdog_seconds": "1.5",
        "tls_cert": "/c.pem",
        "tls_key": "/k.pem",
        "acme_domain": "",
        "acme_agree_tos": "yes",
        "acme_email": "admin@example.com",
        "acme_directory": "https://authority.example/directory",
        "acme_ca_file": "/ca.pem",
        "redirect_port": "80",
        "hsts": "no",
        "log_format": "json",
        "log_level": "DEBUG,hub=info",
        "log_addresses": "full",
        "name_policy": "closed",
        "jwks": "https://accounts.example/jwks.json",
        "jwks_refresh": "60",
        "token_audience": "aldis",
        "token_issuer": "https://accounts.example",
        "token_claim": "name",
        "token_device_claim": "device",
        "token_leeway": "5",
        "token_grace": "20",
        "hook_url": "https://app.example/aldis",
        "hook_secret": "0123456789abcdef0123456789abcdef",
        "hook_timeout": "2",
        "hook_cache": "0",
        "hook_concurrency": "4",
        "hook_failure": "allow",
        "presence_url": "https://app.example/presence",
        "presence_queue": "500",
    }
    assert set(samples) == set(SETTINGS)
    by_flags = load_config(dict(samples), {}, None)
    by_environment = load_config({}, {f"ALDIS_{name.upper()}": text for name, text in samples.items()}, None)
    natives: dict[str, str] = {
        "port": "1",
        "redirect_port": "80",
        "max_connections": "5",
        "handshakes": "3",
        "handshake_timeout": "2.5",
        "tls_handshakes": "10",
        "partial_requests_bytes": "65536",
        "registration_timeout": "9",
        "connections_per_address": "4",
        "connects_per_address": "5",
        "connects_per_second": "6",
        "max_message_bytes": "1024",
        "messages_per_second": "10",
        "new_names_per_address": "3",
        "bytes_per_second": "2048",
        "user_messages_per_second": "20",
        "user_bytes_per_second": "4096",
        "user_relayed_bytes_per_second": "4096",
        "user_discovers_per_second": "2",
        "user_sealed_bytes_per_second": "2048",
        "pair_sealed_bytes_per_second": "1024",
        "max_relay_file_bytes": "0",
        "resume_window": "0",
        "detached_bytes": "65536",
        "detached_bytes_per_user": "65536",
        "outgoing_queue_bytes": "600000",
        "presence_interval": "0.5",
        "memory_budget": "1000000",
        "devices_per_user": "3",
        "watches_per_session": "25",
        "watches_per_user": "30",
        "watchers_per_user": "40",
        "watches_bytes": "65536",
        "privacy_bytes": "65536",
        "privacy_names_per_user": "50",
        "failed_proofs_per_address": "7",
        "failed_proofs_per_name": "8",
        "failed_proofs_per_connection": "2",
        "ping_interval": "1.5",
        "drain_seconds": "0.5",
        "watchdog_seconds": "1.5",
        "names": '["a.example", "b.example:8443"]',
    }
    lines = [f"{name.replace('_', '-')} = {natives.get(name, repr(text))}\n" for name, text in samples.items()]
    by_file = load_config({}, {}, written(tmp_path, "".join(lines)))
    assert by_flags == by_environment == by_file
    assert by_flags.admin_port is None
    assert by_flags.names == ("a.example", "b.example:8443")
    assert by_flags.tls_cert == Path("/c.pem")
    assert by_flags.log_level == "debug,hub=info"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", "http", "a whole number from 0 to 65535"),
        ("port", "70000", "a whole number from 0 to 65535"),
        ("port", "-1", "a whole number from 0 to 65535"),
        ("port", "8080.0", "a whole number from 0 to 65535"),
        ("port", "٣", "a whole number"),
        ("port", "", "a whole number"),
        ("watchdog_seconds", "0.5", "0 or a number of seconds from 1 to 3600"),
        ("admin_port", "off", "none for no such port"),
        ("auth", "yes", "one of verify, token, open"),
        ("web", "maybe", "one of true, false, yes, no, on, off, 1, 0"),
        ("host", " ", "a text that is not empty"),
        ("data", " ", "a directory, or :memory: to keep nothing"),
        ("stun", "http://a.example", "a URL such as stun:"),
        ("turn", "stun:a.example", "a URL such as turn:"),
        ("turn", "turn:a.example:0", "no port"),
        ("stun", "stun:a.example?transport=tcp", "does not go over tcp"),
        ("stun", "stun:a..example", "not valid"),
        ("turn", "turn:a.example?transport=sctp", "a URL such as turn:"),
        ("trusted_proxies", "10.0.0.1/8", "an address or a network such as 10.0.0.0/8"),
        ("trusted_proxies", "::/64", "write 0.0.0.0/0 for these"),
        ("trusted_proxies", "proxy.example", "an address or a network"),
        ("origins", "a.example", "an origin such as https://example.com"),
        ("origins", "https://a.example/path", "an origin such as"),
        ("names", "https://a.example", "a host name"),
        ("resume_window", "-1", "a number of seconds from 0 to 3600"),
        ("resume_window", "nan", "a number of seconds"),
        ("ping_interval", "soon", "a number of seconds from 1 to 3600"),
        ("max_message_bytes", "1", "from 1024 to 524288 bytes"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("log_level", "moon=info", "areas: server, http"),
        ("name_policy", "open", "one of first-come, token, closed"),
        ("jwks", "http://accounts.example/jwks", "http only on this machine"),
        ("jwks", "https://me:secret@accounts.example/", "without a user name"),
        ("hook_url", "ftp://app.example/", "a URL such as https://accounts.example.com/aldis"),
        ("hook_url", "https://app.example/#here", "a URL such as"),
        ("hook_url", "https://app.example:0/", "a URL such as"),
        ("hook_url", "https://me@app.example/", "without a user name"),
        ("presence_url", "https://app.example/a b", "a URL such as"),
        ("hook_timeout", "60", "a number of seconds from 0.1 to 8"),
        ("hook_failure", "maybe", "one of deny, allow"),
        ("handshake_timeout", "0", "a number of seconds from 0.1 to 60"),
        ("registration_timeout", "0.5", "a number of seconds from 1 to 3600"),
        ("tls_handshakes", "9", "a whole number from 10 to 1000000"),
        ("partial_requests_bytes", "1000", "from 65536 to 1000000000000 bytes"),
        ("stun_per_address", "0", "a whole number from 1 to 1000000"),
        ("watches_per_session", "500001", "a whole number from 0 to 500000"),
        ("privacy_names_per_user", "10001", "a whole number from 0 to 10000"),
        ("failed_proofs_per_connection", "0", "a whole number from 1 to 1000000"),
        ("detached_bytes_per_user", "1", "from 65536 to 1000000000000 bytes"),
        ("outgoing_queue_bytes", "500000", "from 589824 to 1000000000 bytes"),
        ("turn_credential_lifetime", "599", "a whole number from 600 to 604800 seconds"),
    ],
)
def test_a_value_that_cannot_be_used_names_setting_source_and_what_is_expected(
    name: str, value: str, expected: str, tmp_path: Path
) -> None:
    variable = f"ALDIS_{name.upper()}"
    file = written(tmp_path, f"{name} = {value!r}\n")
    for flags, environ, path, source in (
        ({name: value}, {}, None, f"given with --{name.replace('_', '-')} "),
        ({}, {variable: value}, None, f"in the environment variable {variable} "),
        ({}, {}, file, f"in {file} "),
        (None, {}, None, ""),
    ):
        wrong: dict[str, Any] = {name: value}
        make = partial(ServerConfig, **wrong) if flags is None else partial(load_config, flags, environ, path)
        with pytest.raises(ConfigError) as raised:
            make()
        assert raised.value.setting == name
        assert source in str(raised.value)
        assert expected in str(raised.value)


@pytest.mark.parametrize(
    "text", ["port = true", "port = 1.5", "port = [1]", "stun = [1]", "auth = 5", "data = 5", "web = 1"]
)
def test_a_value_of_a_wrong_type_in_the_file_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected"):
        load_config({}, {}, written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("ON", True), ("1", True), ("No", False), (" 0 ", False)]
)
def test_a_switch_is_set_in_the_words_that_people_use(text: str, expected: bool, tmp_path: Path) -> None:
    assert load_config({}, {"ALDIS_WEB": text}, None).web is expected
    assert load_config({}, {}, written(tmp_path, f"web = {str(expected).lower()}")).web is expected
    assert load_config({"web": not expected}, {"ALDIS_WEB": text}, None).web is not expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("portt = 1", "portt: in FILE is no setting of this server; port is one, which looks like it"),
        ("admin_port = 1\nadmin-port = 2", "admin_port: is in FILE twice, with a hyphen and with an underscore"),
        (
            "mesages-per-second = 1",
            "mesages-per-second: in FILE is no setting of this server; messages_per_second is one,",
        ),
        ("[server]\nport = 1", "server: in FILE is no setting of this server; `aldis serve --help` lists all of them"),
    ],
)
def test_an_unknown_key_in_the_file_is_an_error_that_names_the_one_that_was_meant(
    tmp_path: Path, line: str, told: str
) -> None:
    file = written(tmp_path, line)
    with pytest.raises(ConfigError, match=re.escape(told.replace("FILE", str(file)))):
        load_config({}, {}, file)


def test_an_unknown_variable_is_a_warning_and_those_of_other_commands_are_not() -> None:
    environ = {"ALDIS_PROT": "1", "ALDIS_CONFIG": "x", "ALDIS_SERVER": "x", "ALDIS_DEBUG": "1", "OTHER": "x"}
    config = load_config({}, environ, None)
    assert config.warnings == (
        "the environment variable ALDIS_PROT is no setting of this server; ALDIS_PORT is one, which looks like it",
    )


def test_an_unknown_flag_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nonsense: is no setting"):
        load_config({"nonsense": 1}, {}, None)


@pytest.mark.parametrize("setting", ["turn_port", "turn_tls_port"])
def test_the_turn_server_has_ports_of_its_own(setting: str) -> None:
    """It listens at the address of the server, over TCP too; the server would find its port taken by its own child."""
    common = {"turn_server": True, "tls_cert": "c", "tls_key": "k", "port": 443, "redirect_port": 80}
    with pytest.raises(ConfigError, match=f"{setting}: 443 is the public port already; choose another one"):
        load_config({**common, setting: 443}, {}, None)
    with pytest.raises(ConfigError, match=f"{setting}: 80 is the redirect_port already; choose another one"):
        load_config({**common, setting: 80}, {}, None)
    assert load_config({**common, "turn_server": False, setting: 443}, {}, None).port == 443
    plain = ServerConfig(turn_server=True, port=5349)
    assert plain.turn_tls_port == 5349  # which stays closed without a certificate


def test_a_file_of_an_editor_of_windows_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbfport = 8081\r\n")
    assert load_config({}, {}, tmp_path / "marked.toml").port == 8081


def test_a_file_that_cannot_be_read_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config: cannot read .*: No such file"):
        load_config({}, {}, tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"config: .* is not TOML"):
        load_config({}, {}, written(tmp_path, "port ="))
    for unbearable in ("9" * 5000, "[" * 100_000):
        with pytest.raises(ConfigError, match=r"config: .* is not TOML"):
            load_config({}, {}, written(tmp_path, f"port = {unbearable}"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"config: .* is not TOML"):
        load_config({}, {}, tmp_path / "binary.toml")


def test_a_command_beside_the_server_needs_none_of_the_secrets_of_the_service(tmp_path: Path) -> None:
    file = written(tmp_path, 'data = "d"\nadmin_port = 8080\nport = 443\nturn = ["turn:a.example"]\n')
    with pytest.raises(ConfigError, match=r"turn_secret: .* a service may have it in its environment"):
        load_config({}, {}, file)
    config = load_config({}, {}, file, only=("data", "port", "admin_port"))
    assert (config.data, config.admin_port, config.port, config.turn) == ("d", 8080, 443, ())
    with pytest.raises(ConfigError, match="prot"):
        load_config({}, {}, written(tmp_path, "prot = 1"), only=("data",))


def test_settings_that_need_each_other_say_so() -> None:
    with pytest.raises(ConfigError, match="turn_secret: is needed with turn"):
        ServerConfig(turn=("turn:a.example",))
    with pytest.raises(ConfigError, match="turn_secret: is needed with turn_check"):
        ServerConfig(turn_check=("turn:a.example",))
    for url in ("turns:a.example", "turn:a.example?transport=tcp"):
        with pytest.raises(ConfigError, match="turn_check: asks over UDP only"):
            ServerConfig(turn_check=(url,), turn_secret="s3cret")
    with pytest.raises(ConfigError, match="tls_key: tls_cert and tls_key go together"):
        ServerConfig(tls_cert=Path("c.pem"))
    with pytest.raises(ConfigError, match="tls_cert: tls_cert and tls_key go together"):
        ServerConfig(tls_key=Path("k.pem"))


@pytest.mark.parametrize(
    "url", ["https://me:s3cret@app.example/", "https://me:s3cr@t/s3cret@app.example/", "ftp://s3cret@h/"]
)
def test_a_password_in_a_url_is_in_no_error(url: str) -> None:
    for name in ("jwks", "hook_url", "presence_url"):
        with pytest.raises(ConfigError) as caught:
            load_config({name: url}, {}, None)
        assert "s3cret" not in str(caught.value)


def test_the_secret_is_in_no_error_and_no_representation() -> None:
    assert "s3cret" not in repr(ServerConfig(turn_secret="s3cret"))
    with pytest.raises(ConfigError) as raised:
        ServerConfig(turn_secret=["s3cret"])  # type: ignore[arg-type]
    assert "s3cret" not in str(raised.value)


def test_settings_cannot_be_changed_and_all_are_explained() -> None:
    config = ServerConfig()
    with pytest.raises(FrozenInstanceError):
        config.port = 1
    assert {*SETTINGS, "warnings"} == {field.name for field in fields(ServerConfig)}
    for name in SETTINGS:
        assert help_of(name).endswith(".")


def test_a_home_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert ServerConfig(data="~/aldis").data == "/home/alice/aldis"
    assert ServerConfig(data=Path("/x")).data == "/x"  # type: ignore[arg-type]


def test_a_base_path_is_read_without_its_last_slash_and_names_as_clients_send_them() -> None:
    assert [ServerConfig(base_path=path).base_path for path in ("", "/", "/a/", "/a/b-c")] == ["", "", "/a", "/a/b-c"]
    assert ServerConfig(names=("Bücher.example:443",)).names == ("xn--bcher-kva.example",)
    for setting in ({"base_path": "a"}, {"base_path": "//a"}, {"base_path": "/a b"}, {"names": ("a.example:99999",)}):
        with pytest.raises(ConfigError):
            ServerConfig(**setting)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in ("host", "admin_host")
            for value in ("a b", "a\0b", "x" * 300, "http://a", "\ud800")
        ],
        *[(name, value) for name in ("data", "tls_cert", "tls_key") for value in ("a\0b", Path("a\0b"), "\ud800")],
        *[("base_path", value) for value in ("/a/../b", "/.", "/a/..", "/./a")],
        *[("names", value) for value in ("a..example", "xn--a.example", "256.1.1.1")],
        *[
            ("origins", value)
            for value in ("https://a:99999", "https://a:0", "https://a..b", "https://u@a", "https://")
        ],
        *[("turn_secret", value) for value in ("\ud800",)],
    ],
)
def test_what_could_only_fail_later_is_told_at_once(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as raised:
        ServerConfig(**{name: value})  # type: ignore[arg-type]
    assert raised.value.setting == name


def test_origins_are_kept_as_browsers_send_them() -> None:
    origins = (
        "https://A.example:443",
        "HTTPS://ΚΌΣΜΟΣ.example",
        "http://a.example:80",
        "https://bücher.example:8443",
        "null",
        "app://x.y",
    )
    assert ServerConfig(origins=origins).origins == (
        "https://a.example",
        "https://xn--vxaejoc4c.example",
        "http://a.example",
        "https://xn--bcher-kva.example:8443",
        "null",
        "app://x.y",
    )


@pytest.mark.parametrize(
    ("host", "admin_host"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1")]
)
def test_the_admin_port_is_another_port(host: str, admin_host: str) -> None:
    with pytest.raises(ConfigError, match="admin_port: 8080 is the public port already"):
        ServerConfig(host=host, admin_host=admin_host, admin_port=8080)
    tls = {"tls_cert": "c", "tls_key": "k", "redirect_port": 8081}
    with pytest.raises(ConfigError, match="admin_port: 8081 is the redirect_port already"):
        load_config({"host": host, "admin_host": admin_host, "admin_port": 8081, **tls}, {}, None)
    assert ServerConfig(host="127.0.0.2", admin_host=admin_host, admin_port=8080).admin_port == 8080
    assert ServerConfig(port=0, admin_port=0).port == 0


@pytest.mark.parametrize(
    ("settings", "setting", "problem"),
    [
        ({"auth": "token"}, "jwks", "is needed with auth = token"),
        ({"jwks": "/keys.json"}, "jwks", "is of no use with auth = verify"),
        ({"name_policy": "token"}, "name_policy", "needs auth = token"),
        ({"auth": "open", "name_policy": "token"}, "name_policy", "needs auth = token"),
        ({"hook_url": "https://app.example/"}, "hook_secret", "needs 32 bytes or more"),
        ({"presence_url": "https://app.example/", "hook_secret": "short"}, "hook_secret", "needs 32 bytes or more"),
    ],
)
def test_settings_of_accounts_that_do_not_go_together_are_an_error(
    settings: dict[str, Any], setting: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        ServerConfig(**settings)
    assert raised.value.setting == setting


HOOK: dict[str, Any] = {"hook_url": "https://app.example/", "hook_secret": "x" * 32}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"max_message_bytes": 512 * 1024, "outgoing_queue_bytes": 700_000},
            "outgoing_queue_bytes: with max_message_bytes = 524288, a client that comes back may be sent 851968 bytes "
            "at once; set that, or more",
        ),
        (
            {**HOOK, "hook_timeout": 5, "registration_timeout": 5},
            "registration_timeout: has to be longer than hook_timeout (5 s), or clients are closed while hook_url is",
        ),
    ],
)
def test_limits_that_do_not_go_together_are_an_error(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        ServerConfig(**settings)


def test_limits_go_together_up_to_the_last_byte_and_second() -> None:
    assert ServerConfig(max_message_bytes=512 * 1024).outgoing_queue_bytes == 1024 * 1024
    assert ServerConfig(outgoing_queue_bytes=589_824).outgoing_queue_bytes == 589_824
    longest = 512 * 1024
    assert ServerConfig(max_message_bytes=longest, outgoing_queue_bytes=851_968).max_message_bytes == longest
    assert ServerConfig(hook_timeout=5, registration_timeout=5).registration_timeout == 5
    assert ServerConfig(**HOOK, hook_timeout=5, registration_timeout=5.5).hook_timeout == 5


def test_a_memory_budget_that_was_meant_as_gigabytes_is_a_warning() -> None:
    (warning,) = load_config({"memory_budget": 4}, {}, None).warnings
    assert warning == "memory_budget: 4 bytes leave no room for clients; a gigabyte is 1000000000"
    assert load_config({"memory_budget": 1_000_000}, {}, None).warnings == ()


def test_a_limit_that_was_set_and_limits_nothing_is_a_warning() -> None:
    low = {"watches_per_user": "5", "stun_per_second": "5", "detached_bytes": "65536"}
    assert load_config(low, {}, None).warnings == ()
    given = {"watches_per_user": 20, "watches_per_session": 21, "stun_per_second": 20, "stun_per_address": 20}
    (warning,) = load_config(given, {}, None).warnings
    assert warning == "watches_per_session is above watches_per_user, which holds for it too"


def test_with_tokens_a_name_belongs_to_its_token_unless_the_operator_says_otherwise() -> None:
    assert ServerConfig().name_policy == "first-come"
    assert ServerConfig(auth="token", jwks="/keys.json").name_policy == "token"
    assert ServerConfig(auth="token", jwks="/keys.json", name_policy="first-come").name_policy == "first-come"
    assert ServerConfig(auth="token", jwks="http://127.0.0.1:5000/jwks").jwks == "http://127.0.0.1:5000/jwks"


def test_an_application_that_is_told_over_plain_http_elsewhere_is_a_warning() -> None:
    flags = {"hook_url": "http://app.example/", "hook_secret": "x" * 32, "presence_url": "http://localhost:1/"}
    (warning,) = load_config(flags, {}, None).warnings
    assert warning.startswith("hook_url is plain http to another machine")
