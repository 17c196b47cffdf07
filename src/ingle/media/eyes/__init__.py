"""One file an encoder of pictures: pixels in, features out."""
