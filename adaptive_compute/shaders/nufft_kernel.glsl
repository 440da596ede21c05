// Written by nufft_kernel.py of the Vulkan backend: the NUFFT's kernel for each WIDTH, and its correction.
// weights(): the kernel at WIDTH cells; s goes from -1 to 1 while the point goes through a cell, leftwards.
// corrected(): one over the kernel's transform, t = (4 x frequency in cycles a cell)^2 from 0 to 1.
#if WIDTH == 2
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (-9.09185592e-03 * t - 5.85121071e-02) * t + 6.01232373e-01;
    odd = (2.50083590e-02 * t - 2.06977909e-01) * t + 6.48301732e-01;
    k[0] = even + odd * s;
    k[1] = even - odd * s;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return ((((9.25932776e-07 * t + 1.98288028e-05) * t + 4.00557488e-04) * t + 7.30921331e-03) * t + 1.07671348e-01) * t + 9.62949624e-01;
}
#elif WIDTH == 3
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (-3.23442250e-02 * t + 1.76046378e-01) * t + 2.11182547e-01;
    odd = (-1.57718392e-03 * t - 2.80742295e-02) * t + 3.76391045e-01;
    k[0] = even + odd * s;
    k[2] = even - odd * s;
    even = (4.49478544e-02 * t - 3.42985428e-01) * t + 9.99876677e-01;
    k[1] = even;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return (((((3.06558676e-07 * t + 5.28019691e-06) * t + 8.48571980e-05) * t + 1.24872388e-03) * t + 1.57581874e-02) * t + 1.51997157e-01) * t + 8.40975311e-01;
}
#elif WIDTH == 4
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (-7.07630595e-03 * t + 1.09513495e-01) * t + 5.79634698e-02;
    odd = (-4.28364567e-03 * t + 2.86043969e-02) * t + 1.35139312e-01;
    k[0] = even + odd * s;
    k[3] = even - odd * s;
    even = (4.80027865e-03 * t - 1.07201823e-01) * t + 7.62330972e-01;
    odd = (7.58500422e-03 * t - 8.74569456e-02) * t + 4.19948316e-01;
    k[1] = even + odd * s;
    k[2] = even - odd * s;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return (((((1.22918933e-06 * t + 1.78464105e-05) * t + 2.34578687e-04) * t + 2.75174083e-03) * t + 2.68571791e-02) * t + 1.94083688e-01) * t + 7.79063219e-01;
}
#elif WIDTH == 5
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = ((-4.41243960e-04 * t + 3.05686176e-03) * t + 4.11211197e-02) * t + 1.37492099e-02;
    odd = (-1.13174038e-03 * t + 2.01259917e-02) * t + 3.83901068e-02;
    k[0] = even + odd * s;
    k[4] = even - odd * s;
    even = ((9.47913990e-04 * t - 1.40200960e-02) * t + 6.80993811e-02) * t + 4.03672564e-01;
    odd = (1.41431640e-03 * t - 3.93788938e-02) * t + 3.81793651e-01;
    k[1] = even + odd * s;
    k[3] = even - odd * s;
    even = ((-1.21204163e-03 * t + 2.16276963e-02) * t - 2.17887194e-01) * t + 9.99999599e-01;
    k[2] = even;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return (((((3.74443113e-06 * t + 4.71182762e-05) * t + 5.24306267e-04) * t + 5.12382642e-03) * t + 4.08639467e-02) * t + 2.36520449e-01) * t + 7.45276464e-01;
}
#elif WIDTH == 6
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = ((-1.36448286e-04 * t + 2.64839735e-03) * t + 1.21884164e-02) * t + 2.95232537e-03;
    odd = ((-3.68772701e-05 * t + 2.09295489e-04) * t + 8.02960029e-03) * t + 9.43980383e-03;
    k[0] = even + odd * s;
    k[5] = even - odd * s;
    even = ((2.40755505e-04 * t - 7.85416751e-03) * t + 8.91533969e-02) * t + 1.70973892e-01;
    odd = ((9.32723564e-05 * t - 1.57529115e-03) * t + 2.66324147e-03) * t + 2.16038131e-01;
    k[1] = even + odd * s;
    k[4] = even - odd * s;
    even = ((-1.32313990e-04 * t + 5.22284980e-03) * t - 1.01333280e-01) * t + 8.31109338e-01;
    odd = ((-1.45759060e-04 * t + 3.44768783e-03) * t - 4.77412475e-02) * t + 3.09572698e-01;
    k[2] = even + odd * s;
    k[3] = even - odd * s;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return ((((((8.05482650e-07 * t + 9.74659614e-06) * t + 1.05208541e-04) * t + 1.02714518e-03) * t + 8.60799258e-03) * t + 5.80754633e-02) * t + 2.80517621e-01) * t + 7.27612991e-01;
}
#elif WIDTH == 7
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (((-2.56494369e-06 * t + 5.55526682e-06) * t + 1.13832002e-03) * t + 3.11792122e-03) * t + 5.89295197e-04;
    odd = ((-1.31443351e-05 * t + 2.65854358e-04) * t + 2.49523403e-03) * t + 2.09944024e-03;
    k[0] = even + odd * s;
    k[6] = even - odd * s;
    even = (((7.49759518e-06 * t - 1.29050957e-04) * t - 1.02952488e-03) * t + 5.56614598e-02) * t + 6.20378078e-02;
    odd = ((2.95012415e-05 * t - 1.07936153e-03) * t + 1.27015408e-02) * t + 9.52005977e-02;
    k[1] = even + odd * s;
    k[5] = even - odd * s;
    even = (((-1.39315365e-05 * t + 3.94899820e-04) * t - 6.02157365e-03) * t + 2.06362839e-02) * t + 5.22938082e-01;
    odd = ((-2.89036352e-05 * t + 1.35641937e-03) * t - 3.28680231e-02) * t + 3.46073802e-01;
    k[2] = even + odd * s;
    k[4] = even - odd * s;
    even = (((1.70663005e-05 * t - 5.51280562e-04) * t + 1.18374084e-02) * t - 1.58836136e-01) * t + 9.99999999e-01;
    k[3] = even;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return ((((((2.02967787e-06 * t + 2.21963148e-05) * t + 2.13059974e-04) * t + 1.83778592e-03) * t + 1.34812191e-02) * t + 7.88382281e-02) * t + 3.26834451e-01) * t + 7.20422232e-01;
}
#endif
