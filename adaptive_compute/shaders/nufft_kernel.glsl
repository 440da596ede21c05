// Written by nufft_kernel.py: the NUFFT's kernel for each WIDTH, and what divides by its Fourier transform.
// weights(): the kernel at WIDTH cells; s goes from -1 to 1 while the point goes through a cell, leftwards.
// corrected(): one over the kernel's transform, t = (4 x frequency in cycles a cell)^2 from 0 to 1.
#if WIDTH == 2
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (-7.96134959e-03 * t - 6.21173233e-02) * t + 6.05126760e-01;
    odd = (2.43078320e-02 * t - 2.03445934e-01) * t + 6.44055588e-01;
    k[0] = even + odd * s;
    k[1] = even - odd * s;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return ((((9.74543647e-07 * t + 2.05905405e-05) * t + 4.10719902e-04) * t + 7.41055416e-03) * t + 1.08102955e-01) * t + 9.58971214e-01;
}
#elif WIDTH == 3
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (-3.17598753e-02 * t + 1.73304814e-01) * t + 2.15049870e-01;
    odd = (-1.29642833e-03 * t - 2.95060229e-02) * t + 3.78696826e-01;
    k[0] = even + odd * s;
    k[2] = even - odd * s;
    even = (4.39322065e-02 * t - 3.39116495e-01) * t + 9.99881245e-01;
    k[1] = even;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return (((((3.29211565e-07 * t + 5.58509447e-06) * t + 8.84656701e-05) * t + 1.28474652e-03) * t + 1.60199683e-02) * t + 1.52886865e-01) * t + 8.38074286e-01;
}
#elif WIDTH == 4
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (-7.31204772e-03 * t + 1.09940836e-01) * t + 5.98533629e-02;
    odd = (-4.18796027e-03 * t + 2.77149706e-02) * t + 1.37929263e-01;
    k[0] = even + odd * s;
    k[3] = even - odd * s;
    even = (4.92529141e-03 * t - 1.07578120e-01) * t + 7.64622373e-01;
    odd = (7.37403840e-03 * t - 8.58836275e-02) * t + 4.16546246e-01;
    k[1] = even + odd * s;
    k[2] = even - odd * s;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return (((((1.31995302e-06 * t + 1.88871733e-05) * t + 2.44781595e-04) * t + 2.83461474e-03) * t + 2.73395591e-02) * t + 1.95445935e-01) * t + 7.76931619e-01;
}
#elif WIDTH == 5
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = ((-4.28568807e-04 * t + 2.87186590e-03) * t + 4.20064756e-02) * t + 1.44146797e-02;
    odd = (-1.16526729e-03 * t + 2.01224122e-02) * t + 3.97935240e-02;
    k[0] = even + odd * s;
    k[4] = even - odd * s;
    even = ((9.16255489e-04 * t - 1.36300056e-02) * t + 6.60737213e-02) * t + 4.07670217e-01;
    odd = (1.44436893e-03 * t - 3.94027824e-02) * t + 3.81373106e-01;
    k[1] = even + odd * s;
    k[3] = even - odd * s;
    even = ((-1.17106650e-03 * t + 2.11428928e-02) * t - 2.15527373e-01) * t + 9.99999618e-01;
    k[2] = even;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return (((((4.01888868e-06 * t + 4.98735430e-05) * t + 5.47407020e-04) * t + 5.28262568e-03) * t + 4.16391958e-02) * t + 2.38406198e-01) * t + 7.43765748e-01;
}
#elif WIDTH == 6
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = ((-1.39866471e-04 * t + 2.62977223e-03) * t + 1.26660389e-02) * t + 3.14543010e-03;
    odd = ((-3.54759432e-05 * t + 1.81436268e-04) * t + 8.19787197e-03) * t + 9.94509300e-03;
    k[0] = even + odd * s;
    k[5] = even - odd * s;
    even = ((2.44672515e-04 * t - 7.82600368e-03) * t + 8.84046266e-02) * t + 1.74247517e-01;
    odd = ((8.94934089e-05 * t - 1.50735810e-03) * t + 2.09783015e-03) * t + 2.17800529e-01;
    k[1] = even + odd * s;
    k[4] = even - odd * s;
    even = ((-1.34076218e-04 * t + 5.20981195e-03) * t - 1.01056421e-01) * t + 8.32756315e-01;
    odd = ((-1.40000909e-04 * t + 3.34703331e-03) * t - 4.68482077e-02) * t + 3.06865519e-01;
    k[2] = even + odd * s;
    k[3] = even - odd * s;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return ((((((8.76765789e-07 * t + 1.04615203e-05) * t + 1.11343228e-04) * t + 1.07293022e-03) * t + 8.88144050e-03) * t + 5.92286977e-02) * t + 2.82996404e-01) * t + 7.26652722e-01;
}
#elif WIDTH == 7
void weights(float s, out float k[WIDTH]) {
    float t = s * s, even, odd;
    even = (((-2.43348265e-06 * t + 2.30897087e-06) * t + 1.15971126e-03) * t + 3.29692431e-03) * t + 6.38443458e-04;
    odd = ((-1.34005865e-05 * t + 2.61100889e-04) * t + 2.59648715e-03) * t + 2.24942672e-03;
    k[0] = even + odd * s;
    k[6] = even - odd * s;
    even = (((7.12245075e-06 * t - 1.20085206e-04) * t - 1.12824242e-03) * t + 5.59270600e-02) * t + 6.39022415e-02;
    odd = ((2.98212573e-05 * t - 1.06923476e-03) * t + 1.24269413e-02) * t + 9.70119999e-02;
    k[1] = even + odd * s;
    k[5] = even - odd * s;
    even = (((-1.32870872e-05 * t + 3.79429699e-04) * t - 5.81517652e-03) * t + 1.93496531e-02) * t + 5.26548992e-01;
    odd = ((-2.91259557e-05 * t + 1.34731372e-03) * t - 3.26173731e-02) * t + 3.44761174e-01;
    k[2] = even + odd * s;
    k[4] = even - odd * s;
    even = (((1.63024282e-05 * t - 5.32884211e-04) * t + 1.15799071e-02) * t - 1.57151722e-01) * t + 9.99999999e-01;
    k[3] = even;
}
float corrected(float t) {
    t = 2.0 * t - 1.0;
    return ((((((2.20802339e-06 * t + 2.38233447e-05) * t + 2.25538876e-04) * t + 1.92070137e-03) * t + 1.39193944e-02) * t + 8.04689552e-02) * t + 3.29989326e-01) * t + 7.19980556e-01;
}
#endif
