"""Spanish number words for 0..9999: what the `spanish` expert learns to write."""

_UNITS = """
cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince
dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro
veinticinco veintiséis veintisiete veintiocho veintinueve
"""
_ROUND = """
treinta cuarenta cincuenta sesenta setenta ochenta noventa
ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos
novecientos
"""
_BELOW_30 = _UNITS.split()
_TENS, _HUNDREDS = _ROUND.split()[:7], _ROUND.split()[7:]

WORDS: tuple[str, ...] = (*_BELOW_30, *_TENS, *_HUNDREDS, "cien", "mil", "y")


def number_in_spanish(number: int) -> str:
    """Write a whole number in words, e.g. 347 -> "trescientos cuarenta y siete".

    Raises:
        ValueError: `number` is outside 0..9999.
    """
    if not 0 <= number <= 9999:
        raise ValueError(f"only 0 to 9999 can be written in words here, not {number}")
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _below_1000(rest)
    start = "mil" if thousands == 1 else f"{_BELOW_30[thousands]} mil"
    return f"{start} {_below_1000(rest)}" if rest else start


def _below_1000(number: int) -> str:
    if number == 100:
        return "cien"
    hundreds, rest = divmod(number, 100)
    words = [_HUNDREDS[hundreds - 1]] if hundreds else []
    if rest or not hundreds:
        words.append(_below_100(rest))
    return " ".join(words)


def _below_100(number: int) -> str:
    if number < 30:
        return _BELOW_30[number]
    tens, units = divmod(number, 10)
    return _TENS[tens - 3] + (f" y {_BELOW_30[units]}" if units else "")
