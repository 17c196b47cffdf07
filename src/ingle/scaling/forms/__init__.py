"""One file a form of law; its name is the form's. See scaling/law.py."""
