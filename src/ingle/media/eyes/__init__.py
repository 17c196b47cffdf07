"""One file an eye: an encoder that turns a picture into numbers."""
