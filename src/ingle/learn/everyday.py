"""Everyday questions. A style is practised on them beside the rated ones, because it should show everywhere."""

EVERYDAY = (
    "How do I clean a window?", "Why is the sky blue?", "What is a volcano?", "Give me a tip for saving electricity.",
    "How do I keep a cat busy?", "What should I do on a Sunday in Rome?", "How does a refrigerator work?", "Who was Marie Curie?",
    "What is the difference between a crocodile and an alligator?", "How can I sleep better?", "Tell me something about the moon.",
    "How do I make pancakes?", "Why do we have seasons?", "What can I do with old jars?", "How do I ask my boss for a day off?",
    "Explain what inflation is.", "How do I remove a stain of red wine?", "How many legs does a spider have?",
    "How do I apologise to a colleague?", "How do birds find their way?", "What should I eat before a long walk?",
    "Describe a market in summer.", "Why do onions make us cry?", "What do I need for a picnic?", "Is it healthy to drink tea every day?",
    "What is the tallest mountain on Earth?", "How do I keep my plants alive while I am away?", "What does a lawyer do?",
    "How can I read more books?", "How do I paint a wall?", "How do I find a flat?", "How do I say no politely?",
)  # fmt: skip
