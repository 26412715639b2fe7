"""The words that sellers use: promotions, abbreviations and translations, by language."""

LANGUAGES = ("en", "id", "de", "fr", "es")

PROMOTIONS: dict[str, tuple[str, ...]] = {
    "en": (
        "SALE", "HOT DEAL", "Free Shipping", "100% Original", "NEW", "Best Price", "In Stock", "Limited Offer",
        "Top Quality", "Brand New", "Fast Delivery", "Genuine", "OFFER", "Clearance", "Best Seller", "UK Stock",
    ),
    "id": (
        "PROMO", "Ready Stock", "Bisa COD", "Gratis Ongkir", "MURAH", "TERMURAH", "ORIGINAL", "100% ORI", "Termurah",
        "BIG SALE", "Garansi Resmi", "Terlaris", "Grosir", "BPOM", "Import", "Kualitas Premium", "Cuci Gudang", "READY",
        "Murah Banget", "Best Seller", "Stok Terbatas",
    ),
    "de": (
        "NEU", "NEU & OVP", "Angebot", "Gratis Versand", "TOP", "Sofort lieferbar", "Original", "Blitzversand",
        "Restposten", "vom Händler", "wie neu", "SONDERPREIS", "mit Rechnung",
    ),
    "fr": (
        "NEUF", "Promo", "Livraison gratuite", "SOLDES", "Officiel", "Stock limité", "Meilleure vente", "Top qualité",
        "Envoi rapide", "Prix cassé", "Authentique",
    ),
    "es": (
        "NUEVO", "Oferta", "Envío gratis", "REBAJAS", "Original", "Stock disponible", "Más vendido", "Calidad superior",
        "Envío 24h", "Precio especial",
    ),
}  # fmt: skip

FILLERS: dict[str, tuple[str, ...]] = {
    "en": ("new", "quality", "premium", "style", "top", "stylish", "latest", "perfect gift"),
    "id": ("kekinian", "terbaru", "premium", "murah", "original", "viral", "keren", "bagus"),
    "de": ("hochwertig", "modern", "Qualität", "ideal", "praktisch", "schön"),
    "fr": ("tendance", "qualité", "haut de gamme", "pratique", "moderne", "idéal"),
    "es": ("moderno", "calidad", "alta gama", "práctico", "ideal", "bonito"),
}
"""Words that say nothing about which product it is."""

EMOJI = ("🔥", "⭐", "✅", "💯", "🎁", "🚚", "❤️", "✨", "👍", "🛒", "💥", "🎉", "⚡", "🌟", "📦", "💎", "🆕", "🇮🇩")

SHORT: dict[str, tuple[str, ...]] = {
    "black": ("blk", "blck"), "white": ("wht", "wh"), "blue": ("blu",), "green": ("grn",), "grey": ("gry", "gray"),
    "silver": ("slv",), "brown": ("brn",), "navy": ("nvy",), "yellow": ("yel",), "purple": ("prpl",),
    "women": ("wmn", "ladies", "womens", "woman"), "women's": ("womens", "ladies"), "men": ("mens", "man", "gents"),
    "men's": ("mens", "gents"), "girls": ("girl",), "boys": ("boy",), "unisex": ("uni",), "kids": ("kid", "children"),
    "t-shirt": ("tee", "tshirt", "t shirt"), "tshirt": ("t-shirt", "tee"), "tshirts": ("t-shirts", "tees"),
    "sports": ("sport", "sprt"), "shoes": ("shoe",), "shoe": ("shoes",), "sneakers": ("sneaker", "snkrs"),
    "sandal": ("sandals",), "trousers": ("pants", "trouser"), "jeans": ("denim",), "watch": ("wristwatch",),
    "backpack": ("rucksack", "back pack", "bag"), "handbag": ("hand bag", "bag"), "sunglasses": ("shades",),
    "wireless": ("wl", "cordless", "bluetooth"), "headphones": ("headset", "headphone"), "bottle": ("btl", "flask"),
    "stainless": ("s/s",), "leather": ("lthr", "leathr"), "cotton": ("ctn",), "original": ("ori", "orig"),
    "sleeve": ("slv", "sleeved"), "portable": ("prtbl",), "smartphone": ("phone", "mobile"), "mobile": ("mob",),
    "package": ("pkg",), "pieces": ("pcs",), "professional": ("pro",), "waterproof": ("wp", "water proof"),
    "automatic": ("auto",), "medium": ("med",), "without": ("w/o",), "with": ("w/",), "and": ("&",),
    "international": ("intl",), "edition": ("ed.",), "shampoo": ("shmp",), "moisturising": ("moisturizing",),
    "colour": ("color",), "size": ("sz",), "lamp": ("light",), "mug": ("cup",), "umbrella": ("brolly",),
    "frying": ("fry",), "cushion": ("pillow",), "laptop": ("notebook",), "power": ("pwr",), "casual": ("csl",),
}  # fmt: skip
"""Abbreviations and other spellings of English title words."""

_COLUMNS = ("en", "id", "de", "fr", "es")
_ROWS = """
black|hitam|schwarz|noir|negro
white|putih|weiß|blanc|blanco
blue|biru|blau|bleu|azul
navy|biru dongker|marine|marine|marino
red|merah|rot|rouge|rojo
green|hijau|grün|vert|verde
grey|abu-abu|grau|gris|gris
yellow|kuning|gelb|jaune|amarillo
orange|oranye|orange|orange|naranja
purple|ungu|lila|violet|morado
pink|merah muda|rosa|rose|rosa
brown|coklat|braun|marron|marrón
beige|krem|beige|beige|beige
silver|perak|silber|argent|plata
gold|emas|gold|doré|dorado
teal|hijau toska|petrol|sarcelle|verde azulado
maroon|merah marun|bordeaux|bordeaux|granate
olive|hijau zaitun|oliv|olive|oliva
women|wanita|Damen|femme|mujer
women's|wanita|Damen|femme|mujer
men|pria|Herren|homme|hombre
men's|pria|Herren|homme|hombre
girls|anak perempuan|Mädchen|fille|niña
boys|anak laki-laki|Jungen|garçon|niño
kids|anak|Kinder|enfant|niños
unisex|pria wanita|unisex|mixte|unisex
shirt|kemeja|Hemd|chemise|camisa
t-shirt|kaos|T-Shirt|t-shirt|camiseta
tshirt|kaos|T-Shirt|t-shirt|camiseta
tee|kaos|T-Shirt|t-shirt|camiseta
polo|kaos polo|Poloshirt|polo|polo
top|atasan|Oberteil|haut|top
hoodie|jaket hoodie|Kapuzenpullover|sweat à capuche|sudadera
sweater|sweter|Pullover|pull|jersey
jacket|jaket|Jacke|veste|chaqueta
jersey|jersey|Trikot|maillot|camiseta
dress|gaun|Kleid|robe|vestido
skirt|rok|Rock|jupe|falda
jeans|celana jeans|Jeans|jean|vaqueros
trousers|celana panjang|Hose|pantalon|pantalón
pants|celana|Hose|pantalon|pantalón
shorts|celana pendek|Shorts|short|pantalón corto
socks|kaos kaki|Socken|chaussettes|calcetines
shoe|sepatu|Schuh|chaussure|zapato
shoes|sepatu|Schuhe|chaussures|zapatos
sneakers|sepatu kets|Sneaker|baskets|zapatillas
sneaker|sepatu kets|Sneaker|baskets|zapatilla
running|lari|Lauf|running|correr
sandal|sandal|Sandale|sandale|sandalia
sandals|sandal|Sandalen|sandales|sandalias
heels|sepatu hak|Pumps|talons|tacones
belt|ikat pinggang|Gürtel|ceinture|cinturón
wallet|dompet|Geldbörse|portefeuille|cartera
watch|jam tangan|Uhr|montre|reloj
sunglasses|kacamata hitam|Sonnenbrille|lunettes de soleil|gafas de sol
cap|topi|Kappe|casquette|gorra
tie|dasi|Krawatte|cravate|corbata
scarf|syal|Schal|écharpe|bufanda
bag|tas|Tasche|sac|bolso
handbag|tas tangan|Handtasche|sac à main|bolso de mano
backpack|tas ransel|Rucksack|sac à dos|mochila
bottle|botol|Flasche|bouteille|botella
mug|gelas mug|Becher|tasse|taza
phone|hp|Handy|téléphone|móvil
smartphone|hp|Smartphone|smartphone|móvil
case|casing|Hülle|coque|funda
headphones|headphone|Kopfhörer|casque|auriculares
wireless|nirkabel|kabellos|sans fil|inalámbricos
laptop|laptop|Laptop|ordinateur portable|portátil
charger|pengisi daya|Ladegerät|chargeur|cargador
lamp|lampu|Lampe|lampe|lámpara
desk|meja|Schreibtisch|bureau|escritorio
pan|wajan|Pfanne|poêle|sartén
umbrella|payung|Regenschirm|parapluie|paraguas
cushion|bantal|Kissen|coussin|cojín
shampoo|sampo|Shampoo|shampooing|champú
soap|sabun|Seife|savon|jabón
lotion|losion|Lotion|lotion|loción
coffee|kopi|Kaffee|café|café
tea|teh|Tee|thé|té
cereal|sereal|Müsli|céréales|cereales
chocolate|cokelat|Schokolade|chocolat|chocolate
perfume|parfum|Parfüm|parfum|perfume
lipstick|lipstik|Lippenstift|rouge à lèvres|pintalabios
leather|kulit|Leder|cuir|cuero
cotton|katun|Baumwolle|coton|algodón
glass|kaca|Glas|verre|vidrio
steel|baja|Stahl|acier|acero
ceramic|keramik|Keramik|céramique|cerámica
water|air|Wasser|eau|agua
size|ukuran|Größe|taille|talla
sports|olahraga|Sport|sport|deporte
striped|garis|gestreift|rayé|a rayas
checked|kotak-kotak|kariert|à carreaux|a cuadros
printed|motif|bedruckt|imprimé|estampado
solid|polos|uni|uni|liso
large|besar|groß|grand|grande
small|kecil|klein|petit|pequeño
with|dengan|mit|avec|con
for|untuk|für|pour|para
and|dan|und|et|y
"""

TRANSLATIONS: dict[str, dict[str, str]] = {
    language: {row.split("|")[0]: row.split("|")[column] for row in _ROWS.strip().splitlines()}
    for column, language in enumerate(_COLUMNS)
    if language != "en"
}
"""language → English word in lower case → that language's word."""

COUNTS: dict[str, tuple[str, ...]] = {
    "en": ("2 pcs", "2-pack", "set of 2", "2x", "pack of 2", "twin pack"),
    "id": ("2 pcs", "isi 2", "paket 2", "2pcs", "beli 2"),
    "de": ("2er Set", "2 Stück", "2er-Pack", "2x", "Doppelpack"),
    "fr": ("lot de 2", "pack de 2", "2 pièces", "x2"),
    "es": ("pack de 2", "lote de 2", "2 unidades", "x2"),
}
"""Ways to say that there are two."""

CONDITIONS: dict[str, tuple[str, ...]] = {
    "en": ("Brand new, never used.", "Ships within 24 hours.", "Please check the size first.", "14 days return."),
    "id": (
        "Barang baru dan original.",
        "Pesanan dikirim hari ini.",
        "Tanya stok dulu ya kak.",
        "Wajib video unboxing.",
    ),
    "de": ("Neu und originalverpackt.", "Versand am selben Tag.", "Keine Rücknahme.", "Rechnung liegt bei."),
    "fr": ("Article neuf, jamais porté.", "Envoi sous 24 heures.", "Facture disponible.", "Retour sous 14 jours."),
    "es": ("Artículo nuevo y original.", "Envío en 24 horas.", "Consulte disponibilidad.", "Se aceptan devoluciones."),
}
"""Sentences that end a description."""
