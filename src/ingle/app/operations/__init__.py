"""All that Ingle can do: a file for each noun."""
