"""Reading of a round's last letter, whatever kind of round it was: the verdict, counted from what the homes signed."""

from ingle.core.digest import digest_bytes
from ingle.federated.opened import believe_shown
from ingle.federated.split_home import read_end
from ingle.federated.statement import read_all
from ingle.federated.terms import Terms
from ingle.federated.verdict import RoundVerdict, believe_agreed, count
from ingle.federated.wire import Letter, number_of


def verdict_in(terms: Terms, base: str, letter: Letter) -> RoundVerdict:
    """Count the votes on a round that began from `base`. Raises FederatedError if any of them isn't what the homes signed."""
    number, digest = number_of(letter.head), digest_bytes(letter.body)
    if "split" in letter.head:
        return read_end(terms, base, letter)
    if terms.rule:
        homes = believe_shown(terms, number, base, read_all(letter.head, "show"))
    else:
        homes = believe_agreed(terms, number, read_all(letter.head, "agree"))
    return count(terms, number, base, homes, read_all(letter.head, "votes"), digest)
