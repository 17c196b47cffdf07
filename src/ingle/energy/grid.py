"""Grams of CO₂ equivalent per kilowatt-hour of electricity, by country: a year's average of its generation, life cycle
included. What a country imports is not in it, nor what a contract for green power says.

Source: Our World in Data, from Ember and the Energy Institute (CC BY 4.0), as CodeCarbon 3.3 carries it; world and EU: Ember's yearly
reviews of 2024. Offline: nothing is fetched.
"""

from dataclasses import dataclass

from ingle.core.energy import JOULES_PER_WH, Energy
from ingle.core.errors import ConfigError

SOURCE, REVIEWS = "Our World in Data, from Ember", "Ember, reviews of 2024"
WORLD, UNION = "WORLD", "EU"
_OF_2023 = {
    "WORLD": 480, "EU": 242,
    "AR": 354, "AT": 111, "AU": 549, "BA": 600, "BD": 691, "BE": 138, "BG": 335, "BO": 532, "BR": 98, "CA": 170, "CH": 35, "CL": 291,
    "CN": 582, "CO": 260, "CR": 53, "CY": 534, "CZ": 450, "DE": 381, "DK": 152, "EC": 150, "EE": 417, "EG": 570, "ES": 174, "FI": 79,
    "FR": 56, "GB": 238, "GE": 168, "GR": 337, "HR": 205, "HU": 204, "IE": 291, "IN": 713, "IR": 655, "IT": 331, "JP": 485, "KE": 70,
    "KR": 431, "KW": 649, "KZ": 821, "LT": 160, "LU": 105, "LV": 123, "MA": 630, "MD": 643, "ME": 417, "MK": 565, "MM": 399, "MN": 775,
    "MT": 459, "MX": 507, "NG": 523, "NL": 268, "NO": 30, "NZ": 113, "OM": 565, "PE": 266, "PH": 611, "PK": 441, "PL": 662, "PT": 166,
    "PY": 24, "QA": 602, "RO": 241, "RS": 636, "RU": 441, "SE": 41, "SG": 471, "SI": 231, "SK": 117, "SV": 271, "TH": 550, "TN": 564,
    "TR": 465, "TW": 642, "US": 369, "UY": 129, "VN": 475, "ZA": 708,
}  # fmt: skip
_OF_2022 = {
    "AE": 561, "AL": 24, "AM": 265, "AZ": 671, "BY": 442, "DO": 581, "DZ": 635, "ET": 25, "GH": 484, "GT": 328, "HK": 699, "ID": 676,
    "IL": 583, "IQ": 689, "IS": 28, "JM": 556, "JO": 541, "KG": 147, "LB": 599, "LK": 510, "MY": 606, "PA": 162, "PR": 679, "SA": 707,
    "TJ": 117, "TM": 1306, "TT": 682, "UA": 260, "UZ": 1168, "VE": 186,
}  # fmt: skip
_OTHER_NAMES = {"UK": "GB", "EL": "GR", "WORLDWIDE": WORLD}


@dataclass(frozen=True, slots=True)
class PowerGrid:
    """The electricity of one country."""

    region: str
    """ISO 3166 code of two letters; also EU and WORLD."""
    g_per_kwh: float
    """CO₂ equivalent."""
    year: int
    source: str = SOURCE

    def grams(self, energy: Energy) -> tuple[float, float, float]:
        """Return the grams for this energy: nominal, low, high. The interval is the energy's alone."""
        per_joule = self.g_per_kwh / 1000 / JOULES_PER_WH
        return energy.joules * per_joule, energy.low * per_joule, energy.high * per_joule

    def __str__(self) -> str:
        return f"{self.region}, {self.g_per_kwh:g} g/kWh in {self.year} ({self.source})"


def find_grid(region: str) -> PowerGrid:
    """Return the electricity of a country. Raises ConfigError for one that is not in the table."""
    name = region.strip().upper()
    name = _OTHER_NAMES.get(name, name)
    for year, table in ((2023, _OF_2023), (2022, _OF_2022)):
        if name in table:
            return PowerGrid(name, float(table[name]), year, REVIEWS if name in (WORLD, UNION) else SOURCE)
    known = ", ".join(sorted({*_OF_2023, *_OF_2022} - {WORLD}))
    raise ConfigError("--region", "must be a country in the table, by its two letters", region, f"Known: {known}, and WORLD.")
