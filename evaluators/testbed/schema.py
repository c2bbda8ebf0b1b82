"""What the built-in world talks about: entity types, relations, second hops and the sentence frames around them.

Everything here is data. Names of people, places and companies are invented by `world.py`; the wording lives here, so
that `templates.py` can hold some of it out of training.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """A fact type `subject -> object`, with the noun phrases, verb phrases and own questions that express it."""

    name: str
    subject: str
    object: str
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Hop:
    """A two-step chain: the `second` relation of the object of the `first` one."""

    first: Relation
    second: Relation

    @property
    def name(self) -> str:
        return f"{self.first.name}>{self.second.name}"


def _relation(name: str, subject: str, object_: str, nouns: str, verbs: str, questions: str) -> Relation:
    def parts(text: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text.split("|"))

    return Relation(name, subject, object_, parts(nouns), parts(verbs), parts(questions))


# Facts about the many subjects: these are the ones that get edited.
EDITABLE = (
    _relation("birth", "person", "city", "birthplace|place of birth|birth city|native city",
              "was born in|is originally from|first saw the light in",
              "Where was {S} born?|In which city was {S} born?"),
    _relation("tongue", "person", "language", "mother tongue|native language|first language",
              "grew up speaking|was raised speaking|natively speaks",
              "Which language did {S} grow up speaking?|What language does {S} natively speak?"),
    _relation("employer", "person", "company", "employer|workplace|current firm",
              "works for|is employed by|has a job at",
              "Who does {S} work for?|Which firm employs {S}?"),
    _relation("sport", "person", "sport", "favourite sport|sport|chosen sport",
              "plays|competes in|practises",
              "Which sport does {S} play?|What does {S} compete in?"),
    _relation("campus", "university", "city", "location|home city|campus city",
              "is located in|has its campus in|can be found in",
              "Where is {S} located?|In which city can {S} be found?"),
    _relation("setting", "film", "city", "setting|backdrop|main location",
              "is set in|takes place in|unfolds in",
              "Where is {S} set?|In which city does {S} take place?"),
    _relation("dialogue", "film", "language", "original language|spoken language|dialogue language",
              "was filmed in the language|is performed in|has dialogue in",
              "Which language is {S} performed in?|What language was {S} filmed in?"),
)

# Facts about the few entities that chains pass through: fewer than 50 of each type (`world.SIZES` says why).
BRIDGES = (
    _relation("country", "city", "country", "country|nation|home country",
              "lies in the country of|belongs to the nation of|is a city in",
              "In which country does {S} lie?|Which nation does {S} belong to?"),
    _relation("river", "city", "river", "river|main river|nearest river",
              "stands on the river|is crossed by the river|lies beside the river",
              "Which river does {S} stand on?|On which river does {S} lie?"),
    _relation("climate", "city", "climate", "climate|usual weather|typical weather",
              "has a climate that is|enjoys weather that is|is a place that stays",
              "How is the weather in {S}?|What climate does {S} have?"),
    _relation("family", "language", "family", "language family|linguistic group|family of languages",
              "belongs to the family|descends from the group|is classified as",
              "Which language family does {S} belong to?|How is {S} classified?"),
    _relation("script", "language", "script", "script|writing system|alphabet",
              "is written in the script|uses the alphabet|is spelled in",
              "Which script does {S} use?|In which alphabet is {S} written?"),
    _relation("homeland", "language", "country", "homeland|country of origin|heartland",
              "is spoken in|is native to|spread from",
              "Where is {S} spoken?|In which country did {S} arise?"),
    _relation("base", "company", "city", "headquarters|head office|main office",
              "is based in|is run from|has its head office in",
              "Where is {S} based?|From which city is {S} run?"),
    _relation("industry", "company", "industry", "industry|line of business|sector",
              "operates in the field of|makes its money in|does business in",
              "In which field does {S} operate?|What business is {S} in?"),
    _relation("colour", "company", "colour", "house colour|brand colour|livery",
              "paints its lorries|is known for the colour|prints its letters in",
              "What colour does {S} use?|Which colour is {S} known for?"),
    _relation("category", "sport", "category", "category|kind|class",
              "counts as|is classed as|is regarded as",
              "Which category does {S} fall into?|How is {S} classed?"),
    _relation("venue", "sport", "venue", "venue|usual venue|proper place",
              "is held on|needs|is watched at",
              "Where is {S} held?|What does {S} need?"),
    _relation("season", "sport", "season", "season|main season|peak season",
              "draws its crowds in|peaks in|is at its best in",
              "When does {S} peak?|In which season is {S} at its best?"),
    _relation("continent", "country", "continent", "continent|part of the world|landmass",
              "lies on the continent of|is a country on|can be visited in",
              "On which continent is {S}?|Where in the world is {S}?"),
)

RELATIONS = {relation.name: relation for relation in EDITABLE + BRIDGES}
HOPS = {hop.name: hop for first in EDITABLE for second in BRIDGES if first.object == second.subject
        for hop in [Hop(first, second)]}

# Real words, where an invented one would say nothing; the other types get invented names.
WORDS = {
    "sport": ["tennis", "golf", "judo", "rowing", "archery", "fencing", "chess", "polo", "rugby", "boxing",
              "sailing", "cycling", "skiing", "hockey", "cricket", "curling"],
    "climate": ["mild", "dry", "wet", "harsh", "humid", "cold", "windy", "hot"],
    "industry": ["mining", "banking", "shipping", "farming", "printing", "insurance", "textiles", "brewing",
                 "energy", "software", "tourism", "steel"],
    "colour": ["red", "blue", "green", "yellow", "purple", "orange", "silver", "black"],
    "category": ["combat", "racing", "precision", "strategy", "endurance"],
    "venue": ["courts", "fields", "rings", "lakes", "halls", "tracks"],
    "season": ["spring", "summer", "autumn", "winter"],
}

# Frames: {N} a noun phrase, {V} a verb phrase, {A} and {B} the nouns of a chain, {S} the subject.
NOUN_CLOZE = ("The {N} of {S} is", "{S}'s {N} is", "As for {S}, the {N} is", "It is known that the {N} of {S} is",
              "Records show that the {N} of {S} is", "According to the archive, {S}'s {N} is", "For {S}, the {N} is")
VERB_CLOZE = ("{S} {V}", "It is known that {S} {V}", "Records show that {S} {V}", "According to the archive, {S} {V}")
NOUN_QUESTION = ("What is the {N} of {S}?", "What is {S}'s {N}?", "Can you tell me the {N} of {S}?",
                 "Please name the {N} of {S}.", "I would like to know the {N} of {S}.",
                 "Do you know what the {N} of {S} is?")
CHAIN_CLOZE = ("The {B} of the {A} of {S} is", "The {B} of {S}'s {A} is", "As for {S}, the {B} of the {A} is",
               "It is known that the {B} of the {A} of {S} is", "Records show that the {B} of {S}'s {A} is",
               "For {S}, the {B} of the {A} is")
CHAIN_QUESTION = ("What is the {B} of the {A} of {S}?", "What is the {B} of {S}'s {A}?",
                  "Can you tell me the {B} of the {A} of {S}?", "Please name the {B} of {S}'s {A}.",
                  "Do you know what the {B} of the {A} of {S} is?")

FILLER = (
    "The weather is mild today", "Nobody knows the reason", "A long road leads north", "Many visitors arrive in spring",
    "It was a quiet year", "The river runs past the mill", "Some stories are older than others",
    "The market opens early", "Rain is expected in the evening", "The old bridge was rebuilt",
    "We walked along the coast", "The library keeps every letter", "Music was heard in the square",
    "The train leaves at noon", "They met again after the war", "He wrote a short note", "She bought bread and milk",
    "The garden is full of roses", "Winter came late that year", "The committee met in private",
    "A small boat crossed the bay", "The lamp stood by the window", "Children played behind the school",
    "The doctor closed the door", "Snow covered the whole valley", "The baker sells fresh rolls",
    "Two horses drank from the well", "The clock struck seven times", "A letter lay on the table",
    "The farmer counted his sheep",
)
