"""Writing is read as a person reads it aloud: numbers, money, dates, times, units, abbreviations, addresses, signs, Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.media.spoken_words import MOST, cardinal, decimal, digits, ordinal, roman, spoken, year
from tests.examples import examples

READ = {
    # numbers
    "7": "seven",
    "42 apples": "forty-two apples",
    "1,200 people": "one thousand two hundred people",
    "1,234,567": "one million two hundred thirty-four thousand five hundred sixty-seven",
    "3.14": "three point one four",
    "0.05": "zero point zero five",
    ".5": "zero point five",
    "-5": "minus five",
    "−3.5": "minus three point five",
    "007": "zero zero seven",
    "1e5": "one times ten to the power of five",
    "2 million": "two million",
    "12345678901234567890": "one two three four five six seven eight nine zero one two three four five six seven eight nine zero",
    "1st, 2nd, 3rd, 12th, 21st, 100th": "first, second, third, twelfth, twenty-first, one hundredth",
    "1/2": "one half",
    "3/4 cup": "three quarters cup",
    "2 1/2": "two and one half",
    "7/9": "seven ninths",
    "5–10": "five to ten",
    "pages 3-7": "pages three to seven",
    "2^10": "two to the power of ten",
    "x² + y³": "x squared plus y cubed",
    "3 × 4 = 12": "three times four equals twelve",
    "10 - 5 = 5": "ten minus five equals five",
    "8 ÷ 2": "eight divided by two",
    "10x10": "ten by ten",
    "#5": "number five",
    "~3": "about three",
    "±2": "plus or minus two",
    "C3PO": "C three PO",
    "H2O": "H two O",
    # money
    "$5": "five dollars",
    "$1": "one dollar",
    "$5.50": "five dollars and fifty cents",
    "$0.99": "ninety-nine cents",
    "$1.01": "one dollar and one cent",
    "$1,000": "one thousand dollars",
    "£3.20": "three pounds and twenty pence",
    "£0.01": "one penny",
    "€3.2 million": "three point two million euros",
    "$2.5B": "two point five billion dollars",
    "12 €": "twelve euros",
    "¥500": "five hundred yen",
    "USD 20": "twenty dollars",
    # dates
    "2024-03-05": "March fifth, twenty twenty-four",
    "March 5, 2024": "March fifth, twenty twenty-four",
    "5 March 2024": "the fifth of March, twenty twenty-four",
    "Mar 5": "March fifth",
    "the 4th of July": "the fourth of July",
    "12/31/1999": "December thirty-first, nineteen ninety-nine",
    "31/12/1999": "December thirty-first, nineteen ninety-nine",
    "24.12.2023": "December twenty-fourth, twenty twenty-three",
    "March 2024": "March twenty twenty-four",
    "in 1905": "in nineteen oh five",
    "in 1900": "in nineteen hundred",
    "in 2000": "in two thousand",
    "in 2009": "in two thousand nine",
    "in 2026": "in twenty twenty-six",
    "the 1990s": "the nineteen nineties",
    "the '80s": "the eighties",
    "1939–1945": "nineteen thirty-nine to nineteen forty-five",
    "2048 tokens": "two thousand forty-eight tokens",
    # times
    "14:30": "fourteen thirty",
    "9:00": "nine o'clock",
    "3:05 pm": "three oh five p m",
    "3:05 p.m. today": "three oh five p m today",
    "5 p.m.": "five p m.",
    "10am": "ten a m",
    "14:00": "fourteen hundred",
    "12:30:15": "twelve thirty and fifteen seconds",
    # units
    "5 km": "five kilometres",
    "1 km": "one kilometre",
    "10kg": "ten kilograms",
    "60 km/h": "sixty kilometres per hour",
    "-20°C": "minus twenty degrees Celsius",
    "72 °F": "seventy-two degrees Fahrenheit",
    "16 GB": "sixteen gigabytes",
    "3.5 GHz": "three point five gigahertz",
    "50%": "fifty percent",
    "3 m²": "three square metres",
    "6 ft": "six feet",
    "5 in. long": "five inches long",
    "250 ml": "two hundred fifty millilitres",
    "2 kWh": "two kilowatt hours",
    "100 ms": "one hundred milliseconds",
    # abbreviations
    "Dr. Smith": "Doctor Smith",
    "Mr. and Mrs. Jones": "Mister and Missis Jones",
    "e.g. this": "for example this",
    "i.e. that": "that is that",
    "cats, dogs, etc.": "cats, dogs, et cetera.",
    "No. 5": "number five",
    "p. 12": "page twelve",
    "No.": "No.",
    "St. Paul vs. Mt. Everest": "Saint Paul versus Mount Everest",
    "the U.S. and the U.K.": "the U.S. and the U.K.",
    "World War II": "World War two",
    "Henry VIII": "Henry the eighth",
    "Chapter IV": "Chapter four",
    "I am": "I am",
    # addresses, names of files and code
    "See https://docs.python.org/3/library.": "See docs dot python dot org.",
    "(http://a.io/x?y=1&z=2)": "(a dot io)",
    "www.example.com/page is": "example dot com is",
    "me@site.co.uk": "me at site dot co dot uk",
    "config.toml": "config dot toml",
    "src/ingle/core.py": "src slash ingle slash core dot py",
    "192.168.0.1": "one hundred ninety-two dot one hundred sixty-eight dot zero dot one",
    "v2.3.1": "two point three point one",
    "version 1.10": "version one point one zero",
    "foo_bar()": "foo bar",
    "+1 555-0100": "plus one, five five five, zero one zero zero",
    "555-123-4567": "five five five, one two three, four five six seven",
    # signs and Markdown
    "salt & pepper": "salt and pepper",
    "and/or": "and or",
    "he/she": "he or she",
    "a → b": "a to b",
    "wait -- here": "wait, here",
    "there—you": "there, you",
    "**bold** and *soft* and `code`": "bold and soft and code",
    "~~gone~~ __under__ _it_": "gone under it",
    "[a link](https://x.y/z)": "a link",
    "![a cat](cat.png)": "a cat",
    "# Title": "Title",
    "> quoted": "quoted",
    "- item": "item",
    "- [x] done": "done",
    "<b>fat</b>": "fat",
    "😀 hello 👍": "hello",
    "snake_case": "snake case",
    "it’s": "it's",
}


@pytest.mark.parametrize("text", READ)
def test_it_is_read_as_people_read_it(text: str) -> None:
    assert spoken(text) == READ[text]


@given(st.text(max_size=80))
@examples(300)
def test_no_digit_and_no_mark_is_left(text: str) -> None:
    said = spoken(text)
    assert not any(sign in said for sign in "0123456789*_`#|$%&@=<>{}[]~^\\"), said


@given(st.integers(0, MOST))
@examples(300)
def test_a_cardinal_says_its_number(number: int) -> None:
    assert value(cardinal(number)) == number


def value(words: str) -> int:
    """The naive reader: sums and products, word by word."""
    small = {cardinal(i): i for i in range(20)} | {cardinal(i): i for i in range(20, 100, 10)}
    scales = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15}
    total = group = 0
    for word in words.replace("-", " ").split():
        if word == "hundred":
            group *= 100
        elif word in scales:
            total, group = total + group * scales[word], 0
        else:
            group += small[word]
    return total + group


def test_other_ways_to_say_numbers() -> None:
    assert [ordinal(n) for n in (1, 5, 20, 31, 100, 112)] == [
        "first", "fifth", "twentieth", "thirty-first", "one hundredth", "one hundred twelfth",
    ]  # fmt: skip
    assert [year(n) for n in (1066, 1500, 1905, 2000, 2010, 800)] == [
        "ten sixty-six", "fifteen hundred", "nineteen oh five", "two thousand", "twenty ten", "eight hundred",
    ]  # fmt: skip
    assert decimal("1,234.50") == "one thousand two hundred thirty-four point five zero"
    assert digits("a1-2") == "one two"
    assert [roman(text) for text in ("IV", "XIX", "MCMXC", "IIII", "ABC", "")] == [4, 19, 1990, 0, 0, 0]
    assert cardinal(-3) == "minus three"
    assert cardinal(MOST + 1).startswith("one zero zero")
