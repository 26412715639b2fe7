"""The words that tell variants of one product apart, in the marketplaces' languages (English, Indonesian, Malay…).

Data only. A word that is missing here costs little: the same difference still shows in the tokens and n-grams.
"""

from collections.abc import Mapping

UNITS: Mapping[str, Mapping[str, float]] = {
    # dimension → unit as written → factor to the dimension's base unit
    "volume": {"ml": 1, "mL": 1, "cc": 1, "cl": 10, "dl": 100, "l": 1_000, "lt": 1_000, "ltr": 1_000, "liter": 1_000,
               "litre": 1_000, "liters": 1_000, "litres": 1_000, "fl oz": 29.5735, "floz": 29.5735, "gallon": 3_785.41},
    "weight": {"mg": 0.001, "g": 1, "gr": 1, "gm": 1, "gms": 1, "gram": 1, "grams": 1, "kg": 1_000, "kgs": 1_000,
               "kilo": 1_000, "kilogram": 1_000, "lb": 453.592, "lbs": 453.592, "oz": 28.3495, "ounce": 28.3495},
    "length": {"mm": 1, "cm": 10, "m": 1_000, "mtr": 1_000, "meter": 1_000, "metre": 1_000, "meters": 1_000,
               "inch": 25.4, "inches": 25.4, "inci": 25.4, "in": 25.4, '"': 25.4, "''": 25.4, "ft": 304.8,
               "feet": 304.8, "yard": 914.4},
    "storage": {"mb": 1, "gb": 1_024, "tb": 1_048_576},
    "power": {"w": 1, "watt": 1, "watts": 1, "kw": 1_000},
    "charge": {"mah": 1},
    "voltage": {"v": 1, "volt": 1, "volts": 1},
    "frequency": {"hz": 1, "khz": 1e3, "mhz": 1e6, "ghz": 1e9},
    "resolution": {"mp": 1, "megapixel": 1, "megapixels": 1},
    "share": {"%": 1, "persen": 1},
    "count": {"pcs": 1, "pc": 1, "pieces": 1, "piece": 1, "pack": 1, "packs": 1, "pk": 1, "pak": 1, "pax": 1, "set": 1,
              "sets": 1, "lembar": 1, "lbr": 1, "sheet": 1, "sheets": 1, "sachet": 1, "sachets": 1, "tablet": 1,
              "tablets": 1, "kapsul": 1, "capsule": 1, "capsules": 1, "caps": 1, "pasang": 1, "pair": 1, "pairs": 1,
              "buah": 1, "biji": 1, "butir": 1, "roll": 1, "rolls": 1, "bungkus": 1, "botol": 1, "dus": 1, "box": 1,
              "lusin": 12, "dozen": 12, "kodi": 20},
}  # fmt: skip

COUNT_BEFORE = ("isi", "pack of", "set of", "bundle of", "box of", "lot of", "pair of")
"""Words that make the number after them a count."""

COLOURS: Mapping[str, tuple[str, ...]] = {
    "black": ("black", "hitam", "blk", "schwarz", "noir", "nero", "jet"),
    "white": ("white", "putih", "wht", "weiss", "weiß", "blanc", "bianco", "ivory"),
    "red": ("red", "merah", "rot", "rouge", "rosso", "crimson"),
    "maroon": ("maroon", "marun", "burgundy", "wine"),
    "blue": ("blue", "biru", "blau", "bleu", "blu", "denim"),
    "navy": ("navy", "dongker"),
    "green": ("green", "hijau", "ijo", "grün", "vert", "verde", "mint", "lime"),
    "olive": ("olive", "army"),
    "yellow": ("yellow", "kuning", "gelb", "jaune", "giallo", "mustard"),
    "pink": ("pink", "fuchsia", "magenta", "fanta", "peach", "salem", "dusty"),
    "purple": ("purple", "ungu", "violet", "lila", "lilac", "lavender", "lavendel"),
    "brown": ("brown", "coklat", "cokelat", "braun", "mocca", "mocha", "tan", "coffee"),
    "grey": ("grey", "gray", "abu", "grau", "gris", "charcoal", "spacegrau", "graphite"),
    "orange": ("orange", "oranye", "jingga", "oren"),
    "gold": ("gold", "emas", "golden"),
    "silver": ("silver", "perak", "silber", "chrome"),
    "beige": ("beige", "cream", "krem", "khaki", "nude", "sand"),
    "turquoise": ("turquoise", "tosca", "toska", "teal", "cyan", "aqua"),
    "rose": ("rose", "rosegold"),
    "multicolour": ("multicolor", "multicolour", "multi", "warna", "rainbow", "motif"),
}

SIZES: Mapping[str, tuple[str, ...]] = {
    "xs": ("xs", "xsmall"),
    "s": ("s", "small", "kecil"),
    "m": ("m", "medium", "sedang"),
    "l": ("l", "large", "besar"),
    "xl": ("xl", "xlarge"),
    "2xl": ("xxl", "2xl", "jumbo"),
    "3xl": ("xxxl", "3xl"),
    "4xl": ("xxxxl", "4xl"),
    "5xl": ("5xl", "6xl"),
    "one": ("allsize", "onesize", "freesize"),
}

AUDIENCES: Mapping[str, tuple[str, ...]] = {
    "men": ("men", "man", "mens", "pria", "cowok", "laki", "male", "gents"),
    "women": ("women", "woman", "womens", "wanita", "cewek", "perempuan", "ladies", "lady", "female"),
    "boys": ("boy", "boys"),
    "girls": ("girl", "girls"),
    "children": ("kid", "kids", "anak", "child", "children", "junior"),
    "babies": ("baby", "bayi", "infant", "newborn", "toddler"),
    "unisex": ("unisex",),
}

EDITIONS = frozenset({
    "pro", "plus", "max", "mini", "lite", "light", "ultra", "premium", "deluxe", "standard", "basic", "upgrade",
    "edition", "gen", "air", "se", "neo", "note", "prime", "fold", "refill", "isi", "bundle", "paket", "set", "kit",
    "combo", "case", "cover", "tempered", "glass", "charger", "cable", "kabel", "adapter", "replacement", "sparepart",
    "original", "ori", "kw", "grosir", "ecer", "sample", "tester", "travel", "jumbo", "big", "small", "used",
    "refurbished", "second", "bekas", "professional", "student", "home", "office", "academic", "oem", "retail",
    "full", "version", "ii", "iii", "iv", "vi", "vii", "viii",
})  # fmt: skip
"""Words that often stand in one title of two variants (or of a product and its accessory) and not in the other."""
