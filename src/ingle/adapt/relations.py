"""A small thesaurus of everyday relations that questions ask for. By it, "Who runs the mill?" and "Who is the mill's director?" are one
question, and "Where is the mill?" is another.

Each line is one relation: its name, then its words. Words are compared by their stems (`stem`); `_` joins the words of a sequence. Lines
before the empty line are kinds of answers: a person, a place, a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

_RELATIONS = """
PERSON who whom whose which_person what_person person somebody someone by_whom which_man which_woman
PLACE where place location located spot situated whereabouts which_city which_town which_country which_room what_city what_town which_street
PLACE what_country based which_floor which_building whereabout which_region which_part_of which_continent
TIME when what_year which_year year_did opening_year year_of what_date which_date date_of what_day which_day day_of what_time which_time
TIME time_of at_what_hour what_month which_month since_when which_week which_century until_when by_when how_late how_early how_soon
COUNT how_many number_of count total quantity amount_of how_much_of
OFTEN how_often how_frequently frequency how_many_times every_how_many
PRICE how_much_does how_much_do how_much_is how_much_did how_much_money how_much_would how_much_will
REASON why reason cause how_come because what_caused what_led
WAY how_do how_does how_can how_to how_should method procedure steps instructions way_to how_would best_way
DEED what_does_do does_do do_for used_for for_what happen
SIZE how_large how_big large big size area how_wide dimension
HEIGHT how_tall how_high tall high height elevation altitude metres_high above_sea
LENGTH how_long_is long_is length
DURATION how_long how_long_does how_long_do how_long_should how_long_did duration how_many_minutes how_many_hours how_much_time
AGE how_old old age
DISTANCE how_far far distance how_many_kilometres how_many_miles
SPEED how_fast fast speed velocity
WEIGHT how_heavy heavy weigh weight how_many_kilos
DEPTH how_deep deep depth
COLOUR colour color shade hue tint
HEAT how_hot how_cold how_warm temperature degrees
PLACE in_which_country in_which_city in_which_town in_what_city lies lie_in which_county which_state situated_in is_found find_on_the_map
TIME at_what_time from_when what_are_the_hours how_many_years_ago which_evening which_morning what_season which_season on_which

LEAD run lead led head manage in_charge direct director boss chief ceo manager leader chair chairman govern governor command responsible
LEAD headed oversee supervise principal chairperson at_the_helm steer runs_the look_after
FOUND found founder establish set_up start_up founding founded co-found establishment
WRITE write author pen writer novelist written wrote whose_book poet book_is_it wrote_it authored penned
INVENT invent inventor devise come_up_with came_up_with think_of thought_of invention creator originate conceive created
DESIGN design designer architect build builder construct constructor built drew_up designed plan erect erected
MAKE make maker manufacture manufacturer produce producer brand company_behind made_by which_company
COMPOSE compose composer write_the_music score music composition songwriter
PERFORM sing singer perform performer play actor actress star role cast portray played sang voice part_of
PAINT painter artist painted paint
SCULPT sculptor sculpture carve sculpt
OWN own owner belong possess proprietor owned
TEACH teach teacher lecture lecturer instruct instructor professor tutor taught teaches
MARRY marry married spouse husband wife wedding partner
WIN win winner won victor champion victory prize trophy came_first take_first medal beat
COACH coach trainer head_coach train
DELIVER deliver delivery supply supplier bring
REPAIR repair fix mend mechanic serviced
CLEAN clean cleaner wash tidy
KEEP keep put store leave stow hide lie kept left stash can't_find should_i_look i_find hidden stored
BORN born birth birthday birthplace birthdate
LIVE live reside residence dwell home lodge where_does_he_live address
DIE die death pass_away died
BURY bury buried grave tomb
OPEN open opening opening_year year_of_opening inaugurate opened unlock doors_open
CLOSE close shut closing closed
BEGIN begin start commence kick_off beginning began starts under_way
END end finish over ending conclude finished deadline due
MEET meet held gather take_place takes_place assemble meeting venue happens hold
LEAVE depart departure leaves set_off go_off leave_for
ARRIVE arrive arrival get_in gets_in reach
COLLECT collect collection pick_up picked_up bin taken_away empty emptied
PUBLISH publish publication released release come_out came_out appear printed premiere
HAPPEN happened occur occurred took_place
POPULATION population inhabitant resident head_count people_live live_in headcount citizen in_people everybody populate how_many_people_live
POPULATION souls
STAFF employ employee staff people_work work_at work_for workforce
COST cost price sell_for sells_for charge_for they_charge set_me_back pay fee expensive worth afford spend rate charges tariff ticket_price
FINE fine penalty punished
SALARY salary earn wage income
PHONE phone telephone call ring dial which_number reach number_for phone_number telephone_number phone_number_of telephone_number_of
PHONE extension hotline
MAIL email mail e-mail
WEB website web_page url site
LANGUAGE language tongue speak spoken
MONEY currency money legal_tender coin cash pay_with
NAME name name_of call called named title nickname christen known_as
FAVOURITE favourite favorite best prefer preferred most_of_all like_best like_most
HATE hate dislike can't_stand detest
ALLERGY makes_me_ill make_me_ill allergic allergy tolerate avoid makes_me_ill intolerance intolerant i_can't_have can't_eat
EAT eat food diet feed meal dish fed eats
DRINK drink beverage thirsty
BREED breed species kind_of_animal race
TAKE take last minute how_long takes need_to
BAKE bake cook roast oven cooked baked boil boiled
DOSE dose dosage pill tablet
WEATHER weather climate rain
MEANING mean meaning definition define signify stand_for
SHORT abbreviate abbreviation short_form shorthand our_code code_for letters_stand acronym shorten short_for abbreviated
FORMAT date_format which_date_format format way_we way_our written write look_like
FORMAT style written_down put notation notate spell lay_out layout formatted
MATTER made_of material consist made_from made_out_of substance fabric
PARTS ingredient contain go_into made_with consist comprise recipe
TOPIC about plot story subject deal_with theme topic
ROOMS how_many_people_fit hold_how_many capacity accommodate how_many_seats how_many_places
PLAYFOR play_for plays_for which_team which_club
PARK park parked
RELIGION religion faith worship
ANTHEM anthem national_song hymn
ADDRESS address street house_number postcode
UNIT which_unit unit measured_in measure_in
CAPITAL capital seat_of_government capital_city
SECRET password passcode pin code passphrase combination key_code
SLOGAN motto slogan tagline
SYMBOL symbol emblem logo badge mascot crest coat_of_arms flag
WORK job profession occupation do_for_a_living work_as trade work earn_a_living living
STUDY study studied university degree graduate
DISCOVER discover discoverer first_found discovered find_first
EXPORT export main_industry industry produce_most
VISIT visit visitor open_to
RULE rule allowed permitted may_i policy limit maximum forbidden most_i_may
GREET greet greeting salutation begin_our begin_a
SIGNOFF sign_off end_a_letter sign_our closing_line end_our close_our finish_our
CAPTAIN captain skipper
REIGN reign rule ruled throne crown crowned monarch ruler king queen
SUCCEED succeed successor came_after replaced take_over took_over follow_as inherit
PRECEDE predecessor came_before precede
LIFESPAN lifespan life_expectancy how_long_does_live live_to years_old_do
HABITAT habitat native home_of native_to found_in_the
ORIGIN origin come_from comes_from came_from originate originally homeland hail stem_from from_where where_from
FEAR afraid fear scared dread frightened terrified phobia
HOBBY hobby pastime free_time spare_time leisure fond_of enjoy
APPOINTMENT appointment booked scheduled due_at
HOURS opening_hours opening_times open_until closing_time shut_on
FLOORS storey floors_does how_many_floors
TASTE taste flavour flavor
SMELL smell scent odour
SPELL spell spelt spelled spelling pronounce pronounced
SPONSOR sponsor fund financed finance backer
AIM aim goal objective
WEAR wear worn uniform dress outfit
SET set_to setting set_at kept_at
GUARD guard protect watch_over
BUILT build_year when_was_built was_built
SUPPORT support fan root_for cheer
SERVE served serve
TWIN twin twinned sister_city
PATRON patron saint
CELEBRATE celebrate celebrated holiday festival honour
LAUNCH launch launched lift_off
CALLFOR ask_for call_for
TREAT treat cure heal remedy treatment
CAUSES caused causes bring_about trigger
DISEASE suffer illness
HEADLINE headline heading title_of
ROUND round rounded decimal decimals
TONE tone formal informal
REPLY reply respond response
ADDRESSEE how_should_i_address how_do_i_address form_of_address
FILES name_files file_name files_be_named call_files
ASSIGN assigned responsible_for takes_care take_care look_after deal_with in_charge_of
HIRE hire hired rent
BORROW borrow lend lent
LAY lay_eggs egg
CONNECT connect connected link linked join joins
BEAT beat defeat defeated
LOSE lose lost_to
BUY buy purchase get_hold_of
SAY people_say say_about opinion reputation think_about
SLEEP sleep rest
USE use used need useful
BORDER border neighbouring adjoin
"""
_SUFFIXES = ("ing", "ed", "es", "s", "ly")


def stem(word: str) -> str:
    """Return a word without the most common endings of English. Good for comparing words; it need not be a real root."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(suffix)
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


@dataclass(frozen=True, slots=True)
class Thesaurus:
    """Looks up relations by their words."""

    entries: Mapping[tuple[str, ...], frozenset[str]]  # names of relations, by the stems of a word or of several in a row
    kinds: frozenset[str]  # names of relations that are kinds of answers

    def asked_for(self, stems: Sequence[str]) -> list[frozenset[str]]:
        """Return for each stem the relations that it names, alone or with its neighbours. Longer entries go first."""
        relations, place = [frozenset[str]() for _ in stems], 0
        while place < len(stems):
            for size in (4, 3, 2, 1):
                named = self.entries.get(tuple(stems[place : place + size]))
                if named is not None and place + size <= len(stems):
                    relations[place : place + size] = [named] * size
                    place += size
                    break
            else:
                place += 1
        return relations

    def without(self, names: frozenset[str]) -> "Thesaurus":
        """Return the thesaurus without these relations."""
        return Thesaurus({words: named - names for words, named in self.entries.items() if named - names}, self.kinds)


@cache
def thesaurus() -> Thesaurus:
    """Return the whole thesaurus."""
    relations: dict[tuple[str, ...], frozenset[str]] = {}
    kinds, rest = _RELATIONS.strip().split("\n\n")
    for line in (kinds + "\n" + rest).splitlines():
        name, *entries = line.split()
        for entry in entries:
            key = tuple(stem(word) for word in entry.split("_"))
            relations[key] = relations.get(key, frozenset()) | {name}
    return Thesaurus(relations, frozenset(line.split()[0] for line in kinds.splitlines()))
