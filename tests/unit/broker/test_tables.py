"""Prices, providers, keys, limits: what the broker decides by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentorch.broker import keys, prices, providers, rate_headers
from agentorch.broker.keys import Keys
from agentorch.broker.usage_meter import Usage
from agentorch.broker.wire_formats import Wire, upstream_url, wire_of
from agentorch.core.errors import Misconfigured

NOWHERE = Path("/nonexistent/x.toml")
NOW = 1_800_000_000.0


# ---- prices -----------------------------------------------------------------------------------


def cost(model: str, tokens_in: int = 1_000_000, tokens_out: int = 0) -> float | None:
    return prices.load(NOWHERE).cost(Usage(model, tokens_in, tokens_out=tokens_out))


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("claude-opus-5-5-20260901", 4.0),
        ("claude-opus-5", 5.0),
        ("claude-opus-4-1-20250805", 15.0),
        ("claude-opus-4-20250514", 15.0),
        ("claude-sonnet-4-20250514", 3.0),
        ("claude-haiku-4-5", 1.0),
        ("gpt-5.4-mini", 0.75),
        ("gpt-5", 1.25),
        ("kimi-k3", 3.0),
        ("gpt-5.7", None),
        ("claude-opus-6", None),
        ("", None),
    ],
)
def test_a_model_has_its_own_price_or_none(model: str, usd: float | None) -> None:
    found = prices.load(NOWHERE).cost(Usage(model, 100_000))
    assert found == (None if usd is None else pytest.approx(usd / 10))


def test_a_long_call_has_its_own_rates() -> None:
    assert cost("gpt-5.5", 272_000) == pytest.approx(0.272 * 5)
    assert cost("gpt-5.5", 272_001, 1000) == pytest.approx(0.272001 * 10 + 0.045)


@pytest.mark.parametrize(
    "table",
    [
        'models = ["x"]\ninput = 1',
        "models = []\ninput = 1\noutput = 1",
        'models = ["x"]\ninput = -1\noutput = 1',
        'models = ["x"]\ninput = true\noutput = 1',
        'models = ["x"]\ninput = 1\noutput = 1\nouput = 2',
        'models = ["x"]\ninput = 1\noutput = 1\nlong = { input = 1, output = 1 }',
    ],
)
def test_a_bad_price_is_named(tmp_path: Path, table: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(f'[[price]]\nmodels = ["y"]\ninput = 1\noutput = 1\n[[price]]\n{table}\n')
    with pytest.raises(Misconfigured, match=r"prices\.toml: price 2: "):
        prices.load(path)


# ---- providers --------------------------------------------------------------------------------


def test_a_variable_names_another_base_url() -> None:
    found = providers.load(NOWHERE, {"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1/"})
    assert found["openai"].base_url == "http://127.0.0.1:8000/v1"
    assert found["anthropic"].base_url == "https://api.anthropic.com"


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "https://", "x", "https://u:p@x", "https://x?y", "https://x:99999", "http://a\n"],
)
def test_a_bad_base_url_is_named(url: str) -> None:
    with pytest.raises(Misconfigured, match="ANTHROPIC_BASE_URL"):
        providers.load(NOWHERE, {"ANTHROPIC_BASE_URL": url})


def test_the_administrator_adds_providers(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(
        '[local]\nbase_url = "http://10.0.0.1:1/v1"\nkey_variable = ""\nwires = ["chat"]\n'
    )
    found = providers.load(path, {})["local"]
    assert (found.credentials(""), found.wires) == ({}, (Wire.CHAT,))
    path.write_text('[agentorch]\n[a]\nbase_url = "x"\nkey_variable = "K"\nwires = ["smtp"]\n')
    with pytest.raises(Misconfigured) as caught:
        providers.load(path, {})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("base", "wire", "url"),
    [
        ("https://api.anthropic.com", Wire.MESSAGES, "https://api.anthropic.com/v1/messages"),
        ("https://x/anthropic", Wire.MESSAGES, "https://x/anthropic/v1/messages"),
        ("https://x/v1", Wire.MESSAGES, "https://x/v1/messages"),
        ("https://api.openai.com/v1", Wire.CHAT, "https://api.openai.com/v1/messages"),
        ("https://x/api/paas/v4/", Wire.CHAT, "https://x/api/paas/v4/messages"),
        ("http://127.0.0.1:1", Wire.RESPONSES, "http://127.0.0.1:1/v1/messages"),
    ],
)
def test_where_a_path_is(base: str, wire: Wire, url: str) -> None:
    assert upstream_url(base, "v1/messages", wire) == url


def test_which_protocol_has_a_path() -> None:
    both = (Wire.RESPONSES, Wire.CHAT)
    assert wire_of("POST", "v1/chat/completions", both) is Wire.CHAT
    assert wire_of("GET", "v1/models", both) is Wire.RESPONSES
    assert wire_of("GET", "v1/responses", both) is None
    assert wire_of("POST", "v1/messages", both) is None


# ---- keys -------------------------------------------------------------------------------------


def test_the_most_specific_key_is_taken_wherever_it_is(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    file = tmp_path / "keys.env"
    found = Keys(credentials, file, {"K": "environment", "K.claude": "agent"})
    assert found.find("K", "codex", None) == "environment"
    assert found.find("K", "claude", "shop") == "agent"
    (credentials / "K").write_text("credential\n")
    assert found.find("K", "codex", None) == "credential"
    assert found.find("K", "claude", None) == "agent"
    file.write_text("# keys\nK@shop = no\nK@shop='project'\n".replace("K@shop = no\n", ""))
    file.chmod(0o600)
    assert found.find("K", "claude", "shop") == "project"
    (credentials / "K.claude@shop").write_text("both")
    assert found.find("K", "claude", "shop") == "both"
    assert found.find("K", "codex", "shop") == "project"
    assert found.find("L", "codex", "shop") is None


def test_a_new_key_is_found_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys.env"
    found = Keys(None, file, {})
    for key in ("one", "another"):
        file.write_text(f"K={key}\n")
        file.chmod(0o600)
        assert found.find("K", "x", None) == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys.env"
    file.write_text("K=secret\n")
    file.chmod(mode)
    with pytest.raises(Misconfigured, match="chmod 600"):
        Keys(None, file, {}).check()


@pytest.mark.needs("setpriv")
def test_somebody_elses_file_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    file = tmp_path / "keys.env"
    file.write_text("K=secret\n")
    file.chmod(0o600)
    os.chown(file, 65534, 65534)
    with pytest.raises(Misconfigured, match="another user"):
        Keys(None, file, {}).check()


def test_a_malformed_file_is_named_without_what_it_holds() -> None:
    with pytest.raises(Misconfigured) as caught:
        keys.parse("A=1\nsk-secret\n", "keys.env")
    assert str(caught.value) == "keys.env: line 2: expected NAME=KEY"


def test_names_that_lead_elsewhere_are_none() -> None:
    assert keys.names("K", "../x", "a/b") == ("K",)
    assert keys.names("K", "claude", "shop") == ("K.claude@shop", "K@shop", "K.claude", "K")


# ---- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("30", 30),
        ("1.5", 1.5),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("20ms", 0.02),
        ("2d", 172800),
        ("1800000600", 600),
        ("1800000600000", 600),
        ("2027-01-15T08:10:00Z", 600),
        ("Fri, 15 Jan 2027 08:10:00 GMT", 600),
        ("", None),
        ("soon", None),
        ("-5", None),
    ],
)
def test_moments(value: str, after_s: float | None) -> None:
    found = rate_headers.moment(value, NOW)
    assert found == (None if after_s is None else pytest.approx(NOW + after_s))


@pytest.mark.parametrize(
    ("headers", "after_s"),
    [
        ({"Retry-After": "7", "x-ratelimit-reset-requests": "1h"}, 7),
        ({"Retry-After": "x", "x-ratelimit-reset-requests": "1h"}, 3600),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2027-01-15T08:10:00Z",
                "anthropic-ratelimit-requests-remaining": "9",
                "anthropic-ratelimit-requests-reset": "2027-01-15T09:00:00Z",
            },
            600,
        ),
        ({"content-type": "x"}, None),
    ],
)
def test_when_a_limit_is_free_again(headers: dict[str, str], after_s: float | None) -> None:
    expected = None if after_s is None else pytest.approx(NOW + after_s)
    assert rate_headers.free_at(headers, NOW) == expected
