"""Examines a home's database and ledger without writing anything."""

from dataclasses import dataclass, replace

from ingle.app.answer_key import KEY, key_fault, read_answer_key
from ingle.app.house import rooms
from ingle.app.proofs import Proofs, proofs
from ingle.core.errors import DamagedError, LedgerError
from ingle.ethics.notary import KEY as NOTARY
from ingle.ethics.notary import notary_fault
from ingle.home.place import Home
from ingle.home.read_only import database_faults, reading
from ingle.ledger.chain import Ledger
from ingle.ledger.head import Head
from ingle.ledger.keys import KEY as LEDGER
from ingle.ledger.verify import Problem, Verification


@dataclass(frozen=True, slots=True)
class Examined:
    """The findings of an examination."""

    ledger: Verification
    database: tuple[str, ...]  # faults of the database
    proofs: Proofs  # kept things, compared with the ledger

    @property
    def whole(self) -> bool:
        """Whether everything is as it was signed and kept."""
        return self.ledger.problem is None and not self.database and not self.proofs.faults


def examine(home: Home, exported: Head | None = None) -> Examined:
    """Examine a home: the database, the chain of facts (and the head that was exported earlier), and what is kept beside the facts.

    Raises LedgerError if the chain's public key is missing, HomeError if a newer Ingle wrote the database or it changes meanwhile.
    """
    try:
        with reading(home, rooms()) as engine:
            faults = tuple(database_faults(engine))
            ledger = Ledger(engine, home.keys)
            fault = key_fault(home, ledger)
            found = proofs(home, engine, ledger, None if fault else read_answer_key(home))
            keys = ((LEDGER, _ledger_key_fault(ledger)), (KEY, fault), (NOTARY, notary_fault(home, ledger)))
            lost = [(name, what) for name, what in keys if what]
            found = replace(found, faults=(*lost, *found.faults))
            return Examined(ledger.verify(exported), faults, found)
    except DamagedError as error:
        return Examined(Verification(0, None, Problem(0, "the database can't be read")), (error.got or str(error),), Proofs())


def _ledger_key_fault(ledger: Ledger) -> str:
    """Return what is wrong with the private key that signs the facts; "" = nothing."""
    try:
        ledger.check_key()
    except LedgerError as error:
        return error.sentence
    return ""
