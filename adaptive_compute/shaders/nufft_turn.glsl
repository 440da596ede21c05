// exp(2 pi i turn) for a turn in units of 2^-32, to float32's last digit or two: GLSL's own functions are not.
vec2 wave(uint turn) {
    uint quarter = (turn + 0x20000000u) >> 30;
    float x = float(int(turn - (quarter << 30))) * (3.14159265358979 / 2147483648.0);
    float t = x * x;
    // Taylor's series on [-pi/4, pi/4]
    float c = 1.0 + t * (-0.5 + t * (4.16666667e-2 + t * (-1.38888889e-3 + t * (2.48015873e-5 - t * 2.75573192e-7))));
    float s = x + x * t * (-1.66666667e-1 + t * (8.33333333e-3 + t * (-1.98412698e-4 + t * 2.75573192e-6)));
    vec2 z = (quarter & 1u) == 0u ? vec2(c, s) : vec2(-s, c);
    return (quarter & 2u) == 0u ? z : -z;
}
vec2 times(vec2 a, vec2 b) { return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
