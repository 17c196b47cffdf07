"""Writing → words to be said: numbers, money, dates, times, units, abbreviations, addresses and signs, as a person reads English aloud.

One table of patterns, applied in order. Each turns one kind of writing into words, so what a later pattern sees has none of it left.
"""

import re
from collections.abc import Callable

# Numbers in English words.


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
MOST = 10 ** (3 * len(_SCALES)) - 1  # the largest number that has a name here


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


_MONTH_NAMES = "January February March April May June July August September October November December"
_MONTHS = _MONTH_NAMES.split()
_MONTH = "|".join([*_MONTHS, *(f"{month[:3]}\\.?" for month in _MONTHS if month != "May"), "Sept\\.?"])
_SCALE = "hundred|thousand|million|billion|trillion"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_MONEY = {
    "$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", ""), "₹": ("rupee", "paisa"),
    "USD": ("dollar", "cent"), "GBP": ("pound", "penny"), "EUR": ("euro", "cent"), "CHF": ("franc", "centime"),
}  # fmt: skip
_UNITS = {
    "km/h": "kilometre per hour", "m/s": "metre per second", "mph": "mile per hour", "km²": "square kilometre", "m²": "square metre",
    "cm²": "square centimetre", "m³": "cubic metre", "km": "kilometre", "cm": "centimetre", "mm": "millimetre", "µm": "micrometre",
    "nm": "nanometre", "m": "metre", "ft": "foot", "in": "inch", "mi": "mile", "yd": "yard", "kg": "kilogram", "mg": "milligram",
    "g": "gram",
    "lbs": "pound", "lb": "pound", "oz": "ounce", "ml": "millilitre", "mL": "millilitre", "l": "litre", "L": "litre", "ms": "millisecond",
    "µs": "microsecond", "s": "second", "sec": "second", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "W": "watt", "kW": "kilowatt", "MW": "megawatt",
    "kWh": "kilowatt hour", "J": "joule", "kJ": "kilojoule", "V": "volt", "A": "amp", "mAh": "milliamp hour", "B": "byte", "kB": "kilobyte",
    "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "Mbps": "megabit per second", "GB/s": "gigabyte per second",
    "MB/s": "megabyte per second", "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree", "K": "kelvin", "%": "percent",
    "px": "pixel", "dB": "decibel", "kcal": "kilocalorie", "cal": "calorie", "ha": "hectare", "rpm": "revolution per minute",
}  # fmt: skip
_SAME_PLURAL = ("hertz", "percent", "yen", "kelvin")  # endings of units that have no plural
_ODD_PLURAL = {"foot": "feet", "inch": "inches", "penny": "pence"}
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_ABBREVIATIONS = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "approx.": "approximately", "Mr.": "Mister",
    "Mrs.": "Missis", "Ms.": "Miz", "Dr.": "Doctor", "Prof.": "Professor", "St.": "Saint", "Jr.": "Junior", "Sr.": "Senior",
    "Fig.": "Figure", "fig.": "figure", "No.": "number", "no.": "number", "Vol.": "Volume", "pp.": "pages", "p.": "page", "ca.": "about",
    "Inc.": "Incorporated", "Ltd.": "Limited", "Corp.": "Corporation", "Co.": "Company", "dept.": "department", "est.": "established",
    "a.m.": "a m", "p.m.": "p m", "w/o": "without", "w/": "with", "Sgt.": "Sergeant", "Lt.": "Lieutenant", "Capt.": "Captain",
    "Gen.": "General", "Mt.": "Mount", "Ave.": "Avenue", "Blvd.": "Boulevard", "Rd.": "Road",
}  # fmt: skip
_NEED_NUMBER = ("No.", "no.", "p.", "pp.")  # abbreviations that are words unless a number follows
ABBREVIATIONS = frozenset(_ABBREVIATIONS)
_SIGNS = {
    "&": " and ", "+": " plus ", "=": " equals ", "×": " times ", "÷": " divided by ", "≈": " about ", "~": " about ", "≤": " at most ",
    "≥": " at least ", "<": " less than ", ">": " greater than ", "→": " to ", "⇒": " so ", "±": " plus or minus ", "@": " at ",
    "√": " the square root of ", "π": " pi ", "µ": " micro ", "°": " degrees ", "§": " section ", "©": "", "®": "", "™": "", "•": ", ",
    "½": " one half ", "¼": " one quarter ", "¾": " three quarters ", "^": " to the power of ", "%": " percent ", "∞": " infinity ",
    "$": " dollars ", "£": " pounds ", "€": " euros ", "¥": " yen ",
    "#": " number ", "|": ", ", "\\": " ", "*": " ", "_": " ", "`": "", "{": ", ", "}": ", ", "[": ", ", "]": ", ", "/": " slash ",
}  # fmt: skip
_FRACTIONS = {(1, 2): "one half", (1, 3): "one third", (2, 3): "two thirds", (1, 4): "one quarter", (3, 4): "three quarters"}
_RULERS = (
    "Henry|Louis|Elizabeth|George|Charles|Edward|William|James|Richard|Philip|Pius|John Paul|Benedict|Alexander|Napoleon|Nicholas|Catherine"
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def spoken(text: str) -> str:
    """Return the words of a text, with the punctuation that a voice makes pauses of. Marks of Markdown are not spoken."""
    text = _plain(text)
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    text = re.sub(r"[ \t]*\n[ \t]*", " ", text)
    text = re.sub(r"\s+([,.;:!?)])", r"\1", re.sub(r"(\()\s+|\s{2,}", lambda m: m[1] or " ", text))
    text = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text)
    return re.sub(r"^[\s,;:.\-–—]+", "", text).strip()


def _plain(text: str) -> str:
    """Take the marks of Markdown and HTML away, and what no voice can say."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)", r"\1", text)  # links and pictures: their words
    text = re.sub(r"\[\^?\d+\]", "", text)
    text = re.sub(r"</?[A-Za-z][^<>]*>", " ", text)
    text = re.sub(r"^\s{0,3}(?:#{1,6}\s+|>\s?|[-*+•]\s+(?:\[[ xX]\]\s+)?)+", "", text, flags=re.M)
    text = re.sub(r"\\\(|\\\)|\\\[|\\\]|\$\$", " ", text)
    text = re.sub(r"(\*\*|__|~~)", "", text)
    text = re.sub(r"(?<!\w)[*_]([^*_\n]+)[*_](?!\w)", r"\1", text)
    text = text.replace("’", "'").replace("‘", "'").replace("\u00a0", " ").replace("\u202f", " ").replace("−", "-")
    return re.sub(r"[\U0001F000-\U0001FAFF\u2600-\u27BF\uFE0F\u200d]", " ", text)


def _number(text: str) -> str:
    """Return any number: with commas, a point, a sign in front."""
    text = text.replace(",", "")
    sign, bare = ("minus ", text[1:]) if text.startswith("-") else ("", text)
    if "." not in bare and ((len(bare) > 1 and bare[0] == "0") or int(bare) > MOST):
        return sign + digits(bare)
    return sign + decimal(bare)


def _many(noun: str, amount: str) -> str:
    """Return a noun in the number that goes with an amount."""
    if amount in ("one", "minus one") or noun.endswith(_SAME_PLURAL):
        return noun
    head, _, tail = noun.partition(" ")
    if tail and head not in ("square", "cubic", "kilowatt", "milliamp"):  # metres per second, degrees Celsius
        return f"{_many(head, amount)} {tail}"
    if tail:
        return f"{head} {_many(tail, amount)}"
    return _ODD_PLURAL.get(noun, noun + "s")


def _money(sign: str, amount: str, scale: str) -> str:
    unit, cent = _MONEY[sign]
    if scale:
        return f"{_number(amount)} {scale} {_many(unit, 'many')}"
    whole, _, rest = amount.replace(",", "").partition(".")
    if not rest or not cent or len(rest) != 2:
        said = _number(amount)
        return f"{said} {_many(unit, said)}"
    units, cents = cardinal(int(whole or 0)), cardinal(int(rest))
    parts = [f"{units} {_many(unit, units)}"] if int(whole or 0) or not int(rest) else []
    return " and ".join(parts + ([f"{cents} {_many(cent, cents)}"] if int(rest) else []))


def _time(match: re.Match[str]) -> str:
    hour, minute, second, half = int(match[1]), match[2], match[3], (match[4] or "").replace(".", "").lower()
    if hour > 24 or int(minute) > 59:
        return f"{_number(match[1])} to {_number(minute)}" if not second else match[0]
    said = cardinal(hour)
    if int(minute):
        said += f" oh {cardinal(int(minute))}" if minute[0] == "0" else f" {cardinal(int(minute))}"
    elif not half:
        said += " o'clock" if 1 <= hour <= 12 else " hundred"
    if second:
        said += f" and {cardinal(int(second))} seconds"
    return f"{said} {half[0]} m" if half else said


def _date(month: int, day: int, of_year: str) -> str:
    return f"{_MONTHS[month - 1]} {ordinal(day)}" + (f", {year(int(of_year))}" if of_year else "")


def _iso_date(match: re.Match[str]) -> str:
    month, day = int(match[2]), int(match[3])
    return _date(month, day, match[1]) if 1 <= month <= 12 and 1 <= day <= 31 else match[0]


def _slash_date(match: re.Match[str]) -> str:
    first, second = int(match[1]), int(match[2])
    month, day = (second, first) if first > 12 else (first, second)
    return _date(month, day, match[3]) if 1 <= month <= 12 and 1 <= day <= 31 else match[0]


def _month_number(name: str) -> int:
    return next(i for i, month in enumerate(_MONTHS, 1) if month.startswith(name[:3]))


def _fraction(match: re.Match[str]) -> str:
    above, below = int(match[2]), int(match[3])
    head = f"{cardinal(int(match[1]))} and " if match[1] else ""
    if (above, below) in _FRACTIONS:
        return head + _FRACTIONS[above, below]
    if 0 < above < below <= 20 and above < 10:
        return f"{head}{cardinal(above)} {ordinal(below)}{'s' if above > 1 else ''}"
    return f"{head}{cardinal(above)} over {cardinal(below)}"


def _address(match: re.Match[str]) -> str:
    host = re.sub(r"^www\.", "", match[1])
    return f" {_dotted(host)} "


def _dotted(name: str) -> str:
    """Return a name with dots, dashes and underscores between its parts, as it is dictated."""
    said = re.sub(r"\d+", lambda found: f" {_number(found[0])} " if len(found[0]) < 5 else f" {digits(found[0])} ", name)
    return said.replace("@", " at ").replace(".", " dot ").replace("-", " dash ").replace("_", " ").replace("/", " slash ").strip()


def _abbreviation(match: re.Match[str]) -> str:
    """Return the word; at the end of a text its point ends the sentence, too."""
    ends = match[0].endswith(".") and not match.string[match.end() :].strip()
    return _ABBREVIATIONS[match[0]] + ("." if ends else "")


def _unit(match: re.Match[str]) -> str:
    amount = _number(match[1])
    return f"{amount} {_many(_UNITS[match[2]], amount)}"


def _range(match: re.Match[str]) -> str:
    """Read the first number of a range; the second one is read with its unit, later."""
    first, second = match[1], match[2]
    both_years = re.fullmatch(r"1\d{3}|20\d\d", first) and re.fullmatch(r"1\d{3}|20\d\d|\d\d", second)
    return f"{year(int(first)) if both_years else _number(first)} to "


def _power(number: str) -> str:
    return {"2": " squared", "3": " cubed"}.get(number, f" to the power of {_number(number)}")


def _bare(match: re.Match[str]) -> str:
    """Read a number by itself; four digits of our age are a year, unless things are counted."""
    text = match[0]
    following = match.string[match.end() : match.end() + 24]
    counted = re.match(r"\s(?!was\b|is\b|has\b|as\b|this\b|his\b|its\b|us\b)[a-z]+s\b", following)
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", text) and not counted:
        return year(int(text))
    return _number(text)


def _phone(match: re.Match[str]) -> str:
    plus = "plus " if match[0].startswith("+") else ""
    return plus + ", ".join(digits(group) for group in re.findall(r"\d+", match[0]))


def _decade(match: re.Match[str]) -> str:
    number = int(match[1])
    return plural(year(number) if number >= 1000 else cardinal(number))


def _numbered(match: re.Match[str]) -> str:
    value = roman(match[2])
    return f"{match[1]} {cardinal(value)}" if value else match[0]


def _ruler(match: re.Match[str]) -> str:
    value = roman(match[2])
    return f"{match[1]} the {ordinal(value)}" if value else match[0]


Words = Callable[[re.Match[str]], str]


def _rule(pattern: str, words: Words, flags: int = 0) -> tuple[re.Pattern[str], Words]:
    return re.compile(pattern, flags), words


_AMOUNT = rf"(?:{_NUMBER})"
_SIGN = "|".join(map(re.escape, _MONEY))
_RULES: tuple[tuple[re.Pattern[str], Words], ...] = (
    _rule(r"<?\b(?:https?|ftp)://([^\s/?#>)\]]+)[^\s>)\]]*?(?=[.,;:!?]*(?:[\s>)\]]|$))>?", _address),
    _rule(r"\b(www\.[\w.-]+\.\w{2,})(?:/\S*?)?(?=[.,;:!?]*(?:\s|$))", _address),
    _rule(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b", lambda m: _dotted(m[0])),
    _rule(r"(?<![\w.])(?:~?/)?(?:[\w-]+/)+[\w-]+(?:\.\w+)+", lambda m: _dotted(m[0].lstrip("~/"))),
    _rule(r"(?<!\w)(?:e\.g\.|i\.e\.)", _abbreviation),
    _rule(
        r"(?<![\w.])(?:" + "|".join(re.escape(one) for one in sorted(_ABBREVIATIONS, key=len, reverse=True) if one not in _NEED_NUMBER)
        + r")(?!\w)", _abbreviation,
    ),
    _rule(r"(?<!\w)(?:No\.|no\.|pp\.|p\.)(?=\s?\d)", lambda m: _ABBREVIATIONS[m[0]] + " "),
    _rule(r"\b([A-Za-z_]\w*)\(\)", lambda m: m[1]),
    _rule(r"\b(\d{4})-(\d{2})-(\d{2})(?:T(?=\d))?(?![\d-])", lambda m: _iso_date(m) + " "),
    _rule(r"\b(\d{1,2})[/.](\d{1,2})[/.](\d{4})\b", _slash_date),
    _rule(
        rf"\b({_MONTH})\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(\d{{4}})\b)?(?![:\d])",
        lambda m: _date(_month_number(m[1]), int(m[2]), m[3] or "") if 1 <= int(m[2]) <= 31 else m[0],
    ),
    _rule(
        rf"(?:\bthe\s)?\b(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({_MONTH})\b(?:,?\s+(\d{{4}})\b)?",
        lambda m: f"the {ordinal(int(m[1]))} of {_MONTHS[_month_number(m[2]) - 1]}" + (f", {year(int(m[3]))}" if m[3] else ""),
    ),
    _rule(rf"\b({_MONTH})\s+(\d{{4}})\b", lambda m: f"{_MONTHS[_month_number(m[1]) - 1]} {year(int(m[2]))}"),
    _rule(r"\b(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s?([aApP]\.?\s?[mM])\b\.?)?", _time),
    _rule(r"\b(\d{1,2})\s?([ap])\.?m\b\.?", lambda m: f"{cardinal(int(m[1]))} {m[2]} m", re.I),
    _rule(
        rf"({_SIGN})\s?({_AMOUNT})(?:\s?({_SCALE}|[kKMB](?!\w)))?",
        lambda m: _money(m[1], m[2], {"k": "thousand", "K": "thousand", "M": "million", "B": "billion"}.get(m[3] or "", m[3] or "")),
    ),
    _rule(rf"({_AMOUNT})\s?({_SIGN})(?!\w)", lambda m: _money(m[2], m[1], "")),
    _rule(r"\b(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\b", lambda m: " dot ".join(_number(one) for one in m.groups())),
    _rule(r"\b[vV]?(\d+(?:\.\d+){2,})\b", lambda m: " point ".join(_number(one) for one in m[1].split("."))),
    _rule(r"\b[vV](\d+(?:\.\d+)?)\b", lambda m: "version " + _number(m[1])),
    _rule(r"(?<![\w.-])(?:\+\d{1,3}[\s-])?(?:\(\d{2,4}\)\s?|\d{2,4}[\s-])\d{3,4}-\d{3,4}\b|(?<!\w)\+\d{1,3}(?:[\s-]\d{2,}){1,5}\b|\b\d{3}-\d{4}\b",
          _phone),
    _rule(rf"(?<![\w.])({_AMOUNT})(?:-|\s?[–—]\s?)(?=({_AMOUNT}))", _range),
    _rule(r"(?<=\d)\s-\s(?=\d)", lambda _: " minus "),
    _rule(r"(?<![\w/.])(?:(\d+)\s)?(\d{1,3})/(\d{1,3})(?![\w/])", _fraction),
    _rule(r"(?<!\w)'?(\d0|1[1-9]\d0|20\d0)'?s\b", _decade),
    _rule(r"(\d)\s?in\.(?=\s(?:long|wide|high|tall|deep|by|x)\b)", lambda m: f"{m[1]} in"),
    _rule(rf"(?<![\w.])(-?{_AMOUNT})\s?({_UNIT})(?![\w²³/])", _unit),
    _rule(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1].replace(",", "")))),
    _rule(rf"\b({_RULERS}) ([IVX]{{1,5}})\b(?!\.)", _ruler),
    _rule(r"\b(War|Chapter|Part|Phase|Type|Volume|Act|Section|Book|Level|Class|Stage) ([IVXLC]{1,6})\b", _numbered),
    _rule(rf"(?<![\w.])(-?{_AMOUNT})[eE]([+-]?\d+)\b", lambda m: f"{_number(m[1])} times ten to the power of {_number(m[2].lstrip('+'))}"),
    _rule(r"(?<=\w)([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: _power(m[1].translate(_SUPERSCRIPTS))),
    _rule(r"(?<=[\w)])\^\{?(-?\d+)\}?", lambda m: _power(m[1])),
    _rule(r"(?<=\d)\s?[xX]\s?(?=\d)", lambda _: " by "),
    _rule(r"(?<=\d)\s\*\s(?=\d)", lambda _: " times "),
    _rule(r"#(?=\d)", lambda _: "number "),
    _rule(r"(?<![\w.])(?:0\d+|\d{16,})(?![\w.])", lambda m: digits(m[0])),
    _rule(rf"(?<![\w.])-?{_AMOUNT}(?!\w)", _bare),
    _rule(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", lambda _: " "),
    _rule(_NUMBER, lambda m: _number(m[0])),
    _rule(r"(?<=\w)\.(?=[A-Za-z]\w)(?!\w\.)", lambda _: " dot "),
    _rule(r"\band/or\b", lambda _: "and or"),
    _rule(r"\s[-–—]{1,3}\s|(?<=\w)(?:—|--)(?=\w)", lambda _: ", "),
    _rule(r"(?<=[A-Za-z])\s?/\s?(?=[A-Za-z])", lambda _: " or "),
    _rule("|".join(map(re.escape, _SIGNS)), lambda m: _SIGNS[m[0]]),
)  # fmt: skip
