// The order of an epoch: keys that are sorted between the two kernels here.  A key holds the
// network's number above 32 random bits above the row's own number, which takes `low` bits, so that
// no two keys are equal and one sort of all of them makes the orders of all networks.
//
// Bytes per row: shuffle_keys writes 8, shuffle_order reads 8 and writes 4.

// keys (M, rows) out; counter (row / 4, 0, epoch, SHUFFLE), key = the network's seed.  Without
// `together` a key has no network: 64 bits are too few for it.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) shuffle_keys(
    const unsigned long long* seeds, unsigned epoch, unsigned long long* keys, long long rows, int low,
    int together, int chunks)
{
    const Place at = place<1>(1, chunks);
    const unsigned long long seed = seeds[at.network];
    const unsigned long long network = together ? at.network : 0;
    for (long long row = item(at); row < rows; row += at.step * THREADS) {
        const unsigned long long bits = random_bits<1>(seed, row, 0u, epoch, SHUFFLE).v[0];
        keys[at.network * rows + row] = (network << 32 | bits) << low | (unsigned long long)row;
    }
}

// order (size,) int32 <- the rows' numbers of sorted keys (size,).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) shuffle_order(
    const unsigned long long* keys, int* order, long long size, int low, int chunks)
{
    const Place at = place<1>(1, chunks);
    const unsigned long long numbers = (1ull << low) - 1;
    for (long long i = item(at); i < size; i += at.step * THREADS) order[i] = int(keys[i] & numbers);
}
