"""Numbers in English words."""

_ONE_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TEN_WORDS = "? ? twenty thirty forty fifty sixty seventy eighty ninety"
_ONES, _TENS = _ONE_WORDS.split(), _TEN_WORDS.split()
_ROMANS = {
    "M": 1000, "CM": 900, "D": 500, "CD": 400, "C": 100, "XC": 90, "L": 50, "XL": 40, "X": 10, "IX": 9, "V": 5, "IV": 4, "I": 1,
}  # fmt: skip
_SCALES = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
MOST = 10 ** (3 * len(_SCALES)) - 1
"""The largest number that has a name here."""


def cardinal(number: int) -> str:
    """Return `forty-two`. A number beyond ±MOST is read digit by digit."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number > MOST:
        return digits(str(number))
    if number < 1000:
        return _below_thousand(number)
    groups, rest = list[str](), number
    for scale in _SCALES:
        rest, group = divmod(rest, 1000)
        if group:
            groups.append(f"{_below_thousand(group)} {scale}".strip())
    return " ".join(reversed(groups))


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    head = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if rest >= 20:
        tens, ones = divmod(rest, 10)
        head.append(f"{_TENS[tens]}-{_ONES[ones]}" if ones else _TENS[tens])
    elif rest or not hundreds:
        head.append(_ONES[rest])
    return " ".join(head)


def ordinal(number: int) -> str:
    """Return `forty-second`."""
    words = cardinal(number)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    if last not in _ORDINALS:
        return words[:cut] + (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return words[:cut] + _ORDINALS[last]


def year(number: int) -> str:
    """Return `nineteen oh five`, `two thousand nine`, `twenty twenty-six`."""
    century, rest = divmod(number, 100)
    if not 1000 <= number <= 9999 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def digits(text: str) -> str:
    """Return each digit of a text by itself."""
    return " ".join(_ONES[int(digit)] for digit in text if digit.isascii() and digit.isdigit())


def decimal(text: str) -> str:
    """Return `three point one four` for 3.14. Commas between thousands are allowed; `text` is digits, commas and at most one point."""
    whole, point, fraction = text.replace(",", "").partition(".")
    if len(whole) > 1 and whole[0] == "0":
        head = digits(whole)
    else:
        head = cardinal(int(whole)) if whole else "zero"
    return f"{head} point {digits(fraction)}" if point and fraction else head


def plural(words: str) -> str:
    """Return the plural of a number's words: sixties, hundreds."""
    return words[:-1] + "ies" if words.endswith("y") else words + ("es" if words.endswith("x") else "s")


def roman(text: str) -> int:
    """Return the value of a Roman number in capitals; 0 if it is none."""
    values = [_ROMANS.get(letter, 0) for letter in text]
    if not values or 0 in values:
        return 0
    total = sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True))
    return total if _as_roman(total) == text else 0


def _as_roman(number: int) -> str:
    text = ""
    for letters, value in _ROMANS.items():
        text += letters * (number // value)
        number %= value
    return text
