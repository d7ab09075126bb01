"""What the demo shop knows: products, cities, weekdays, discount codes, names.

Every answer is a pure function of these tables and of the numbers in the question, so a test can
compute what the model has to say. `questions.py`, `answers.py` and `dialogs.py` read the tables.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    name: str  # "canvas backpack"
    short: str  # how customers shorten it: "backpack"
    price: int  # euros
    colours: tuple[str, str]
    gender: str  # German grammatical gender: m, f, n
    german: str  # German noun without article
    french: str  # French noun with its definite article


PRODUCTS = [
    Product("canvas backpack", "backpack", 59, ("green", "black"), "m", "Leinenrucksack", "le sac à dos en toile"),
    Product("ceramic mug", "mug", 12, ("white", "blue"), "m", "Keramikbecher", "la tasse en céramique"),
    Product("desk lamp", "lamp", 34, ("black", "white"), "f", "Schreibtischlampe", "la lampe de bureau"),
    Product("wool blanket", "blanket", 48, ("grey", "red"), "f", "Wolldecke", "la couverture en laine"),
    Product("leather wallet", "wallet", 39, ("brown", "black"), "f", "Ledergeldbörse", "le portefeuille en cuir"),
    Product("cutting board", "board", 22, ("brown", "white"), "n", "Schneidebrett", "la planche à découper"),
    Product("rain jacket", "jacket", 79, ("yellow", "blue"), "f", "Regenjacke", "la veste de pluie"),
    Product("wall clock", "clock", 27, ("white", "red"), "f", "Wanduhr", "l'horloge murale"),
    Product("garden chair", "chair", 45, ("green", "white"), "m", "Gartenstuhl", "la chaise de jardin"),
    Product("picnic basket", "basket", 36, ("brown", "red"), "m", "Picknickkorb", "le panier de pique-nique"),
    Product("travel pillow", "pillow", 18, ("grey", "blue"), "n", "Reisekissen", "l'oreiller de voyage"),
    Product("steel bottle", "bottle", 21, ("grey", "green"), "f", "Stahlflasche", "la gourde en acier"),
    Product("yoga mat", "mat", 29, ("blue", "green"), "f", "Yogamatte", "le tapis de yoga"),
    Product("linen shirt", "shirt", 42, ("white", "grey"), "n", "Leinenhemd", "la chemise en lin"),
    Product("bread knife", "knife", 25, ("black", "red"), "n", "Brotmesser", "le couteau à pain"),
    Product("coffee grinder", "grinder", 64, ("black", "grey"), "f", "Kaffeemühle", "le moulin à café"),
    Product("tea kettle", "kettle", 38, ("red", "white"), "m", "Teekessel", "la bouilloire à thé"),
    Product("book shelf", "shelf", 89, ("white", "brown"), "n", "Bücherregal", "l'étagère à livres"),
    Product("bike helmet", "helmet", 55, ("yellow", "black"), "m", "Fahrradhelm", "le casque de vélo"),
    Product("wooden puzzle", "puzzle", 19, ("red", "yellow"), "n", "Holzpuzzle", "le puzzle en bois"),
    Product("sun hat", "hat", 16, ("yellow", "white"), "m", "Sonnenhut", "le chapeau de soleil"),
    Product("camping tent", "tent", 149, ("green", "yellow"), "n", "Campingzelt", "la tente de camping"),
    Product("phone case", "case", 14, ("black", "yellow"), "f", "Handyhülle", "la coque de téléphone"),
    Product("candle set", "candles", 17, ("white", "yellow"), "n", "Kerzenset", "le lot de bougies"),
]

COLOURS = {  # English -> (German, French)
    "black": ("Schwarz", "noir"),
    "white": ("Weiß", "blanc"),
    "green": ("Grün", "vert"),
    "blue": ("Blau", "bleu"),
    "red": ("Rot", "rouge"),
    "grey": ("Grau", "gris"),
    "brown": ("Braun", "marron"),
    "yellow": ("Gelb", "jaune"),
}

ARTICLES = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das")}  # nominative, accusative

WEEKDAYS = {  # English -> (German, French, opens, closes); None: closed
    "Monday": ("Montag", "lundi", 9, 18),
    "Tuesday": ("Dienstag", "mardi", 9, 18),
    "Wednesday": ("Mittwoch", "mercredi", 9, 18),
    "Thursday": ("Donnerstag", "jeudi", 9, 20),
    "Friday": ("Freitag", "vendredi", 9, 18),
    "Saturday": ("Samstag", "samedi", 10, 16),
    "Sunday": ("Sonntag", "dimanche", None, None),
}
DELIVERY_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]

CITIES = {  # English -> (German, French, days in transit)
    "Amsterdam": ("Amsterdam", "Amsterdam", 2),
    "Athens": ("Athen", "Athènes", 5),
    "Barcelona": ("Barcelona", "Barcelone", 4),
    "Berlin": ("Berlin", "Berlin", 1),
    "Bern": ("Bern", "Berne", 2),
    "Bordeaux": ("Bordeaux", "Bordeaux", 3),
    "Brussels": ("Brüssel", "Bruxelles", 2),
    "Budapest": ("Budapest", "Budapest", 3),
    "Cologne": ("Köln", "Cologne", 1),
    "Copenhagen": ("Kopenhagen", "Copenhague", 2),
    "Dublin": ("Dublin", "Dublin", 4),
    "Florence": ("Florenz", "Florence", 3),
    "Geneva": ("Genf", "Genève", 2),
    "Ghent": ("Gent", "Gand", 2),
    "Hamburg": ("Hamburg", "Hambourg", 1),
    "Helsinki": ("Helsinki", "Helsinki", 5),
    "Krakow": ("Krakau", "Cracovie", 3),
    "Leipzig": ("Leipzig", "Leipzig", 1),
    "Lisbon": ("Lissabon", "Lisbonne", 5),
    "London": ("London", "Londres", 4),
    "Lyon": ("Lyon", "Lyon", 3),
    "Madrid": ("Madrid", "Madrid", 4),
    "Milan": ("Mailand", "Milan", 3),
    "Munich": ("München", "Munich", 1),
    "Oslo": ("Oslo", "Oslo", 4),
    "Paris": ("Paris", "Paris", 2),
    "Porto": ("Porto", "Porto", 5),
    "Prague": ("Prag", "Prague", 2),
    "Riga": ("Riga", "Riga", 4),
    "Rome": ("Rom", "Rome", 4),
    "Seville": ("Sevilla", "Séville", 5),
    "Stockholm": ("Stockholm", "Stockholm", 3),
    "Turin": ("Turin", "Turin", 3),
    "Venice": ("Venedig", "Venise", 3),
    "Vienna": ("Wien", "Vienne", 2),
    "Warsaw": ("Warschau", "Varsovie", 3),
    "Zagreb": ("Zagreb", "Zagreb", 4),
    "Zurich": ("Zürich", "Zurich", 2),
}
SHIPPING_COST = {1: 3, 2: 4, 3: 5, 4: 7, 5: 8, 6: 12}  # days in transit -> euros
FAR_DAYS = 6  # every city that is not in the table
FAR_CITIES = (  # a few of those, beside invented ones: their names are copied from the question
    "Tokyo, New York, Sydney, Beijing, Chicago, Toronto, Los Angeles, San Francisco, Boston, Mexico City, Rio de Janeiro, "
    "Buenos Aires, Lima, Bogota, Cairo, Nairobi, Lagos, Cape Town, Casablanca, Istanbul, Ankara, Moscow, Kyiv, Minsk, Dubai, "
    "Tehran, Delhi, Mumbai, Karachi, Bangkok, Hanoi, Singapore, Jakarta, Manila, Seoul, Osaka, Kyoto, Shanghai, Hong Kong, "
    "Melbourne, Auckland, Wellington, Reykjavik, Bratislava, Ljubljana, Sofia, Bucharest, Belgrade, Sarajevo, Skopje, Tirana, "
    "Vilnius, Tallinn, Nicosia, Valletta, Edinburgh, Glasgow, Manchester, Liverpool, Bristol, Cardiff, Belfast, Cork, Galway, "
    "Frankfurt, Stuttgart, Dresden, Bremen, Hanover, Nuremberg, Salzburg, Graz, Linz, Basel, Lausanne, Lugano, Marseille, Nice, "
    "Toulouse, Lille, Nantes, Strasbourg, Rotterdam, Utrecht, The Hague, Antwerp, Bruges, Luxembourg, Malaga, Bilbao, Granada, "
    "Valencia, Coimbra, Faro, Naples, Bologna, Genoa, Palermo, Verona, Gdansk, Wroclaw, Poznan, Brno, Gothenburg, Malmo, Bergen, "
    "Trondheim, Aarhus, Odense, Tampere, Turku, Havana, Quito, Santiago, Montevideo, Dallas, Houston, Denver, Seattle, Miami"
).split(", ")

NAMES = (
    "Anna Ben Carla David Elena Felix Grace Hugo Ida Jonas Karin Leo Maria Nils Olga Paul Rosa Sam Tina Victor "
    "Alice Bruno Clara Dora Emil Fiona Greta Henry Irene Julia Klara Lucas Mona Nora Oscar Petra Robin Sofia Tom Zoe "
    "Maximilian Alexander Benjamin Charlotte Christopher Elizabeth Francesca Gabriel Isabella Jacqueline Katharina Leonard "
    "Michael Nicholas Patricia Quentin Rebecca Sebastian Theresa Ursula Valentina William Xavier Yasmin Peter John Mary Kim Li"
).split()

CODE_WORDS = "SUMMER WINTER SPRING AUTUMN WELCOME FRIEND HELLO BIRCH GIFT HAPPY".split()
CODE_PERCENTS = [5, 10, 15, 20, 25, 30, 35, 40]

# What the shop does not sell: asked for, it is refused instead of being taken for the nearest product.
OTHER_GOODS = (
    "laptop television car bicycle piano guitar sofa fridge oven washing machine camera drone printer keyboard "
    "microphone speaker ladder hammer drill saw shovel carpet curtain mirror bed mattress wardrobe bathtub toothbrush "
    "perfume necklace ring watch umbrella scarf glove boots sandals trousers skirt dress tie belt sock "
    "football racket skateboard kayak surfboard dog cat parrot aquarium pizza cake banana apple cheese chocolate "
    "wine beer newspaper ticket house boat aeroplane rocket robot telescope violin trumpet"
).replace("washing machine", "washing_machine").split()
OTHER_GOODS = [g.replace("_", " ") for g in OTHER_GOODS]

TOPICS = (
    "the weather, football, politics, the stock market, cooking, a poem, the moon, history, physics, a joke, "
    "dinosaurs, chess, music, the capital of France, quantum computers, my homework, a song, philosophy, love, "
    "the president, space travel, gardening, a recipe for soup, the news, movies, my horoscope, mathematics, "
    "volcanoes, the meaning of life, programming, whales, the Roman empire, robots, trains, religion, biology"
).split(", ")
