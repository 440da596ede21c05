// A sum over all invocations of a workgroup of LOCAL: each gets what lies before it, and the total.
shared uint scan_sums[LOCAL];
uint exclusive_sum(uint value, out uint total) {
    uint me = gl_LocalInvocationIndex;
    scan_sums[me] = value;
    barrier();
    for (uint step = 1u; step < LOCAL; step *= 2u) {
        uint other = me >= step ? scan_sums[me - step] : 0u;
        barrier();
        scan_sums[me] += other;
        barrier();
    }
    total = scan_sums[LOCAL - 1u];
    uint before = scan_sums[me] - value;
    barrier();
    return before;
}
