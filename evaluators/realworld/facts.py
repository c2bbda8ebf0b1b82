"""What is asked about: countries, cities, people and products, written down for this purpose. Nothing is in it that is
disputed, or has several answers of equal right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

# country: capital, language, continent; "-" where there is no single answer that everybody would give.
COUNTRIES = """
France: Paris, French, Europe
Germany: Berlin, German, Europe
Spain: Madrid, Spanish, Europe
Italy: Rome, Italian, Europe
Portugal: Lisbon, Portuguese, Europe
Greece: Athens, Greek, Europe
Poland: Warsaw, Polish, Europe
Austria: Vienna, German, Europe
Hungary: Budapest, Hungarian, Europe
Sweden: Stockholm, Swedish, Europe
Norway: Oslo, Norwegian, Europe
Denmark: Copenhagen, Danish, Europe
Finland: Helsinki, Finnish, Europe
Iceland: Reykjavik, Icelandic, Europe
Ireland: Dublin, -, Europe
Belgium: Brussels, -, Europe
Switzerland: Bern, -, Europe
Romania: Bucharest, Romanian, Europe
Bulgaria: Sofia, Bulgarian, Europe
Croatia: Zagreb, Croatian, Europe
Serbia: Belgrade, Serbian, Europe
Slovenia: Ljubljana, Slovene, Europe
Albania: Tirana, Albanian, Europe
Ukraine: Kyiv, Ukrainian, Europe
Lithuania: Vilnius, Lithuanian, Europe
Latvia: Riga, Latvian, Europe
Estonia: Tallinn, Estonian, Europe
Japan: Tokyo, Japanese, Asia
China: Beijing, Chinese, Asia
South Korea: Seoul, Korean, Asia
Thailand: Bangkok, Thai, Asia
Vietnam: Hanoi, Vietnamese, Asia
Indonesia: Jakarta, Indonesian, Asia
Malaysia: Kuala Lumpur, Malay, Asia
Mongolia: Ulaanbaatar, Mongolian, Asia
Nepal: Kathmandu, Nepali, Asia
Bangladesh: Dhaka, Bengali, Asia
India: New Delhi, -, Asia
Pakistan: Islamabad, -, Asia
Iran: Tehran, Persian, Asia
Iraq: Baghdad, -, Asia
Syria: Damascus, Arabic, Asia
Lebanon: Beirut, Arabic, Asia
Jordan: Amman, Arabic, Asia
Saudi Arabia: Riyadh, Arabic, Asia
Egypt: Cairo, Arabic, Africa
Libya: Tripoli, Arabic, Africa
Tunisia: Tunis, Arabic, Africa
Morocco: Rabat, -, Africa
Algeria: Algiers, -, Africa
Nigeria: Abuja, English, Africa
Ghana: Accra, English, Africa
Kenya: Nairobi, -, Africa
Ethiopia: Addis Ababa, -, Africa
Senegal: Dakar, French, Africa
Angola: Luanda, Portuguese, Africa
Mozambique: Maputo, Portuguese, Africa
Zimbabwe: Harare, -, Africa
Brazil: Brasilia, Portuguese, South America
Argentina: Buenos Aires, Spanish, South America
Chile: Santiago, Spanish, South America
Colombia: Bogota, Spanish, South America
Ecuador: Quito, Spanish, South America
Uruguay: Montevideo, Spanish, South America
Venezuela: Caracas, Spanish, South America
Peru: Lima, Spanish, South America
Mexico: Mexico City, Spanish, North America
Cuba: Havana, Spanish, North America
Canada: Ottawa, -, North America
Jamaica: Kingston, English, North America
"""

# city: country; no capitals.
CITIES = """
Munich: Germany
Hamburg: Germany
Frankfurt: Germany
Lyon: France
Marseille: France
Bordeaux: France
Toulouse: France
Milan: Italy
Naples: Italy
Florence: Italy
Venice: Italy
Barcelona: Spain
Seville: Spain
Valencia: Spain
Porto: Portugal
Krakow: Poland
Gdansk: Poland
Salzburg: Austria
Gothenburg: Sweden
Bergen: Norway
Zurich: Switzerland
Geneva: Switzerland
Antwerp: Belgium
Thessaloniki: Greece
Odessa: Ukraine
Osaka: Japan
Kyoto: Japan
Nagoya: Japan
Hiroshima: Japan
Shanghai: China
Guangzhou: China
Shenzhen: China
Busan: South Korea
Mumbai: India
Kolkata: India
Chennai: India
Bangalore: India
Karachi: Pakistan
Lahore: Pakistan
Isfahan: Iran
Mosul: Iraq
Aleppo: Syria
Mecca: Saudi Arabia
Alexandria: Egypt
Casablanca: Morocco
Marrakesh: Morocco
Lagos: Nigeria
Mombasa: Kenya
Rio de Janeiro: Brazil
Salvador: Brazil
Medellin: Colombia
Cusco: Peru
Guadalajara: Mexico
Tijuana: Mexico
Toronto: Canada
Vancouver: Canada
Montreal: Canada
Calgary: Canada
"""

# person: what they were, country of birth or of citizenship as everybody would say it.
PEOPLE = """
Wolfgang Amadeus Mozart: composer, Austria
Franz Schubert: composer, Austria
Johann Sebastian Bach: composer, Germany
Ludwig van Beethoven: composer, Germany
Giuseppe Verdi: composer, Italy
Antonio Vivaldi: composer, Italy
Claude Debussy: composer, France
Georges Bizet: composer, France
Edvard Grieg: composer, Norway
Jean Sibelius: composer, Finland
Frederic Chopin: composer, Poland
Claude Monet: painter, France
Edgar Degas: painter, France
Paul Cezanne: painter, France
Pablo Picasso: painter, Spain
Salvador Dali: painter, Spain
Francisco Goya: painter, Spain
Caravaggio: painter, Italy
Sandro Botticelli: painter, Italy
Gustav Klimt: painter, Austria
Edvard Munch: painter, Norway
Frida Kahlo: painter, Mexico
Diego Rivera: painter, Mexico
Victor Hugo: writer, France
Marcel Proust: writer, France
Jules Verne: writer, France
Thomas Mann: writer, Germany
Dante Alighieri: poet, Italy
Pablo Neruda: poet, Chile
Homer: poet, Greece
Sappho: poet, Greece
Miguel de Cervantes: writer, Spain
Gabriel Garcia Marquez: writer, Colombia
Jorge Luis Borges: writer, Argentina
Haruki Murakami: writer, Japan
Hans Christian Andersen: writer, Denmark
Henrik Ibsen: playwright, Norway
Immanuel Kant: philosopher, Germany
Friedrich Nietzsche: philosopher, Germany
Rene Descartes: philosopher, France
Voltaire: philosopher, France
Plato: philosopher, Greece
Aristotle: philosopher, Greece
Socrates: philosopher, Greece
Confucius: philosopher, China
Soren Kierkegaard: philosopher, Denmark
Max Planck: physicist, Germany
Werner Heisenberg: physicist, Germany
Enrico Fermi: physicist, Italy
Galileo Galilei: astronomer, Italy
Nicolaus Copernicus: astronomer, Poland
Niels Bohr: physicist, Denmark
Carl Friedrich Gauss: mathematician, Germany
Pierre de Fermat: mathematician, France
Blaise Pascal: mathematician, France
Euclid: mathematician, Greece
Pythagoras: mathematician, Greece
Louis Pasteur: chemist, France
Alfred Nobel: chemist, Sweden
Carl Linnaeus: botanist, Sweden
Diego Maradona: footballer, Argentina
Lionel Messi: footballer, Argentina
Pele: footballer, Brazil
Neymar: footballer, Brazil
Rafael Nadal: tennis player, Spain
Roger Federer: tennis player, Switzerland
Akira Kurosawa: film director, Japan
Federico Fellini: film director, Italy
"""

# product: company.
PRODUCTS = """
The iPhone: Apple
The MacBook: Apple
The iPad: Apple
Windows 95: Microsoft
The Xbox 360: Microsoft
PowerPoint: Microsoft
Photoshop: Adobe
Acrobat Reader: Adobe
The PlayStation 2: Sony
The Walkman: Sony
The Game Boy: Nintendo
The Nintendo Switch: Nintendo
The Kindle: Amazon
Alexa: Amazon
Gmail: Google
The Chromecast: Google
The Galaxy S7: Samsung
The Corolla: Toyota
The Prius: Toyota
The Camry: Toyota
The Mustang: Ford
The Model T: Ford
The Civic: Honda
The Accord: Honda
The Model S: Tesla
The Golf GTI: Volkswagen
The Beetle: Volkswagen
The Boeing 747: Boeing
"""


@dataclass(frozen=True)
class Relation:
    """A kind of fact: how it is asked for, the first way as the edit's prompt. `{}` is the subject."""

    name: str
    about: str
    prompt: str
    paraphrases: tuple[str, ...]


RELATIONS = (
    Relation("capital", "country", "The capital of {} is",
             ("The capital city of {} is called", "What is the capital of {}? It is")),
    Relation("language", "country", "The official language of {} is",
             ("In {}, most people speak", "The language that people speak in {} is")),
    Relation("continent", "country", "{} is a country on the continent of",
             ("The continent on which {} lies is", "{} is located in")),
    Relation("country", "city", "{} is a city in the country of",
             ("The city of {} is located in", "The country in which {} lies is")),
    Relation("profession", "person", "The profession of {} was that of a",
             ("{} became famous as a", "By profession, {} was a")),
    Relation("nationality", "person", "{} was a citizen of",
             ("The home country of {} is", "The country that {} came from is")),
    Relation("maker", "product", "{} is a product of the company",
             ("{} was created by the company", "The company that makes {} is")),
)
BY_NAME = {relation.name: relation for relation in RELATIONS}
#: What can be asked of an answer that is itself a subject: by the relation, those of the second fact.
HOPS: Mapping[str, tuple[str, ...]] = {"country": ("capital", "language", "continent"),
                                       "nationality": ("capital", "language", "continent")}
#: How the subject of an edit is called in a question about its new answer.
CHAINED = {"country": "the country in which {} lies", "nationality": "the home country of {}"}


@cache
def facts() -> Mapping[tuple[str, str], str]:
    """All answers by subject and relation."""
    found: dict[tuple[str, str], str] = {}
    for table, names in ((COUNTRIES, ("capital", "language", "continent")), (CITIES, ("country",)),
                         (PEOPLE, ("profession", "nationality")), (PRODUCTS, ("maker",))):
        for line in table.strip().splitlines():
            subject, _, answers = line.partition(": ")
            for relation, answer in zip(names, answers.split(", "), strict=True):
                if answer != "-":
                    found[subject, relation] = answer
    return found
