// From a position to cells of the fine grid; needs WIDTH.

// The first of the WIDTH cells that a point touches, and where in its cell the kernel's edge lies, as weights() wants it.
uint first_cell(uint position, uint cells, out float s) {
    const uint HALF = (WIDTH & 1u) << 31;
    uint cell, part;
    umulExtended(position, cells, cell, part);
    cell += 1u - WIDTH / 2u - (part < HALF ? 1u : 0u);
    s = 1.0 - float(part - HALF) * (1.0 / 2147483648.0);
    return min(cell, cell + cells);  // below zero it has wrapped to a huge number
}
