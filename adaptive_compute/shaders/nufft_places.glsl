// Where points lie. A position is a fraction of a period in units of 2^-32: wrapping around is the integers' own, and
// no digit of a float32 coordinate is lost on the way, however far out the point lies.

// The fraction of a period that a coordinate amounts to, x * K modulo 1, rounded to 32 bits (after M. Payne, R. Hanek,
// "Radian reduction for trigonometric functions", 1983). A coordinate's parameters are nine words: K's 192 leading bits
// from the highest word down, the power of two above them, the position that counts as 0, and K's sign.
#define PLACE_WORDS 9u
uint place_word(uint first, uint fromLowest) { return fromLowest < 6u ? places[first + 5u - fromLowest] : 0u; }

uint place(uint bits, uint number) {
    uint first = number * PLACE_WORDS;
    uint exponent = bitfieldExtract(bits, 23, 8);
    uint mantissa = bits & 0x7FFFFFu;
    if (exponent == 0u) exponent = 1u; else mantissa |= 0x800000u;
    // x K = mantissa * 2^(exponent - 150) * words * 2^(power - 192): of the words, the 64 bits from bit n on count.
    int n = 278 - int(exponent) - int(places[first + 6u]);
    uint low = 0u, high = 0u;
    if (n >= 0 && n < 192) {
        uint word = uint(n) >> 5, by = uint(n) & 31u;
        uint a = place_word(first, word), b = place_word(first, word + 1u), c = place_word(first, word + 2u);
        low = by == 0u ? a : (a >> by) | (b << (32u - by));
        high = by == 0u ? b : (b >> by) | (c << (32u - by));
    }
    uint carry, rest;
    umulExtended(mantissa, low, carry, rest);
    uint turns = mantissa * high + carry + (rest >> 31);
    return ((bits >> 31) != places[first + 8u] ? 0u - turns : turns) - places[first + 7u];
}
