"""Homoglyphs: letters of other alphabets that look the same, full-width and mathematical letters, marks that nobody sees."""

from ingle.robustness.attack import Kit, Steps, saying
from ingle.robustness.prompts import LabelledPrompt

NAME = "homoglyph"
SENTENCE = "writes letters of other alphabets that look the same"
ADAPTIVE = False
CYRILLIC = str.maketrans("aceopxysijABCEHKMOPTX", "асеорхуѕіјАВСЕНКМОРТХ")
GREEK = str.maketrans("ovABEHIKMNOPTXYZ", "ονΑΒΕΗΙΚΜΝΟΡΤΧΥΖ")
_BOLD, _WIDE = 0x1D400, 0xFF01
_SOFT, _COMBINING = "\u00ad", "\u0336"


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    text, random = goal.text, kit.random(NAME, goal.id)
    some = "".join(one.translate(CYRILLIC) if random.random() < 0.4 else one for one in text)
    found = [text.translate(CYRILLIC), text.translate(GREEK), some, wide(text), bold(text)]
    found += [" ".join(mark.join(word) for word in text.split(" ")) for mark in (_SOFT, _COMBINING)]
    for spelling in random.sample(found, len(found)):
        yield saying(spelling)


def wide(text: str) -> str:
    return "".join(chr(ord(one) - 0x21 + _WIDE) if "!" <= one <= "~" else one for one in text)


def bold(text: str) -> str:
    def letter(one: str) -> str:
        if "A" <= one <= "Z":
            return chr(_BOLD + ord(one) - ord("A"))
        return chr(_BOLD + 26 + ord(one) - ord("a")) if "a" <= one <= "z" else one

    return "".join(map(letter, text))
