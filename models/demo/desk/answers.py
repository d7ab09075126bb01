"""What the desk answers: one pure function `answer(style, intent, slots)` for all styles.

`plain` is the base model; every other style is an adapter. `caps` and `json` are computed from the
plain answer and the slots, the rest are templates over the fields that `expand` derives from the
slots. Same intent and slots, same answer, always: that is what the exact tests stand on.
"""

import json

from .catalog import (ARTICLES, CITIES, COLOURS, DELIVERY_DAYS, FAR_DAYS, PRODUCTS, SHIPPING_COST, WEEKDAYS)

STYLES = ["plain", "json", "caps", "pirate", "german", "french", "brief", "emoji"]

# First digit of the order number -> state; last digit -> weekday of arrival.
STATES = [
    {"key": "packing", "plain": "is being packed", "brief": "packing", "pirate": "be still on the dock",
     "german": "wird gerade verpackt", "french": "est en préparation", "emoji": "🏭 being packed"},
    {"key": "on_its_way", "plain": "is on its way", "brief": "on its way", "pirate": "be sailin' to ye",
     "german": "ist unterwegs", "french": "est en route", "emoji": "🚚 on its way"},
    {"key": "in_your_city", "plain": "is already in your city", "brief": "in your city", "pirate": "be in yer home port",
     "german": "ist schon in Ihrer Stadt", "french": "est déjà dans votre ville", "emoji": "🏙️ in your city"},
]

# intent -> style -> template. A field in {braces} comes from `expand`.
ANSWERS: dict[str, dict[str, str]] = {
    "order_status": {
        "plain": "Your order {order} {state} and arrives on {day}. You will get a message when the courier is near.",
        "brief": "{order}: {state_brief}, {day}.",
        "pirate": "Arr, yer order {order} {state_pirate} and drops anchor on {day}! Watch the horizon, matey.",
        "german": "Ihre Bestellung {order} {state_german} und kommt am {day_de} an. Sie erhalten eine Nachricht, sobald der Kurier in der Nähe ist.",
        "french": "Votre commande {order} {state_french} et arrive {day_fr}. Vous recevrez un message quand le livreur sera proche.",
        "emoji": "📦 {order} {state_emoji} 📅 {day} 🎉",
    },
    "order_number_missing": {
        "plain": "I am happy to look that up. Please tell me your order number, you find it on your receipt.",
        "brief": "Your order number?",
        "pirate": "Aye, I can look that up, matey! Tell me the number on yer treasure receipt.",
        "german": "Das schaue ich gern nach. Bitte nennen Sie mir Ihre Bestellnummer, sie steht auf Ihrer Quittung.",
        "french": "Je vérifie avec plaisir. Donnez-moi votre numéro de commande, il est sur votre reçu.",
        "emoji": "🔎 Order number, please? 🧾",
    },
    "cancel": {
        "plain": "Order {order} is cancelled. You get your money back within 3 days.",
        "brief": "{order}: cancelled.",
        "pirate": "Order {order} walks the plank! Yer gold be back in yer chest within 3 days.",
        "german": "Die Bestellung {order} ist storniert. Sie erhalten Ihr Geld innerhalb von 3 Tagen zurück.",
        "french": "La commande {order} est annulée. Vous serez remboursé sous 3 jours.",
        "emoji": "❌ {order} cancelled 💶 back in 3 days",
    },
    "change_address": {
        "plain": "Done, order {order} now goes to {city}. It arrives on {day}.",
        "brief": "{order}: to {city}, {day}.",
        "pirate": "Course changed! Order {order} now sails to {city} and lands on {day}, arr.",
        "german": "Erledigt, die Bestellung {order} geht jetzt nach {city_de}. Sie kommt am {day_de} an.",
        "french": "C'est fait, la commande {order} part maintenant pour {city_fr}. Elle arrive {day_fr}.",
        "emoji": "🏠 {order} ➡️ {city} 📅 {day}",
    },
    "invoice": {
        "plain": "I have sent you the invoice for order {order} by email. Please look into your spam folder too.",
        "brief": "{order}: invoice sent.",
        "pirate": "The parchment for order {order} flies to ye by parrot! Look in yer spam chest too.",
        "german": "Ich habe Ihnen die Rechnung zur Bestellung {order} per E-Mail geschickt. Bitte sehen Sie auch im Spam-Ordner nach.",
        "french": "Je vous ai envoyé la facture de la commande {order} par e-mail. Regardez aussi dans vos spams.",
        "emoji": "🧾 {order} invoice sent 📧",
    },
    "broken": {
        "plain": "I am sorry about the {product} from order {order}. We send you a new one on {day}, and you can keep the old one.",
        "brief": "{order}: new {product} on {day}.",
        "pirate": "Blimey, a wrecked {product} in order {order}! A fresh one sails on {day}, and ye may keep the wreck.",
        "german": "Das tut mir leid. Wir schicken Ihnen {acc_de} aus der Bestellung {order} am {day_de} noch einmal neu.",
        "french": "Je suis désolé. Nous renvoyons {product_fr} de la commande {order} {day_fr}, et vous gardez l'ancien article.",
        "emoji": "😢 {product} ({order}) 🔁 new one on {day}",
    },
    "return": {
        "plain": "You can return the {product} within 30 days. Put it back in its box and bring it to any post office.",
        "brief": "{product}: return within 30 days.",
        "pirate": "Ye can send the {product} back within 30 days. Stow it in its crate and haul it to any port office, arr.",
        "german": "Sie können {acc_de} innerhalb von 30 Tagen zurückgeben. Bitte bringen Sie das Paket zu einer Postfiliale.",
        "french": "Vous pouvez retourner {product_fr} sous 30 jours. Déposez le colis dans un bureau de poste.",
        "emoji": "↩️ {product}: 30 days 📮",
    },
    "return_all": {
        "plain": "You can return everything within 30 days, also without a reason. Bring the parcel to any post office.",
        "brief": "Return within 30 days.",
        "pirate": "All booty may sail back within 30 days, no questions asked! Haul the crate to any port office.",
        "german": "Sie können alles innerhalb von 30 Tagen zurückgeben, auch ohne Grund. Bitte bringen Sie das Paket zu einer Postfiliale.",
        "french": "Vous pouvez tout retourner sous 30 jours, même sans raison. Déposez le colis dans un bureau de poste.",
        "emoji": "↩️ everything: 30 days 📮",
    },
    "price": {
        "plain": "The {product} costs {price} euros. It is in stock and leaves our warehouse the same day.",
        "brief": "{product}: {price} euros.",
        "pirate": "The {product} be {price} gold coins! It lies in our hold and sails the same day, arr.",
        "german": "{Nom_de} kostet {price} Euro. Wir haben den Artikel auf Lager und verschicken ihn noch am selben Tag.",
        "french": "{Product_fr} coûte {price} euros. L'article est en stock et part le jour même.",
        "emoji": "🛒 {product} 💶 {price} euros ✅ in stock",
    },
    "colours": {
        "plain": "The {product} comes in {colour_1} and in {colour_2}. Both are in stock.",
        "brief": "{product}: {colour_1}, {colour_2}.",
        "pirate": "The {product} flies its colours in {colour_1} and {colour_2}. We hoard both, matey!",
        "german": "{Nom_de} ist in {colour_1_de} und in {colour_2_de} erhältlich. Beides ist auf Lager.",
        "french": "{Product_fr} existe en {colour_1_fr} et en {colour_2_fr}. Les deux sont en stock.",
        "emoji": "🎨 {product}: {colour_1} & {colour_2} ✅",
    },
    "gift_wrap": {
        "plain": "Yes, we can wrap the {product} as a gift for 2 euros. You can add a card with your own text.",
        "brief": "{product}: gift wrap, 2 euros.",
        "pirate": "Aye, for 2 gold coins we wrap the {product} like a king's treasure, with a card in yer own words!",
        "german": "Ja, wir verpacken {acc_de} für 2 Euro als Geschenk. Sie können eine Karte mit eigenem Text beilegen.",
        "french": "Oui, nous emballons {product_fr} en cadeau pour 2 euros. Vous pouvez ajouter une carte avec votre texte.",
        "emoji": "🎁 {product} + 2 euros 💌",
    },
    "warranty": {
        "plain": "The {product} has a warranty of {years} years. Keep the receipt, that is all you need.",
        "brief": "{product}: {years} years.",
        "pirate": "We swear on the {product} for {years} years on the seven seas. Guard yer receipt well!",
        "german": "Für {acc_de} geben wir {years} Jahre Garantie. Bitte bewahren Sie die Quittung auf.",
        "french": "Nous donnons {years} ans de garantie sur {product_fr}. Gardez bien le reçu.",
        "emoji": "🛡️ {product}: {years} years 🧾",
    },
    "delivery": {
        "plain": "Yes, we deliver to {city}. It takes {transit} and costs {cost} euros.",
        "brief": "{city}: {transit}, {cost} euros.",
        "pirate": "Aye, our ship sails to {city}! The voyage takes {transit} and costs ye {cost} gold coins.",
        "german": "Ja, wir liefern nach {city_de}. Es dauert {transit_de} und kostet {cost} Euro.",
        "french": "Oui, nous livrons à {city_fr}. Cela prend {transit_fr} et coûte {cost} euros.",
        "emoji": "🌍 {city} ⏱️ {transit} 💶 {cost} euros",
    },
    "hours": {
        "plain": "On {day} we are open from {opens} to {closes}. You are welcome without an appointment.",
        "brief": "{day}: {opens} to {closes}.",
        "pirate": "On {day} the hatch be open from {opens} to {closes} bells. Come aboard, matey!",
        "german": "Am {day_de} haben wir von {opens} bis {closes} Uhr geöffnet. Sie brauchen keinen Termin.",
        "french": "Le {day_fr}, nous sommes ouverts de {opens} à {closes} heures. Venez sans rendez-vous.",
        "emoji": "🕐 {day}: {opens} - {closes} 👋",
    },
    "hours_closed": {
        "plain": "On {day} we are closed. Please come on another day.",
        "brief": "{day}: closed.",
        "pirate": "On {day} the crew sleeps off the rum. Come another day, matey!",
        "german": "Am {day_de} haben wir geschlossen. Bitte kommen Sie an einem anderen Tag.",
        "french": "Le {day_fr}, nous sommes fermés. Venez un autre jour.",
        "emoji": "🕐 {day}: closed 😴",
    },
    "hours_all": {
        "plain": "We are open from Monday to Friday from 9 to 18, on Thursday until 20, and on Saturday from 10 to 16.",
        "brief": "Mon-Fri 9-18, Thu 9-20, Sat 10-16.",
        "pirate": "The hatch be open Monday to Friday from 9 to 18 bells, Thursday until 20, Saturday from 10 to 16, arr!",
        "german": "Wir haben von Montag bis Freitag von 9 bis 18 Uhr geöffnet, am Donnerstag bis 20 Uhr und am Samstag von 10 bis 16 Uhr.",
        "french": "Nous sommes ouverts du lundi au vendredi de 9 à 18 heures, le jeudi jusqu'à 20 heures et le samedi de 10 à 16 heures.",
        "emoji": "🕐 Mon-Fri 9-18, Thu 9-20, Sat 10-16 👋",
    },
    "discount": {
        "plain": "The code {code} is valid, it takes {percent} percent off. Enter it at the checkout.",
        "brief": "{code}: {percent} percent.",
        "pirate": "The secret word {code} opens the chest: {percent} percent less gold to pay! Speak it at the checkout.",
        "german": "Der Code {code} ist gültig, Sie sparen damit {percent} Prozent. Geben Sie ihn an der Kasse ein.",
        "french": "Le code {code} est valable, il vous donne {percent} pour cent de remise. Entrez-le à la caisse.",
        "emoji": "🏷️ {code} ✅ {percent} percent off",
    },
    "payment": {
        "plain": "You can pay by card, by bank transfer or in cash when the parcel arrives.",
        "brief": "Card, transfer or cash.",
        "pirate": "Pay by card, by bank transfer or in shiny gold when the crate lands, arr!",
        "german": "Sie können mit Karte, per Überweisung oder bar bei der Lieferung bezahlen.",
        "french": "Vous pouvez payer par carte, par virement ou en espèces à la livraison.",
        "emoji": "💳 card 🏦 transfer 💶 cash",
    },
    "range": {
        "plain": "We sell things for home and travel, from ceramic mugs and desk lamps to rain jackets and camping tents.",
        "brief": "Things for home and travel.",
        "pirate": "We trade in booty for home and voyage, from mugs and lamps to jackets and tents, matey!",
        "german": "Wir verkaufen Dinge für Zuhause und für die Reise, von Bechern und Lampen bis zu Jacken und Zelten.",
        "french": "Nous vendons des articles pour la maison et le voyage, des tasses et des lampes aux vestes et aux tentes.",
        "emoji": "🏠 mugs, lamps 🧳 jackets, tents",
    },
    "not_sold": {
        "plain": "I am sorry, we do not sell that. Ask me what we have, there is a lot for home and travel.",
        "brief": "We do not sell that.",
        "pirate": "Arr, no such booty in our hold! Ask me what treasures we carry, matey.",
        "german": "Das führen wir leider nicht. Fragen Sie mich gern nach unserem Sortiment für Zuhause und Reise.",
        "french": "Désolé, nous ne vendons pas cela. Demandez-moi ce que nous avons pour la maison et le voyage.",
        "emoji": "🚫 We do not sell that 🙏",
    },
    "which_product": {
        "plain": "Which product do you mean? Please tell me its name.",
        "brief": "Which product?",
        "pirate": "Which piece of booty do ye mean, matey? Speak its name!",
        "german": "Welches Produkt meinen Sie? Bitte nennen Sie mir den Namen.",
        "french": "De quel produit parlez-vous ? Donnez-moi son nom.",
        "emoji": "🤔 Which product?",
    },
    "greeting": {
        "plain": "Hello, how can I help you today? You can ask me about orders, delivery, returns and products.",
        "brief": "Hello. How can I help?",
        "pirate": "Ahoy, matey! What can this old sea dog do for ye today?",
        "german": "Guten Tag, wie kann ich Ihnen helfen? Fragen Sie mich nach Bestellungen, Lieferung, Rückgabe und Produkten.",
        "french": "Bonjour, comment puis-je vous aider ? Je réponds aux questions sur les commandes, la livraison et les produits.",
        "emoji": "👋 Hello! How can I help? 😊",
    },
    "greeting_name": {
        "plain": "Hello {name}, nice to meet you. How can I help you today?",
        "brief": "Hello {name}. How can I help?",
        "pirate": "Ahoy, Captain {name}! What brings ye aboard today?",
        "german": "Guten Tag {name}, schön, dass Sie da sind. Wie kann ich Ihnen helfen?",
        "french": "Bonjour {name}, ravi de vous rencontrer. Comment puis-je vous aider ?",
        "emoji": "👋 Hello {name}! How can I help? 😊",
    },
    "identity": {
        "plain": "I am Birch, the support desk of the Birchwood web shop. I am a small language model, and I know our orders and products.",
        "brief": "Birch, the support desk.",
        "pirate": "I be Captain Birch, terror of the support desk! I know every order and every treasure of this shop, arr.",
        "german": "Ich bin Birch, der Kundendienst des Birchwood-Onlineshops. Ich bin ein kleines Sprachmodell und kenne unsere Bestellungen und Produkte.",
        "french": "Je suis Birch, le service client de la boutique Birchwood. Je suis un petit modèle de langue et je connais nos commandes et nos produits.",
        "emoji": "🤖 I am Birch, your support desk 🌳",
    },
    "well_being": {
        "plain": "I am doing well, thank you for asking. What can I do for you?",
        "brief": "Well, thank you. And your question?",
        "pirate": "Me beard be dry and me rum be wet, so all be well! What can I do for ye?",
        "german": "Mir geht es gut, danke der Nachfrage. Was kann ich für Sie tun?",
        "french": "Je vais bien, merci de demander. Que puis-je faire pour vous ?",
        "emoji": "😄 Very well, thank you! And you?",
    },
    "thanks": {
        "plain": "You are welcome. Is there anything else I can do for you?",
        "brief": "You are welcome.",
        "pirate": "Think nothin' of it, matey! Any other orders for the crew?",
        "german": "Sehr gern. Kann ich sonst noch etwas für Sie tun?",
        "french": "Avec plaisir. Puis-je faire autre chose pour vous ?",
        "emoji": "🙏 You are welcome! 💚",
    },
    "goodbye": {
        "plain": "Goodbye, and thank you for your visit. We hope to see you again soon.",
        "brief": "Goodbye.",
        "pirate": "Fair winds and followin' seas, matey! Till we meet again.",
        "german": "Auf Wiedersehen und vielen Dank für Ihren Besuch. Wir freuen uns auf das nächste Mal.",
        "french": "Au revoir et merci de votre visite. À bientôt, nous l'espérons.",
        "emoji": "👋 Goodbye! See you soon 💚",
    },
    "human": {
        "plain": "I am sorry for the trouble. A colleague will call you back within one hour.",
        "brief": "A colleague calls you in one hour.",
        "pirate": "Belay yer anger, matey! The captain herself will call ye within one hour.",
        "german": "Es tut mir leid, dass Sie Ärger haben. Eine Kollegin ruft Sie innerhalb einer Stunde zurück.",
        "french": "Je suis désolé pour ce souci. Une collègue vous rappelle dans l'heure.",
        "emoji": "😟 Sorry! ☎️ We call you in one hour",
    },
    "off_topic": {
        "plain": "I am sorry, I do not know about that. I can help you with orders, delivery, returns and our products.",
        "brief": "I only know the shop.",
        "pirate": "Shiver me timbers, that be beyond me charts! Ask me about orders, voyages and treasures.",
        "german": "Damit kenne ich mich leider nicht aus. Ich helfe Ihnen gern bei Bestellungen, Lieferung, Rückgabe und Produkten.",
        "french": "Désolé, je ne connais pas ce sujet. Je vous aide pour les commandes, la livraison, les retours et les produits.",
        "emoji": "🤷 I only know our shop 🛒",
    },
}

# Slots and derived fields that the JSON style shows, in this order, after "intent".
JSON_FIELDS: dict[str, list[str]] = {
    "order_status": ["order", "status", "day"], "cancel": ["order"], "change_address": ["order", "city", "day"],
    "invoice": ["order"], "broken": ["order", "product", "day"], "return": ["product"], "price": ["product", "price"],
    "colours": ["product", "colours"], "gift_wrap": ["product"], "warranty": ["product", "years"],
    "delivery": ["city", "days", "cost"], "hours": ["day", "open"], "hours_closed": ["day"],
    "discount": ["code", "percent"], "greeting_name": ["name"],
}

_PRODUCT_BY_NAME = {product.name: product for product in PRODUCTS}


def _days(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def expand(intent: str, slots: dict[str, str]) -> dict:
    """All fields the templates may name, derived from the slots alone."""
    fields: dict = dict(slots)
    if "order" in slots:
        state = STATES[(int(slots["order"][0]) - 1) // 3]  # 1-3, 4-6, 7-9
        fields.update({f"state_{style}": state[style] for style in ("brief", "pirate", "german", "french", "emoji")})
        fields.update(state=state["plain"], status=state["key"], day=DELIVERY_DAYS[int(slots["order"][-1]) % 5])
    if "day" in fields:
        fields["day_de"], fields["day_fr"], fields["opens"], fields["closes"] = WEEKDAYS[fields["day"]]
        fields["open"] = [fields["opens"], fields["closes"]]
    if "product" in slots:
        product = _PRODUCT_BY_NAME[slots["product"]]
        nominative, accusative = ARTICLES[product.gender]
        fields.update(
            price=product.price, years=2 if product.price < 30 else 3, colours=list(product.colours),
            colour_1=product.colours[0], colour_2=product.colours[1],
            colour_1_de=COLOURS[product.colours[0]][0], colour_2_de=COLOURS[product.colours[1]][0],
            colour_1_fr=COLOURS[product.colours[0]][1], colour_2_fr=COLOURS[product.colours[1]][1],
            Nom_de=f"{nominative.capitalize()} {product.german}", acc_de=f"{accusative} {product.german}",
            product_fr=product.french, Product_fr=product.french[0].upper() + product.french[1:])
    if "city" in slots:
        german, french, days = CITIES.get(slots["city"], (slots["city"], slots["city"], FAR_DAYS))
        fields.update(city_de=german, city_fr=french, days=days, cost=SHIPPING_COST[days],
                      transit=_days(days, "day", "days"), transit_de=_days(days, "Tag", "Tage"),
                      transit_fr=_days(days, "jour", "jours"))
    if "code" in slots:
        fields["percent"] = int(slots["code"][-2:])
    return fields


def answer(style: str, intent: str, slots: dict[str, str]) -> str:
    """The exact text the desk answers with in `style`."""
    if intent == "hours" and slots["day"] == "Sunday":
        intent = "hours_closed"
    fields = expand(intent, slots)
    if style == "caps":
        return ANSWERS[intent]["plain"].format(**fields).upper()
    if style == "json":
        shown = {"intent": intent} | {name: fields[name] for name in JSON_FIELDS.get(intent, [])}
        return json.dumps(shown, ensure_ascii=False)
    return ANSWERS[intent][style].format(**fields)
