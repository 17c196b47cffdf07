"""The prompts of a label: a fixed set for four kinds of task. A change of any word requires a new `label.VERSION`."""

_STORY = (
    "The harbour town had two bakers. Old Marit opened at four, when the boats went out, and sold dark bread that kept for a week. "
    "Young Ossian opened at nine and sold white rolls that were stale by noon. In the winter of the great ice no boat went out for "
    "forty days, and nobody bought bread that keeps. Marit lent Ossian her oven, because it was larger, and Ossian baked for both. When"
    " the ice broke the fishermen found one bakery with two names over the door, open from four, with bread for the week and rolls for "
    "the morning."
)
_REPORT = (
    "The bridge over the Lenne was closed on Monday after inspectors found cracks in two of its eight piers. It was built in 1962 for "
    "9,000 vehicles a day and lately carried 31,000. Lorries are led over the motorway, which adds 23 minutes; cars may use the old "
    "ferry, which takes twelve of them at a time. The county expects repairs to last eleven months and to cost 4.2 million. Shopkeepers"
    " on the eastern bank asked for a second ferry; the county will decide on it in March."
)
_MANUAL = (
    "Before the first use fill the tank to the upper mark with cold water and let the pump run for two minutes without coffee. Descale "
    "every three months, or when the red lamp blinks twice. The lamp blinks once when the tank is empty. Never use vinegar: it harms "
    "the seals. The brewing group may be washed by hand, the drip tray in a dishwasher at 60 degrees."
)
TASKS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    (
        "text generation", 96,
        (
            "What is a hearth good for?",
            "Write a short letter to a neighbour whose dog barks at night.",
            "Explain to a child why the moon changes its shape.",
            "Give me three ideas for a rainy Sunday at home.",
            "How do I sharpen a kitchen knife?",
            "Tell the beginning of a story about a lighthouse keeper who finds a map.",
            "Which is better for a small garden, a pear tree or a plum tree, and why?",
            "List what should be in a first-aid kit.",
        ),
    ),
    ("summarisation", 64, tuple(f"Summarise this in one or two sentences.\n\n{text}" for text in (_STORY, _REPORT, _MANUAL))),
    (
        "extractive question answering", 24,
        (
            f"{_STORY}\n\nFor how many days did no boat go out? Answer with words of the text.",
            f"{_STORY}\n\nWhat did Marit sell? Answer with words of the text.",
            f"{_REPORT}\n\nHow many vehicles did the bridge lately carry a day? Answer with words of the text.",
            f"{_REPORT}\n\nWhat did the shopkeepers ask for? Answer with words of the text.",
            f"{_MANUAL}\n\nWhat does it mean when the lamp blinks once? Answer with words of the text.",
            f"{_MANUAL}\n\nWhat must never be used? Answer with words of the text.",
        ),
    ),
    (
        "binary text classification", 4,
        tuple(
            f"Is this review positive or negative? Answer with one word.\n\n{review}"
            for review in (
                "The soup was cold and so was the waiter. Never again.",
                "I have worn these boots for three winters and they look like new.",
                "A film that trusts its audience; I left the cinema humming.",
                "The battery lasts an hour, the manual is a joke, and nobody answers the phone.",
                "Quiet room, kind people, and the best breakfast on the coast.",
                "It broke on the second day and the shop would not take it back.",
                "Slow to start, but the last hundred pages are worth all the others.",
                "Two weeks late, the wrong colour, and a scratch on the lid.",
            )
        ),
    ),
)  # fmt: skip
"""(task, most tokens of an answer, prompts)."""
