// Which bins a tile of cells takes its points from; needs WIDTH.

// How far b lies before a, on a circle.
uint behind(uint a, uint b, uint cells) { return min(a - b, a - b + cells); }

// The bins that hold first cells from which a tile's side can be reached: the first one and how many.
uvec2 bins_of(uint begin, uint side, uint cells, uint bin, uint bins) {
    uint reach = side + WIDTH - 1u;
    if (reach >= cells) return uvec2(0u, bins);
    uint low = behind(begin, WIDTH - 1u, cells), high = low + reach - 1u;
    uint first = low >> bin;
    uint last = high < cells ? high >> bin : bins + ((high - cells) >> bin);
    return last - first + 1u >= bins ? uvec2(0u, bins) : uvec2(first, last - first + 1u);
}
