"""Writes orders.csv: varied orders, the same on every run. `python -m examples.invoices.make_orders`."""

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TextIO

from examples.invoices.orders import MINOR_DIGITS

CSV = Path(__file__).with_name("orders.csv")
REFUSED = "gone-for-good@customers.example"  # the mail server refuses this address
FIRST, COUNT = 10001, 300
LONG = {10007: 40, 10042: 127, 10099: 64, 10150: 203, 10238: 88, 10291: 51}  # order: lines
REPEATED = (10003, 10042, 10077, 10181, 10260)  # exported a second time, at the end
TWICE_IN_A_ROW = (10020, 10205)
NEVER_DELIVERED = 10064
HEADER = (
    *("order", "ordered_on", "paid_on", "customer", "email", "street", "city", "country", "currency"),
    *("sku", "description", "quantity", "price", "discount", "tax"),
)


@dataclass(frozen=True)
class Market:
    """A country that the shop sells to: its money, its taxes, and what names look like there."""

    country: str
    currency: str
    rate: Decimal  # units of the currency for one euro
    taxes: tuple[str, ...]
    cities: tuple[str, ...]
    streets: tuple[str, ...]
    people: tuple[str, ...]


# Four lines each: country, currency and rate, taxes (per cent) · places · streets · people.
_MARKETS = """
Germany, EUR 1, 19 7
10119 Berlin; 80331 München; 50667 Köln
Käthe-Kollwitz-Straße 12a; Große Elbstraße 9
Zoë Müller-Lüdenscheidt; Jürgen Groß; Gasthaus „Zum Goldenen Anker“, Inh. M. Weiß

Austria, EUR 1, 20 10 13
1010 Wien; 6020 Innsbruck
Spittelauer Lände 7/2/14; Höttinger Gasse 31
Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetzberatungs GmbH & Co. KG; Jörg Strauß

France, EUR 1, 20 5.5
75011 Paris; 13001 Marseille
12, rue de l’Abbé-Grégoire; 3 bis, quai Voltaire
Anaïs Lefèvre; Loïc d’Harcourt; Librairie L’Œil-de-Bœuf; François Noël

Spain, EUR 1, 21 10
28004 Madrid; 15001 A Coruña
Calle de la Peña, 4, 2.º B; Rúa do Viño 8
Íñigo Núñez Ibáñez; María José Muñoz; Begoña Güell i Ferrer

Greece, EUR 1, 24 13
105 57 Αθήνα; 546 24 Θεσσαλονίκη
Οδός Ερμού 41; Λεωφόρος Νίκης 7
Ελένη Παπαδοπούλου; Γιώργος Αγγελόπουλος; Βιβλιοπωλείο «Η Άνοιξη»

Poland, PLN 4.31, 23 8
00-001 Warszawa; 90-001 Łódź
ul. Świętokrzyska 20/4; ul. Piotrkowska 113
Łukasz Wiśniewski; Małgorzata Brzęczyszczykiewicz; Żaneta Żółć

Czechia, CZK 24.6, 21 12
110 00 Praha 1; 602 00 Brno
Příčná 3; Údolní 17
Přemysl Dvořák; Růžena Čížková; Řeznictví U Tří Ťuhýků

Hungary, HUF 391, 27 5
1052 Budapest; 6720 Szeged
Váci utca 11.; Tisza Lajos körút 5.
Szűcs Győző; Tűzkő Örs; Fehér Hattyú Könyvesbolt

Türkiye, TRY 47.8, 20 10 1
34433 İstanbul; 35210 İzmir
Sıraselviler Caddesi 8; Şair Eşref Bulvarı 30
İpek Çağlayan; Şükrü Ğöktuğ; Ayşegül Işık

Iceland, ISK 144, 24 11
101 Reykjavík; 600 Akureyri
Þórsgata 5; Hafnarstræti 99
Þórdís Ægisdóttir; Guðmundur Sigurðsson; Bókaverzlun Ísafjarðar

Sweden, SEK 11.2, 25 12 6
116 20 Stockholm; 211 34 Malmö
Götgatan 22; Östra Förstadsgatan 3
Åsa Öberg; Göran Sjöström; Hälsingborgs Båtvarv AB

United Kingdom, GBP 0.87, 20 0
London EC1A 1BB; Llanfairpwllgwyngyll LL61 5UJ
Flat 3, 14 King’s Parade; Ffordd Caergybi 2
Siân O'Brien; "Nobby" Clarke & Sons, Ltd.; Catriona MacGillivray

United States, USD 1.12, 8.875 0
New York, NY 10001; Hāna, HI 96713
350 5th Ave #4210; 12 Kīlauea Rd
Renée O’Connor; José "Pepe" García, Jr.; Smith, Jones & Partners, LLC

Ukraine, UAH 48.7, 20 7
01001 Київ; 79000 Львів
вул. Хрещатик, 22; площа Ринок, 10
Наталія Шевченко; Олексій Ґалаґан; Книгарня «Є»

Bulgaria, BGN 1.96, 20 9
1000 София; 4000 Пловдив
бул. Витоша 18; ул. Княз Александър I 42
Живка Щерева; Ангел Йорданов; Книжарница „Хеликон“

Georgia, GEL 3.04, 18
0105 თბილისი; 6000 ბათუმი
რუსთაველის გამზირი 12; გორგილაძის ქუჩა 4
გიორგი ბერიძე; ნინო წიკლაური; მარიამ ჯაფარიძე

Armenia, AMD 431, 20
0010 Երևան; 3101 Գյումրի
Աբովյան փողոց 8; Շահումյան փողոց 3
Արմեն Սարգսյան; Լուսինե Հակոբյան; Գևորգ Մկրտչյան

Israel, ILS 3.92, 18
6688101 תל אביב; 9414101 ירושלים
שדרות רוטשילד 22; רחוב יפו 97
שרה כהן; אבנר בן־דוד; ספרים ועוד בע״מ

Kuwait, KWD 0.344, 0
13001 مدينة الكويت
شارع فهد السالم 15; شارع الخليج العربي 4
محمد العلي; نورة الصباح; مكتبة الربيع

Tunisia, TND 3.4, 19 7
1000 تونس; 3000 صفاقس
شارع الحبيب بورقيبة 60; نهج المنصف باي 2
أمينة بن سالم; يوسف الطرابلسي; مؤسسة الياسمين

Japan, JPY 171, 10 8
Kyōto 604-8005; Ōtsu 520-0041
3-12 Ebisu-chō, Nakagyō-ku; 2-1-1 Hamaōtsu
Satō Haruka; Ōtani Jun’ichirō; Kabushiki-gaisha Umi no Uta

Việt Nam, VND 29400, 10 8
Hà Nội 100000; Thành phố Hồ Chí Minh 700000
36 phố Hàng Đường; 45B đường Nguyễn Thị Minh Khai
Nguyễn Thị Ánh; Trần Đức Phượng; Nhà sách Mây Trắng

Brazil, BRL 6.2, 17 0
01310-100 São Paulo; 40020-000 Salvador
Av. Paulista, 1578, 9.º andar; Ladeira do Pelourinho, 22
João Gonçalves Simões; Conceição Araújo; Açaí & Maçã Comércio Ltda.
"""


def _market(facts: str, cities: str, streets: str, people: str) -> Market:
    country, money, taxes = facts.split(", ")
    currency, rate = money.split()
    return Market(
        country=country,
        currency=currency,
        rate=Decimal(rate),
        taxes=tuple(taxes.split()),
        cities=tuple(cities.split("; ")),
        streets=tuple(streets.split("; ")),
        people=tuple(people.split("; ")),
    )


MARKETS = tuple(_market(*block.splitlines()) for block in _MARKETS.strip().split("\n\n"))

GOODS = tuple(
    line.rsplit(" ", 1)
    for line in """
Oak shelf, oiled, 80 × 25 cm 48.50
Brass hook, single 6.20
Brass hook, triple, with screws 13.90
Linen tablecloth, 140 × 220 cm, undyed 64.00
Beeswax polish, 250 ml 11.40
Enamel mug, “Nordlys”, blue 12.75
Storm lantern No. 276, galvanised 39.90
Replacement wick, 5 pcs 4.10
Hand-forged nail, 70 mm (per piece) 0.18
Hemp rope, 12 mm, per metre 2.35
Sail repair tape, 50 mm × 5 m 17.30
Ship’s bell, Ø 15 cm, engraved to order 118.00
Notebook, A5, dotted, thread-sewn 14.50
Fountain pen ink, 50 ml, “Ébène” 16.80
Letterpress print, framed, 30 × 40 cm 89.00
Wool blanket, 150 × 200 cm, Þingvellir pattern 132.00
Tea, Darjeeling first flush, 100 g 19.60
Olive oil, extra virgin, 500 ml – “Κορωνέικη” 15.20
Honey, lime blossom, 250 g – «Липа» 8.90
Jam, quince, 220 g 6.40
Salt flakes, 125 g 5.30
Knife sharpening, per hour 42.00
Assembly on site, per hour 55.00
Delivery, two persons, up to the third floor 69.00
Gift wrapping 3.50
Bolt M5 * 40 <A2> [#8], zinc_plated @ bulk $ rate 0.09
Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschafts-Handbuch 27.00
Spare part, electroencephalographically-controlled-antidisestablishmentarianism-o-meter/rev.0042-B 310.00
Antique globe, 1911, restored, with stand; sold as seen, transport insured by the seller 1480.00
Kite, self-assembly 23.00
""".strip().splitlines()
)
FRACTIONAL = ("per metre", "per hour")


def orders(chance: random.Random) -> Iterator[list[dict[str, str]]]:
    """The rows of one order after the other."""
    for number in range(FIRST, FIRST + COUNT):
        place = chance.choice(MARKETS)
        rows = [_line(chance, place) for _ in range(LONG.get(number) or _few(chance))]
        rows[0] |= _head(chance, place, number)
        yield [{"order": str(number)} | row for row in rows]


def write(out: TextIO) -> None:
    """The whole export: every order once, and some of them again."""
    by_number = {int(rows[0]["order"]): rows for rows in orders(random.Random(20261122))}
    sheet: csv.DictWriter[str] = csv.DictWriter(out, HEADER, restval="", lineterminator="\n")
    sheet.writeheader()
    for number, rows in by_number.items():
        sheet.writerows(rows * 2 if number in TWICE_IN_A_ROW else rows)
    for number in REPEATED:
        sheet.writerows(by_number[number])


def _few(chance: random.Random) -> int:
    return min(1 + int(chance.expovariate(0.4)), 14)


def _head(chance: random.Random, place: Market, number: int) -> dict[str, str]:
    ordered = date(2026, 11, 1) + timedelta(days=chance.randrange(20))
    paid = ordered + timedelta(days=chance.randrange(3)) if chance.random() < 0.6 else None
    return {
        "ordered_on": ordered.isoformat(),
        "paid_on": paid.isoformat() if paid else "",
        "customer": chance.choice(place.people),
        "email": REFUSED if number == NEVER_DELIVERED else f"customer-{number}@customers.example",
        "street": chance.choice(place.streets),
        "city": chance.choice(place.cities),
        "country": place.country,
        "currency": place.currency,
    }


def _line(chance: random.Random, place: Market) -> dict[str, str]:
    description, euros = chance.choice(GOODS)
    unit = Decimal(1).scaleb(-MINOR_DIGITS.get(place.currency, 2))
    price = max((Decimal(euros) * place.rate).quantize(unit), unit)
    whole = chance.choice((1, 1, 1, 2, 2, 3, 4, 6) if Decimal(euros) > 5 else (10, 12, 24, 100, 250))
    fraction = Decimal(chance.choice(("0.25", "0.5", "1.75", "3.2")))
    return {
        "sku": f"{chance.choice('ABDEGHKMNPRTVX')}{chance.randrange(100, 1000)}-{chance.randrange(10000):04}",
        "description": description,
        "quantity": str(fraction if description.endswith(FRACTIONAL) else whole),
        "price": str(price),
        "discount": chance.choice(("0",) * 12 + ("5", "10", "12.5", "33.33", "100")),
        "tax": chance.choice(place.taxes),
    }


if __name__ == "__main__":
    with CSV.open("w", encoding="utf-8", newline="") as file:
        write(file)
