"""Personal data: found by checksums, masked for the model and given back to whoever wrote them; ordinary numbers alarm nobody."""

import random
from collections.abc import Sequence

import pytest

from ingle.core.message import Chunk, ImagePart, Message, Request, TextPart, ToolCall
from ingle.safety.guards import pii
from ingle.safety.middleware import Blocked, GuardLayer
from ingle.safety.pii_kinds import KINDS, find_pii
from ingle.safety.policy import GuardRule
from tests.safety.scripted import LIMITS, passed, user, verdicts

VALUES = {
    "e-mail": ["jane.doe@example.com", "a+b@mail.example.co.uk"],
    "phone": ["+49 171 1234567", "(415) 555-2671", "030 12345678", "06 12 34 56 78", "+1-415-555-2671", "0049 30 901820"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"],
    "card": ["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"],
    "ip": ["93.184.216.34", "2001:4860:4860::8888"],
    "mac": ["00:1B:44:11:3A:B7", "00-1b-44-11-3a-b7"],
    "wallet": [
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "0x52908400098527886E0F7030069857D2E4169EE7",
    ],
    "key": ["sk-abcdefghijklmnopqrstuvwx", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "AKIAIOSFODNN7EXAMPLE"],
    "id": [
        "078-05-1120", "AB 12 34 56 C", "12345678Z", "RSSMRA85T10A562S", "811218-9876", "529.982.247-25", "2341 2341 2346",
        "2 55 08 14 168 025 38",
    ],
}  # fmt: skip
WRONG = [
    "DE89 3704 0044 0532 0130 01",
    "4111 1111 1111 1112", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "12345678A", "RSSMRA85T10A562T", "529.982.247-26",
    "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdp", "2 55 08 14 168 025 39",
]  # fmt: skip
ORDINARY_TEXTS = [
    "Version 1.2.3.4 came out on 12-03-2024 at 12:34:56; v10.2.33.4 follows on 2024-05-06, or 01/02/2024.",
    "ISBN 978-3-16-148410-0 and 0-306-40615-2, the old one 0306406152.",
    "Order 1234567890123456 of 20240506123456; pi is 3.14159265358979, and 1,234,567.89 is a sum.",
    "Tool 3.11.4.1 listens at 127.0.0.1 and 192.168.1.1, std::vector<int>::size, a::b.",
    "sha 356a192b7913b04c54574d18c28d46e6395428ab, uuid 123e4567-e89b-12d3-a456-426614174000",
    "The token is important. The password is hunter2. secret: meeting at noon.",
    "100 200 300 400, 2+2=4, room 0815-2, 555-1234, page 12-34, scores 3-2 and 10-9.",
    "Call @user, foo@bar, a@b; write to me at noon. It costs 12.50 or 99 cents.",
    "In 2023 there were 8 019 876 543 people; in 1950 only 2 499 322 157.",
]


def said(out: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in out)


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in VALUES.items() for value in values])
def test_every_kind_is_found_alone_and_in_a_sentence(kind: str, value: str) -> None:
    for text in (value, f"It is {value}, they say.", f"({value})", f'"{value}"', f"x {value}\nnext"):
        [found] = find_pii(text)
        assert (found.kind.name, text[found.start : found.end]) == (kind, value), text


def test_a_bare_number_needs_a_word_that_says_what_it_is() -> None:
    assert [one.kind.name for one in find_pii("PESEL: 44051401359, Steuer-ID 86095742719")] == ["id", "id"]
    assert not find_pii("44051401359 and 86095742719")
    assert [one.kind.name for one in find_pii('api_key = "zX9qLw83hhsT2bqP"')] == ["key"]
    assert not find_pii('"zX9qLw83hhsT2bqP"')


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_checksum_is_nobody(text: str) -> None:
    assert not [one for one in find_pii(text) if one.kind.name in ("iban", "card", "wallet", "id")]


@pytest.mark.parametrize("text", ORDINARY_TEXTS)
def test_ordinary_texts_raise_no_alarm(text: str) -> None:
    assert not find_pii(text), [(one.kind.name, text[one.start : one.end]) for one in find_pii(text)]


def edit(request: Request, answer: Sequence[str]) -> tuple[Request, list[Chunk]]:
    guard = GuardLayer("pii", pii.make(LIMITS, GuardRule("edit")), "edit")
    return passed([guard], request, [*map(Chunk, answer), Chunk("", finish="stop")])


def test_values_are_masked_alike_everywhere_and_come_back() -> None:
    request = Request(
        messages=(
            Message.of("system", "Write to boss@house.org."),
            Message("user", (TextPart("I: jane@x."), ImagePart(b"x", "image/png"), TextPart("org,"), TextPart("[E-MAIL 2]", "document"))),
            Message("assistant", (), (ToolCall("jane@x.org", "mail", '{"to": "jane@x.org"}'),)),
            Message("tool", (TextPart("sent to jane@x.org"),), tool_call_id="jane@x.org"),
        )
    )  # fmt: skip
    asked, out = edit(request, ["To [E-", "MAIL 3", "] and [E-MAIL 1]", ", [E-MAIL 2], [E-MAIL 9]"])
    assert [message.text for message in asked.messages] == [
        "Write to [E-MAIL 1].", "I: [E-MAIL 3],[E-MAIL 2]", "", "sent to [E-MAIL 3]",
    ]  # fmt: skip
    call = asked.messages[2].tool_calls[0]
    assert (call.id, call.arguments) == ("jane@x.org", '{"to": "[E-MAIL 3]"}')
    assert said(out) == "To jane@x.org and boss@house.org, [E-MAIL 2], [E-MAIL 9]"
    [verdict] = verdicts(out)
    assert (verdict.action, verdict.rule, verdict.mode) == ("edit", "e-mail", "edit")
    assert "2 of the kind e-mail" in verdict.reason and "@" not in verdict.reason


def test_what_the_model_says_by_itself_is_masked_and_the_users_own_is_not() -> None:
    _, out = edit(user("I am jane@x.org"), ["bob@y.org, ", "JANE@x.org, call +49 171 1234567"])
    assert said(out) == "[E-MAIL], JANE@x.org, call [PHONE]"
    assert {one.rule for one in verdicts(out)} == {"e-mail", "phone"}


def test_placeholders_come_back_and_values_stay_whatever_the_cuts() -> None:
    draw = random.Random(3)
    request = user("Of me: jane@x.org, +49 171 1234567, DE89 3704 0044 0532 0130 00")
    known = {"[E-MAIL 1]": "jane@x.org", "[PHONE 1]": "+49 171 1234567", "[IBAN 1]": "DE89 3704 0044 0532 0130 00"}
    foreign = [value for values in VALUES.values() for value in values if value not in known.values()]
    plain = [*'the cat sat in 2024 at 12:30 IN ALL 42 of 7 日本語 {"a": "b"} [E-MAIL 7 (x) A'.split(), "y" * 300]  # noqa: SIM905
    for _ in range(800):
        words = [draw.choice((draw.choice([*known]), draw.choice(foreign), draw.choice(plain), draw.choice(plain))) for _ in range(12)]
        text = "; ".join(words)
        cuts = sorted(draw.sample(range(1, len(text)), draw.randrange(1, 60)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        _, out = edit(request, pieces)
        assert said(out) == said(edit(request, [text])[1])
        told = said(out)
        for word in words:
            if word in known:
                assert known[word] in told
            elif word in foreign and len(word) > 9:
                assert word not in told, (word, told)


def test_a_request_with_such_data_can_be_refused_and_told() -> None:
    with pytest.raises(Blocked) as caught:
        passed([GuardLayer("pii", pii.make(LIMITS, GuardRule("block")), "block")], user("Card 4111 1111 1111 1111"))
    assert (caught.value.field, caught.value.verdict.rule, caught.value.verdict.guard) == ("messages[0].content", "card", "pii")
    assert "4111" not in str(caught.value)
    guard = pii.make(LIMITS, GuardRule("tell", kinds=("e-mail",)))
    asked, out = passed([guard], user("a@b.org and 93.184.216.34"), [Chunk("c@d.", (1,)), Chunk("org", (2,), finish="stop")])
    assert asked == user("a@b.org and 93.184.216.34")
    assert [chunk.text for chunk in out] == ["c@d.", "org"]
    assert [(one.action, one.rule) for one in verdicts(out)] == [("allow", "e-mail")] * 2


def test_nothing_of_a_foreign_value_leaves_before_it_is_known() -> None:
    guard = pii.make(LIMITS, GuardRule("block"))
    text = "Sure: write to bob.builder@site.example.org or call."
    out = passed([guard], user("who?"), [*map(Chunk, text), Chunk("", finish="stop")])[1]
    assert said(out) == f"Sure: write to \n\n{pii.SAY}"
    assert out[-1].finish == "blocked"


def test_the_kinds_have_names_and_masks_of_their_own() -> None:
    assert len({kind.mask for kind in KINDS}) == len({kind.name for kind in KINDS})
    assert all("]" not in kind.mask and kind.mask.isupper() for kind in KINDS)
