"""Settings: where values come from, what they may be, and what a message says."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.endpoints import endpoint_named
from bulkjobs.errors import ConfigError
from bulkjobs.settings import OPTIONS, Rate, Secret, Settings, default_pace, merge, parse_duration, parse_rate
from bulkjobs.settings.values import duration_text
from bulkjobs.sinks import open_sink

CANARY = "canary-7f3a"
CREDENTIALS = {"access_token", "client_id", "client_secret"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Each test runs where there is no bulkjobs.toml but its own."""
    monkeypatch.chdir(tmp_path)


def load(environ=None, toml=None, **options):
    if toml is not None:
        Path("bulkjobs.toml").write_text(toml, encoding="utf-8")
    return Settings.load(options, environ or {})


# The table


def test_every_setting_has_exactly_one_option():
    """No setting can be reached in two ways, and none in no way but the credentials."""
    fields = [option.field for option in OPTIONS]
    assert len(fields) == len(set(fields))
    assert {field.name for field in dataclasses.fields(Settings)} - CREDENTIALS <= set(fields)
    assert not CREDENTIALS & set(fields)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_default_shown_is_the_default_in_force(option):
    """What help says is what happens, wherever the text can be read as a value."""
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    default = defaults.get(option.field)
    if (
        default in (None, (), "default") or option.field == "state_dir"
    ):  # the command shares, a program has to ask
        return
    assert option.read(option.default, option.name) == default


def test_names_follow_from_the_option():
    """One name gives all three."""
    option = next(option for option in OPTIONS if option.name == "--max-active-jobs")
    assert (option.environ, option.key) == ("BULKJOBS_MAX_ACTIVE_JOBS", "max-active-jobs")


# Where a value comes from


def test_the_command_line_wins_over_environment_over_file_over_default():
    """Each place is asked only when the one before it says nothing."""
    toml = "workers = 3\n"
    environ = {"BULKJOBS_WORKERS": "5"}
    assert load().workers == 8
    assert load(toml=toml).workers == 3
    assert load(environ, toml=toml).workers == 5
    assert load(environ, toml=toml, workers="7").workers == 7


def test_a_named_file_replaces_the_one_in_the_directory(tmp_path):
    """--config, BULKJOBS_CONFIG and the argument do the same, and a file so named must exist."""
    (tmp_path / "bulkjobs.toml").write_text("workers = 3\n")
    (tmp_path / "other.toml").write_text("workers = 4\n")
    assert load(config="other.toml").workers == 4
    assert load({"BULKJOBS_CONFIG": "other.toml"}).workers == 4
    assert Settings.load({}, {}, tmp_path / "other.toml").workers == 4
    with pytest.raises(ConfigError, match=r"absent\.toml does not exist"):
        load(config="absent.toml")


def test_text_reads_the_same_everywhere_and_the_file_may_hold_values():
    """A rate is text in the file too; numbers, switches and lists may be TOML's own."""
    settings = load(
        toml='rate = "50/2s"\nlockout = 2.5\npoll = "250ms"\ndedupe = false\nsink = ["-", "a.jsonl"]\n'
        'max-active-jobs = "none"\n'
    )
    assert settings.rate == Rate(count=50, period_s=2.0)
    assert (settings.lockout_s, settings.poll_s) == (2.5, 0.25)
    assert settings.dedupe is False
    assert settings.sinks == ("-", "a.jsonl")
    assert settings.max_active_jobs is None


def test_none_on_the_command_line_is_a_value_and_not_a_gap():
    """`--rate none` beats a rate in the environment."""
    assert load({"BULKJOBS_RATE": "5/1s"}, rate="none").rate is None


def test_an_empty_environment_variable_is_not_set():
    """`BULKJOBS_WORKERS=` in a script means nothing."""
    assert load({"BULKJOBS_WORKERS": "", "BULKJOBS_ACCESS_TOKEN": ""}) == Settings()


def test_merge_gives_only_what_was_given():
    """Options that are no settings, such as --run, come along."""
    values = merge({"run": "x.run", "json": True, "workers": None}, {"BULKJOBS_QUIET": "yes"})
    assert {name: str(value) for name, value in values.items()} == {
        "run": "x.run",
        "json": "True",
        "quiet": "True",
    }


# What the file must not hold


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("rates = 5", ["bulkjobs.toml", "'rates'", "rate"]),
        ("workers = true", ["bulkjobs.toml: workers", "True", "1 to 1,024"]),
        ("workers = 0", ["bulkjobs.toml: workers", "1 to 1,024"]),
        ("rate = 5", ["bulkjobs.toml: rate", "900/5m"]),
        ("dedupe = 1", ["bulkjobs.toml: dedupe", "true or false"]),
        ("sink = [1]", ["bulkjobs.toml: sink"]),
        ("base-url = 1", ["bulkjobs.toml: base-url", "URL"]),
        ("poll = inf", ["bulkjobs.toml: poll", "above 0"]),
        ("poll = nan", ["bulkjobs.toml: poll", "above 0"]),
        ("[table]\na = 1", ["bulkjobs.toml", "'table'"]),
        ("config = 'x'", ["bulkjobs.toml", "'config'"]),
        ('run = "a\\u0000b"', ["bulkjobs.toml: run"]),
        ("workers =\n\n", ["bulkjobs.toml is not TOML", "line 1"]),
        ("workers = 3\nworkers = 4", ["bulkjobs.toml is not TOML"]),
    ],
)
def test_a_bad_file_is_refused_with_file_key_and_what_it_may_be(toml, words):
    """The message is enough to mend the file."""
    with pytest.raises(ConfigError) as caught:
        load(toml=toml)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("key", ["access-token", "access_token", "client-id", "CLIENT_SECRET"])
def test_credentials_in_the_file_are_refused_and_not_shown(key):
    """A file of options ends up in version control."""
    with pytest.raises(ConfigError, match="BULKJOBS_ACCESS_TOKEN") as caught:
        load(toml=f'{key} = "{CANARY}"')
    assert CANARY not in str(caught.value)


IN_THE_WRONG_OPTION = (
    f"{CANARY}-0123456789",
    f"https://me.example/hook?key={CANARY}",
    f"?k={CANARY}",
    f"postgresql://me:{CANARY}@db.example/ids",
    f"auto/{CANARY}-0123456789",
)


def complaint(take: Callable[..., object], *values: object, **named: object) -> str:
    """Gives the error with which values are not taken; nothing if they are."""
    try:
        take(*values, **named)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.name != "--config"], ids=lambda option: option.name
)
def test_no_option_shows_a_secret_that_was_meant_for_another(option):
    """Wherever it stands: the command line, the environment, the file, in a list, and in a program.

    A file of options that does not exist is named; who gives a secret for its path sees it.
    """
    for secret in IN_THE_WRONG_OPTION:
        said = complaint(load, **{option.field: secret})
        said += complaint(load, {option.environ: secret})
        for value in (f"'{secret}'", f"['{secret}', 1]", f"{{ a = '{secret}' }}"):
            said += complaint(load, toml=f"{option.key} = {value}")
        if option.field in {field.name for field in dataclasses.fields(Settings)}:
            said += complaint(Settings, **{option.field: secret})
            said += complaint(Settings, **{option.field: [secret]})
        assert option.key in said
        assert CANARY not in said


@pytest.mark.parametrize("secret", IN_THE_WRONG_OPTION)
def test_what_is_looked_up_later_shows_no_secret_either(secret):
    """An endpoint and a sink are any text until somebody looks for them."""
    for look_up in (endpoint_named, open_sink, parse_duration, parse_rate):
        said = complaint(look_up, secret)
        assert said
        assert CANARY not in said


def test_a_file_that_is_no_text_is_refused(tmp_path):
    """UTF-16 or a directory is an error with the path, not a traceback."""
    (tmp_path / "bulkjobs.toml").write_bytes(b"\xff\xfew\x00")
    with pytest.raises(ConfigError, match=r"bulkjobs\.toml is not TOML"):
        load()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder cannot be read"):
        load(config="folder")


# Times and rates


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("2d", 172_800), (" 5m ", 300)],
)
def test_a_time_is_a_number_and_a_unit(text, seconds):
    """Seconds when there is no unit."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1_0", "nan", "inf", "1e3", "5 m", "5x", "٣s", "1.", ".5", "m", "9" * 40, "5m30s", "5M"],
)
def test_anything_else_is_no_time(text):
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match="is not a time"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("900/5m", Rate(count=900, period_s=300)),
        ("50/2s", Rate(count=50, period_s=2)),
        ("1/250ms", Rate(count=1, period_s=0.25)),
        ("none", None),
        ("None", None),
    ],
)
def test_a_rate_is_a_count_in_a_time(text, rate):
    """Or none."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "0/5m",
        "5/0",
        "-5/5m",
        "5",
        "5/",
        "/5m",
        "5/5m/1",
        "1.5/1s",
        "10000001/1s",
        "5/2d",
        "5/25h",
        "many/1s",
        "",
    ],
)
def test_a_rate_that_makes_no_sense_is_refused(text):
    """None, too many, too long, or unreadable."""
    with pytest.raises(ConfigError):
        parse_rate(text)


@given(
    count=st.integers(1, 10_000_000),
    period=st.sampled_from([0.25, 1.0, 2.5, 59.0, 60.0, 90.0, 300.0, 3600.0, 86_400.0]),
)
def test_a_rate_reads_back_as_it_prints(count, period):
    """What status shows can be given as --rate."""
    rate = Rate(count=count, period_s=period)
    assert parse_rate(str(rate)) == rate


@given(st.integers(1, 10**6).map(lambda tenths: tenths / 10))
def test_a_time_reads_back_as_it_prints(seconds):
    """To the six digits that are printed."""
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-5)


@given(st.text(max_size=30))
def test_any_text_is_a_rate_or_a_config_error(text):
    """Nothing else ever comes out of a parser."""
    with suppress(ConfigError):
        assert isinstance(parse_rate(text), Rate | None)


# Ranges


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("workers", "0", ["--workers", "'0'", "1 to 1,024"]),
        ("workers", "1025", ["--workers", "1 to 1,024"]),
        ("workers", "1e3", ["--workers", "whole number"]),
        ("workers", "٣", ["--workers"]),
        ("workers", "9" * 5000, ["--workers", "1 to 1,024"]),
        ("rate", "0/5m", ["--rate", "'0/5m'", "none"]),
        ("rate", "nan/5m", ["--rate"]),
        ("lockout_s", "0", ["--lockout", "above 0"]),
        ("lockout_s", "8d", ["--lockout", "7d"]),
        ("pace", "default", ["--pace"]),
        ("max_active_jobs", "0", ["--max-active-jobs", "or none"]),
        ("chunk_size", "0", ["--chunk-size"]),
        ("chunk_size", "-1", ["--chunk-size"]),
        ("accept", "csv", ["--accept", "json or xml"]),
        ("on_unknown", "retry", ["--on-unknown", "hold"]),
        ("request_timeout_s", "0s", ["--request-timeout"]),
        ("connect_timeout_s", "2d", ["--connect-timeout", "1d"]),
        ("log_format", "yaml", ["--log-format", "text or json"]),
        ("run", " ", ["--run", "a path"]),
        ("sinks", "", ["--sink"]),
        ("endpoint", "", ["--endpoint"]),
    ],
)
def test_a_value_out_of_range_names_option_value_and_range(field, text, words):
    """Whoever reads it knows what to type."""
    with pytest.raises(ConfigError) as caught:
        load(**{field: text})
    for word in words:
        assert word in str(caught.value)


def test_the_environment_is_named_when_it_was_the_place():
    """Not the option, which nobody typed."""
    with pytest.raises(ConfigError, match=r"^BULKJOBS_WORKERS is 'x'"):
        load({"BULKJOBS_WORKERS": "x"})


@pytest.mark.parametrize(
    "values",
    [
        {"workers": 0},
        {"workers": True},
        {"workers": "8"},
        {"rate": "900/5m"},
        {"lockout_s": float("nan")},
        {"poll_s": float("inf")},
        {"pace": "fast"},
        {"chunk_size": 0},
        {"base_url": None},
        {"dedupe": None},
        {"sinks": ["-"]},
        {"access_token_file": "token"},
    ],
    ids=str,
)
def test_a_library_user_gets_the_same_ranges_on_values(values):
    """Settings made by hand are as safe as those read."""
    (name,) = values
    with pytest.raises(ConfigError, match=name):
        Settings(**values)


@pytest.mark.parametrize(
    ("count", "period"), [(0, 1), (1, 0), (1, -1), (True, 1), (1.5, 1), (1, float("nan")), (1, 86_401)]
)
def test_a_rate_cannot_be_made_wrong(count, period):
    """The engine need not check it again."""
    with pytest.raises(ConfigError):
        Rate(count=count, period_s=period)


def test_an_unknown_option_is_refused():
    """A misspelt field of a library user does not pass in silence."""
    with pytest.raises(ConfigError, match="'worker'"):
        load(worker="3")


def test_the_chunk_size_is_held_against_the_endpoint():
    """None takes the most there is."""
    assert Settings().chunk_size_within(10_000) == 10_000
    assert Settings(chunk_size=10_000).chunk_size_within(10_000) == 10_000
    with pytest.raises(ConfigError, match=r"10001; it may be 1 to 10,000"):
        Settings(chunk_size=10_001).chunk_size_within(10_000)


# What follows from the rate


@pytest.mark.parametrize(
    ("rate", "pace"),
    [
        (Settings().rate, Rate(count=12, period_s=1)),
        (Rate(count=30, period_s=300), Rate(count=10, period_s=1)),
        (Rate(count=50, period_s=2), Rate(count=100, period_s=1)),
        (Rate(count=10_000_000, period_s=0.001), Rate(count=10_000_000, period_s=1)),
        (None, None),
    ],
    ids=str,
)
def test_the_pace_is_four_times_the_mean_rate_and_at_least_ten_a_second(rate, pace):
    """Unless there is no rate."""
    assert default_pace(rate) == pace


@pytest.mark.parametrize(
    ("values", "seconds"),
    [({}, 300), ({"rate": None}, 300), ({"rate": Rate(count=1, period_s=7)}, 7), ({"lockout_s": 2.5}, 2.5)],
    ids=str,
)
def test_the_lockout_is_the_window_unless_given(values, seconds):
    """Five minutes when there is no window."""
    assert Settings(**values).effective_lockout_s == seconds


# Addresses


@pytest.mark.parametrize(
    "url",
    ["https://host.example/api", "http://127.0.0.1:8080/api", "http://localhost/api", "http://[::1]:1/api"],
)
def test_a_base_url_is_https_or_on_this_machine(url):
    """Its trailing slash goes."""
    assert Settings(base_url=url + "/").base_url == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://host.example/api", "--allow-http"),
        ("http://127.0.0.1.host.example/", "--allow-http"),
        ("https://user:secret@host.example/", "user name"),
        ("https://user@host.example/", "user name"),
        ("https://host.example/?key=secret", "query"),
        ("https://host.example/#part", "fragment"),
        ("https://host.example/?", "query"),
        ("host.example/api", "absolute URL"),
        ("/api", "absolute URL"),
        ("ftp://host.example/", "absolute URL"),
        ("https://", "absolute URL"),
        ("https://host.example:99999/", "absolute URL"),
        ("https://host.example:0/", "absolute URL"),
        ("https://[::1/", "absolute URL"),
        ("https://host.example/a b", "blank"),
        ("https://host.example/\n", "blank"),
        ("https://höst.example/", "ASCII"),
        ("https://host\\.example/", "name a host"),
        ("https://127.1/", "name a host"),
    ],
)
@pytest.mark.parametrize("field", ["base_url", "login_url"])
def test_an_address_that_could_lose_a_token_is_refused(field, url, why):
    """The message says why and shows no part that may be secret."""
    with pytest.raises(ConfigError, match=why) as caught:
        Settings(**{field: url})
    assert field in str(caught.value)
    assert "secret" not in str(caught.value)


def test_plain_http_must_be_asked_for():
    """For a test network, say."""
    assert Settings(base_url="http://10.0.0.1/x", allow_http=True).base_url == "http://10.0.0.1/x"


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/hook",
        "https://localhost/hook",
        "https://localhost./hook",
        "https://127.0.0.1/hook",
        "https://127.1/hook",
        "https://2130706433/hook",
        "https://0x7f000001/hook",
        "https://10.0.0.1/hook",
        "https://169.254.169.254/hook",
        "https://192.168.1.1/hook",
        "https://224.0.0.1/hook",
        "https://0.0.0.0/hook",
        "https://[::1]/hook",
        "https://[fe80::1]/hook",
        "https://[fd00::1]/hook",
        "https://[::ffff:127.0.0.1]/hook",
        "https://user:secret@host.example/hook",
        "https://host.example/hook#secret",
        "hook?key=secret",
    ],
)
def test_a_webhook_leads_to_a_public_host_over_https(url):
    """The server calls it: a private address would be somebody else's."""
    with pytest.raises(ConfigError, match="webhook") as caught:
        Settings(webhook=url)
    assert "secret" not in str(caught.value)


def test_a_webhook_may_have_a_query_which_no_repr_shows():
    """Receivers put a password there."""
    settings = Settings(webhook=f"https://hooks.example/x?key={CANARY}")
    assert CANARY in str(settings.webhook)
    assert CANARY not in repr(settings)
    assert Settings(webhook="http://127.0.0.1:1/x", allow_http=True).webhook is not None


# Credentials


def test_credentials_come_from_the_environment():
    """And from nowhere else."""
    settings = load(
        {"BULKJOBS_ACCESS_TOKEN": "a.b=", "BULKJOBS_CLIENT_ID": "id", "BULKJOBS_CLIENT_SECRET": CANARY}
    )
    assert settings.access_token == Secret("a.b=")
    assert settings.client_id == "id"
    assert settings.client_secret is not None
    assert settings.client_secret.reveal() == CANARY


@pytest.mark.parametrize("bad", ["a b", "a\nX-Header: 1", "a\n", "\ta", "tök", "a\x00"])
@pytest.mark.parametrize("name", ["ACCESS_TOKEN", "CLIENT_ID", "CLIENT_SECRET"])
def test_a_credential_that_could_break_a_header_is_refused_unseen(name, bad):
    """A line end in a token is an attack or an accident; neither is sent."""
    with pytest.raises(ConfigError, match=f"BULKJOBS_{name}") as caught:
        load({f"BULKJOBS_{name}": CANARY + bad})
    assert CANARY not in str(caught.value)


def test_two_tokens_or_half_a_login_are_refused():
    """Which one counts would be a guess."""
    with pytest.raises(ConfigError, match="two access tokens"):
        load({"BULKJOBS_ACCESS_TOKEN": "t"}, access_token_file="token")
    with pytest.raises(ConfigError, match="BULKJOBS_CLIENT_SECRET is missing"):
        load({"BULKJOBS_CLIENT_ID": "id"})
    with pytest.raises(ConfigError, match="BULKJOBS_CLIENT_ID is missing"):
        load({"BULKJOBS_CLIENT_SECRET": "s"})


@pytest.mark.parametrize(
    "show",
    [repr, str, "{}".format, lambda s: f"{s!r:>20}", lambda s: str([s]), lambda s: repr(Settings(access_token=s)),
     lambda s: str(dataclasses.asdict(Settings(access_token=s)))],
)  # fmt: skip
def test_no_way_of_printing_shows_a_secret(show):
    """Only `reveal` does."""
    assert CANARY not in show(Secret(CANARY))


def test_a_secret_is_a_value():
    """It compares, hashes, copies and pickles."""
    secret = Secret(CANARY)
    assert secret == Secret(CANARY) != Secret("other")
    assert len({secret, copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))}) == 1
    with pytest.raises(ConfigError):
        Secret("")
