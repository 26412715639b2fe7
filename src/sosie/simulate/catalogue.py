"""The vocabulary of a marketplace that does not exist: kinds of product, brands, models, colours."""

from dataclasses import dataclass

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Kind:
    """A kind of product. `sizes` run from small to large; `price` is the range in US dollars of the middle size."""

    nouns: tuple[str, ...]
    category: str
    shape: str
    sizes: tuple[str, ...]
    features: tuple[str, ...]
    price: tuple[float, float]
    brands: str
    wording: str = "{brand} {model} {feature} {noun} {size} {colour}"
    coded: bool = False


BRANDS: dict[str, tuple[str, ...]] = {
    "home": ("Vantor", "Kelmora", "Brelio", "Hjemva", "Ostrana", "Tavelle", "Nordmyr", "Pellano", "Casabri", "Lumovia"),
    "tech": ("Orvia", "Zentiq", "Maxivo", "Pulsara", "Tekura", "Voltino", "Quorra", "Ionex", "Dymera", "Skandix"),
    "wear": ("Rovesta", "Stridex", "Montagno", "Ayomi", "Batikara", "Fjellro", "Cavendi", "Solvara", "Urbanique",
             "Zephra"),
    "care": ("Derminea", "Silkora", "Botavia", "Puresse", "Melati Sari", "Aquabelle", "Savonette", "Herbalux"),
    "food": ("Kopirama", "Granella", "Teavara Hill", "Morgenfein", "Cocoval", "Javara", "Bonmatin", "Dulcera"),
}  # fmt: skip

MODELS = (
    "Hydra", "Nova", "Terra", "Aero", "Luna", "Vertex", "Echo", "Zenith", "Coral", "Ember", "Fjord", "Quartz", "Solis",
    "Prisma Pro", "Drift", "Orbit", "Velvet", "Summit", "Breeze", "Atlas", "Mira", "Kanto", "Rivo", "Stella", "Onyx",
    "Tempo", "Cirrus", "Delta", "Maple", "Indigo Sky", "Harbor", "Bolt", "Savana", "Petra", "Lotus", "Arctic", "Urban",
    "Heritage", "Active", "Classic", "Flex", "Nimbus", "Origin", "Prime", "Rhythm", "Sierra", "Trail", "Vista", "Wave",
)  # fmt: skip

COLOURS: dict[str, Colour] = {
    "Black": (38, 38, 42), "White": (242, 242, 240), "Red": (200, 38, 44), "Blue": (40, 92, 192), "Navy": (28, 40, 86),
    "Green": (52, 146, 84), "Grey": (142, 146, 150), "Yellow": (244, 196, 48), "Orange": (236, 124, 36),
    "Purple": (128, 72, 168), "Pink": (236, 140, 172), "Brown": (120, 78, 50), "Beige": (220, 200, 168),
    "Teal": (24, 140, 140), "Maroon": (120, 24, 44), "Olive": (112, 116, 52), "Silver": (196, 200, 206),
}  # fmt: skip

VOLUMES = ("250 ml", "350 ml", "500 ml", "750 ml", "1 L", "1.5 L")
CLOTHES = ("Size S", "Size M", "Size L", "Size XL", "Size XXL")
SHOES = ("EU 38", "EU 39", "EU 40", "EU 41", "EU 42", "EU 43", "EU 44")
MEMORY = ("64GB", "128GB", "256GB", "512GB")

KINDS: tuple[Kind, ...] = (
    Kind(("Water Bottle", "Drinking Bottle", "Sports Bottle"), "Home/Kitchen/Bottles", "bottle", VOLUMES[2:],
         ("Stainless Steel", "Insulated", "BPA Free", "Glass"), (9, 35), "home"),
    Kind(("Mug", "Coffee Mug"), "Home/Kitchen/Mugs", "mug", ("250 ml", "350 ml", "450 ml"),
         ("Ceramic", "Porcelain", "Enamel", "Handmade"), (5, 20), "home"),
    Kind(("Frying Pan", "Non-stick Pan", "Wok Pan"), "Home/Kitchen/Pans", "pan", ("20 cm", "24 cm", "28 cm", "32 cm"),
         ("Granite", "Induction", "Cast Iron", "Ceramic Coated"), (15, 70), "home"),
    Kind(("Table Lamp", "Desk Lamp", "Bedside Lamp"), "Home/Lighting/Lamps", "lamp", ("30 cm", "40 cm", "50 cm"),
         ("Linen Shade", "Dimmable", "LED", "Wooden Base"), (18, 90), "home"),
    Kind(("Cushion", "Throw Cushion", "Sofa Cushion"), "Home/Textiles/Cushions", "cushion",
         ("40 cm", "45 cm", "50 cm", "60 cm"),
         ("Velvet", "Cotton", "Linen", "Printed"), (7, 30), "home"),
    Kind(("Umbrella", "Folding Umbrella"), "Accessories/Umbrellas", "umbrella", ("95 cm", "105 cm", "120 cm"),
         ("Automatic", "Windproof", "UV Protection", "Compact"), (9, 40), "wear"),
    Kind(("Smartphone", "Mobile Phone"), "Electronics/Phones/Smartphones", "phone", MEMORY,
         ("5G Dual SIM", "6.1 inch", "6.7 inch", "50MP Camera"), (120, 900), "tech",
         "{brand} {model} {noun} {feature} {size} {colour}", coded=True),
    Kind(("Power Bank", "Portable Charger"), "Electronics/Phones/Power Banks", "power_bank",
         ("5000 mAh", "10000 mAh", "20000 mAh", "30000 mAh"), ("20W Fast Charge", "USB-C", "Slim", "22.5W PD"),
         (10, 60), "tech", coded=True),
    Kind(("Headphones", "Wireless Headphones", "Over-Ear Headphones"), "Electronics/Audio/Headphones", "headphones", (),
         ("Bluetooth 5.3", "Noise Cancelling", "Gaming", "Foldable"), (20, 250), "tech", coded=True),
    Kind(("Bluetooth Speaker", "Portable Speaker"), "Electronics/Audio/Speakers", "speaker",
         ("5W", "10W", "20W", "40W"),
         ("Waterproof IPX7", "Stereo", "Mini", "Deep Bass"), (15, 150), "tech", coded=True),
    Kind(("Laptop", "Notebook"), "Electronics/Computers/Laptops", "laptop", ("256GB", "512GB", "1TB"),
         ("14 inch 8GB RAM", "15.6 inch 16GB RAM", "13.3 inch 16GB RAM"), (350, 1800), "tech",
         "{brand} {model} {noun} {feature} {size} SSD {colour}", coded=True),
    Kind(("Watch", "Analog Watch", "Wrist Watch"), "Accessories/Watches", "watch", ("36 mm", "40 mm", "44 mm"),
         ("Leather Strap", "Chronograph", "Men", "Women", "Waterproof"), (25, 300), "wear", coded=True),
    Kind(("Sunglasses", "Polarized Sunglasses"), "Accessories/Eyewear/Sunglasses", "glasses", (),
         ("UV400", "Retro", "Aviator", "Square Frame", "Unisex"), (8, 120), "wear", coded=True),
    Kind(("Sneakers", "Running Shoes", "Casual Shoes"), "Footwear/Shoes/Sneakers", "sneaker", SHOES,
         ("Men's", "Women's", "Lightweight", "Breathable Mesh", "Leather"), (25, 160), "wear"),
    Kind(("T-shirt", "Cotton T-shirt", "Graphic Tee"), "Apparel/Topwear/T-shirts", "shirt", CLOTHES,
         ("Men's", "Women's", "Slim Fit", "Oversized", "Printed"), (6, 40), "wear"),
    Kind(("Hoodie", "Zip Hoodie", "Sweater Hoodie"), "Apparel/Topwear/Hoodies", "hoodie", CLOTHES,
         ("Fleece", "Unisex", "Men's", "Women's", "Oversized"), (18, 80), "wear"),
    Kind(("Backpack", "School Backpack", "Travel Backpack"), "Accessories/Bags/Backpacks", "backpack",
         ("15 L", "20 L", "25 L", "30 L"),
         ("Waterproof", "Laptop 15.6 inch", "Anti-theft", "Canvas"), (18, 110), "wear"),
    Kind(("Handbag", "Shoulder Bag", "Tote Bag"), "Accessories/Bags/Handbags", "handbag", (),
         ("Leather", "Women's", "Canvas", "Vegan Leather", "Large"), (15, 220), "wear"),
    Kind(("Shampoo", "Body Lotion", "Hand Soap", "Shower Gel"), "Beauty/Bath/Body Care", "pump", VOLUMES[:5],
         ("Aloe Vera", "Tea Tree", "Moisturising", "Rose", "Argan Oil"), (4, 25), "care",
         "{brand} {model} {noun} {feature} {size}"),
    Kind(("Coffee Beans", "Ground Coffee", "Instant Coffee"), "Grocery/Drinks/Coffee", "pouch",
         ("200 g", "250 g", "500 g", "1 kg"),
         ("Arabica", "Dark Roast", "Espresso", "Decaf", "Robusta"), (5, 25), "food",
         "{brand} {model} {noun} {feature} {size}"),
    Kind(("Cereal", "Muesli", "Biscuits", "Green Tea"), "Grocery/Breakfast", "carton",
         ("200 g", "375 g", "500 g", "750 g"),
         ("Chocolate", "Honey", "Organic", "Fruit", "Crunchy"), (3, 12), "food",
         "{brand} {model} {noun} {feature} {size}"),
)  # fmt: skip
